"""The commands of docs/backbones.md on Stable Diffusion, from a pipeline's folder to images, and into diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers")

from typer.testing import CliRunner

from intarsia.cli.app import app
from intarsia.data import decode, encode_png
from intarsia.diffusion import keyed_generator

from .tiny import compose, draw

TERMS = ("--owner", "Ada", "--licence", "MIT")
QUICK = ("--steps", "4", "--rows", "8", "--slices", "2", "--lr", "0.01", "--precision", "float32", "--threads", "1")
DRAW = ("--prompt", "a red apple", "--guidance-scale", "3", "--count", "2", "--steps", "2")


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def done(*words: object) -> Any:
    answer = run(*words, "--json")
    assert answer.exit_code == 0, answer.stderr
    return json.loads(answer.stdout)


def pictures(folder: Path, count: int) -> Path:
    """Photographs that are not square, with captions."""
    folder.mkdir()
    lines = []
    for k in range(count):
        noise = keyed_generator(folder.name, k).integers(0, 256, (20, 16, 3), dtype=np.uint8)
        (folder / f"{k}.png").write_bytes(encode_png(noise))
        lines.append(json.dumps({"file_name": f"{k}.png", "text": f"a hat {'abcdefgh'[k % 8]}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def package(saved: Path, tmp_path: Path) -> Path:
    made = done(
        "convert",
        saved,
        pictures(tmp_path / "core", 24),
        "--crop",
        *TERMS,
        "--basis-rank",
        "8",
        "--out",
        tmp_path / "p",
    )
    assert (made["image_shape"], made["latent_shape"]) == ([3, 16, 16], [4, 8, 8])
    return tmp_path / "p"


@pytest.mark.integration
def test_a_vault_on_stable_diffusion(package: Path, pipe: Any, tmp_path: Path) -> None:
    vault = tmp_path / "v"
    done("init", vault, "--backbone", package)
    for name, adapter in (("ada", ("lora", "--rank", "2")), ("ben", ("full",))):
        done("source", "add", vault, name, pictures(tmp_path / name, 8), *TERMS, "--crop")
        done("train", vault, name, "--adapter", *adapter, *QUICK)
    done("sample", vault, "--sources", "ada,ben", *DRAW, "--out", tmp_path / "drawn")
    drawn = sorted((tmp_path / "drawn").glob("0*.png"))
    assert [decode(path.read_bytes(), size=16, channels=3).shape for path in drawn] == [(16, 16, 3)] * 2
    done("forget", vault, "ada", "--file", "3.png", "--yes", "--receipt", tmp_path / "receipt.json")
    replays = done("verify", vault, "--replay", tmp_path / "receipt.json")["replays"]
    assert [each["verdict"] for each in replays] == ["same"]
    assert done("verify", vault)["ok"]
    packed = done("pack", vault, "ada", "--out", tmp_path / "ada.pack")
    other = tmp_path / "other"
    done("init", other, "--backbone", package)
    done("import", other, tmp_path / "ada.pack", "--signer", packed["signer"])
    done("sample", other, *DRAW, "--out", tmp_path / "again")
    compose(pipe, {"ada": vault / "compartments/ada", "ben": vault / "compartments/ben"})
    assert draw(pipe).isfinite().all()


@pytest.mark.integration
def test_what_is_wrong_is_one_line(package: Path, saved: Path, tmp_path: Path) -> None:
    vault, core = tmp_path / "v", tmp_path / "core"
    done("init", vault, "--backbone", package)
    for name in ("ada", "ben"):
        done("source", "add", vault, name, pictures(tmp_path / name, 3), *TERMS, "--crop")
        done("train", vault, name, "--rank", "1", *QUICK)
    for words, says in (
        (("convert", saved, core, *TERMS, "--digest", "0" * 64, "--out", tmp_path / "q"), "leave --digest out"),
        (("convert", core, core, *TERMS, "--out", tmp_path / "q"), "model_index.json"),
        (("train", vault, "ada", "--restart", "--adapter", "prompts", *QUICK), "train lora or full"),
        (("train", vault, "ada", "--restart", "--targets", "attn.qkv", *QUICK), "expected some of to_q"),
        (("train", vault, "ada", "--restart", "--dp-epsilon", "3", "--rows", "2"), "without a text encoder"),
        (("sample", vault, "--prompt", "abcdefghijklmnop", "--out", tmp_path / "d"), "of which 12 would be read"),
        (("sample", vault, "--prompt", " ", "--out", tmp_path / "d"), "the prompt is empty"),
        (("sample", vault, *DRAW, "--text-encoder", "minilm", "--out", tmp_path / "d"), "a text encoder of its own"),
        (("sample", vault, *DRAW, "--weights", "reference", "--out", tmp_path / "d"), "no router part 'reference'"),
    ):
        answer = run(*words)
        assert answer.exit_code != 0
        assert says in " ".join(answer.stderr.split()), answer.stderr
        assert "Traceback" not in answer.stderr
    assert not (tmp_path / "q").exists()
    assert not (tmp_path / "d").exists()
    assert done("verify", vault)["ok"]
