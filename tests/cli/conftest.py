"""Runs commands in this process, on a vault that is made once and copied for every test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from intarsia.cli.app import app

from .helpers import QUICK, make_package, write_images


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Answer]


def run_command(*words: object) -> Answer:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return Answer(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def run() -> Run:
    """`run("list", vault)`: the answer of a command."""
    return run_command


@pytest.fixture(scope="session")
def done() -> Callable[..., Any]:
    """`done("list", vault)`: the JSON of a command, which must succeed."""

    def succeed(*words: object) -> Any:
        answer = run_command(*words, "--json")
        assert answer.code == 0, answer.err
        return answer.json

    return succeed


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("packages") / "tiny")


@pytest.fixture(scope="session")
def trained(package: Path, done: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault with `oak` (MIT, trained), `elm` (CC-BY-SA-4.0, trained) and `fir` (not trained)."""
    root = tmp_path_factory.mktemp("trained")
    vault = root / "v"
    done("init", vault, "--backbone", package)
    for name, owner, licence in (("oak", "Ada", "MIT"), ("elm", "Bob", "CC-BY-SA-4.0"), ("fir", "Cleo", "CC0-1.0")):
        done("source", "add", vault, name, write_images(root / name), "--owner", owner, "--licence", licence)
    done("train", vault, "oak", "elm", *QUICK)
    return vault


@pytest.fixture
def vault(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "v"))
