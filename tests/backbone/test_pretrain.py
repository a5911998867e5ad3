from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from intarsia.backbone import (
    Augmentation,
    Autoencoder,
    AutoencoderConfig,
    Backbone,
    PretrainSettings,
    TrainStep,
    noised,
    pretrain,
    pretrain_autoencoder,
)
from intarsia.diffusion import PREDICTIONS, Cosine, keyed_normal
from intarsia.errors import CorruptError, SettingsError, UnknownName
from intarsia.files import load_tensors

Make = Callable[..., Backbone]
STILL = Augmentation(share=1.0)
SETTINGS = PretrainSettings(steps=7, batch=8, lr=3e-3, warmup=2, ema=0.9, augmentation=STILL, precision="float32")
OPTIMISERS = ("adamw", "muon")


def digest_after(backbone: Backbone, steps: Iterator[TrainStep]) -> str:
    for _ in steps:
        pass
    return replace(backbone).digest


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("killed_after", [1, 2, 5])
def test_resumed_equals_uninterrupted(
    optimiser: str, precision: str, killed_after: int, tiny: Make, stripes: Tensor, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, optimiser=optimiser, precision=precision)
    whole = tiny()
    untrained = replace(whole).digest
    expected = digest_after(whole, pretrain(whole, stripes, None, settings))
    assert expected != untrained

    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    for _ in itertools.islice(
        pretrain(tiny(), stripes, None, settings, checkpoint=checkpoint, save_every=2), killed_after
    ):
        pass
    resumed = tiny(seed=5)  # everything comes from the checkpoint, if there is one
    if not checkpoint.exists():
        resumed = tiny()
    steps = list(pretrain(resumed, stripes, None, settings, checkpoint=checkpoint, save_every=2))
    assert [step.step for step in steps] == list(range(killed_after // 2 * 2 + 1, 8))
    assert replace(resumed).digest == expected

    finished = tiny(seed=6)
    assert list(pretrain(finished, stripes, None, settings, checkpoint=checkpoint)) == []
    assert replace(finished).digest == expected


def test_labelled_and_latent_training_resumes_too(tiny: Make, tmp_path: Path) -> None:
    settings = replace(SETTINGS, variants=3, label_dropout=0.5, augmentation=Augmentation())
    images, labels = keyed_normal((8, 3, 16, 16), "images").clamp(-1, 1), torch.arange(8) % 2
    whole, resumed = (tiny(labels=("a", "b"), latent=True) for _ in range(2))
    expected = digest_after(whole, pretrain(whole, images, labels, settings))
    checkpoint = tmp_path / "checkpoint.safetensors"
    list(itertools.islice(pretrain(resumed, images, labels, settings, checkpoint=checkpoint, save_every=3), 4))
    resumed = tiny(labels=("a", "b"), latent=True, seed=0)
    assert digest_after(resumed, pretrain(resumed, images, labels, settings, checkpoint=checkpoint)) == expected


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_learns_two_images(optimiser: str, tiny: Make) -> None:
    """Not only the loss falls: from half noise the trained network sees the image better than the untrained one."""
    images, t = torch.cat([torch.ones(4, 1, 4, 4), -torch.ones(4, 1, 4, 4)]), torch.full((8,), 0.5)
    x_t, _ = noised(images, t, keyed_normal(images.shape, "held out"), Cosine(), "v")
    backbone = tiny()
    before = (backbone.x0_hat(x_t, t) - images).square().mean()
    settings = replace(SETTINGS, steps=40, batch=32, lr=1e-2, optimiser=optimiser)
    losses = [step.loss for step in pretrain(backbone, images, None, settings)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert (backbone.x0_hat(x_t, t) - images).square().mean() < 0.6 * before


def test_ends_with_the_averages_frozen(tiny: Make, stripes: Tensor, tmp_path: Path) -> None:
    backbone, checkpoint = tiny(), tmp_path / "checkpoint.safetensors"
    list(pretrain(backbone, stripes, None, SETTINGS, checkpoint=checkpoint))
    tensors = load_tensors(checkpoint)
    assert all(torch.equal(p, tensors[f"average.{name}"]) for name, p in backbone.network.named_parameters())
    assert not any(torch.equal(p, tensors[f"params.{name}"]) for name, p in backbone.network.named_parameters())
    assert not backbone.network.training
    assert not any(p.requires_grad for p in backbone.network.parameters())


def test_the_digest_is_that_of_the_trained_network(tiny: Make, stripes: Tensor) -> None:
    backbone = tiny()
    before = backbone.digest, backbone.digests
    list(pretrain(backbone, stripes, None, SETTINGS))
    assert (backbone.digest, backbone.digests) == (replace(backbone).digest, replace(backbone).digests)
    assert (backbone.digest, backbone.digests) != before


def test_a_working_copy_made_before_is_not_used_after(tiny: Make, stripes: Tensor) -> None:
    backbone, t = tiny(), torch.full((8,), 0.5)
    backbone.x0_hat(stripes, t, precision="bfloat16")
    list(pretrain(backbone, stripes, None, SETTINGS))
    fresh = replace(backbone).x0_hat(stripes, t, precision="bfloat16")
    assert torch.equal(backbone.x0_hat(stripes, t, precision="bfloat16"), fresh)


def test_steps_report_number_and_learning_rate(tiny: Make, stripes: Tensor) -> None:
    steps = list(pretrain(tiny(), stripes, None, replace(SETTINGS, cooldown=0.5)))
    assert [(step.step, step.steps) for step in steps] == [(k, 7) for k in range(1, 8)]
    assert steps[0].lr == pytest.approx(1.5e-3)  # the first of two steps of warmup
    assert steps[2].lr == pytest.approx(3e-3)
    assert steps[-1].lr == pytest.approx(3e-3 / 3.5)  # one step before the end, cooling over half of seven


def test_only_dropped_labels_train_the_null_row(tiny: Make, stripes: Tensor) -> None:
    def change_of_null(dropout: float) -> float:
        backbone = tiny(labels=("a", "b"))
        table = backbone.network.label_emb.weight
        before = table.detach().clone()
        settings = replace(SETTINGS, label_dropout=dropout, weight_decay=0.0)
        list(pretrain(backbone, stripes, torch.arange(8) % 2, settings))
        assert not torch.equal(table[:2], before[:2])
        return float((table[2] - before[2]).abs().max())

    assert change_of_null(0.0) == 0.0
    assert change_of_null(0.5) > 0.0


def test_seed_decides(tiny: Make, stripes: Tensor) -> None:
    digests = []
    for seed in (0, 0, 1):
        torch.rand(seed + len(digests))  # the global generator has no say
        backbone = tiny()
        digests.append(digest_after(backbone, pretrain(backbone, stripes, None, replace(SETTINGS, seed=seed))))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("change", [{"lr": 1e-2}, {"seed": 1}, {"augmentation": Augmentation()}, {"optimiser": "muon"}])
def test_another_runs_checkpoint_is_refused(
    change: dict[str, Any], tiny: Make, stripes: Tensor, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    list(pretrain(tiny(), stripes, None, SETTINGS, checkpoint=checkpoint))
    with pytest.raises(SettingsError, match=rf"made with other settings \({next(iter(change))} .*remove it"):
        next(pretrain(tiny(), stripes, None, replace(SETTINGS, steps=9, **change), checkpoint=checkpoint))


def test_a_finished_run_can_be_extended_and_not_shortened(tiny: Make, stripes: Tensor, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    list(pretrain(tiny(), stripes, None, SETTINGS, checkpoint=checkpoint))
    steps = list(pretrain(tiny(), stripes, None, replace(SETTINGS, steps=9), checkpoint=checkpoint))
    assert [step.step for step in steps] == [8, 9]
    with pytest.raises(SettingsError, match="holds 9 steps, 7 are asked for; ask for at least 9"):
        next(pretrain(tiny(), stripes, None, SETTINGS, checkpoint=checkpoint))


def test_another_networks_checkpoint_is_refused(tiny: Make, stripes: Tensor, tmp_path: Path) -> None:
    checkpoint, labels = tmp_path / "checkpoint.safetensors", torch.zeros(8).long()
    list(pretrain(tiny(labels=("a", "b")), stripes, labels, SETTINGS, checkpoint=checkpoint))
    for other, given in ((tiny(), None), (tiny(labels=("a", "b", "c")), labels)):
        with pytest.raises(SettingsError, match="is of another network; remove it"):
            next(pretrain(other, stripes, given, SETTINGS, checkpoint=checkpoint))


@pytest.mark.parametrize("damage", [lambda data: data[:-10], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_a_damaged_checkpoint_is_noticed(
    damage: Callable[[bytes], bytes], tiny: Make, stripes: Tensor, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    list(pretrain(tiny(), stripes, None, SETTINGS, checkpoint=checkpoint))
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    with pytest.raises(CorruptError, match=r"checkpoint\.safetensors: .* remove it to begin again"):
        next(pretrain(tiny(), stripes, None, SETTINGS, checkpoint=checkpoint))


@pytest.mark.parametrize(("labels", "given"), [((), True), (("a", "b"), False)])
def test_labels_are_needed_exactly_where_the_backbone_has_them(
    labels: tuple[str, ...], given: bool, tiny: Make, stripes: Tensor
) -> None:
    with pytest.raises(SettingsError, match="labels are needed"):
        next(pretrain(tiny(labels=labels), stripes, torch.zeros(8).long() if given else None, SETTINGS))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"batch": 2**40}, "batch is 1099511627776"),
        ({"variants": 0}, "variants is 0"),
        ({"label_dropout": 1.0}, "label_dropout"),
        ({"ema": 1.0}, "ema"),
        ({"cooldown": 0.0}, "cooldown"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"clip": float("nan")}, "clip is nan"),
    ],
)
def test_senseless_settings_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        replace(SETTINGS, **change)


def test_unknown_optimiser_and_precision() -> None:
    with pytest.raises(UnknownName, match="did you mean 'adamw'"):
        replace(SETTINGS, optimiser="adam")
    with pytest.raises(SettingsError, match="precision 'half': expected auto"):
        replace(SETTINGS, precision="half")


# x_t = alpha x0 + sigma eps, v = alpha eps - sigma x0 (science.md section 1)
def test_noised_mixes_and_targets() -> None:
    x0, eps = keyed_normal((2, 1, 2, 2), "x0"), keyed_normal((2, 1, 2, 2), "eps")
    t = torch.tensor([0.0, 0.25])
    alpha, sigma = (c(t)[:, None, None, None] for c in (Cosine().alpha, Cosine().sigma))
    targets = {}
    for prediction in PREDICTIONS:
        x_t, targets[prediction] = noised(x0, t, eps, Cosine(), prediction) if prediction != "score" else (None, eps)
        if x_t is not None:
            torch.testing.assert_close(x_t, alpha * x0 + sigma * eps)
    torch.testing.assert_close(targets["v"], alpha * eps - sigma * x0)
    assert torch.equal(targets["eps"], eps)
    assert torch.equal(targets["x0"], x0)


AUTOENCODER = AutoencoderConfig(image_size=8, channels=1, latent_channels=2, widths=(8, 16), finish=4)
ROUGH = replace(SETTINGS, steps=60, batch=8, lr=5e-3, augmentation=Augmentation(share=0.5))


def autoencoder(seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    return Autoencoder(AUTOENCODER)


@pytest.fixture
def blobs() -> Tensor:
    """(16, 1, 8, 8) in [-1, 1]: smooth, each its own."""
    coarse = keyed_normal((16, 1, 2, 2), "blobs").clamp(-1, 1)
    return torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")


def test_the_autoencoder_learns_and_is_normalised(blobs: Tensor) -> None:
    module = autoencoder()
    with torch.no_grad():
        before = (module.decode(module.encode(blobs)) - blobs).square().mean()
    losses = [step.loss for step in pretrain_autoencoder(module, blobs, ROUGH)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    with torch.no_grad():
        latents = module.encode(blobs)
        assert (module.decode(latents) - blobs).square().mean() < 0.5 * before
    assert latents.shape == (16, 2, 2, 2)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(2))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_autoencoder_resumes(precision: str, blobs: Tensor, tmp_path: Path) -> None:
    settings, checkpoint = replace(ROUGH, steps=7, precision=precision), tmp_path / "checkpoint.safetensors"
    whole, resumed = autoencoder(), autoencoder(seed=1)
    list(pretrain_autoencoder(whole, blobs, settings))
    list(itertools.islice(pretrain_autoencoder(autoencoder(), blobs, settings, checkpoint=checkpoint, save_every=2), 5))
    assert len(list(pretrain_autoencoder(resumed, blobs, settings, checkpoint=checkpoint))) == 3
    for name, expected in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], expected), name


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_is_saved(
    tiny: Make, stripes: Tensor, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "network.safetensors"
    steps = pretrain(tiny(), stripes, None, replace(SETTINGS, lr=1e30, warmup=0), checkpoint=checkpoint, save_every=1)
    with pytest.raises(SettingsError, match=r"the loss of step \d is (nan|inf); the learning rate 1e\+30 may be too"):
        for _ in steps:
            pass
    assert checkpoint.exists()
