"""One backward pass for the gradients of every single sample, without hooks (science.md section 6).

Adapters are small and enter the forward as arguments. So each sample is given a copy of them: the loss of a sample
depends on its own copy alone, and one ordinary backward leaves in each copy the gradient of its sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.backbone.network import Network
from intarsia.backbone.text import Prompt
from intarsia.backbone.uvit import Adaptation, Layer, attention
from intarsia.compartments.adapters import DeepPrompts, FullCopy, Kind, Lora, Parallel
from intarsia.compartments.pieces import of_uvit, prompt_keys_values
from intarsia.compartments.text import TextPrompts
from intarsia.errors import SettingsError


@dataclass(frozen=True)
class SampleGradients:
    """Gradients of B samples by parameter, (B, *shape).

    For `sets`, (B,), they are those of the set of prompts that a sample uses, without the leading dimension of `shape`;
    a sample has no part in the others.
    """

    gradients: Mapping[str, Tensor]
    shapes: Mapping[str, torch.Size]
    sets: Tensor | None = None

    def norms(self) -> Tensor:
        """The norm of each sample's gradient over all parameters: (B,)."""
        squares = [_wide(g).flatten(1).square().sum(dim=1) for g in self.gradients.values()]
        return torch.stack(squares).sum(dim=0).sqrt()

    # Abadi et al. 2016, algorithm 1
    def clipped_sum(self, clip: float) -> dict[str, Tensor]:
        """The sum over samples of g / max(1, |g| / clip), by parameter; none moves it by more than `clip`.

        A gradient that is not finite counts as none: whether there is one must not decide about all others.
        """
        norms = self.norms()
        factors = (clip / norms.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1.0)
        factors = factors.where(norms.isfinite(), 0)
        return {name: self._total(name, _wide(g), factors) for name, g in self.gradients.items()}

    def _total(self, name: str, gradient: Tensor, factors: Tensor) -> Tensor:
        finite = gradient.nan_to_num(0.0, 0.0, 0.0)
        if self.sets is None:
            return torch.einsum("b,b...->...", factors.to(gradient.dtype), finite)
        scaled = factors.to(gradient.dtype).view(-1, *[1] * (gradient.ndim - 1)) * finite
        return gradient.new_zeros(self.shapes[name]).index_add(0, self.sets, scaled)


def _wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def sample_gradients(
    kind: Kind,
    network: Network,
    params: Mapping[str, Tensor],
    losses: Callable[[Adaptation], Tensor],
    *,
    samples: int,
    sets: Tensor | None = None,
    captions: Sequence[Prompt | None] = (),
) -> SampleGradients:
    """The gradient of each sample's own loss.

    Args:
        kind: any but a full copy.
        params: of the adapter.
        losses: runs the network with an adaptation and gives the losses of its rows, (samples * draws,), those of a
            sample side by side; their mean is the sample's loss.
        samples: B; rows are a multiple of it.
        sets: (B,) which set of prompts each sample uses, where there are several.
        captions: B of them, for the kind that reads them.

    Raises:
        SettingsError: a full copy, of which nobody can hold one for each sample; or prompt sets that are not told.
    """
    chosen = _sets(params, samples, sets) if isinstance(kind, DeepPrompts) else None
    copies = _copies(kind, params, samples, chosen)
    with torch.enable_grad():
        each = losses(_adaptation(kind, network, copies, captions))
        total = each.unflatten(0, (samples, -1)).mean(dim=1).sum()
        found = torch.autograd.grad(total, list(copies.values()), allow_unused=True, materialize_grads=True)
    return SampleGradients(dict(zip(copies, found, strict=True)), {n: p.shape for n, p in params.items()}, chosen)


def _sets(params: Mapping[str, Tensor], samples: int, sets: Tensor | None) -> Tensor:
    """Which set of prompts each sample uses: (B,); with one set, that one."""
    if all(len(p) == 1 for p in params.values()):
        return torch.zeros(samples, dtype=torch.int64)
    if sets is None:
        raise SettingsError("prompts per class need the class of each sample; this source has no classes")
    return sets


