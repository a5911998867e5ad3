"""`intarsia forget` for single images: found in several ways, foreseen, forgotten, and finished when interrupted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from intarsia.cli import forget as forget_module
from intarsia.compartments.slices import slice_of
from intarsia.errors import InputError
from intarsia.ledger import read_receipts
from intarsia.vault import Vault

from .helpers import QUICK, contents, write_images


@pytest.fixture
def sliced(vault: Path, done) -> Path:
    """The vault with `fir` trained in two slices."""
    done("train", vault, "fir", *QUICK, "--slices", "2")
    return vault


def owing(vault: Path) -> str:
    """Forget an image of `fir` and stop before it is trained again; returns the id."""
    opened = Vault.open(vault)
    gone = opened.source("fir").manifest.ids[0]
    steps = iter(opened.forgetting("fir", gone, save_every=1))
    next(steps)
    steps.close()
    return gone


def test_images_are_forgotten_by_id_file_and_label(sliced: Path, done):
    source = Vault.open(sliced).source("fir")
    first, *_, last = source.manifest.samples
    words = ("--sample", first.id[:10], "--file", last.file_name)
    plan = done("forget", sliced, "fir", *words, "--dry-run")
    assert plan["dry_run"] is True
    assert plan["samples"] == [first.id, last.id]
    assert plan["slices"] == list(range(1 + min(slice_of(s.id, 2) for s in (first, last)), 3))
    assert plan["sample_gradients"] == plan["steps"] * 4
    assert plan["seconds"] > 0
    answer = done("forget", sliced, "fir", *words, "--yes")
    assert (answer["samples"], answer["steps"]) == (2, plan["steps"])
    assert answer["before"]["fir"] != answer["after"]["fir"]
    assert done("verify", sliced)["ok"] is True
    assert len(Vault.open(sliced).source("fir")) == 4
    label = "b" if first.label == last.label == "a" else "a"
    done("forget", sliced, "fir", "--match", f"label:{label}", "--yes")
    assert label not in Vault.open(sliced).source("fir").labels


def test_a_dry_run_says_what_it_would_cost_and_changes_nothing(sliced: Path, run):
    before = contents(sliced)
    late = next(id for id in Vault.open(sliced).source("fir").manifest.ids if slice_of(id, 2) == 1)
    answer = run("forget", sliced, "fir", "--sample", late, "--dry-run")
    assert answer.code == 0
    assert f"1 image of 'fir' ({late[:12]}; 5 stay)" in answer.out
    assert "Trained again: slice 2, 2 steps, 8 sample-gradients (50% of training" in answer.out
    assert "on this machine" in answer.out
    assert "Would delete for good the source 'oak' (6 images of Ada)" in run("forget", sliced, "oak", "--dry-run").out
    assert contents(sliced) == before


def test_who_else_holds_the_same_picture_is_said(sliced: Path, tmp_path: Path, run, done):
    images = write_images(tmp_path / "fir", 2)
    done("source", "add", sliced, "ash", images, "--owner", "Dan", "--licence", "MIT")
    ours, theirs = (Vault.open(sliced).source(name).manifest.ids for name in ("fir", "ash"))
    said = "Other sources hold some of these pictures too, and keep them: ash."
    assert said in run("forget", sliced, "fir", "--sample", theirs[0], "--dry-run").out
    assert said in run("forget", sliced, "fir", "--dry-run").out
    alone = next(id for id in ours if id not in theirs)
    assert done("forget", sliced, "fir", "--sample", alone, "--yes")["also_in"] == []
    assert done("forget", sliced, "fir", "--sample", theirs[0], "--yes")["also_in"] == ["ash"]
    assert theirs[0] in Vault.open(sliced).source("ash").manifest.ids


def test_forgetting_images_asks_first(sliced: Path, run, monkeypatch: pytest.MonkeyPatch):
    before, gone = contents(sliced), Vault.open(sliced).source("fir").manifest.ids[0]
    assert "say --yes" in run("forget", sliced, "fir", "--sample", gone).err
    asked = []
    monkeypatch.setattr(forget_module, "_can_ask", lambda: True)
    monkeypatch.setattr(forget_module.typer, "confirm", lambda question, err: asked.append(question))
    assert run("forget", sliced, "fir", "--sample", gone).code == 1
    assert contents(sliced) == before
    assert f"1 image of 'fir' ({gone[:12]}; 5 stay)" in asked[0]
    assert "Trained again: " in asked[0]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--sample", "ffffffff"), "unknown sample 'ffffffff'"),
        (("--sample", "ff"), "too short"),
        (("--sample", ""), "a name is empty"),
        (("--file", "nowhere.png"), "unknown file 'nowhere.png'"),
        (("--match", "a"), "expected caption:TEXT or label:NAME"),
        (("--match", "label:z"), "unknown label 'z'"),
        (("--match", "label:a", "--match", "label:b"), "these are all samples of 'oak'"),
    ],
)
def test_what_stands_for_no_image_is_one_line_and_nothing_done(vault: Path, run, words, complaint: str):
    before = contents(vault)
    answer = run("forget", vault, "oak", "--yes", *words)
    assert answer.code != 0
    assert complaint in answer.err
    assert contents(vault) == before


def test_what_was_interrupted_is_listed_and_finished_by_train(sliced: Path, run, done):
    gone = owing(sliced)
    assert "out of use until trained again without what it forgot: unfinished, 1 of 4 steps" in run("list", sliced).out
    again = run("forget", sliced, "fir", "--sample", gone, "--yes")
    assert again.code == 1
    assert f"unknown sample '{gone}'" in again.err
    assert f"intarsia train {sliced} fir --resume" in again.err
    line = run("train", sliced, "fir", "--lr", "0.5").err
    assert "go on with its own settings (--resume" in line
    assert "leave out all others" in run("train", sliced, "--resume", "--steps", "7").err
    assert "unknown unfinished training 'oak'" in run("train", sliced, "oak", "--resume").err
    (info,) = done("train", sliced, "--resume")["compartments"]
    assert (info["name"], info["count"], info["trained"]) == ("fir", 5, True)
    assert done("train", sliced, "--resume")["compartments"] == []


@pytest.mark.parametrize("sources", [(), ("--sources", "fir"), ("--licence", "CC0-1.0")])
def test_what_was_interrupted_is_finished_before_anything_is_drawn(sliced: Path, tmp_path: Path, run, sources):
    owing(sliced)
    words = ("--count", "1", "--steps", "2", "--precision", "float32")
    assert run("sample", sliced, *words, "--sources", "oak", "--out", tmp_path / "without").code == 0
    assert Vault.open(sliced).unfinished() != []
    answer = run("sample", sliced, *words, *sources, "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert "finishing what was interrupted: 'fir'" in answer.err
    assert Vault.open(sliced).compartment("fir").count == 5


@pytest.mark.parametrize("rule", [("--owner", "Ada"), ("--licence", "MIT")])
def test_what_the_rules_leave_out_is_not_finished_first(sliced: Path, tmp_path: Path, run, rule):
    owing(sliced)
    words = ("--count", "1", "--steps", "2", "--precision", "float32", "--out", tmp_path / "out")
    answer = run("sample", sliced, *words, *rule)
    assert answer.code == 0, answer.err
    assert "finishing" not in answer.err
    assert [run.name for run in Vault.open(sliced).unfinished()] == ["fir"]


@pytest.mark.parametrize("stopped", [InputError("the text encoder is lost"), KeyboardInterrupt()])
def test_who_is_stopped_after_images_are_gone_is_told_how_to_finish(sliced: Path, run, done, monkeypatch, stopped):
    def stop(job: object, output: object) -> None:
        next(iter(job))  # type: ignore[call-overload]
        raise stopped

    source = Vault.open(sliced).source("fir").manifest
    early = min(source.ids, key=lambda id: slice_of(id, 2))
    monkeypatch.setattr(forget_module, "show_steps", stop)
    answer = run("forget", sliced, "fir", "--sample", early, "--yes", "--json")
    assert answer.code != 0
    gone, again = json.loads(answer.out)["error"]["notes"]
    receipt = Path(gone.removeprefix("what was to be forgotten is gone; receipt: "))
    assert read_receipts(receipt)[0].entry.kind == "forget"
    assert gone in answer.err
    command = f"intarsia train {sliced} fir --resume"
    assert again.endswith(command)
    assert "the same command goes on" not in answer.err
    assert early not in Vault.open(sliced).source("fir").manifest.ids
    (info,) = done(*command.split()[1:])["compartments"]
    assert (info["name"], info["count"]) == ("fir", 5)


def test_a_principal_who_may_not_finish_it_is_told_what_is_left_out(sliced: Path, tmp_path: Path, run, done):
    owing(sliced)
    done("principal", "add", sliced, "acme", "--key-file", tmp_path / "key")
    done("grant", sliced, "fir", "oak", "--to", "acme")
    words = ("--count", "1", "--steps", "2", "--precision", "float32", "--as", "acme", "--out", tmp_path / "out")
    answer = run("sample", sliced, *words, "--json")
    assert answer.code == 0, answer.err
    assert "left out fir: it is out of use: samples were forgotten" in answer.err
    assert "Warning" not in answer.err
    assert list(json.loads(answer.out)["left_out"]) == ["fir"]
    (image,) = (tmp_path / "out").glob("0*.png")
    (tmp_path / "found").mkdir()
    shutil.copy(image, tmp_path / "found")  # without its receipt, which says who drew it
    assert "left out fir: it is out of use" in run("credit", sliced, tmp_path / "found").err
