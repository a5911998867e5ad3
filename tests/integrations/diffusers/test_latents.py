"""The autoencoder of a pipeline in half precision or offloaded: what is encoded, decoded and weighed is a number."""

from __future__ import annotations

import copy
import types
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")

import diffusers

from intarsia.errors import IncompatibleError
from intarsia.integrations.diffusers import compose
from intarsia.integrations.diffusers.latents import decode, encode, space_of

from .test_parts import routed  # noqa: F401 - a fixture
from .tiny import draw

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs


def overflowing(vae: Any) -> Any:
    """An autoencoder beyond the range of float16 within, as SDXL's is, and within it where it begins and ends."""
    half = copy.deepcopy(vae)
    for convolution in (half.encoder.conv_in, half.decoder.conv_in):
        convolution.weight.data *= 2e5
        convolution.bias.data *= 2e5
    return half.half()


def test_an_autoencoder_that_overflows_in_half_precision_is_upcast_for_the_call(loaded: Any) -> None:
    half = overflowing(loaded.vae)
    full, pixels = copy.deepcopy(half).float(), torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16)
    before = copy.deepcopy(half.state_dict())
    latents = encode(types.SimpleNamespace(vae=full), pixels)
    images = decode(types.SimpleNamespace(vae=full), latents)
    for forced in (True, False):
        half.register_to_config(force_upcast=forced)
        pipe = types.SimpleNamespace(vae=half)
        found = encode(pipe, pixels), decode(pipe, latents)
        assert [bool(one.isfinite().all()) for one in found] == [forced, forced]
        if forced:
            torch.testing.assert_close(found, (latents, images))
        assert half.dtype == torch.float16
        assert all(torch.equal(tensor, before[name]) for name, tensor in half.state_dict().items())


def test_an_offloaded_autoencoder_is_given_latents_where_it_runs() -> None:
    given: list[torch.Tensor] = []

    def look(latents: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        given.append(latents)
        return (torch.zeros(1, 3, 16, 16),)

    config = types.SimpleNamespace(get=lambda *_: None, scaling_factor=1.0)
    rests = {"device": torch.device("cpu"), "dtype": torch.float32, "config": config, "decode": look}
    runs = torch.device("meta")
    decode(types.SimpleNamespace(vae=types.SimpleNamespace(**rests, _hf_hook=None), _execution_device=runs), LATENTS)
    decode(types.SimpleNamespace(vae=types.SimpleNamespace(**rests), _execution_device=runs), LATENTS)
    assert [one.device.type for one in given] == ["meta", "cpu"]


LATENTS = torch.zeros(1, 4, 8, 8)


def test_evidence_that_is_no_number_is_refused(pipe: Any, routed: dict[str, Path]) -> None:  # noqa: F811
    compose(pipe, routed, weights="prototype")

    def overflow(module: Any, args: Any, output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (output[0] / 0,)

    pipe.unet.base.register_forward_hook(overflow)
    with pytest.raises(
        IncompatibleError, match=r"prototype weights found what are no numbers at timestep \d+; .* float32"
    ):
        draw(pipe)


def test_latents_are_standardised_channel_by_channel_where_the_autoencoder_says_so(loaded: Any) -> None:
    """As in diffusers' own image-to-image, of which only the random draw and the noise are left out."""
    vae = copy.deepcopy(loaded.vae)
    vae.register_to_config(latents_mean=[1.0, 2.0, 3.0, 4.0], latents_std=[2.0, 3.0, 4.0, 5.0])
    pixels = torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16)
    pipe = diffusers.StableDiffusionXLImg2ImgPipeline(vae, None, None, None, None, loaded.unet, loaded.scheduler)
    theirs = pipe.prepare_latents(
        pixels, None, 1, 1, torch.float32, torch.device("cpu"), torch.Generator().manual_seed(0), add_noise=False
    )
    found = encode(pipe, pixels)
    torch.testing.assert_close(
        found, theirs, atol=1e-4, rtol=1e-4
    )  # the draw is from a density that is all but its mode
    plain = encode(types.SimpleNamespace(vae=loaded.vae), pixels)
    torch.testing.assert_close(decode(pipe, found), decode(types.SimpleNamespace(vae=loaded.vae), plain))


def test_an_autoencoder_of_a_codebook_is_seen_under_its_own_name() -> None:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    coded = diffusers.VQModel(block_out_channels=(4, 8), latent_channels=3, norm_num_groups=2, **blocks)
    pipe = types.SimpleNamespace(vqvae=coded)
    pixels = torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16)
    latents = encode(pipe, pixels)
    with torch.no_grad():
        torch.testing.assert_close(latents, coded.encode(pixels).latents * coded.config.scaling_factor)
        torch.testing.assert_close(decode(pipe, latents), coded.decode(coded.encode(pixels).latents)[0])
    assert space_of(pipe) not in (None, space_of(types.SimpleNamespace()))
    with pytest.raises(IncompatibleError, match="movq, is not read here"):
        encode(types.SimpleNamespace(movq=coded), pixels)
