"""The autoencoder of a pipeline in half precision or offloaded: what is encoded, decoded and weighed is a number."""

from __future__ import annotations

import copy
import types
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")

from intarsia.errors import IncompatibleError
from intarsia.integrations.diffusers import compose
from intarsia.integrations.diffusers.latents import decode, encode

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
