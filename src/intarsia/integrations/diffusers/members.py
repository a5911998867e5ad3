"""The members of a composition of diffusers models: low-rank changes of the shared model, or whole models.

Nothing is written into the shared model. A member's low-rank changes are added by hooks on its layers, and only during
the call that asks for them: which rows belong to whom travels in a context variable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.errors import IncompatibleError
from intarsia.integrations.diffusers.arguments import Model


@dataclass(frozen=True)
class LowRank:
    """scale * up(down(x)), beside a linear layer or a convolution.

    `down` is (r, in) or (r, in, kh, kw), `up` (out, r) or (out, r, 1, 1).
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0


class LoraMember(nn.Module):
    """What one LoRA file adds, by the name of the layer it stands beside; nothing at all if there are no layers."""

    def __init__(self, name: str, layers: Mapping[str, LowRank]):
        super().__init__()
        self.name = name
        self.scales = {layer: low_rank.scale for layer, low_rank in layers.items()}
        for layer, low_rank in layers.items():
            for part in ("down", "up"):
                self.register_buffer(_buffer(layer, part), getattr(low_rank, part).detach().clone())

    @property
    def layers(self) -> dict[str, LowRank]:
        """All of them."""
        return {layer: low_rank for layer in self.scales if (low_rank := self.low_rank(layer)) is not None}

    def low_rank(self, layer: str) -> LowRank | None:
        """What stands beside a layer."""
        if layer not in self.scales:
            return None
        down, up = (self.get_buffer(_buffer(layer, part)) for part in ("down", "up"))
        return LowRank(down, up, self.scales[layer])

    # Hu et al. 2021 (LoRA): W x + scale B A x
    def delta(self, layer: str, module: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor | None:
        """What it adds to the layer's answer to x (B, ...)."""
        found = self.low_rank(layer)
        if found is None:
            return None
        # Where the shared model is offloaded layer by layer, only its own tensors follow the image.
        x, down, up = x.to(found.down.dtype), found.down.to(x.device), found.up.to(x.device)
        if isinstance(module, nn.Conv2d):
            low = F.conv2d(x, down, None, module.stride, module.padding, module.dilation)
            return F.conv2d(low, up) * found.scale
        return F.linear(F.linear(x, down), up) * found.scale


class WholeMember(nn.Module):
    """A model of its own in the place of the shared one."""

    def __init__(self, name: str, model: Model):
        super().__init__()
        self.name = name
        self.model: Any = model


AnyMember = LoraMember | WholeMember


@dataclass(frozen=True)
class _Turn:
    """Whose rows are in the call under way: members with their row counts, in the order of the rows."""

    adapter: Adapter
    groups: Sequence[tuple[LoraMember, int]]
    scale: float


_turn: ContextVar[_Turn | None] = ContextVar("intarsia_lora_rows", default=None)


class Adapter:
    """Hooks on the `layers` of a shared model that add what the members of the call under way add."""

    def __init__(self, model: nn.Module, members: Sequence[LoraMember]):
        modules = dict(model.named_modules())
        self.layers = sorted({layer for member in members for layer in member.scales})
        # partial, and not a closure: a copy of the model must find its own members.
        self._handles = [modules[name].register_forward_hook(partial(self._add, name)) for name in self.layers]

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()

    @contextlib.contextmanager
    def serving(self, groups: Sequence[tuple[LoraMember, int]], scale: float) -> Iterator[None]:
        """Within, the model's rows belong to these members, so many each."""
        token = _turn.set(_Turn(self, groups, scale))
        try:
            yield
        finally:
            _turn.reset(token)

    def _add(self, layer: str, module: nn.Linear | nn.Conv2d, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        turn = _turn.get()
        if turn is None or turn.adapter is not self:
            return None
        x = args[0]
        if len(turn.groups) == 1:
            delta = turn.groups[0][0].delta(layer, module, x)
            return None if delta is None else output + (turn.scale * delta).to(output.dtype)
        sizes = [rows for _, rows in turn.groups]
        if len(x) != sum(sizes):
            raise IncompatibleError(
                f"layer {layer} sees {len(x)} rows in a call of {sum(sizes)}, so members cannot share a call; give "
                "most_rows=0"
            )
        answers = []
        for (member, _), part, answer in zip(turn.groups, x.split(sizes), output.split(sizes), strict=True):
            delta = member.delta(layer, module, part)
            answers.append(answer if delta is None else answer + (turn.scale * delta).to(output.dtype))
        return torch.cat(answers)


@dataclass(frozen=True)
class Asked:
    """What a member is asked: rows (b,) of the call."""

    member: AnyMember
    rows: Tensor


def chunks(asked: Sequence[Asked], most_rows: int) -> list[list[Asked]]:
    """Members that share a call of the shared model: neighbours with at most `most_rows` rows between them."""
    out: list[list[Asked]] = []
    for one in asked:
        last = out[-1] if out else []
        together = all(isinstance(each.member, LoraMember) for each in [one, *last])
        if last and together and sum(len(each.rows) for each in [one, *last]) <= most_rows:
            last.append(one)
        else:
            out.append([one])
    return out


def _buffer(layer: str, part: str) -> str:
    """torch wants no dots in the names of buffers."""
    return f"{layer.replace('.', '/')}/{part}"


@torch.no_grad()
def check_fits(name: str, layers: Mapping[str, LowRank], model: nn.Module) -> None:
    """Refuse changes of layers that the model does not have, or of other shapes.

    Raises:
        IncompatibleError: names the first few that do not fit, and their number.
    """
    modules = dict(model.named_modules())
    problems = [
        problem for layer, low_rank in layers.items() if (problem := _misfit(layer, low_rank, modules.get(layer)))
    ]
    if problems:
        more = f" … and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise IncompatibleError(
            f"'{name}' was not made for this {type(model).__name__}: {'; '.join(problems[:3])}{more}; use one that "
            "was trained on this base model"
        )


def _misfit(layer: str, low_rank: LowRank, module: nn.Module | None) -> str | None:
    down, up = tuple(low_rank.down.shape), tuple(low_rank.up.shape)
    if module is None:
        return f"it changes the layer {layer}, which is not there"
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return f"it changes {layer}, a {type(module).__name__}; only linear layers and convolutions can be changed"
    if isinstance(module, nn.Conv2d) and (module.groups != 1 or module.padding_mode != "zeros"):
        return f"it changes {layer}, a convolution with groups or padding other than zeros"
    if down[:1] != up[1:2]:
        return f"{layer} has rank {down[0]} going down and {up[1] if len(up) > 1 else '?'} coming up"
    weight = tuple(module.weight.shape)
    if (down, up) != ((down[0], *weight[1:]), (weight[0], down[0], *[1] * len(weight[2:]))):
        return f"{layer} is {weight[1]} wide and answers with {weight[0]}, found {down} and {up}"
    return None
