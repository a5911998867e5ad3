"""What the help says is complete, and true."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from intarsia.backbone import OPTIMISERS, PRECISIONS, PRESETS, PretrainSettings, UNet, UViT
from intarsia.cli.doctor import EXTRAS
from intarsia.cli.reference import commands, reference
from intarsia.cli.train import READ_OFF
from intarsia.compartments import ADAPTERS, TextPrompts, TrainSettings
from intarsia.composition import ROUTINGS, SampleSettings
from intarsia.composition.routing import USUAL_THRESHOLD
from intarsia.diffusion import SAMPLERS, SPACINGS
from intarsia.vault import PARTS, WEIGHTS
from intarsia.vault.composing import SOUP
from intarsia.vault.package import KEPT

ROOT = Path(__file__).parents[2]
COMMANDS: Mapping[str, Any] = dict(commands())


def option(path: str, name: str) -> Any:
    return next(each for each in COMMANDS[path].params if each.name == name)


def test_the_reference_is_up_to_date():
    written = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert written == reference(), "run: python -m intarsia.cli.reference docs/cli.md"


def test_the_reference_knows_every_command():
    headings = [line.removeprefix("## intarsia ") for line in reference().splitlines() if line.startswith("## ")]
    assert headings == list(COMMANDS)
    assert {"init", "pretrain", "data emoji", "source add", "train", "sample", "forget", "verify"} <= set(headings)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_explains_itself(path: str):
    command = COMMANDS[path]
    about, _, example = command.help.rpartition("\n\nExample: ")
    assert about
    assert example.startswith(f"intarsia {path}")
    assert [each.name for each in command.params if not (each.help or "").endswith(".")] == []
    assert {"json", "debug"} <= {each.name for each in command.params}


@pytest.mark.parametrize("path", COMMANDS)
def test_the_example_is_a_call_that_parses(path: str):
    example = COMMANDS[path].help.rpartition("Example: intarsia ")[2]
    words = shlex.split(example)[len(path.split()) :]
    COMMANDS[path].make_context(path, words)


@pytest.mark.parametrize(
    ("path", "settings"), [("train", TrainSettings), ("sample", SampleSettings), ("pretrain", PretrainSettings)]
)
def test_defaults_are_those_of_the_library(path: str, settings: type):
    library = {field.name: field.default for field in fields(settings) if field.default is not MISSING}
    shared = {each.name: each.default for each in COMMANDS[path].params if each.name in library}
    assert {"seed"} < set(shared)
    assert shared == {name: library[name] for name in shared}


def test_defaults_that_are_told_in_words():
    for kind in ADAPTERS.values():
        for field in fields(kind):
            if kind is TextPrompts and field.name in READ_OFF:
                continue
            help_text = option("train", field.name).help
            if field.name == "targets":
                for network in (UViT, UNet):
                    assert ", ".join(network.usual_targets) + " (the default)" in help_text
            elif isinstance(field.default, str):
                assert f"{field.default} (the default)" in help_text
            elif not isinstance(field.default, bool):
                assert kind.name in help_text.partition(":")[0].split(", ")
                assert f"{field.default:g} by default" in help_text
    assert option("pretrain", "keep_samples").default == KEPT
    assert f"threshold:{USUAL_THRESHOLD:g}" in option("sample", "routing").help


@pytest.mark.parametrize(
    ("path", "name", "known"),
    [
        ("train", "adapter", ADAPTERS),
        ("train", "precision", PRECISIONS),
        ("train", "routers", PARTS),
        ("sample", "routing", ROUTINGS),
        ("sample", "sampler", SAMPLERS),
        ("sample", "spacing", SPACINGS),
        ("sample", "weights", [*WEIGHTS, SOUP]),
        ("pretrain", "optimiser", OPTIMISERS),
    ],
)
def test_the_help_names_what_there_is(path: str, name: str, known: Mapping[str, object]):
    assert [each for each in known if each not in option(path, name).help] == []


def test_the_presets_that_the_help_names_exist():
    named = [word.strip(".,") for word in option("pretrain", "preset").help.split() if word.startswith("uvit-")]
    assert named
    assert set(named) <= set(PRESETS)


def test_the_doctor_knows_the_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    del extras["dev"]
    assert {extra: sorted(Requirement(line).name for line in lines) for extra, lines in extras.items()} == {
        extra: sorted(packages) for extra, packages in EXTRAS.items()
    }
