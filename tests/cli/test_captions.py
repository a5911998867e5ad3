"""Images asked for in words, from the command line."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from intarsia.backbone import Backbone, Prompt
from intarsia.compartments import TrainData, Trainee

from .conftest import Run
from .helpers import QUICK, write_images

TEXT = ("--adapter", "text", "--tokens", "2", "--width", "2", "--length", "12")
SHORT = [word for word in QUICK if word not in ("--rank", "2")]


@pytest.fixture(scope="module")
def captioned(trained: Path, tiny_text: Path, done: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vault of `trained`, and a source `ash` that learned from captions."""
    root = tmp_path_factory.mktemp("captioned")
    vault, folder = Path(shutil.copytree(trained, root / "v")), write_images(root / "ash")
    for picture in sorted(folder.rglob("*.png")):
        picture.with_suffix(".txt").write_text("an ash")
    done("source", "add", vault, "ash", folder, "--owner", "Dan", "--licence", "CC0-1.0")
    done("train", vault, "ash", *TEXT, "--encoder", tiny_text, *SHORT)
    return vault


def test_a_prompt_goes_from_the_command_line_into_report_and_files(captioned: Path, done: Run, tmp_path: Path) -> None:
    words = ("--prompt", "an ash", "--prompt", "a fir", "--guidance-scale", "2", "--steps", "2", "--count", "3")
    about = done("sample", captioned, "--sources", "ash", "--out", tmp_path / "out", *words)
    assert about["prompts"] == ["an ash", "a fir", "an ash"]
    assert about["labels"] == [None] * 3
    assert about["settings"]["guidance_scale"] == 2
    with Image.open(tmp_path / "out" / "00001.png") as written:
        assert written.info == {"Description": "a fir"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--sources", "ash", "--prompt", " "), "the prompt is empty"),
        (("--sources", "ash", "--prompt", "a prompt that is too long"), "has 22 tokens, of which 12 would be read"),
        (("--prompt", "an ash"), "elm, oak cannot be asked in words (sources that can: ash)"),
        (("--sources", "ash", "--prompt", "an ash", "--label", "a"), "were both given"),
        (("--sources", "ash", "--text-encoder", "minilm"), "give one with --prompt"),
        (
            ("--sources", "ash", "--prompt", "ash", "--prompt", ""),
            "2 prompts given for 1 image; give",
        ),
        (("--sources", "ash", "--prompt", "ash", "--text-encoder", "no/where"), "no text encoder 'no/where'"),
        (("--sources", "ash", "--prompt", "ash", "--weights", "soup"), "soup averages weights"),
        (("--sources", "ash", "--label", "a"), "cannot be asked for it"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    captioned: Path, run: Run, tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    answer = run("sample", captioned, "--out", tmp_path / "out", "--steps", "2", "--count", "1", *words)
    assert answer.code != 0
    assert complaint in " ".join(answer.err.split())
    assert not (tmp_path / "out").exists()


def test_sources_without_captions_and_options_of_others_are_refused(vault: Path, tiny_text: Path, run: Run) -> None:
    silent = run("train", vault, "fir", *TEXT, "--encoder", tiny_text, *SHORT)
    assert (silent.code, "source 'fir' has no captions" in silent.err) == (1, True)
    long = run("train", vault, "fir", "--adapter", "text", "--encoder", tiny_text, "--length", "13")
    assert "length is 13, and" in long.err
    assert "has no --rank" in run("train", vault, "fir", "--adapter", "text", "--rank", "2").err
    assert "has no --encoder" in run("train", vault, "fir", "--adapter", "lora", "--encoder", "minilm").err


def test_shadows_of_an_audit_read_captions_as_the_compartment_did(
    captioned: Path, done: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Sequence[Prompt | None]] = []

    class Watched(Trainee):
        def __init__(self, backbone: Backbone, data: TrainData, *rest: Any, **others: Any):
            read.append(data.captions)
            super().__init__(backbone, data, *rest, **others)

    monkeypatch.setattr("intarsia.experiments.auditing.members.Trainee", Watched)
    skipped = "integrity,duplicates,copies,forgetting,privacy,protection"
    words = ("--sources", "ash", "--shadows", "3", "--skip", skipped, "--out", tmp_path / "page.html")
    found = done("audit", captioned, *words)
    assert found["checks"]["membership"]["figures"]["ash"][0]["name"] == "lira"
    assert [{caption and caption.text for caption in each} for each in read] == [{"an ash"}] * 3
