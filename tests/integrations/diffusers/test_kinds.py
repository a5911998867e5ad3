"""Every class of models that can be composed, in its own pipeline, against models with the changes merged."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("diffusers")

import diffusers

from intarsia.errors import IncompatibleError
from intarsia.integrations.diffusers import fit_router
from intarsia.integrations.diffusers.latents import unpacked
from intarsia.integrations.diffusers.parts import gaussian_bank

from .test_parts import pictures
from .tiny import Average, compose, lora_tensors, vae

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def randn(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pixels() -> Any:
    model = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return diffusers.DDPMPipeline(model, diffusers.DDPMScheduler()), {"batch_size": 2}


def dit() -> Any:
    model = diffusers.DiTTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        in_channels=4,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
    )
    pipe = diffusers.DiTPipeline(model, vae(), diffusers.DDIMScheduler(clip_sample=False))
    return pipe, {"class_labels": [3, 5], "guidance_scale": 3.0}


def pixart() -> Any:
    model = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        in_channels=4,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
    )
    pipe = diffusers.PixArtAlphaPipeline(None, None, vae(), model, diffusers.DPMSolverMultistepScheduler())
    prompts = {"prompt_embeds": randn(2, 5, 16), "prompt_attention_mask": torch.ones(2, 5)}
    null = {"negative_prompt_embeds": randn(2, 5, 16, seed=4), "negative_prompt_attention_mask": torch.ones(2, 5)}
    more = {"negative_prompt": None, "use_resolution_binning": False, "guidance_scale": 3.0}
    return pipe, prompts | null | more | {"height": 16, "width": 16}


def sd3() -> Any:
    model = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        caption_projection_dim=16,
        joint_attention_dim=16,
        pooled_projection_dim=16,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = diffusers.StableDiffusion3Pipeline(model, scheduler, vae(), *[None] * 6)
    prompts = {"prompt_embeds": randn(2, 5, 16), "pooled_prompt_embeds": randn(2, 16)}
    null = {"negative_prompt_embeds": randn(2, 5, 16, seed=4), "negative_pooled_prompt_embeds": randn(2, 16, seed=4)}
    return pipe, prompts | null | {"height": 16, "width": 16, "guidance_scale": 3.0}


def flux() -> Any:
    model = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(2, 2, 4),
    )
    pipe = diffusers.FluxPipeline(diffusers.FlowMatchEulerDiscreteScheduler(), vae(), *[None] * 4, model)
    prompts = {"prompt_embeds": randn(2, 2, 16), "pooled_prompt_embeds": randn(2, 16)}
    null = {"negative_prompt_embeds": randn(2, 2, 16, seed=4), "negative_pooled_prompt_embeds": randn(2, 16, seed=4)}
    return pipe, prompts | null | {"height": 16, "width": 16, "true_cfg_scale": 3.0}


def flux_control() -> Any:
    """Its model sees an image beside the noisy latents, in each token."""
    pipe, arguments = flux()
    model = type(pipe.transformer).from_config(pipe.transformer.config, in_channels=32, out_channels=16)
    controlled = diffusers.FluxControlPipeline(pipe.scheduler, pipe.vae, *[None] * 4, model)
    prompts = {name: arguments[name] for name in ("prompt_embeds", "pooled_prompt_embeds", "height", "width")}
    return controlled, prompts | {"control_image": Image.new("RGB", (16, 16), "red")}


KINDS = (pixels, dit, pixart, sd3, flux, flux_control)


def draw(pipe: Any, arguments: dict[str, Any]) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    pipe.set_progress_bar_config(disable=True)
    drawn = pipe(generator=generators, num_inference_steps=4, output_type="np", **arguments).images
    return torch.as_tensor(drawn)


def merged(model: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A copy with the changes in its weights, as a LoRA of scale 1 means them."""
    model = copy.deepcopy(model)
    for name in {key.rpartition(".lora_")[0] for key in tensors}:
        down, up = (tensors[f"{name}.lora_{side}.weight"] for side in "AB")
        weight = model.get_submodule(name).weight
        weight.data += (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    return model


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_one_member_and_the_mean_of_two(make: Callable[[], Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    pipe, arguments = make()
    component = "unet" if hasattr(pipe, "unet") else "transformer"
    model = getattr(pipe, component).eval()
    for parameter in model.parameters():  # some of theirs start as zeros, behind which no change is seen
        torch.nn.init.normal_(parameter, std=0.2)
    untouched, sources, models = draw(pipe, arguments), {}, []
    for seed, name in enumerate("ab"):
        tensors = lora_tensors(model, seed)
        save_file({f"{component}.{key}": tensor for key, tensor in tensors.items()}, tmp_path / f"{name}.safetensors")
        sources[name] = tmp_path / f"{name}.safetensors"
        models.append(merged(model, tensors))

    def by_hand(stand_in: Any) -> torch.Tensor:
        setattr(pipe, component, stand_in)
        return draw(pipe, arguments)

    one, mean = by_hand(models[0]), by_hand(Average(models, (0.5, 0.5)))
    setattr(pipe, component, model)
    composed = compose(pipe, {"a": sources["a"]})
    torch.testing.assert_close(draw(pipe, arguments), one, rtol=1e-5, atol=1e-5)
    assert (one - untouched).abs().max() > 1e-3
    setattr(pipe, component, composed.release())
    for most_rows in (0, 64):
        composed = compose(pipe, sources, routing="full", most_rows=most_rows)
        torch.testing.assert_close(draw(pipe, arguments), mean, rtol=1e-5, atol=1e-5)
        setattr(pipe, component, composed.release())
    composed = compose(pipe, sources, routing="random")
    draw(pipe, arguments)
    weights, images = composed.realised.weights, torch.tensor(composed.realised.images)
    assert torch.equal(images.unique(), torch.arange(2))
    branches = weights.unflatten(0, (4, -1)).transpose(1, 2).flatten(1, 1)  # (steps, rows, calls per step, n)
    for image in range(2):  # one lot per image and step, whether its branches come in one call or in two
        lots = branches[:, images == image].flatten(1, 2)
        assert torch.equal(lots, lots[:, :1].expand_as(lots))


@pytest.mark.parametrize("make", [sd3, flux, flux_control], ids=lambda make: make.__name__)
def test_flow_models_are_weighed_at_the_noise_level_they_see(make: Callable[[], Any], tmp_path: Path) -> None:
    """x_t = (1 - s) x0 + s eps; SD3 is told 1000 s and sees latents, Flux s and tokens."""
    torch.manual_seed(0)
    pipe, arguments = make()
    model, places = pipe.transformer, {}
    for seed, name in enumerate("ab"):
        tensors = lora_tensors(model, seed)
        places[name] = tmp_path / f"{name}.safetensors"
        save_file({f"transformer.{key}": tensor for key, tensor in tensors.items()}, places[name])
        fit_router(pipe, pictures(tmp_path, name, 12), places[name], size=16)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((kwargs["hidden_states"], kwargs["timestep"])), with_kwargs=True
    )
    composed = compose(pipe, places, weights="gaussian", routing="full", most_rows=0)
    draw(pipe, arguments)
    bank = gaussian_bank([composed.composition.parts[name] for name in "ab"])
    weights = composed.realised.weights
    for (x_t, timestep), realised in zip(seen[::2], weights, strict=True):
        s = timestep.double() / 1000 if make is sd3 else timestep.double()
        latents = x_t if make is sd3 else unpacked(x_t[..., :16], (4, 8, 8), (4, 4))
        expected = bank.log_density(latents, 1 - s, s).softmax(1).double()
        torch.testing.assert_close(realised, expected, rtol=1e-3, atol=1e-5)
    assert weights[-1].amax() > 0.9


def test_ito_follows_the_stochastic_steps_of_flow_matching(tmp_path: Path) -> None:
    """x_s = (1 - s) x0_hat + s z, by hand: logits -= ||x_s - (1 - s) (x_t - t v_i)||^2 / 2 s^2."""
    pipe, arguments = sd3()
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    for seed, name in enumerate("ab"):  # near each other, so that the weights stay open
        tensors = lora_tensors(pipe.transformer, seed, size=0.07)
        save_file({f"transformer.{key}": each for key, each in tensors.items()}, tmp_path / f"{name}.safetensors")
    seen: list[Any] = []
    pipe.transformer.register_forward_hook(
        lambda module, args, kwargs, out: seen.append((kwargs["hidden_states"], kwargs["timestep"], out[0])),
        with_kwargs=True,
    )
    places = {name: tmp_path / f"{name}.safetensors" for name in "ab"}
    composed = compose(pipe, places, weights="ito", routing="full", most_rows=0)
    draw(pipe, arguments | {"guidance_scale": 1.0})
    weights = composed.realised.weights
    assert torch.equal(weights[0], torch.full_like(weights[0], 0.5))
    calls = [seen[k : k + 2] for k in range(0, len(seen), 2)]
    for k, (step, following) in enumerate(itertools.pairwise(calls)):
        (x_t, t, _), (x_s, s, _) = step[0], following[0]
        t, s = t.double()[:, None, None, None] / 1000, s.double()[:, None, None, None] / 1000
        logits = weights[k].log()
        for i, (_, _, velocity) in enumerate(step):
            mean = (1 - s) * (x_t.double() - t * velocity.double())
            logits[:, i] -= (x_s.double() - mean).square().sum((1, 2, 3)) / (2 * s.flatten() ** 2)
        torch.testing.assert_close(weights[k + 1], logits.softmax(1), rtol=1e-3, atol=1e-4)
    assert (weights[-1] - 0.5).abs().min() > 0.01
    assert weights[-1].max() < 0.999


@pytest.mark.parametrize(
    ("layer", "out", "inner"), [("single_blocks_0_linear1", 7 * 16, 16), ("double_blocks_0_img_attn_qkv", 16, 16)]
)
def test_kohyas_files_for_a_flux_of_another_width_are_refused(layer: str, out: int, inner: int, tmp_path: Path) -> None:
    """diffusers converts their names by the widths it expects, and asserts."""
    tensors = {"lora_down.weight": randn(2, inner), "lora_up.weight": randn(out, 2), "alpha": torch.tensor(1.0)}
    save_file({f"lora_unet_{layer}.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "a.safetensors")
    with pytest.raises(IncompatibleError, match=r"'a' .*; use (a file for this base model|one that was trained on)"):
        compose(flux()[0], {"a": tmp_path / "a.safetensors"})
