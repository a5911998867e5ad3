"""`--engine`: what cannot be had is said in one line before anything is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from .helpers import contents, write_images


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--engine", "rya"], "unknown engine 'rya': did you mean 'ray'?"),
        (["--address", "127.0.0.1:1"], "--address is for a Ray cluster; say --engine ray too"),
        (["--cpus-per-task", "2"], "--cpus-per-task is for a Ray cluster"),
        (["--engine", "ray", "--cpus-per-task", "0"], "cpus_per_task"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
    ],
)
def test_an_engine_that_cannot_be_had_changes_nothing(
    vault: Path, tmp_path: Path, run, options: list[str], complaint: str
):
    before = contents(vault)
    more = write_images(tmp_path / "more", 2)
    for words in (
        ["train", vault, "oak", "--restart"],
        ["train", vault, "--resume"],
        ["extend", vault, "oak", more],
        ["forget", vault, "oak", "--yes"],
        ["reproduce", "limit", "--out", tmp_path / "table"],
    ):
        answer = run(*words, *options)
        assert answer.code == 1
        assert complaint in answer.err
        assert len(answer.err.splitlines()) == 1
    assert contents(vault) == before
    assert not (tmp_path / "table").exists()
