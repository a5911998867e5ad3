"""Pre-training to a package: whole, resumable, and refusing what does not fit."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from intarsia.backbone import AutoencoderConfig, Backbone, Preset, UViTConfig, presets
from intarsia.cli.command import INTERRUPTED
from intarsia.diffusion import Cosine
from intarsia.experiments import pretraining, recipes
from intarsia.vault import Vault, read_core

from .helpers import contents, tiny_config, toy_source, write_images

TERMS = ("--owner", "Ada", "--licence", "MIT")
SHORT = ("--steps", "4", "--batch", "4", "--warmup", "1", "--precision", "float32", "--save-every", "2")


@pytest.fixture(autouse=True)
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tiny` for 4x4 pixels, and `tiny-latent` for 8x8 through an autoencoder."""
    about = {"schedule": Cosine(), "prediction": "v", "time_scale": 1000.0, "note": "for tests"}
    latent = UViTConfig(image_size=4, patch_size=2, channels=2, dim=8, depth=3, heads=2)
    coder = AutoencoderConfig(image_size=8, channels=1, latent_channels=2, widths=(8,), finish=8)
    table = {"tiny": Preset(network=tiny_config(), **about)}
    table["tiny-latent"] = Preset(network=latent, autoencoder=coder, **about)
    # The table is read where it is defined and, through the room's face, by the command.
    monkeypatch.setattr(presets, "PRESETS", table)
    monkeypatch.setattr(pretraining, "PRESETS", table)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", 24)


def test_a_package_founds_a_vault(images: Path, tmp_path: Path, done):
    answer = done("pretrain", images, *TERMS, "--preset", "tiny", "--out", tmp_path / "p", *SHORT)
    assert Backbone.load(tmp_path / "p" / "backbone").digest == answer["backbone"]
    assert read_core(tmp_path / "p").record["count"] == 24
    done("init", tmp_path / "v", "--backbone", tmp_path / "p")
    assert Vault.open(tmp_path / "v").backbone.labels == ()


def test_with_labels_the_network_learns_those_of_the_core(images: Path, tmp_path: Path, done):
    done("pretrain", images, *TERMS, "--preset", "tiny", "--labels", "--out", tmp_path / "p", *SHORT)
    assert Backbone.load(tmp_path / "p" / "backbone").labels == ("a", "b")


def test_an_autoencoder_is_trained_first(tmp_path: Path, done, monkeypatch: pytest.MonkeyPatch):
    images = write_images(tmp_path / "images", 24, side=8)
    words = ("--preset", "tiny-latent", "--autoencoder-steps", "3", "--autoencoder-batch", "4")
    seen: list[str] = []
    steps = pretraining.Job.steps
    monkeypatch.setattr(pretraining.Job, "steps", lambda *a: (seen.append(part) or (part, s) for part, s in steps(*a)))
    answer = done("pretrain", images, *TERMS, *words, "--out", tmp_path / "p", *SHORT)
    assert seen == ["autoencoder"] * 3 + ["network"] * 4
    assert Backbone.load(tmp_path / "p" / "backbone").image_shape == (1, 8, 8)
    assert sorted(contents(Path(answer["checkpoint"]))) == [
        "autoencoder.json",
        "autoencoder.safetensors",
        "network.json",
        "network.safetensors",
        "run.json",
    ]


def test_an_interrupted_run_goes_on_to_the_same_bytes(images: Path, tmp_path: Path, done, run, monkeypatch):
    words = ("pretrain", images, *TERMS, "--preset", "tiny", *SHORT, "--precision", "bfloat16")
    done(*words, "--out", tmp_path / "whole")
    steps = pretraining.Job.steps

    def interrupted(*arguments: object):
        yield from itertools.islice(steps(*arguments), 3)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretraining.Job, "steps", interrupted)
        assert run(*words, "--out", tmp_path / "resumed").code == INTERRUPTED
    assert not (tmp_path / "resumed").exists()
    done(*words, "--out", tmp_path / "resumed")
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


def test_a_checkpoint_of_another_run_is_refused(images: Path, tmp_path: Path, done, run):
    words = ("--preset", "tiny", "--checkpoint", tmp_path / "kept", *SHORT)
    done("pretrain", images, *TERMS, *words, "--out", tmp_path / "first")
    other = write_images(tmp_path / "other", 24)
    answer = run("pretrain", other, *TERMS, *words, "--out", tmp_path / "second")
    assert answer.code == 1
    assert "keeps another run (core " in answer.err
    changed = run("pretrain", images, *TERMS, *words, "--seed", "1", "--out", tmp_path / "second")
    assert "seed 0 there, 1 here" in changed.err
    assert not (tmp_path / "second").exists()


def test_several_cores_become_one(images: Path, tmp_path: Path, done):
    other = write_images(tmp_path / "other", 12)
    answer = done("pretrain", images, other, *TERMS, "--preset", "tiny", "--out", tmp_path / "p", *SHORT)
    assert answer["core"] == {"name": "core", "licence": "MIT", "count": 36}


def test_a_recipe_says_everything(tmp_path: Path, done, monkeypatch: pytest.MonkeyPatch):
    recipe = recipes.Recipe(
        preset="tiny",
        core=lambda folder: toy_source("core", 24),
        network=recipes.PretrainSettings(steps=2, batch=4, precision="float32"),
        keep_samples=5,
    )
    monkeypatch.setattr(recipes, "RECIPES", {"tiny": recipe})
    answer = done("pretrain", "--recipe", "tiny", "--out", tmp_path / "p")
    assert answer["preset"] == "tiny"
    assert read_core(tmp_path / "p").record["kept"] == 5
