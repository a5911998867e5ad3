"""The digits demo: quickly for its plumbing, and whole for what it promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from intarsia.backbone import load_text_encoder
from intarsia.compartments import TrainSettings, text_prompts
from intarsia.data import Source
from intarsia.diffusion import keyed_generator
from intarsia.errors import SettingsError, UnknownName, VaultError
from intarsia.experiments import captions_demo, digits_demo
from intarsia.experiments.demo import Stage, clear, run_demo
from intarsia.vault import Vault


def nobody(*_: object) -> None:
    """Is told of progress and does nothing."""


@pytest.mark.integration
def test_the_page_is_written_and_the_owner_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits_demo, "TRAINING", replace(digits_demo.TRAINING, steps=2, rows=4, threads=1))
    monkeypatch.setattr(digits_demo, "COUNT", 48)
    monkeypatch.setattr(digits_demo, "STEPS", 3)
    monkeypatch.setattr(digits_demo, "JUDGE_STEPS", 3)
    phases: list[str] = []
    page = run_demo("digits", tmp_path / "demo", on_phase=phases.append, on_step=nobody)
    assert page.read_text().count("<figure>") >= 7
    assert "naive averaging" in page.read_text()
    assert len(phases) == 6
    vault = Vault.open(tmp_path / "demo" / "digits.vault")
    assert [info.name for info in vault.compartments()] == ["birch", "cherry", "ebony", "maple"]


def test_only_a_folder_that_a_demo_made_is_emptied(tmp_path: Path) -> None:
    clear(tmp_path / "demo")
    (tmp_path / "demo" / "index.html").write_text("an earlier page")
    clear(tmp_path / "demo")
    assert [path.name for path in (tmp_path / "demo").iterdir()] == [".intarsia-demo"]
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(VaultError, match="no demo made it"):
        run_demo("digits", tmp_path, on_phase=nobody, on_step=nobody)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        run_demo("digit", tmp_path, on_phase=nobody, on_step=nobody)
    with pytest.raises(SettingsError, match="intarsia data emoji"):
        run_demo("emoji", tmp_path, on_phase=nobody, on_step=nobody)


@pytest.mark.integration
def test_three_owners_are_asked_in_words(tmp_path: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plumbing, on coloured squares and a tiny encoder."""
    concepts = [f"{colour} {thing}" for colour in ("red", "green", "blue", "grey") for thing in range(12)]

    def squares(folder: Path, names: Sequence[str], size: int, label: str) -> list[Source]:
        return [
            Source.build(
                name,
                owner=name,
                licence="CC-BY-SA-4.0" if name == "openmoji" else "MIT",
                images=keyed_generator("squares", name).integers(0, 256, (48, size, size, 3)).astype(np.uint8),
                file_names=concepts,
                texts=concepts,
                labels=concepts,
            )
            for name in names
        ]

    adapter = text_prompts(load_text_encoder(str(tiny_text)), tokens=2, width=2, length=12)
    monkeypatch.setattr(captions_demo, "load_emoji", squares)
    monkeypatch.setattr(captions_demo, "TRAINING", TrainSettings(adapter=adapter, steps=2, rows=2, threads=1))
    monkeypatch.setattr(captions_demo, "IN_WORDS", ("red", "a blue one"))
    monkeypatch.setattr(captions_demo, "STEPS", 2)
    page = run_demo("captions", tmp_path / "demo", emoji=tmp_path, on_phase=nobody, on_step=nobody).read_text()
    assert page.count("<figure>") >= 8
    assert "openmoji: " in page, "why it was left out"


@pytest.mark.integration
def test_the_demo_keeps_its_promises(tmp_path: Path) -> None:
    """Legible within 10 points of real digits, 20 above naive averaging, all digits, shares within 0.05, forgotten."""
    report = digits_demo.digits_demo(Stage(tmp_path, 0, nobody, nobody))
    numbers = [number for section in report.sections for number in section.numbers]
    assert len(numbers) == 7
    assert {number.label: number.value for number in numbers if not number.good} == {}
