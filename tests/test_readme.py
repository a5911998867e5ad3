"""The README cannot lie: its commands and its code are run as printed, with fewer training steps."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from intarsia.data import encode_png
from intarsia.diffusion import keyed_generator

README = Path(__file__).parents[1] / "README.md"


def block(start: str) -> str:
    """The fenced block that begins with these characters."""
    return next(
        text for text in re.findall(r"```\w*\n(.*?)```", README.read_text(), flags=re.S) if text.startswith(start)
    )


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.integration
def test_the_python_example_runs(tmp_path: Path) -> None:
    code = block("import intarsia").replace("steps=200", "steps=3")
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("torch.Size([16, 1, 8, 8])\ntorch.Size([30, 16, 2])\n")
    assert not (tmp_path / "digits.vault" / "compartments" / "maple").exists()


@pytest.mark.integration
def test_the_commands_run(tmp_path: Path) -> None:
    for name in ("meadow", "harbour"):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for k in range(8):
            pixels = keyed_generator("readme", name, k).integers(0, 256, (32, 32, 3)).astype("uint8")
            (folder / f"{k}.png").write_bytes(encode_png(pixels))
    for line in block("intarsia init art.vault").splitlines():
        words = shlex.split(line)[1:]
        words += {"train": ["--steps", "2", "--rows", "2"], "forget": ["--yes"]}.get(words[0], [])
        done = run("-m", "intarsia.cli", *words, cwd=tmp_path)
        assert done.returncode == 0, f"{line}: {done.stderr}"
    assert len(list((tmp_path / "drawn").glob("*.png"))) >= 16


def test_every_page_it_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert target.startswith("https://") or (README.parent / target).exists(), target
