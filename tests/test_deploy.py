"""What stands in `deploy/` fits the program: its commands, options, extras and paths. No container is run here."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from intarsia.cli.app import app

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "intarsia.service")
    return parser


def container() -> dict[str, str]:
    """By instruction, the last of its kind, with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Containerfile").read_text())
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#"))
    return dict(lines)


def documented() -> list[list[str]]:
    text = (ROOT / "docs/deploy.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"(?:run --rm tools|/opt/intarsia/bin/intarsia) (.+)", text)
    return [shlex.split(line, comments=True) for line in lines]


COMMANDS = [
    shlex.split(unit()["Service"]["ExecStart"])[1:],
    json.loads(container()["CMD"]),
    *(COMPOSE["services"][name]["command"] for name in ("service",)),
    *documented(),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_can_be_read(words: list[str]) -> None:
    """As the program reads it, without doing it."""
    found: click.Command = typer.main.get_command(app)
    context = click.Context(found)
    words = [str(word) for word in words]
    while isinstance(found, click.Group):
        name, found, words = found.resolve_command(context, words)
        assert found is not None, name
        context = click.Context(found, parent=context, info_name=name)
    found.parse_args(context, list(words))
    assert context.params


def test_the_documentation_has_commands() -> None:
    assert len(documented()) >= 4


def test_the_container_installs_what_the_vault_needs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = (DEPLOY / "Containerfile").read_text()
    named = re.search(r"'\.\[(.+)\]'", text)
    assert named is not None
    assert {"serve", "postgres", "s3"} == set(named.group(1).split(",")) <= set(extras)
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, flags=re.MULTILINE):
        assert [path for path in line.split() if not (ROOT / path).exists()] == []
    assert container()["USER"] == "intarsia"


def test_the_composition_keeps_no_secret_and_waits_for_what_it_needs() -> None:
    secrets = [line.partition("=")[0] for line in (DEPLOY / ".env.example").read_text().splitlines() if line[0] != "#"]
    named = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text()))
    assert named == set(secrets)
    assert "/deploy/.env" in (ROOT / ".gitignore").read_text().split()
    for name, service in COMPOSE["services"].items():
        for key, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|SECRET|KEY", key) or value.startswith("${"), (name, key)
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
        volumes = {volume.split(":")[0] for volume in service.get("volumes", ()) if not volume.startswith((".", "/"))}
        assert volumes <= set(COMPOSE["volumes"])
    assert (DEPLOY / COMPOSE["services"]["service"]["build"]["context"]).resolve() == ROOT
    assert (ROOT / COMPOSE["services"]["service"]["build"]["dockerfile"]).is_file()


def test_whoever_ends_the_service_waits_longer_than_it_may_take() -> None:
    words = shlex.split(unit()["Service"]["ExecStart"])
    allowed = int(words[words.index("--shutdown-seconds") + 1])
    assert int(unit()["Service"]["TimeoutStopSec"]) > allowed
    assert int(COMPOSE["services"]["service"]["stop_grace_period"].removesuffix("s")) > allowed


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "intarsia.service").read_text()
    text = text.replace("/opt/intarsia/bin/intarsia", sys.executable).replace(
        "=intarsia\nGroup=intarsia", "=root\nGroup=root"
    )
    (tmp_path / "intarsia.service").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "intarsia.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "intarsia.service" in line]
    assert (said, done.returncode) == ([], 0)
