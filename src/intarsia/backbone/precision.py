"""Which number format the matrix products run in, chosen at run time, and master parameters in float32 beside it.

bf16 products are several times faster than float32 where the processor has instructions for them (AMX, AVX-512 BF16,
any recent GPU) and slower where it has not. Softmax, norms and losses reduce in float32 either way.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from intarsia.errors import SettingsError

PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def fastest_precision(device: str | torch.device = "cpu") -> str:
    """The faster of `PRECISIONS` on this device, by what the processor says of itself: the same answer on every run."""
    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    able = torch.cpu.get_capabilities()
    return "bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"


def resolve_precision(name: str, device: str | torch.device = "cpu") -> str:
    """`auto` becomes the fastest precision; anything else must be a known one."""
    if name == "auto":
        return fastest_precision(device)
    if name not in PRECISIONS:
        raise SettingsError(f"precision '{name}': expected auto, {' or '.join(PRECISIONS)}")
    return name


class MasterParams:
    """Float32 parameters that an optimiser steps, and a working copy of the module in the precision of the products.

    `working` runs forward and backward; `pull` brings its gradients to the masters, `push` brings stepped masters back
    and clears their gradients, which would pile up in float32, where both are one.
    """

    def __init__(self, module: nn.Module, precision: str):
        self.module = module
        dtype = PRECISIONS[precision]
        self.working = module if dtype == torch.float32 else copy.deepcopy(module).to(dtype)
        self._masters: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
        self._working: list[Tensor] = [p for p in self.working.parameters() if p.requires_grad]

    @torch.no_grad()
    def push(self) -> None:
        for master in self._masters:
            master.grad = None
        if self.working is not self.module:
            torch._foreach_copy_(self._working, self._masters)

    @torch.no_grad()
    def pull(self, clip: float) -> Tensor:
        """Move gradients to the masters, clipped to a global norm; returns the norm before clipping."""
        for master, working in zip(self._masters, self._working, strict=True):
            gradient = working.grad
            working.grad = None
            master.grad = None if gradient is None else gradient.float()
        return nn.utils.clip_grad_norm_(self._masters, clip)
