"""Routing: which members run for which image, given the weights (science.md section 3).

A routing turns weights (B, n) into the weights that are realised, (B, n), rows summing to 1. A zero means that the
member is not called for that image. Draws are keyed by (seed, image index, step), so they do not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.checks import check_number, check_whole
from intarsia.diffusion import keyed_generator
from intarsia.errors import SettingsError, UnknownName

USUAL_THRESHOLD = 0.01


@dataclass(frozen=True)
class Turn:
    """What a draw may be keyed by: the sampling seed, the index of each image, and the number of the step (from 0).

    A sampler that calls the model twice in a step has the same turn twice. `previous` (B, n) are the realised weights
    of the step before, None at the first.
    """

    seed: int
    indices: Sequence[int]
    step: int
    previous: Tensor | None = None

    def uniform(self, purpose: str, *, step: int | None = None) -> Tensor:
        """One number in [0, 1) per image, float64 (B,)."""
        turn = self.step if step is None else step
        draws = [keyed_generator("routing", purpose, self.seed, index, turn).random() for index in self.indices]
        return torch.tensor(draws, dtype=torch.float64)


class Routing(Protocol):
    """Chooses members; see the module's docstring.

    `draws`: whether it draws one member by lot. Under guidance the null branch then runs the member drawn for the
    conditional one: the difference of two members' estimates would point from one source to the other.
    """

    name: ClassVar[str]
    draws: ClassVar[bool]

    @property
    def needs_weights(self) -> bool:
        """Whether the weights are looked at; if not they need not be computed."""
        ...

    def __call__(self, weights: Tensor, prior: Tensor, turn: Turn) -> Tensor:
        """weights and prior (B, n), rows summing to 1 -> realised weights (B, n)."""
        ...


@dataclass(frozen=True)
class Full:
    """Every member runs for every image."""

    name: ClassVar[str] = "full"
    draws: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = True

    def __call__(self, weights: Tensor, prior: Tensor, turn: Turn) -> Tensor:
        return weights


@dataclass(frozen=True)
class TopK:
    """The k members of largest weight, renormalised. Top-1 skews the realised shares of overlapping sources."""

    name: ClassVar[str] = "top_k"
    draws: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = True
    k: int = 1

    def __post_init__(self) -> None:
        check_whole("k of top_k", self.k)

    def __call__(self, weights: Tensor, prior: Tensor, turn: Turn) -> Tensor:
        if self.k >= weights.shape[1]:
            return weights
        top = weights.topk(self.k, dim=1)
        kept = torch.zeros_like(weights).scatter(1, top.indices, top.values)
        return kept / kept.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Threshold:
    """Members whose weight is below `at` do not run for that image; the rest is renormalised.

    None is 0.01, but at most a third of a member's share: one of small share, or of more than a hundred, is not left
    out before anything speaks against it.
    """

    name: ClassVar[str] = "threshold"
    draws: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = True
    at: float | None = None

    def __post_init__(self) -> None:
        if self.at is not None:
            check_number("threshold", self.at, least=0, most=0.5)

    def __call__(self, weights: Tensor, prior: Tensor, turn: Turn) -> Tensor:
        least = (prior / 3).clamp(max=USUAL_THRESHOLD) if self.at is None else self.at
        # With more than 1 / at members all could fall below; the largest always stays.
        keep = (weights >= least) | (weights == weights.amax(dim=1, keepdim=True))
        if bool(keep.all()):
            return weights
        kept = torch.where(keep, weights, 0.0)
        return kept / kept.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Ancestral:
    """One member per image, drawn from the prior before the first step: exact for unconditional sampling."""

    name: ClassVar[str] = "ancestral"
    draws: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = False

    def __call__(self, weights: Tensor, prior: Tensor, turn: Turn) -> Tensor:
        return drawn(prior, turn.uniform("ancestral", step=0))


@dataclass(frozen=True)
class Random:
    """One member per image and step, drawn from the prior: the paper's random selection.

    Cheap, and wrong where sources differ.
    """

    name: ClassVar[str] = "random"
    draws: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = False

    def __call__(self, weights: Tensor, prior: Tensor, turn: Turn) -> Tensor:
        return drawn(prior, turn.uniform("random"))


@dataclass(frozen=True)
class Posterior:
    """One member per image and step, drawn by its weight: with `ddpm` and true weights an exact step of the mixture.

    A step of `ddpm` then draws from sum_i w_i N(mu_i, std^2), where averaging draws from N(sum_i w_i mu_i, std^2).
    """

    name: ClassVar[str] = "posterior"
    draws: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True

    def __call__(self, weights: Tensor, prior: Tensor, turn: Turn) -> Tensor:
        return drawn(weights, turn.uniform("posterior"))


# Keeping the source is ancestral sampling, drawing it anew by its weight at x_t is a Gibbs step: both leave p(z | x_t)
# as it is. Drawing anew only the sources below `at` moves it by n times `at` at most.
@dataclass(frozen=True)
class Sticky:
    """One member per image, drawn by its weight, and kept until its weight falls below `at`; then drawn anew.

    As cheap as `ancestral` and nearly as steady, but led by the weights where the source cannot be drawn beforehand.
    """

    name: ClassVar[str] = "sticky"
    draws: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True
    at: float = 0.001

    def __post_init__(self) -> None:
        check_number("sticky", self.at, least=0, most=1)

    def __call__(self, weights: Tensor, prior: Tensor, turn: Turn) -> Tensor:
        fresh = drawn(weights, turn.uniform("sticky"))
        if turn.previous is None:
            return fresh
        before = turn.previous.to(weights)
        kept = (weights * before).sum(dim=1, keepdim=True) >= self.at
        return torch.where(kept, before, fresh)


def drawn(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """One-hot rows: the member in whose interval of the cumulated probabilities (B, n) the number (B,) falls."""
    cumulated = probabilities.double().cumsum(dim=1)
    place = torch.searchsorted(cumulated, (uniform * cumulated[:, -1])[:, None], right=True)[:, 0]
    return F.one_hot(place.clamp(max=probabilities.shape[1] - 1), probabilities.shape[1]).to(probabilities.dtype)


AnyRouting = Full | TopK | Threshold | Ancestral | Random | Posterior | Sticky
ROUTINGS: dict[str, type[AnyRouting]] = {
    kind.name: kind for kind in (Full, TopK, Threshold, Ancestral, Random, Posterior, Sticky)
}


def routing_from(text: str) -> AnyRouting:
    """A routing by name, with its number if it takes one: `full`, `top_k:2`, `threshold:0.05`, `sticky:0.001`.

    Raises:
        UnknownName: no such routing.
        SettingsError: a number that it does not take or cannot be.
    """
    name, colon, value = text.partition(":")
    if name not in ROUTINGS:
        raise UnknownName("routing", name, ROUTINGS)
    if not colon:
        return ROUTINGS[name]()
    try:
        if name == "top_k":
            return TopK(int(value))
        if name == "threshold":
            return Threshold(float(value))
        if name == "sticky":
            return Sticky(float(value))
    except ValueError as error:
        kind = "whole number" if name == "top_k" else "number"
        raise SettingsError(f"routing '{text}': '{value}' is not a {kind}; give one, or '{name}' alone") from error
    raise SettingsError(f"routing '{name}' takes no number, found '{value}'")
