"""`source permit` and `forbid`, `train --with`, and what `forget` says of the compartments of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from .helpers import QUICK, contents


@pytest.fixture
def joined(vault: Path, done) -> Path:
    """`fir` learns from `elm` too."""
    done("source", "permit", vault, "elm", "--to", "fir")
    done("train", vault, "fir", *QUICK, "--with", "elm")
    return vault


def test_a_compartment_learns_from_who_permits_it(joined: Path, tmp_path: Path, run, done):
    (fir,) = [each for each in done("list", joined)["compartments"] if each["name"] == "fir"]
    assert (fir["sources"], fir["count"]) == (["elm", "fir"], 12)
    assert done("source", "show", joined, "elm")["permitted"] == ["fir"]
    assert "may learn from it\tfir" in run("source", "show", joined, "elm").out
    done("principal", "add", joined, "acme")
    done("grant", joined, "fir", "--to", "acme")
    draw = (
        "sample",
        joined,
        "--as",
        "acme",
        "--sources",
        "fir",
        "--count",
        "1",
        "--steps",
        "1",
        "--out",
        tmp_path / "o",
    )
    assert "its compartment also learned from 'elm': it was not granted to 'acme'" in run(*draw).err
    done("grant", joined, "elm", "--to", "acme")
    assert done(*draw)["licences"] == {"elm": "CC-BY-SA-4.0", "fir": "CC0-1.0"}


def test_forget_says_what_it_trains_again_before_it_starts(joined: Path, run, done):
    before = contents(joined)
    foreseen = "Trained again too, because they learned from it: fir (slice 1, 4 steps, 16 sample-gradients)."
    answer = run("forget", joined, "elm", "--dry-run")
    assert foreseen in answer.out
    assert "The training takes about 1 s on this machine." in answer.out
    assert foreseen in run("forget", joined, "elm").err
    assert contents(joined) == before
    answer = done("forget", joined, "elm", "--yes")
    assert answer["compartments"] == ["elm"]
    assert [each["name"] for each in answer["trained_again"]] == ["fir"]
    (fir,) = [each for each in done("list", joined)["compartments"] if each["name"] == "fir"]
    assert (fir["sources"], fir["count"]) == (["fir"], 6)
    assert done("verify", joined)["ok"] is True


def test_forgetting_an_image_says_it_too(joined: Path, run, done):
    gone = done("source", "show", joined, "elm", "--samples")["samples"][0]["id"]
    assert (
        "because they learned from it: fir (slice 1" in run("forget", joined, "elm", "--sample", gone, "--dry-run").out
    )
    answer = done("forget", joined, "elm", "--sample", gone, "--yes")
    assert set(answer["after"]) == {"elm", "fir"}


def test_what_is_forbidden_is_trained_again_without(joined: Path, run, done):
    answer = done("source", "forbid", joined, "elm", "--to", "fir")
    assert (answer["source"], answer["steps"], answer["forbidden"]) == ("fir", 4, "elm")
    assert done("source", "show", joined, "elm")["permitted"] == []
    assert "may learn from 'elm' 'fir'" in run("source", "forbid", joined, "elm", "--to", "fir").err
    refused = run("train", joined, "fir", *QUICK, "--with", "elm", "--restart")
    assert "'fir' may not learn from 'elm': nobody permitted that" in refused.err
    assert refused.code == 1
