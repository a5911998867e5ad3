"""How far chance moves a figure, and what real images score against real images, both from random halves of the rows.

Rows drawn twice, as the bootstrap draws them, are their own nearest neighbours and lower the rank of a covariance: they
bend exactly the figures measured here. So every replicate takes a random half of the rows of each side, without
replacement (the delete-half jackknife, Shao and Wu 1989), and the half of the real rows that it leaves out plays the
fake side for the floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from intarsia.checks import check_number, check_seed, check_whole
from intarsia.diffusion import keyed_generator

_MOST_REPLICATES = 10_000


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals and floors are made.

    Args:
        replicates: random halves of both sides.
        confidence: share of the intervals, such as 0.95.
        seed: of every draw.

    Raises:
        SettingsError: a value that makes no sense.
    """

    replicates: int = 100
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("replicates", self.replicates, least=2, most=_MOST_REPLICATES)
        check_number("confidence", self.confidence, above=0, below=1)
        check_seed(self.seed)


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, eq=False)
class Halves:
    """Which rows each replicate takes, bool (R, n): of the fakes, of the reals, and as many of the other reals."""

    fake: Tensor
    real: Tensor
    other: Tensor

    @classmethod
    def draw(cls, count: int, settings: Resampling) -> Halves:
        """Halves of `count` rows a side; of an odd count one real row is in neither half."""
        half = count // 2
        fake, real = (_ranks(count, settings, side) for side in ("fake", "real"))
        return cls(fake < half, real < half, (real >= half) & (real < 2 * half))

    @property
    def reach(self) -> float:
        """What the spread over halves is multiplied by to give the spread of all rows."""
        half = int(self.fake[0].sum())
        return math.sqrt(half / (self.fake.shape[1] - half))


@dataclass(frozen=True, eq=False)
class Trials:
    """One figure from all rows, and float64 (R,) from the halves: fake against real, and real against other real."""

    value: float
    halves: Tensor
    floor: Tensor


def interval(trials: Trials, halves: Halves, confidence: float, bounds: tuple[float, float]) -> Estimate:
    """As many standard deviations as a normal error needs, about the value of all rows.

    Quantiles of the replicates would be off: at half the rows a figure has another bias.
    """
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * trials.halves.std().item() * halves.reach
    lowest, highest = bounds
    return Estimate(trials.value, max(trials.value - reach, lowest), min(trials.value + reach, highest))


def floor_range(trials: Trials, confidence: float) -> Estimate:
    """Mean and central range of real against real: where a figure falls when nothing but chance sets it apart."""
    ends = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = trials.floor.quantile(ends).tolist()
    return Estimate(trials.floor.mean().item(), low, high)


def _ranks(count: int, settings: Resampling, side: str) -> Tensor:
    draw = keyed_generator("halves", settings.seed, side)
    return torch.from_numpy(np.stack([draw.permutation(count) for _ in range(settings.replicates)]))
