from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from intarsia.backbone import Backbone
from intarsia.backbone.compact import pack, round_to_codes, unpack
from intarsia.diffusion import keyed_normal
from intarsia.files import load_tensors, tensors_to_bytes

Make = Callable[..., Backbone]


def rounded(weight: Tensor) -> Tensor:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight = nn.Parameter(weight.clone())
    round_to_codes(module)
    return module.weight.detach()


@pytest.fixture
def weight() -> Tensor:
    """Rows of all sizes, (100, 64)."""
    return keyed_normal((100, 64), "weight") * torch.logspace(-12, 12, 100)[:, None]


def test_rounding_is_within_half_a_level_of_the_row(weight: Tensor) -> None:
    allowed = weight.abs().amax(1, keepdim=True) / 254 * 1.001
    assert ((rounded(weight) - weight).abs() <= allowed).all()
    assert not torch.equal(rounded(weight), weight)


def test_rounding_twice_is_rounding_once(weight: Tensor) -> None:
    assert torch.equal(rounded(rounded(weight)), rounded(weight))


def test_what_was_rounded_packs_into_a_byte_each(weight: Tensor) -> None:
    packed = pack({"w": rounded(weight)})
    assert {name: t.dtype for name, t in packed.items()} == {"w.int8": torch.int8, "w.scale": torch.float32}
    assert torch.equal(unpack(packed)["w"], rounded(weight))


@pytest.mark.parametrize("shape", [(64, 64), (16, 8, 3, 3), (31, 33), (1024,), (4, 4)])
def test_packing_loses_nothing(shape: tuple[int, ...]) -> None:
    """What was never rounded is kept as it is, and so is what is too small or no matrix."""
    tensors = {"w": keyed_normal(shape, "w"), "b": torch.zeros(3)}
    assert list(pack(tensors)) == ["w", "b"]
    torch.testing.assert_close(unpack(pack(tensors)), tensors, rtol=0, atol=0)


def test_zeros_pack() -> None:
    packed = pack({"w": torch.zeros(64, 64)})
    assert torch.equal(unpack(packed)["w"], torch.zeros(64, 64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_become_float32_and_integers_stay(dtype: torch.dtype) -> None:
    found = unpack({"w": torch.ones(2, 2, dtype=dtype), "n": torch.tensor(3)})
    assert {name: t.dtype for name, t in found.items()} == {"w": torch.float32, "n": torch.int64}


def test_a_compact_backbone_is_small_close_and_stored_without_loss(tiny: Make, tmp_path: Path) -> None:
    backbone = tiny(latent=True)
    compact = backbone.compact()
    compact.save(tmp_path)
    again = Backbone.load(tmp_path)
    assert again.digest == compact.digest != backbone.digest
    x_t, t = keyed_normal((2, 2, 4, 4), "x"), torch.tensor([0.3, 0.6])
    assert torch.equal(again.x0_hat(x_t, t), compact.x0_hat(x_t, t))
    torch.testing.assert_close(compact.x0_hat(x_t, t), backbone.x0_hat(x_t, t), atol=0.02, rtol=0.02)
    stored = load_tensors(tmp_path / "network.safetensors")
    coded = {name.removesuffix(".int8") for name in stored if name.endswith(".int8")}
    assert coded == {n for n, p in compact.network.named_parameters() if p.ndim >= 2 and p.numel() >= 1024}
    assert coded
    assert len(tensors_to_bytes(stored)) < len(tensors_to_bytes(compact.network.state_dict()))


def test_making_a_backbone_compact_leaves_it_alone(tiny: Make) -> None:
    backbone, untouched = tiny(), tiny()
    before = backbone.digest
    compact = backbone.compact()
    assert backbone.digest == before == untouched.digest
    assert tensors_to_bytes(backbone.network.state_dict()) == tensors_to_bytes(untouched.network.state_dict())
    assert not any(p.requires_grad for p in compact.network.parameters())
