"""How members become one model, and how far it may lean on one of them; and what that came to for images drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from intarsia.checks import check_number, check_whole
from intarsia.errors import SettingsError, UnknownName

MIXTURE, PROTECTED = "mixture", "protected"
OPERATORS = (MIXTURE, PROTECTED)
MOST_PARTICLES, MOST_TRIES, USUAL_TRIES = 1 << 12, 1 << 10, 16


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What is drawn from: the members' `mixture`, or the `protected` geometric mean prod_i q_i^beta_i.

    Args:
        name: `mixture` or `protected`.
        particles: of each protected image; with more its target is met more closely, at their cost. None takes 16.
        resample_below: particles are resampled where the effective number falls below this share of them.
        exponents: beta, positive and summing to 1, in the order of the members; None takes them equal.
        cp_k: nats; an image x of p is handed out only if log p(x) / q_i(x) is no larger for any member q_i; None sets
            no limit.
        tries: candidates per image, at most, under `cp_k`; None allows 16.

    Raises:
        UnknownName: no such operator.
        SettingsError: a number that makes no sense, or one that the mixture has no use for.
    """

    name: str = MIXTURE
    particles: int | None = None
    resample_below: float = 0.7
    exponents: tuple[float, ...] | None = None
    cp_k: float | None = None
    tries: int | None = None

    def __post_init__(self) -> None:
        if self.name not in OPERATORS:
            raise UnknownName("operator", self.name, OPERATORS)
        if self.particles is not None:
            check_whole("particles", self.particles, most=MOST_PARTICLES)
            if not self.protects:
                raise SettingsError(f"the mixture has no particles, found {self.particles}; use operator 'protected'")
        if self.exponents is not None and not self.protects:
            raise SettingsError(f"the mixture has no exponents, found {self.exponents}; use operator 'protected'")
        check_number("resample_below", self.resample_below, least=0, most=1)
        if self.tries is not None:
            check_whole("tries", self.tries, most=MOST_TRIES)
            if self.cp_k is None:
                raise SettingsError(
                    f"tries is {self.tries}, but there is no cp_k to try for; give one, or leave it out"
                )
        if self.cp_k is not None:
            check_number("cp_k", self.cp_k, least=0)

    @property
    def most_tries(self) -> int:
        return USUAL_TRIES if self.tries is None else self.tries

    @property
    def protects(self) -> bool:
        return self.name == PROTECTED

    def settings(self) -> dict[str, Any]:
        """JSON-able, without what is not set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def beta(self, names: Sequence[str]) -> Tensor:
        """The exponents (n,) float64 of these members.

        Raises:
            SettingsError: they are none, or there is but one member.
        """
        n = len(names)
        if n < 2:
            raise SettingsError(f"'{names[0]}' alone protects nothing; compose at least two sources")
        found = torch.tensor(self.exponents or [1 / n] * n, dtype=torch.float64)
        if found.shape != (n,) or not bool((found > 0).all()) or abs(found.sum().item() - 1) > 1e-6:
            raise SettingsError(
                f"exponents {[round(b, 4) for b in found.tolist()]} for {', '.join(names)}: expected one positive "
                "number for each, summing to 1"
            )
        return found


UNLIMITED = Operator()
"""The mixture, of which everything may be handed out."""


def operator_from(name: str) -> Operator:
    """The operator of a name, with its usual settings.

    Raises:
        UnknownName: there is none.
    """
    return Operator(name=name)


@dataclass(frozen=True)
class Protection:
    """What protected images took, and what holds of them.

    `particles` of each image; `beta` (n,) exponents; `ess` (steps, N), the effective share of an image's particles
    before resampling; `log_z` (N,), each image's own estimate of log Z, Z the integral of prod_i q_i^beta_i; `labels`
    of the images, each of which has a Z of its own.
    """

    particles: int
    beta: Tensor
    ess: Tensor
    log_z: Tensor
    labels: tuple[str | None, ...]

    @property
    def least_log_z(self) -> float:
        """log of the mean of the images' estimates of Z, under the label where it is least."""
        return min(self.log_z[rows].logsumexp(0).item() - math.log(len(rows)) for rows in _by_label(self.labels))

    # sum_i beta_i KL(p || q_i) = -log Z, and no term is negative; for two equal sources Vyas et al. 2023, theorem 3.1
    @property
    def bounds(self) -> Tensor:
        """KL(p || q_i) <= k_i = -log Z / beta_i in nats, (n,): the k of near access-freeness, whatever the label.

        Z is the mean of the images' estimates; with few particles k comes out too large rather than too small.
        """
        return -self.least_log_z / self.beta

    def report(self) -> dict[str, Any]:
        """JSON-able, without the names of sources."""
        return {
            "particles": self.particles,
            "effective_share": {"mean": self.ess.mean().item(), "least": self.ess.min().item()},
            "log_z": self.least_log_z,
        }


@dataclass(frozen=True)
class Access:
    """Images that lean on no member more than `k` nats: log p(x) / q_i(x) <= k for all i (CP-k).

    `tried` (N,) counts the candidates of each image, the last of which was taken; `ratios` (N, n) are log p / q_i of
    those that were taken, p without its constant; `labels` are theirs; `log_z` is that constant, 0 for a mixture.
    """

    k: float
    tried: Tensor
    ratios: Tensor
    labels: tuple[str | None, ...]
    log_z: float = 0.0

    @property
    def acceptance(self) -> float:
        """Share of the candidates that were taken, under the label where it is least."""
        return min(len(rows) / self.tried[rows].sum().item() for rows in _by_label(self.labels))

    # Vyas et al. 2023, CP-k: rejection by k makes it (k + log 1/nu)-near access-free, nu the share that passes
    @property
    def bound(self) -> float:
        """The k of near access-freeness that holds for every single image, in nats."""
        return self.k - self.log_z - math.log(self.acceptance)

    def report(self) -> dict[str, Any]:
        """JSON-able, without the names of sources."""
        return {
            "k": self.k,
            "candidates": int(self.tried.sum()),
            "acceptance": self.acceptance,
            "bound": self.bound,
            "largest_ratio": self.ratios.max().item(),
        }


def _by_label(labels: Sequence[str | None]) -> list[Tensor]:
    """The rows of each label."""
    return [torch.tensor([row for row, each in enumerate(labels) if each == label]) for label in dict.fromkeys(labels)]


def bounds_of(protection: Protection | None, names: Sequence[str]) -> Mapping[str, float]:
    """By source, what limits the divergence from it in nats; empty for a mixture."""
    return {} if protection is None else dict(zip(names, protection.bounds.tolist(), strict=True))
