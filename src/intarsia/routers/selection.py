"""How many components and how much shrinkage a source wants, by the likelihood of held-out samples of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from intarsia.checks import check_number, check_whole
from intarsia.data.source import hash_fraction
from intarsia.diffusion import GaussianMixture, keyed_normal
from intarsia.errors import SettingsError
from intarsia.routers.basis import Basis, ridge_of
from intarsia.routers.expectation import Moments, Shrinkage, farthest_first, fit_moments

_SPLIT = 0  # seed of the hash that holds samples out; the same for every source and every fit


@dataclass(frozen=True, kw_only=True)
class GaussianSettings:
    """How a source's mixture is fitted; equal for all members of a composition, saved with each part.

    Args:
        components: numbers of components to try, per class where classes have mixtures of their own; rising.
        pseudo_counts: weights m of the core's covariance to try.
        ridge: added to all variances, as a share of the core's mean variance.
        rounds: of expectation-maximisation.
        holdout: share of the samples that judges the choices before all are fitted.
        noise_levels: sigma, with alpha^2 = 1 - sigma^2, at which the held-out likelihood is averaged.
        class_samples: a class needs as many for a mixture of its own.
        most_classes: with more of them, or a class too small, one mixture serves all.

    Raises:
        SettingsError: a value that makes no sense.
    """

    components: tuple[int, ...] = (1, 2, 4, 8)
    pseudo_counts: tuple[float, ...] = (10.0, 30.0, 100.0, 300.0, 1000.0)
    ridge: float = 0.01
    rounds: int = 20
    holdout: float = 0.2
    noise_levels: tuple[float, ...] = (0.1, 0.4, 0.7, 0.9)
    class_samples: int = 20
    most_classes: int = 32

    def __post_init__(self) -> None:
        for name in ("components", "pseudo_counts", "noise_levels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name):
                raise SettingsError(f"{name} is empty, expected at least one to try")
        for components in self.components:
            check_whole("components", components)
        if list(self.components) != sorted(set(self.components)):
            raise SettingsError(f"components {self.components}: give rising whole numbers")
        for pseudo_count in self.pseudo_counts:
            check_number("pseudo_counts", pseudo_count, above=0)
        for sigma in self.noise_levels:
            check_number("noise_levels", sigma, above=0, below=1)
        check_number("ridge", self.ridge, above=0)
        check_number("holdout", self.holdout, least=0, below=1)
        for name in ("rounds", "class_samples", "most_classes"):
            check_whole(name, getattr(self, name))

    def settings(self) -> dict[str, Any]:
        """JSON-able; the constructor takes them back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Group:
    """Samples that share one mixture: their coordinates (N, k), float64, and ids, in the order of the ids."""

    z: Tensor
    ids: Sequence[str]

    def where(self, keep: Sequence[bool]) -> Group:
        return Group(
            self.z[torch.tensor(keep, dtype=torch.bool)], [id for id, kept in zip(self.ids, keep, strict=True) if kept]
        )


@dataclass(frozen=True)
class Choice:
    """Number of components per group, and pseudo-count of the core's covariance."""

    components: int
    pseudo_count: float


def fit_group(group: Group, choice: Choice, basis: Basis, settings: GaussianSettings) -> Moments:
    """The mixture of one group under a choice."""
    first = min(range(len(group.ids)), key=lambda row: hash_fraction(_SPLIT, "start " + group.ids[row]))
    start = farthest_first(group.z, choice.components, first)
    shrinkage = Shrinkage(basis.spread, choice.pseudo_count, ridge_of(basis.spread, settings.ridge))
    return fit_moments(group.z, start, shrinkage, settings.rounds)


def choose(groups: Mapping[int, Group], basis: Basis, settings: GaussianSettings) -> Choice:
    """The choice under which held-out samples are likeliest.

    The likelihood is averaged over noise levels, so that overconfidence at low noise costs. Components are tried from
    few to many until more do not help. Where nothing can be held out or nothing is left to fit, the choice is cautious.
    """
    cautious = Choice(settings.components[0], max(settings.pseudo_counts))
    splits = [split(group, settings.holdout) for group in groups.values()]
    if not all(len(fitted.ids) and len(held.ids) for fitted, held in splits):
        return cautious
    noised = [_noised(held, settings.noise_levels) for _, held in splits]
    best, best_score = cautious, float("-inf")
    for components in settings.components:
        scores = {
            choice: sum(
                _log_likelihood(fit_group(fitted, choice, basis, settings), levels)
                for (fitted, _), levels in zip(splits, noised, strict=True)
            )
            for choice in (Choice(components, pseudo_count) for pseudo_count in settings.pseudo_counts)
        }
        winner = max(scores, key=lambda choice: scores[choice])
        if scores[winner] <= best_score:
            break
        best, best_score = winner, scores[winner]
    return best


def split(group: Group, holdout: float) -> tuple[Group, Group]:
    """(fitted, held out), by a hash of the ids: a sample that leaves moves no other."""
    held = [hash_fraction(_SPLIT, id) < holdout for id in group.ids]
    return group.where([not one for one in held]), group.where(held)


def _noised(held: Group, noise_levels: Sequence[float]) -> list[tuple[Tensor, float, float]]:
    """(x_t, alpha, sigma) per level, the noise of a sample keyed by its id."""
    levels = []
    for number, sigma in enumerate(noise_levels):
        alpha = (1 - sigma**2) ** 0.5
        shape = (held.z.shape[1],)
        eps = torch.stack([keyed_normal(shape, "gaussian", id, number, dtype=torch.float64) for id in held.ids])
        levels.append((alpha * held.z + sigma * eps, alpha, sigma))
    return levels


def _log_likelihood(moments: Moments, levels: Sequence[tuple[Tensor, float, float]]) -> float:
    mixture = GaussianMixture.from_moments(moments.pi, moments.mean, moments.covariance)
    scores = [mixture.log_prob(x_t, x_t.new_tensor([alpha]), x_t.new_tensor([sigma])) for x_t, alpha, sigma in levels]
    return torch.stack(scores).mean(0).sum().item()
