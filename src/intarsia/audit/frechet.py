"""Distances between two sets of features: Fréchet (FD) and kernel (KID), with an interval and the floor.

Neither means anything without its network, its counts and its floor, so a report carries all three. "FID" is the name
of one such distance, in the Inception network with the reference resizing; everything here is called `FD-<network>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
import torch
from torch import Tensor

from intarsia.diffusion import keyed_generator
from intarsia.errors import InputError, SettingsError

_FEWEST = 2  # rows; a covariance and an unbiased kernel mean need a second one


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals are made.

    Args:
        replicates: bootstrap samples of the rows of both sides.
        confidence: share of the interval, such as 0.95.
        block: rows per side within which the kernel distance compares all pairs.
        seed: of every draw.

    Raises:
        SettingsError: a value that makes no sense.
    """

    replicates: int = 200
    confidence: float = 0.95
    block: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replicates < 2 or self.block < _FEWEST:
            raise SettingsError(f"replicates {self.replicates}, block {self.block}: both must be at least 2")
        if not 0 < self.confidence < 1:
            raise SettingsError(f"confidence is {self.confidence}: it is a share between 0 and 1")


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (d,) and unbiased covariance (d, d) of features, float64: all that the Fréchet distance looks at.

    Raises:
        InputError: shapes that do not fit, or numbers that are not finite.
    """

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.covariance.shape != (len(self.mean), len(self.mean)):
            found = f"mean {tuple(self.mean.shape)} and covariance {tuple(self.covariance.shape)}"
            raise InputError(f"{found}: expected (d,) and (d, d)")
        if not (self.mean.isfinite().all() and self.covariance.isfinite().all()):
            raise InputError("moments hold numbers that are not finite: check the features they come from")
        object.__setattr__(self, "mean", self.mean.double())
        object.__setattr__(self, "covariance", self.covariance.double())

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Moments of features (N, d), N >= 2.

        Raises:
            InputError: fewer rows, another rank, or numbers that are not finite.
        """
        features = _checked(features)
        mean = features.mean(0)
        centred = features - mean
        return cls(mean, centred.mT @ centred / (len(features) - 1))


# Dowson and Landau 1982, eq. 6; Heusel et al. 2017: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The trace of the last
# root is the nuclear norm of C1^(1/2) C2^(1/2), which squares no rounding error even where covariances are singular.
def frechet_distance(first: Moments, second: Moments) -> float:
    """Squared 2-Wasserstein distance of the Gaussians with these moments; what is usually printed as "FID".

    Raises:
        InputError: the moments are of different networks.
    """
    _same_network(len(first.mean), len(second.mean))
    apart = (first.mean - second.mean).square().sum() + (first.covariance + second.covariance).trace()
    shared = torch.linalg.svdvals(_root(first.covariance) @ _root(second.covariance)).sum()
    return (apart - 2 * shared).clamp_min(0).item()


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt() @ vectors.mT


# Binkowski et al. 2018, section 4: the unbiased MMD^2 with k(x, y) = (x.y / d + 1)^3. Averaged over disjoint blocks
# (Zaremba et al. 2013), it stays unbiased, uses every row once, and its cost is linear in their number.
def kernel_distance(first: Tensor, second: Tensor, settings: Resampling | None = None) -> float:
    """KID between features (N, d) and (M, d): unbiased, so it may be slightly negative between equal distributions.

    Raises:
        InputError: fewer than two rows, different d, or numbers that are not finite.
    """
    return _kernel_replicates(_checked(first), _checked(second), settings or Resampling(), replicates=0)[0].item()


@dataclass(frozen=True, kw_only=True)
class FeatureReport:
    """How far samples are from real images in one feature network, beside what real images are from real images.

    `count` rows of the samples, and as many held-out real ones for the floors, against `reference_count` rows. The
    interval is for distances at these counts: the Fréchet distance of few rows is biased upwards, floor and all.
    """

    network: str
    count: int
    reference_count: int
    fd: Estimate
    kid: Estimate
    fd_floor: Estimate | None = None
    kid_floor: Estimate | None = None

    @property
    def name(self) -> str:
        """`FD-<network>`."""
        return f"FD-{self.network}"

    def __str__(self) -> str:
        floors = f"; floor {self.fd_floor}, {self.kid_floor}" if self.fd_floor else ""
        return f"{self.name} {self.fd}, KID {self.kid} ({self.count} against {self.reference_count} rows){floors}"


