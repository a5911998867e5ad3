"""The command as users start it: a process of its own."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from intarsia.vault import Vault

from .helpers import QUICK

COMMAND = (sys.executable, "-m", "intarsia")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def start(*words: object, **streams: object) -> subprocess.Popen[str]:
    command = [*COMMAND, *(str(word) for word in words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    # Jobs in the background of a shell ignore the interruption, and what they start inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, **{**pipes, **streams})


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, out, err


def test_help_needs_neither_torch_nor_the_rooms():
    probe = (
        "import sys\nsys.argv[1:] = ['--help']\nfrom intarsia.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n"
        "    heavy = {'torch', 'numpy', 'PIL', 'sqlalchemy', 'intarsia.vault'} & set(sys.modules)\n"
        "    sys.exit(f'{end.code} {sorted(heavy)}')"
    )
    done = subprocess.run([sys.executable, "-c", probe], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.stderr == "0 []\n"
    assert "Getting started" in done.stdout


def test_answers_and_exit_codes(vault: Path):
    code, out, err = finish(start("list", vault, "--json"))
    assert (code, err) == (0, "")
    assert len(json.loads(out)["sources"]) == 3
    code, out, err = finish(start("source", "show", vault, "oka"))
    assert (code, out) == (1, "")
    assert err == "error: unknown source 'oka': did you mean 'oak'? known: elm, fir, oak\n"


@pytest.mark.integration
def test_training_shows_bars_at_a_terminal_and_keeps_the_answer_clean(vault: Path):
    terminal, theirs = pty.openpty()
    process = start("train", vault, "fir", *QUICK, "--json", stderr=theirs)
    os.close(theirs)
    out, _ = process.communicate(timeout=120)
    shown = read_all(terminal)
    assert json.loads(out)["compartments"][0]["name"] == "fir"
    assert "fir" in shown
    assert "4/4" in shown


def read_all(terminal: int) -> str:
    parts = []
    while True:
        try:
            parts.append(os.read(terminal, 65536))
        except OSError:  # the other side has closed
            parts.append(b"")
        if not parts[-1]:
            os.close(terminal)
            return b"".join(parts).decode()


@pytest.mark.parametrize("signal_sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.integration)])
def test_an_interrupted_training_keeps_its_checkpoint_and_a_sound_vault(vault: Path, done, signal_sent: int):
    long = ("--steps", "100000", *QUICK[2:], "--save-every", "20")
    process = start("train", vault, "fir", *long)
    checkpoint = vault / "training" / "fir" / "state.safetensors"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal_sent)
    code, out, err = finish(process)
    assert (code, out) == (130, "")
    assert err == "interrupted: nothing is half-written, and the same command goes on from what is saved\n"
    assert checkpoint.exists()
    assert done("verify", vault)["ok"] is True
    assert [info.name for info in Vault.open(vault).compartments()] == ["elm", "oak"]


def test_who_stops_reading_is_no_fault_of_ours(vault: Path):
    process = start("source", "show", vault, "oak", "--samples")
    assert process.stdout is not None
    process.stdout.close()
    process.wait(timeout=120)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