def _copies(kind: Kind, params: Mapping[str, Tensor], samples: int, sets: Tensor | None) -> dict[str, Tensor]:
    """A copy of the parameters for each sample, (B, ...), that gradients can be taken by."""
    if isinstance(kind, FullCopy):
        raise SettingsError("gradients of single samples are had of adapters, not of full copies; choose an adapter")
    own = {name: p.expand(samples, *p.shape) if sets is None else p[sets] for name, p in params.items()}
    return {name: p.detach().clone().requires_grad_() for name, p in own.items()}


def _adaptation(
    kind: Kind, network: Network, copies: Mapping[str, Tensor], captions: Sequence[Prompt | None]
) -> Adaptation:
    if isinstance(kind, Lora):
        return _PerSample(low_rank=copies, scale=kind.scale)
    if isinstance(kind, Parallel):
        return _PerSample(branch=copies)
    uvit = of_uvit(kind, network)
    blocks = uvit.config.blocks
    if not isinstance(kind, TextPrompts):
        return _PerSample(prefix={b: prompt_keys_values(uvit, b, copies[f"{b}.prompts"]) for b in blocks})
    into, bias = copies["text.map"], copies["text.bias"]
    told = torch.baddbmm(bias[:, None], kind.padded(captions).to(into), into.mT)
    prompts = {b: torch.cat([copies[f"{b}.prompts"][:, 0], told], dim=1) for b in blocks}
    lead = torch.stack([told.new_zeros(told.shape[-1]) if c is None else c.lead.to(told) for c in captions])
    joined = {}
    for b in blocks:
        keys, values = prompt_keys_values(uvit, b, prompts[b])
        joined[b] = keys, kind.opened(values, copies.get(f"{b}.gate"))
    prefix, aside = (None, joined) if kind.gated else (joined, None)
    return _PerSample(prefix=prefix, aside=aside, branch=copies, lead=lead)


@dataclass(frozen=True)
class _PerSample:
    """The adaptation in which sample b, whose rows are side by side, uses the b-th copy of everything."""

    low_rank: Mapping[str, Tensor] | None = None
    branch: Mapping[str, Tensor] | None = None
    prefix: Mapping[str, tuple[Tensor, Tensor]] | None = None
    aside: Mapping[str, tuple[Tensor, Tensor]] | None = None
    lead: Tensor | None = None
    scale: float = 1.0

    def enter(self, tokens: Tensor) -> Tensor:
        if self.lead is None:
            return tokens
        first = self.lead.repeat_interleave(len(tokens) // len(self.lead), dim=0)[:, None]
        return tokens + F.pad(first, (0, 0, 0, tokens.shape[1] - 1))

    def linear(self, name: str, layer: Layer, x: Tensor) -> Tensor:
        y = layer(x)
        if self.low_rank is None or f"{name}.lora_A" not in self.low_rank:
            return y
        a, b = self.low_rank[f"{name}.lora_A"], self.low_rank[f"{name}.lora_B"]
        return y + self.scale * _both(x, a, b, lambda hidden: hidden)

    def attend(self, block: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.prefix is not None:
            keys, values = _of_rows(self.prefix[block], q)
            k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        y = attention(q, k, v)
        return y if self.aside is None else y + attention(q, *_of_rows(self.aside[block], q))

    def feedforward(self, block: str, x: Tensor, y: Tensor) -> Tensor:
        if self.branch is None:
            return y
        bias = self.branch[f"{block}.bias"]
        added = _both(x, self.branch[f"{block}.down"], self.branch[f"{block}.up"], F.relu)
        return y + added + bias.repeat_interleave(len(y) // len(bias), dim=0)[:, None]


def _of_rows(sets: tuple[Tensor, Tensor], q: Tensor) -> list[Tensor]:
    """Keys and values (B, ...) of each sample for its rows of q, which are side by side."""
    return [p.repeat_interleave(len(q) // len(p), dim=0) for p in sets]


def _both(x: Tensor, first: Tensor, second: Tensor, between: Callable[[Tensor], Tensor]) -> Tensor:
    """second_b between(first_b x) for x (B draws, L, in), first (B, r, in), second (B, out, r): (B draws, L, out)."""
    together = x.unflatten(0, (len(first), -1)).flatten(1, 2)
    return torch.bmm(between(torch.bmm(together, first.mT)), second.mT).view(*x.shape[:-1], -1)
