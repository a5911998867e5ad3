"""The mixture weights w_i(x_t, t) = lambda_i p_t^i(x_t) / sum_j lambda_j p_t^j(x_t), and the ways to estimate them.

Every kind answers one question: how likely are x_t and its label under each source? The answer, the evidence, is a
matrix of logits (B, n); the composition adds the log prior and takes the softmax. The formulas stand in science.md,
section 3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from intarsia.composition.member import Conditions, Labels
from intarsia.diffusion import GaussianMixture, Schedule
from intarsia.errors import SettingsError
from intarsia.routers import GaussianBank, LabelShares, label_log_shares


@dataclass(frozen=True)
class Moved:
    """A sampler's step to time `s`, as the members see it.

    `x_s` (B, ...) is where it led; `means` (B, n, ...) where each member would have sent it, and `std` the deviation of
    the fresh noise. `took_part` (B, n) says which members were asked; the others' means say nothing.
    """

    x_s: Tensor
    means: Tensor
    std: float
    s: float
    took_part: Tensor


class Evidence(ABC):
    """The evidence of one sampling run; it may remember what it is shown."""

    @abstractmethod
    def __call__(self, x_t: Tensor, t: Tensor, labels: Labels) -> Tensor:
        """log p(y | i) + log p_t^i(x_t | y), up to a number per image: x_t (B, ...), t (B,) -> (B, n)."""

    def told(self, asked: Conditions) -> None:  # noqa: B027 - most kinds know labels of the sources only
        """Be told once what the members are asked for, row by row; for kinds that ask them too."""

    def show(self, x0_hat: Tensor) -> None:  # noqa: B027 - most kinds need not look
        """Be shown the composed x0_hat (B, ...) of a step."""

    def moved(self, step: Moved) -> None:  # noqa: B027 - most kinds need not look
        """Be shown a step; only for weights that follow the path."""


class Weights(Protocol):
    """A kind of weights, ready for one set of members.

    `isolated`: whether each source's part saw that source and public data only. `passes` counts what one evaluation
    costs, in forward passes of the backbone. `follows_path`: whether it learns from every step of the sampler, for
    which all members must run and no guidance may lead elsewhere.
    """

    name: ClassVar[str]
    isolated: ClassVar[bool]
    follows_path: ClassVar[bool]

    @property
    def passes(self) -> float: ...

    def start(self) -> Evidence:
        """Evidence for a new sampling run."""
        ...


class Memoryless(Evidence):
    """Evidence that depends on the call's arguments alone."""

    def __init__(self, evidence: Callable[[Tensor, Tensor, Labels], Tensor]):
        self._evidence = evidence

    def __call__(self, x_t: Tensor, t: Tensor, labels: Labels) -> Tensor:
        return self._evidence(x_t, t, labels)


@dataclass(frozen=True)
class Prior:
    """The image says nothing: w_i = lambda_i, and lambda_i p(y | i) under a label."""

    name: ClassVar[str] = "prior"
    isolated: ClassVar[bool] = True
    passes: ClassVar[float] = 0.0
    follows_path: ClassVar[bool] = False
    shares: Sequence[LabelShares]

    def start(self) -> Evidence:
        return Memoryless(lambda x_t, t, labels: label_log_shares(self.shares, labels))


@dataclass(frozen=True)
class Uniform:
    """The paper's naive averaging: 1 / n for every source that has the label, whatever the image and the prior."""

    name: ClassVar[str] = "uniform"
    isolated: ClassVar[bool] = True
    passes: ClassVar[float] = 0.0
    follows_path: ClassVar[bool] = False
    shares: Sequence[LabelShares]
    log_prior: Tensor

    def start(self) -> Evidence:
        def evidence(x_t: Tensor, t: Tensor, labels: Labels) -> Tensor:
            had = label_log_shares(self.shares, labels).isfinite()
            return torch.where(had, 0.0, -torch.inf) - self.log_prior

        return Memoryless(evidence)


# science.md section 3: p_t^i = sum_k pi_k N(alpha m_k, alpha^2 C_k + sigma^2 I)
@dataclass(frozen=True)
class Gaussian:
    """The analytic router: each source's Gaussian mixture of clean latents, convolved with the noise in closed form."""

    name: ClassVar[str] = "gaussian"
    isolated: ClassVar[bool] = True
    passes: ClassVar[float] = 0.0
    follows_path: ClassVar[bool] = False
    bank: GaussianBank
    schedule: Schedule

    def start(self) -> Evidence:
        def evidence(x_t: Tensor, t: Tensor, labels: Labels) -> Tensor:
            return self.bank.log_density(x_t, self.schedule.alpha(t), self.schedule.sigma(t), labels)

        return Memoryless(evidence)


# science.md section 1, in closed form
@dataclass(frozen=True)
class Exact:
    """Ground truth where the sources are known Gaussian mixtures (float64) over flattened x."""

    name: ClassVar[str] = "exact"
    isolated: ClassVar[bool] = True
    passes: ClassVar[float] = 0.0
    follows_path: ClassVar[bool] = False
    mixtures: Sequence[GaussianMixture]
    schedule: Schedule

    def start(self) -> Evidence:
        def evidence(x_t: Tensor, t: Tensor, labels: Labels) -> Tensor:
            if any(label is not None for label in labels):
                raise SettingsError("exact weights know no labels; leave them out")
            alpha, sigma, x = self.schedule.alpha(t).double(), self.schedule.sigma(t).double(), x_t.flatten(1).double()
            return torch.stack([m.log_prob(x, alpha, sigma) for m in self.mixtures], dim=1)

        return Memoryless(evidence)
