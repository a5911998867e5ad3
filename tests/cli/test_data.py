"""Ready collections: written to the disk, and by address."""

from __future__ import annotations

from pathlib import Path

import pytest

from intarsia.cli.ready import collection
from intarsia.data import collections, read_source
from intarsia.data.collections import EmojiTable, digits, letters

from .helpers import contents


def test_digits_become_folders_that_are_read_back(tmp_path: Path, done):
    pytest.importorskip("sklearn")
    answer = done("data", "digits", tmp_path / "digits")
    assert [source["name"] for source in answer["sources"]] == ["birch", "cherry", "ebony", "maple", "walnut"]
    birch = next(source for source in digits() if source.name == "birch")
    read = read_source(tmp_path / "digits" / "birch", name="birch", owner="x", licence="MIT", size=8, channels=1)
    assert read.manifest == birch.manifest
    assert "CC-BY-4.0" in (tmp_path / "digits" / "birch" / "ATTRIBUTION.txt").read_text()


def test_letters_become_one_folder(tmp_path: Path, done):
    pytest.importorskip("matplotlib")
    done("data", "letters", tmp_path / "letters", "--count", "20", "--seed", "3")
    read = read_source(tmp_path / "letters", name="letters", owner="x", licence="MIT", size=8, channels=1)
    assert read.manifest == letters(20, seed=3).manifest


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path, run):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("keep")
    before = contents(tmp_path)
    answer = run("data", "letters", tmp_path / "mine", "--count", "5")
    assert answer.code == 1
    assert "exists already" in answer.err
    assert contents(tmp_path) == before


def test_emoji_tables_are_built_for_the_sets_and_sizes_asked_for(tmp_path: Path, done, monkeypatch):
    asked = []

    def build(folder: Path, *, sources: tuple[str, ...], sizes: tuple[int, ...]):
        asked.append((folder, sources, sizes))
        yield from (EmojiTable(s, size, 7, folder / f"{s}_{size}.parquet", False) for s in sources for size in sizes)

    monkeypatch.setattr(collections, "build_emoji", build)
    answer = done("data", "emoji", tmp_path / "e", "--sources", "noto,twemoji", "--size", "16", "--size", "32")
    assert asked == [(tmp_path / "e", ("noto", "twemoji"), (16, 32))]
    assert len(answer["tables"]) == 4


def test_addresses(tmp_path: Path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    (drawn,) = collection("letters:9", size=8, emoji=tmp_path) or []
    assert len(drawn) == 9
    chosen = collection("digits:birch,maple", size=8, emoji=tmp_path) or []
    assert [source.name for source in chosen] == ["birch", "maple"]
    assert collection("./letters", size=8, emoji=tmp_path) is None
    assert collection("s3:bucket", size=8, emoji=tmp_path) is None
