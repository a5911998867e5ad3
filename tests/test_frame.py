"""The frame around the rooms: versions, the public face, the commands, and what the tests themselves rely on."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import intarsia

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PIN_LINES = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
PINS = {canonicalize_name(name): Version(pin) for name, pin in (line.split("==") for line in PIN_LINES)}
MOST_PUBLIC_NAMES = 40

makes = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in the project, free of the settings of a make that runs these tests."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    command = ["make", "-C", str(ROOT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def declared() -> list[Requirement]:
    """The requirements of `make demo` and `make test`: core, experiments, and dev with the extras it names."""
    lines = list(PROJECT["dependencies"])
    wanted = ["dev"]
    while wanted:
        for requirement in map(Requirement, PROJECT["optional-dependencies"][wanted.pop()]):
            if requirement.name == PROJECT["name"]:
                wanted.extend(sorted(requirement.extras))
            else:
                lines.append(str(requirement))
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_every_requirement_is_pinned_within_its_range(requirement: Requirement):
    name = canonicalize_name(requirement.name)
    assert name in PINS, f"{name} is missing from constraints.txt: run make constraints"
    assert requirement.specifier.contains(PINS[name])


def test_the_constraints_hold_plain_pins_only():
    assert [line for line in PIN_LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    assert sorted(PIN_LINES, key=str.lower) == PIN_LINES
    assert [name for name in PINS if re.match(r"nvidia|cuda|triton|torchvision|timm", name)] == []


def test_dev_contains_what_the_demo_needs():
    experiments = {Requirement(line).name for line in PROJECT["optional-dependencies"]["experiments"]}
    assert experiments <= {requirement.name for requirement in declared()}


def test_the_version_is_one_and_the_changelog_is_open():
    version = Version(intarsia.__version__)
    assert str(version) == intarsia.__version__
    assert "version" in PROJECT["dynamic"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(Version(heading) <= version for heading in headings[1:])


def test_the_public_face_says_one_thing():
    """`__all__`, the table of homes and the imports for type checkers name the same things, and each of them exists."""
    tree = ast.parse((ROOT / "src/intarsia/__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.asname or alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == intarsia._HOMES
    assert set(intarsia.__all__) == {*intarsia._HOMES, "__version__"}
    assert len(intarsia.__all__) == len(set(intarsia.__all__)) <= MOST_PUBLIC_NAMES
    for name in intarsia.__all__:
        assert getattr(intarsia, name) is not None
        assert name in dir(intarsia)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'intarsia' has no attribute 'Valut'"):
        _ = intarsia.Valut


@makes
def test_help_lists_every_command():
    listed = make("help").stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert phony
    assert set(re.findall(r"make (\w+)", listed)) == set(phony[1].split())


@makes
@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("exit 127", "found"),  # any interpreter that says it is too old
        ('case "$2" in *version_info*) exit 0;; esac; exit 1', "apt-get install python3-venv"),
    ],
)
def test_make_says_what_an_interpreter_lacks(tmp_path: Path, program: str, complaint: str):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    done = make("test", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert complaint in done.stdout
    assert not (tmp_path / "venv").exists()


@makes
def test_make_names_a_missing_interpreter_and_a_half_made_environment(tmp_path: Path):
    absent = make("test", "PYTHON=python-of-nowhere", f"VENV={tmp_path / 'venv'}")
    assert "no 'python-of-nowhere' on this machine" in absent.stdout
    (tmp_path / "kept").touch()
    assert "holds no bin/python" in make("test", f"PYTHON={sys.executable}", f"VENV={tmp_path}").stdout
    assert (tmp_path / "kept").exists()


def test_ci_runs_what_a_desk_runs():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert re.findall(r"^make (\w+)$", text, flags=re.MULTILINE) == ["check", "integration"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_gitignore_hides_no_source():
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*") if "__pycache__" not in path.parts]
    files += ["src/intarsia/data/digits.safetensors", "src/intarsia/vault/store.py"]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""


def test_a_warning_is_an_error():
    with pytest.raises(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_starts_from_the_same_seeds(turn: int):
    drawn = random.random(), float(np.random.rand()), float(torch.rand(()))
    assert drawn == pytest.approx((0.8444218515250481, 0.5488135039273248, 0.49625658988952637))
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_tests_cannot_reach_the_network(host: str):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as stream, pytest.raises(RuntimeError, match=r"network: socket\.connect"):
        stream.connect((host, 80))
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams, pytest.raises(RuntimeError, match=r"socket\.sendto"):
        datagrams.sendto(b"", (host, 80))


def test_tests_cannot_look_a_host_up():
    with pytest.raises(RuntimeError, match=r"network: socket\.getaddrinfo 'example\.org'"):
        socket.create_connection(("example.org", 80), timeout=1)
    with pytest.raises(RuntimeError, match=r"network: socket\.gethostbyname 'example\.org'"):
        socket.gethostbyname("example.org")


def test_tests_can_reach_loopback():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5) as client,
    ):
        client.sendall(b"x")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b"x"


def test_every_promise_names_tests_that_are_there():
    _, *promises = [line for line in (ROOT / "docs/guarantees.md").read_text().splitlines() if line.startswith("| ")]
    assert len(promises) > 30
    for promise in promises:
        named = re.findall(r"`(tests/[^`]+)`", promise.rpartition("|")[0].rpartition("|")[2])
        assert named, promise
        assert [name for name in named if not (ROOT / name).exists()] == [], promise


@pytest.mark.integration
def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        (entry_points,) = [name for name in packed if name.endswith("entry_points.txt")]
        assert "intarsia = intarsia.cli:main" in archive.read(entry_points).decode()
    source = ROOT / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "intarsia").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "intarsia/py.typed" in expected
    assert {name for name in packed if ".dist-info/" not in name} == expected
    assert any(name.endswith("licenses/LICENSE") for name in packed)


@pytest.mark.integration
def test_everything_that_gets_installed_is_pinned():
    missing, seen = set(), set()
    queue = list(declared())
    while queue:
        requirement = queue.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen or not applies(requirement):
            continue
        seen.add(key)
        if key[0] not in PINS:
            missing.add(key[0])
        for line in importlib.metadata.requires(requirement.name) or []:
            child = Requirement(line)
            if applies(child, requirement.extras):
                child.marker = None
                queue.append(child)
    assert missing == set()


def applies(requirement: Requirement, extras: Iterable[str] = ()) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
