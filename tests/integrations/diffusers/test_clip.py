"""The paper's text-to-image router: centroids of CLIP features, and the features of each step's decoded x0_hat."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")

from diffusers import StableDiffusionImg2ImgPipeline
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from intarsia.errors import IncompatibleError, InputError, SettingsError
from intarsia.integrations.diffusers import compose, fit_router, load_composition

from .test_parts import Seen, pictures
from .tiny import draw, with_unet

MEAN, STD = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])


def clip(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPVisionConfig(**sizes, image_size=8, patch_size=4, projection_dim=12)
    CLIPVisionModelWithProjection(config).save_pretrained(folder / f"clip{seed}")
    return folder / f"clip{seed}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("clip"), 0)


@pytest.fixture(scope="module")
def sighted(
    loaded: Any, loras: dict[str, Path], model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The LoRA folders, with centroids; of such a radius that a random CLIP's features leave the weights open."""
    images, out = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("sighted")
    for name in "ab":
        shutil.copytree(loras[name], out / name)
        parts = fit_router(loaded, pictures(images, name, 20), out / name, clip=model, rank=8)
        wide = {"clip.radius": torch.tensor(0.1 if name == "a" else 0.2)}
        dataclasses.replace(parts, tensors={**parts.tensors, **wide}).save(out / name)
    return {name: out / name for name in "ab"}


def test_weights_are_distances_of_what_clip_sees(
    pipe: Any, sighted: dict[str, Path], with_lora: dict[str, Any], model: Path
) -> None:
    seen = Seen(pipe.unet)
    composed = compose(pipe, sighted, weights="clip", clip=model, routing="full", most_rows=0)
    start = torch.linspace(0.8, 0.15, 16)[None, None, :, None].expand(1, 3, 16, 16)
    images = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    images.set_progress_bar_config(disable=True)
    draw(images, seeds=[3], image=start, strength=0.1, steps=30, scale=1.0)
    assert composed.realised.weights[0, 0].tolist() == [0.5, 0.5]  # nothing is seen yet but the prior

    (x_t, n), looks = seen.calls[0], CLIPVisionModelWithProjection.from_pretrained(model).eval()
    with torch.no_grad():
        prompt = pipe.encode_prompt(["a red apple"], "cpu", 1, False)[0]
        eps = sum(with_lora[name](x_t, n, prompt)[0] for name in "ab") / 2
        kept = pipe.scheduler.alphas_cumprod[int(n)]
        x0_hat = (x_t - (1 - kept).sqrt() * eps) / kept.sqrt()
        decoded = pipe.vae.decode(x0_hat / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)
        small = F.interpolate(decoded, (8, 8), mode="bicubic", antialias=True).clamp(-1, 1)
        pixels = ((small + 1) / 2 - MEAN[:, None, None]) / STD[:, None, None]
        features = F.normalize(looks(pixels).image_embeds, dim=1)
    parts = [composed.composition.parts[name].of("clip") for name in "ab"]
    radius = torch.stack([part["radius"] for part in parts]).mean()
    nearest = torch.stack([torch.cdist(features, part["centroids"]).square().min() for part in parts])
    expected = (-nearest / (radius / 2)).softmax(0).double()
    assert 0.05 < expected[0] < 0.95
    torch.testing.assert_close(composed.realised.weights[1, 0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.integration
def test_a_saved_composition_needs_its_eyes_again(
    pipe: Any, sighted: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    composed = compose(pipe, sighted, weights="clip", clip=model)
    expected = draw(pipe)
    composed.save_pretrained(tmp_path / "saved", with_base=False)
    pipe.unet = composed.release()
    with pytest.raises(SettingsError, match="give clip="):
        load_composition(pipe, tmp_path / "saved")
    load_composition(pipe, tmp_path / "saved", clip=model)
    torch.testing.assert_close(draw(pipe), expected)


def test_a_saved_composition_that_does_not_look_takes_no_eyes(
    pipe: Any, sighted: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    compose(pipe, sighted).save_pretrained(tmp_path / "saved", with_base=False)
    pipe.unet = pipe.unet.release()
    with pytest.raises(SettingsError, match="found weights 'gaussian'; leave it out"):
        load_composition(pipe, tmp_path / "saved", clip=model)


def test_what_cannot_look(loaded: Any, pipe: Any, sighted: dict[str, Path], model: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="give clip="):
        compose(pipe, sighted, weights="clip")
    with pytest.raises(SettingsError, match="found weights 'gaussian'; leave it out"):
        compose(pipe, sighted, clip=model)
    with pytest.raises(InputError, match="no CLIP image model at"):
        compose(pipe, sighted, weights="clip", clip=tmp_path)
    CLIPVisionModelWithProjection.from_pretrained(model).vision_model.save_pretrained(tmp_path / "half")
    with pytest.raises(InputError, match=r"lacks visual_projection\.weight"):
        compose(pipe, sighted, weights="clip", clip=tmp_path / "half")
    with pytest.raises(IncompatibleError, match="centroids are of another CLIP model"):
        compose(pipe, sighted, weights="clip", clip=clip(tmp_path, 1))
    for name in "ab":
        shutil.copytree(sighted[name], tmp_path / name)
        fit_router(loaded, pictures(tmp_path / name, "own", 3), tmp_path / name, rank=8)
    with pytest.raises(IncompatibleError, match=r"has no CLIP centroids; fit them with fit_router"):
        compose(with_unet(loaded, pipe.unet), {name: tmp_path / name for name in "ab"}, weights="clip", clip=model)
