"""Parameters in one byte each, for backbones that ship: matrices as int8 with one scale per row, the rest in float32.

A backbone is made compact once, after its training; from then on its parameters are of this form, storing them loses
nothing, and their digests are those of what is loaded. The rounding is a two-hundredth of a row's largest weight at
most.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

LEVELS = 127
CODES, SCALES = ".int8", ".scale"
_SMALLEST = 1024  # tensors of fewer numbers are not worth it


def _coded(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes of the shape of `tensor` (R, ...) and one float32 scale per row (R,)."""
    rows = tensor.float().flatten(1)
    scale = rows.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / LEVELS
    codes = (rows / scale[:, None]).round().clamp(-LEVELS, LEVELS).to(torch.int8)
    return codes.reshape(tensor.shape), scale


def _decoded(codes: Tensor, scale: Tensor) -> Tensor:
    return codes.float() * scale.reshape(-1, *[1] * (codes.ndim - 1))


def _worth_it(tensor: Tensor) -> bool:
    return tensor.ndim >= 2 and tensor.numel() >= _SMALLEST and tensor.is_floating_point()


@torch.no_grad()
def round_to_codes(module: torch.nn.Module) -> None:
    """Round the parameters of a module to numbers that one byte and a row's scale can say."""
    for p in module.parameters():
        if _worth_it(p):
            p.copy_(_decoded(*_coded(p)))


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace what `round_to_codes` rounded by codes and scales; anything that would lose by it stays as it is."""
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _worth_it(tensor):
            codes, scale = _coded(tensor)
            if torch.equal(_decoded(codes, scale), tensor):
                packed |= {name + CODES: codes, name + SCALES: scale}
                continue
        packed[name] = tensor
    return packed


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `pack` was given, in float32."""
    plain = {
        name: t.float() if t.is_floating_point() else t
        for name, t in tensors.items()
        if not name.endswith((CODES, SCALES))
    }
    coded = [name.removesuffix(CODES) for name in tensors if name.endswith(CODES)]
    return plain | {name: _decoded(tensors[name + CODES], tensors[name + SCALES]) for name in coded}
