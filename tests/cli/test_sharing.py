"""Commands on a vault that machines share, named by its URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from intarsia.vault.bucket import Bucket

from ..servers.both import PASSWORDS, both
from ..servers.postgres import Postgres
from ..servers.swift import Swift
from .conftest import Run
from .helpers import QUICK, contents, write_images


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Swift, Postgres]]:
    with both() as running:
        yield running


@pytest.fixture(params=["folder", pytest.param("servers", marks=pytest.mark.integration)])
def url(
    request: pytest.FixtureRequest, tmp_path: Path, package: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Of a vault that was made from this machine."""
    monkeypatch.setenv("INTARSIA_COPIES", str(tmp_path / "copies"))
    if request.param == "folder":
        url, database = f"file://{tmp_path}/bucket/art.vault", f"sqlite:///{tmp_path}/heads.db"
    else:
        import s3fs

        url, database = "s3://studio/art.vault", request.getfixturevalue("servers")[1].create("studio")
        s3fs.S3FileSystem().mkdir("studio")
    made = run("init", url, "--backbone", package, "--index", database, "--json")
    assert made.code == 0, made.err
    assert made.json["vault"] == url
    return url


def test_a_url_stands_where_a_folder_does(
    url: str, tmp_path: Path, done: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "birch")
    done("source", "add", url, "birch", images, "--owner", "Birch", "--licence", "CC-BY-4.0")
    assert done("train", url, "birch", *QUICK)["vault"] == url
    monkeypatch.setenv("INTARSIA_COPIES", str(tmp_path / "another"))
    listed = done("list", url)
    assert (listed["vault"], [each["name"] for each in listed["sources"]]) == (url, ["birch"])
    done("sample", url, "--count", 1, "--steps", 2, "--out", tmp_path / "drawn")
    assert done("forget", url, "birch", "--yes", "--receipt", tmp_path / "receipt.json")["vault"] == url
    monkeypatch.setenv("INTARSIA_COPIES", str(tmp_path / "copies"))
    assert done("verify", url)["vault"] == url
    bucket = Bucket(url)
    held = [bucket.read(name) or b"" for name in bucket.all_names()] + list(contents(tmp_path / "copies").values())
    assert not any(word.encode() in data for word in ("birch", *PASSWORDS) for data in held)


def test_what_cannot_be_is_one_line(tmp_path: Path, package: Path, run: Run) -> None:
    bucket = f"file://{tmp_path}/bucket/art.vault"
    for words, said in (
        (("init", bucket, "--backbone", str(package)), "needs a database"),
        (("list", bucket), "is no vault, or cannot be seen"),
        (("list", "gs://bucket/art.vault"), "no vault can be kept at"),
        (("init", bucket, "--backbone", str(package), "--index", "mysql://host/db"), "the index cannot be kept at"),
    ):
        answer = run(*words)
        assert (answer.code, said in answer.err, answer.err.count("\n")) == (1, True, 1), answer.err
    assert not (tmp_path / "bucket").exists()