def feature_report(
    samples: Tensor,
    reference: Tensor,
    *,
    network: str,
    held_out: Tensor | None = None,
    settings: Resampling | None = None,
) -> FeatureReport:
    """Compare features of samples (N, d) with those of real images (M, d).

    With `held_out`, real images that neither a model nor the reference has seen, the floors are measured too, and both
    comparisons use equally many rows: the larger side is thinned out at random.

    Raises:
        InputError: fewer than two rows, different d, or numbers that are not finite.
        SettingsError: no name for the network.
    """
    settings = settings or Resampling()
    if not network:
        raise SettingsError("a distance was asked for without the name of its network: pass network='digitnet' or such")
    samples, reference = _checked(samples), _checked(reference)
    count = len(samples)
    fd_floor = kid_floor = None
    if held_out is not None:
        held_out = _checked(held_out)
        count = min(len(samples), len(held_out))
        samples, held_out = (_thinned(rows, count, settings.seed) for rows in (samples, held_out))
        fd_floor, kid_floor = _estimates(held_out, reference, settings)
    fd, kid = _estimates(samples, reference, settings)
    return FeatureReport(
        network=network,
        count=count,
        reference_count=len(reference),
        fd=fd,
        kid=kid,
        fd_floor=fd_floor,
        kid_floor=kid_floor,
    )


def _estimates(first: Tensor, second: Tensor, settings: Resampling) -> tuple[Estimate, Estimate]:
    fd = frechet_distance(Moments.of(first), Moments.of(second))
    rows = [_draws(len(side), settings, name) for side, name in ((first, "first"), (second, "second"))]
    replicates = [frechet_distance(Moments.of(first[a]), Moments.of(second[b])) for a, b in zip(*rows, strict=True)]
    kids = _kernel_replicates(first, second, settings, replicates=settings.replicates)
    return (
        _interval(fd, torch.tensor(replicates, dtype=torch.float64), settings.confidence, lowest=0.0),
        _interval(kids[0].item(), kids[1:], settings.confidence),
    )


def _interval(value: float, replicates: Tensor, confidence: float, lowest: float = float("-inf")) -> Estimate:
    """As many standard deviations of the bootstrap as a normal error needs, about the estimate.

    Quantiles of the bootstrap would be off: rows drawn twice add to the bias of a Fréchet distance.
    """
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * replicates.std().item()
    return Estimate(value, max(value - reach, lowest), value + reach)


def _draws(count: int, settings: Resampling, side: str) -> list[Tensor]:
    draw = keyed_generator("bootstrap", settings.seed, side)
    return list(torch.from_numpy(draw.integers(0, count, (settings.replicates, count))))


def _kernel_replicates(first: Tensor, second: Tensor, settings: Resampling, *, replicates: int) -> Tensor:
    """(1 + replicates,): the kernel distance, and its bootstrap replicates."""
    _same_network(first.shape[1], second.shape[1])
    blocks = max(1, min(len(first), len(second)) // settings.block)
    sides = []
    for rows, name in ((first, "first"), (second, "second")):
        order = torch.from_numpy(keyed_generator("blocks", settings.seed, name).permutation(len(rows)))
        draw = keyed_generator("kernel bootstrap", settings.seed, name)
        sides.append([(part, _weights(len(part), replicates, draw)) for part in rows[order].tensor_split(blocks)])
    return torch.stack([_mmd(a, u, b, v) for (a, u), (b, v) in zip(*sides, strict=True)]).mean(0)


def _weights(count: int, replicates: int, draw: np.random.Generator) -> Tensor:
    """(count, 1 + replicates): how often each row is drawn; once each in the first column."""
    drawn = torch.from_numpy(draw.integers(0, count, (count, replicates)))
    times = torch.zeros(count, replicates, dtype=torch.float64)
    times.scatter_add_(0, drawn, torch.ones_like(times))
    return torch.cat([torch.ones(count, 1, dtype=torch.float64), times], 1)


def _mmd(first: Tensor, u: Tensor, second: Tensor, v: Tensor) -> Tensor:
    """Unbiased MMD^2 per column of weights; a row that is drawn twice is not compared with itself."""
    across = (u * (_kernel(first, second) @ v)).sum(0) / (u.sum(0) * v.sum(0))
    return _within(first, u) + _within(second, v) - 2 * across


def _within(rows: Tensor, weights: Tensor) -> Tensor:
    kernel = _kernel(rows, rows).fill_diagonal_(0)
    pairs = weights.sum(0).square() - weights.square().sum(0)
    return (weights * (kernel @ weights)).sum(0) / pairs


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    return (first @ second.mT / first.shape[1] + 1) ** 3


def _thinned(rows: Tensor, count: int, seed: int) -> Tensor:
    if len(rows) == count:
        return rows
    kept = keyed_generator("thin out", seed, len(rows)).permutation(len(rows))[:count]
    return rows[torch.from_numpy(kept).sort().values]


def _checked(features: Tensor) -> Tensor:
    if features.ndim != 2 or len(features) < _FEWEST:
        raise InputError(f"features have shape {tuple(features.shape)}: expected (N, d) with at least {_FEWEST} rows")
    if not features.isfinite().all():
        raise InputError("features hold numbers that are not finite: check the images or the network they come from")
    return features.detach().double()


def _same_network(first: int, second: int) -> None:
    if first != second:
        raise InputError(f"features of {first} and of {second} numbers: compare features of one network only")
