"""The `gaussian` router: one mixture per source, diffused in closed form, so that one fit serves every noise level.

science.md section 3: p_t^i = sum_k pi_k N(alpha m_k, alpha^2 C_k + sigma^2 I), w = softmax_i(log p_t^i + log lambda_i).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from intarsia.diffusion import GaussianMixture
from intarsia.errors import CorruptError, InputError
from intarsia.routers.basis import Basis
from intarsia.routers.expectation import Moments
from intarsia.routers.labels import LabelShares
from intarsia.routers.part import SampleSet, one_thread, stored
from intarsia.routers.selection import Choice, GaussianSettings, Group, choose, fit_group

_TENSORS = ("log_pi", "mean", "eigenvectors", "eigenvalues", "component_class", "label_counts")


@final
@dataclass(frozen=True, eq=False)
class GaussianPart:
    """The density of one source at every noise level, in a public basis; fitted to that source and the basis alone.

    Where every class of the source has enough samples, its components belong to classes, and p_t^i(x_t | y) is the
    mixture of those of y. Elsewhere p_t^i(x_t | y) is taken to be p_t^i(x_t) for every y the source has.

    Args:
        basis: the core's; not stored with the part, but its fingerprint is.
        mixture: K components of the basis's dimension, float32.
        component_class: (K,) int64: the place of a component's class among the labels in `shares`; -1 for samples
            without a label; all -2 where one mixture serves all classes.
        shares: how often the source had each label.
        choice: what the source's own held-out samples chose.
        fitted_with: the settings of the fit.

    Raises:
        InputError: pieces that do not belong together.
    """

    isolated: ClassVar[bool] = True

    basis: Basis
    mixture: GaussianMixture
    component_class: Tensor
    shares: LabelShares
    choice: Choice
    fitted_with: GaussianSettings

    def __post_init__(self) -> None:
        components, dimension = self.mixture.mean.shape
        if dimension != self.basis.rank or self.component_class.shape != (components,):
            raise InputError(
                f"a mixture of dimension {dimension} with classes {tuple(self.component_class.shape)} of {components} "
                f"components, in a basis of rank {self.basis.rank}: fit the part in this basis"
            )
        if self.component_class.min() < -2 or self.component_class.max() >= len(self.shares.counts):
            raise InputError(f"component classes {self.component_class.tolist()} for {len(self.shares.counts)} labels")

    @classmethod
    def fit(
        cls,
        latents: Tensor,
        ids: Sequence[str],
        labels: Sequence[str | None] | None,
        basis: Basis,
        *,
        settings: GaussianSettings | None = None,
    ) -> GaussianPart:
        """Fit one source: latents (N, *latent_shape), N ids and labels, in any order; one set gives the same bytes.

        Raises:
            InputError: samples that `SampleSet` refuses, or of another latent space than the basis.
        """
        settings = settings or GaussianSettings()
        samples = SampleSet(latents, ids, labels or ())
        samples.check_shape(basis.latent_shape)
        shares = LabelShares.of(samples.labels)
        with one_thread():
            groups = _groups(samples, basis, shares, settings)
            choice = choose(groups, basis, settings)
            fitted = {place: fit_group(group, choice, basis, settings) for place, group in groups.items()}
            mixture = _joined([(m, len(groups[place].ids) / len(samples)) for place, m in fitted.items()])
        places = [torch.full((len(m.pi),), place) for place, m in fitted.items()]
        return cls(basis, mixture.to(torch.float32), torch.cat(places), shares, choice, settings)

    @property
    def by_class(self) -> bool:
        """Whether classes have mixtures of their own."""
        return bool((self.component_class >= 0).any())

    def log_shares(self, label: str | None) -> Tensor:
        """(K,) log-weights of the components in p(y | i) p_t^i(x_t | y), -inf outside it; for None in p_t^i(x_t)."""
        if label is None or not self.by_class:
            return self.mixture.log_pi + self.shares.log_share(label)
        place = list(self.shares.counts).index(label) if label in self.shares.counts else len(self.shares.counts)
        return self.mixture.log_pi.where(self.component_class == place, -torch.inf)

    def given(self, label: str | None) -> GaussianMixture:
        """p^i(x0 | y) in the basis; p^i(x0) without a label, and for one that the source never had."""
        if label not in self.shares.counts or not self.by_class:
            return self.mixture
        rows = self.log_shares(label).isfinite()
        log_pi, *rest = (
            x[rows]
            for x in (self.mixture.log_pi, self.mixture.mean, self.mixture.eigenvectors, self.mixture.eigenvalues)
        )
        return GaussianMixture(log_pi - log_pi.logsumexp(0), *rest)

    def log_density(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, label: str | None = None) -> Tensor:
        """log p(y | i) + log p_t^i(x_t | y) in the basis: (B,), -inf for a label the source never had.

        Args:
            x_t: (B, *latent_shape).
            alpha, sigma: (B,).
            label: y; without one, log p_t^i(x_t).
        """
        z, (alpha, sigma) = self.basis.project(x_t), (c.to(x_t.dtype) for c in (alpha, sigma))
        return (self.log_shares(label) + self.mixture.to(x_t.dtype).component_log_prob(z, alpha, sigma)).logsumexp(1)

    def tensors(self) -> dict[str, Tensor]:
        """For a safetensors file; `from_tensors` reads them back."""
        counts = torch.tensor(list(self.shares.counts.values()), dtype=torch.int64)
        mixture = (self.mixture.log_pi, self.mixture.mean, self.mixture.eigenvectors, self.mixture.eigenvalues)
        return dict(zip(_TENSORS, (*mixture, self.component_class, counts), strict=True))

    def settings(self) -> dict[str, Any]:
        """What belongs beside the tensors, JSON-able."""
        return {
            "kind": "gaussian",
            "basis": self.basis.fingerprint(),
            "labels": list(self.shares.counts),
            "samples": self.shares.samples,
            "components": self.choice.components,
            "pseudo_count": self.choice.pseudo_count,
            "fit": self.fitted_with.settings(),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], basis: Basis) -> GaussianPart:
        """Read what `tensors` and `settings` gave.

        Raises:
            CorruptError: something is missing or does not fit.
            IncompatibleError: the part was fitted in another basis.
        """
        *mixture, component_class, counts = stored(tensors, _TENSORS, "the gaussian part")
        try:
            basis.check(settings["basis"], "the gaussian part")
            shares = LabelShares(dict(zip(settings["labels"], counts.tolist(), strict=True)), settings["samples"])
            choice = Choice(settings["components"], settings["pseudo_count"])
            fitted_with = GaussianSettings(**settings["fit"])
            return cls(basis, GaussianMixture(*mixture), component_class, shares, choice, fitted_with)
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise CorruptError(
                f"the gaussian part cannot be read ({error}); restore its files or fit it again"
            ) from error


def _groups(samples: SampleSet, basis: Basis, shares: LabelShares, settings: GaussianSettings) -> dict[int, Group]:
    """Samples by the mixture they belong to, under the numbers of `GaussianPart.component_class`."""
    z = basis.project(samples.latents.double())
    classes = {label: place for place, label in enumerate(shares.counts)}
    places = [-1 if label is None else classes[label] for label in samples.labels]
    everything = Group(z, samples.ids)
    sizes = {place: places.count(place) for place in sorted(set(places))}
    if not classes or len(classes) > settings.most_classes or min(sizes.values()) < settings.class_samples:
        return {-2: everything}
    return {wanted: everything.where([place == wanted for place in places]) for wanted in sizes}


def _joined(members: Sequence[tuple[Moments, float]]) -> GaussianMixture:
    """The mixture of the groups' mixtures, given each with its share of the samples."""
    pi, mean, covariance = (
        torch.cat(x) for x in zip(*((share * m.pi, m.mean, m.covariance) for m, share in members), strict=True)
    )
    return GaussianMixture.from_moments(pi, mean, covariance)
