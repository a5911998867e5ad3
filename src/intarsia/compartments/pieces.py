"""What compartments add inside the forward of a U-ViT, and the adaptation that lets several do so in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.backbone.network import Network
from intarsia.backbone.uvit import Block, Layer, UViT, as_uvit, attention
from intarsia.errors import SettingsError

Params = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

MOST = 1 << 14  # rank, tokens or width; more than any backbone here is wide


@dataclass(frozen=True)
class Pieces:
    """What one compartment adds inside the forward, by module or block name.

    `low_rank`: A (r, in) and B (out, r), the scale folded into B. `prefix`: keys and values (S, H, P, d) put before a
    block's own, S being 1 or the number of sets to choose from. `aside`: keys and values of these shapes that are
    attended to by themselves, and the answer added. `branch`: down (r, D), up (D, r), bias (D,) beside a feed-forward.
    `lead` (S, D): added to the first token, the label's or else the time's.
    """

    low_rank: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    prefix: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    aside: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    branch: Mapping[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    lead: Tensor | None = None

    def of_rows(self, rows: Tensor | None) -> Pieces:
        """The pieces for a batch in which image b uses the set `rows[b]`; with one set, `rows` is ignored.

        Raises:
            SettingsError: there are several sets and no `rows`.
        """
        if all(len(keys) == 1 for keys, _ in (*self.prefix.values(), *self.aside.values())):
            return self
        if rows is None:
            raise SettingsError("prompts per class need the class of each image; this compartment has no classes")
        prefix, aside = (
            {block: (keys[rows], values[rows]) for block, (keys, values) in sets.items()}
            for sets in (self.prefix, self.aside)
        )
        return replace(self, prefix=prefix, aside=aside, lead=None if self.lead is None else self.lead[rows])


class Named(Protocol):
    """A kind of adapter."""

    name: ClassVar[str]


def of_uvit(kind: Named, network: Network) -> UViT:
    """The network, for kinds that add to a U-ViT's tokens and blocks.

    Raises:
        SettingsError: it is another one.
    """
    return as_uvit(network, f"the adapter '{kind.name}'", "train lora or full")


def prompt_keys_values(network: UViT, block: str, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of prompt tokens (S, P, D) in one block: (S, H, P, d) each."""
    module = network.get_submodule(block)
    assert isinstance(module, Block)
    qkv, dim = module.attn.qkv, network.config.dim
    bias = None if qkv.bias is None else qkv.bias[dim:]
    both = F.linear(module.norm1(prompts), qkv.weight[dim:], bias)
    keys, values = both.unflatten(-1, (2, network.config.heads, -1)).permute(2, 0, 3, 1, 4)
    return keys, values


class Adapted:
    """The adaptation by which rows of one batch may belong to different compartments.

    `groups` lists (pieces, number of rows), in the order of the rows. Layers of the backbone run once over all rows;
    what a compartment adds runs over its own rows only.
    """

    def __init__(self, groups: Sequence[tuple[Pieces, int]]):
        self._groups: list[tuple[Pieces, slice]] = []
        start = 0
        for pieces, rows in groups:
            self._groups.append((pieces, slice(start, start + rows)))
            start += rows

    def enter(self, tokens: Tensor) -> Tensor:
        for pieces, rows in self._groups:
            if pieces.lead is not None:
                count = rows.stop - rows.start
                first = F.pad(pieces.lead.expand(count, -1)[:, None], (0, 0, 0, tokens.shape[1] - 1))
                tokens = _add(tokens, rows, first)
        return tokens

    def linear(self, name: str, layer: Layer, x: Tensor) -> Tensor:
        y = layer(x)
        if not any(name in pieces.low_rank for pieces, _ in self._groups):
            return y
        return y + torch.cat([_low_rank(pieces.low_rank.get(name), x[rows], y) for pieces, rows in self._groups])

    def attend(self, block: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not any(block in pieces.prefix or block in pieces.aside for pieces, _ in self._groups):
            return attention(q, k, v)
        return torch.cat([_attend(pieces, block, q[rows], k[rows], v[rows]) for pieces, rows in self._groups])

    def feedforward(self, block: str, x: Tensor, y: Tensor) -> Tensor:
        for pieces, rows in self._groups:
            if block in pieces.branch:
                down, up, bias = pieces.branch[block]
                y = _add(y, rows, F.linear(F.relu(F.linear(x[rows], down)), up, bias))
        return y


def _low_rank(factors: tuple[Tensor, Tensor] | None, x: Tensor, y: Tensor) -> Tensor:
    """What a low-rank change adds to an output like y for inputs x (B, L, in): (B, L, out)."""
    if factors is None:
        return y.new_zeros((*x.shape[:-1], y.shape[-1]))
    a, b = factors
    return F.linear(F.linear(x, a), b)


def _add(y: Tensor, rows: slice, delta: Tensor) -> Tensor:
    """y with `delta` added to some of its rows."""
    if len(delta) == len(y):
        return y + delta
    return y.index_add(0, torch.arange(rows.start, rows.stop, device=y.device), delta)


def _attend(pieces: Pieces, block: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if block in pieces.prefix:
        keys, values = (p.expand(len(q), -1, -1, -1) for p in pieces.prefix[block])
        k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
    y = attention(q, k, v)
    if block not in pieces.aside:
        return y
    return y + attention(q, *(p.expand(len(q), -1, -1, -1) for p in pieces.aside[block]))
