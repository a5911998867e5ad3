"""Optimisers for pre-training, their state as plain tensors, and the learning-rate schedule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from intarsia.errors import CorruptError, UnknownName

OPTIMISERS = ("adamw", "muon")


def build_optimisers(name: str, module: nn.Module, *, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """The optimiser, or the pair of them, that trains `module`.

    `muon` (Jordan et al. 2024) orthogonalises the updates of the matrices inside the blocks and leaves the rest to
    AdamW.
    """
    if name not in OPTIMISERS:
        raise UnknownName("optimiser", name, OPTIMISERS)
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for path, p in module.named_parameters():
        inside = "blocks." in path or path.startswith("mid_block.")
        (matrices if name == "muon" and p.ndim == 2 and inside else rest).append(p)
    optimisers: list[torch.optim.Optimizer] = []
    if matrices:
        muon = torch.optim.Muon(
            matrices, lr=lr, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        optimisers.append(muon)
    optimisers.append(torch.optim.AdamW(rest, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99)))
    return optimisers


def set_lr(optimisers: Sequence[torch.optim.Optimizer], lr: float) -> None:
    """Give every parameter of the optimisers this learning rate."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = lr


def trapezoid(step: int, steps: int, *, warmup: int, cooldown: float) -> float:
    """Factor on the learning rate: linear up over `warmup` steps, flat, linear down over the last `cooldown` share."""
    down = (steps - step) / max(1.0, cooldown * steps)
    return min(1.0, (step + 1) / max(1, warmup), down)


def optimiser_tensors(optimisers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The state of optimisers by name, ready for safetensors."""
    tensors: dict[str, Tensor] = {}
    for number, optimiser in enumerate(optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    return tensors


def restore_optimisers(optimisers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` took out.

    Raises:
        CorruptError: the state is of other optimisers.
    """
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimisers]
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimiser":
            number, index, key = rest.split(".", 2)
            states[int(number)].setdefault(int(index), {})[key] = tensor
    for optimiser, state in zip(optimisers, states, strict=True):
        whole = optimiser.state_dict()
        if len(state) != sum(len(group["params"]) for group in whole["param_groups"]):
            raise CorruptError("the optimiser state of this checkpoint does not fit the model; start again without it")
        optimiser.load_state_dict(whole | {"state": state})
