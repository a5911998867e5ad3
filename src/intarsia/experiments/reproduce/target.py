"""The geometric mean of two known sources: how near to it do particles come, and how near do averaged scores?

Two Gaussian mixtures on a line, whose product is had by quadrature. Judged is the total variation over bins, which
chance alone keeps above 0: draws of the target itself say by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

from intarsia.composition import CompositeDenoiser, Full, Prior, SampleSettings
from intarsia.composition.member import shares_of
from intarsia.composition.protected import Flock
from intarsia.diffusion import GaussianMixture, keyed_generator
from intarsia.experiments.reproduce.known import SCHEDULE, KnownMember

APART = "total variation"
STEPS = 400
_REACH, _BINS, _FINE = 4.0, 40, 200  # from -4 to 4, and points within a bin
_THIN = 1e-6  # noise of the densities: next to none
_MANY = 2500  # particles of an image, of which more make no difference


@dataclass(frozen=True, eq=False)
class Target:
    """p proportional to prod_i q_i^beta_i of mixtures on a line; `beta` sums to 1."""

    sources: Sequence[GaussianMixture]
    beta: Tensor

    @cached_property
    def _mass(self) -> Tensor:
        """Of the bins, before it is divided by Z: (40,) float64."""
        width = 2 * _REACH / (_BINS * _FINE)
        x = -_REACH + width * (torch.arange(_BINS * _FINE, dtype=torch.float64)[:, None] + 0.5)
        one, thin = torch.ones(len(x), dtype=torch.float64), torch.full((len(x),), _THIN, dtype=torch.float64)
        log_q = torch.stack([source.to(torch.float64).log_prob(x, one, thin) for source in self.sources], dim=1)
        return width * (log_q @ self.beta).exp().view(_BINS, _FINE).sum(dim=1)

    @property
    def log_z(self) -> float:
        """log of the integral of prod_i q_i^beta_i, never positive."""
        return self._mass.sum().log().item()

    def apart(self, x: Tensor, weights: Tensor) -> float:
        """Total variation between images (N, 1) with weights (N,) that sum to 1, and the target, over the bins."""
        edges = torch.linspace(-_REACH, _REACH, _BINS + 1, dtype=torch.float64)
        found = torch.histogram(x[:, 0].double(), edges, weight=weights.double()).hist
        outside = 1 - found.sum()
        return 0.5 * ((found - self._mass / self._mass.sum()).abs().sum() + outside).item()

    def draw(self, count: int, seed: int) -> Tensor:
        """(count, 1), each in the middle of its bin."""
        share = (self._mass / self._mass.sum()).numpy()
        places = keyed_generator("target", seed).choice(_BINS, size=count, p=share / share.sum())
        return (-_REACH + (2 * torch.from_numpy(places) + 1) * _REACH / _BINS)[:, None]

    def flock(self, images: int, particles: int, *, steps: int, seed: int, resample_below: float = 0.7) -> Flock:
        """So many images of so many particles that have taken all their steps."""
        members = [KnownMember(f"q{k}", each.to(torch.float32), 100) for k, each in enumerate(self.sources)]
        model = CompositeDenoiser(members, self.beta, Prior(shares_of(members)), Full(), SCHEDULE, (1,))
        settings = SampleSettings(steps=steps, seed=seed)
        found = Flock(model, self.beta, settings, range(images), [None] * images, particles, resample_below)
        for _ in found.steps():
            pass
        return found

    def of_flock(self, flock: Flock) -> float:
        """How far from the target an image is that is chosen among the particles by weight."""
        return self.apart(flock.x, (flock.log_w.softmax(dim=1) / len(flock.log_w)).flatten())


def line(means: Sequence[float], shares: Sequence[float], std: float) -> GaussianMixture:
    """Modes on a line, of one width."""
    variances = torch.full((len(means), 1, 1), std**2, dtype=torch.float64)
    return GaussianMixture.from_moments(
        torch.tensor(shares, dtype=torch.float64), torch.tensor(means, dtype=torch.float64)[:, None], variances
    )


PAIR = (line((-1.5, 0.2, 1.6), (0.6, 0.3, 0.1), 0.3), line((-1.4, 0.6, 2.2), (0.1, 0.3, 0.6), 0.3))
"""Sources that have two modes nearly in common, and shares of them that are as different as may be."""

EVEN = Target(PAIR, torch.tensor([0.5, 0.5], dtype=torch.float64))


def _itself(images: int, particles: int, seed: int) -> float:
    count = images * particles
    return EVEN.apart(EVEN.draw(count, seed), torch.full((count,), 1 / count))


def _averaged(images: int, particles: int, seed: int) -> float:
    """Particles that are never weighed follow the mean of the scores and nothing else: naive averaging."""
    flock = EVEN.flock(images, particles, steps=STEPS, seed=seed, resample_below=0.0)
    return EVEN.apart(flock.x, torch.full((len(flock.x),), 1 / len(flock.x)))


def _protected(images: int, particles: int, seed: int) -> float:
    return EVEN.of_flock(EVEN.flock(images, particles, steps=STEPS, seed=seed))


DRAWN: Mapping[str, tuple[Callable[[int, int, int], float], int, int]] = MappingProxyType(
    {
        "draws of the target": (_itself, 80, _MANY),
        "naive averaging": (_averaged, 80, _MANY),
        "protected, 16 particles": (_protected, 2000, 16),
        f"protected, {_MANY:,} particles": (_protected, 80, _MANY),
    }
)
"""What is held against the target, by its name in tables, with its numbers of images and particles."""
