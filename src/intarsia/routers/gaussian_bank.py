"""Many Gaussian parts at once: what a composition asks at every sampling step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from intarsia.diffusion import GaussianMixture, joint
from intarsia.routers.basis import shared_basis
from intarsia.routers.gaussian import GaussianPart
from intarsia.routers.labels import check_known

Labels = Sequence[str | None]


@final
class GaussianBank:
    """The components of n sources, stacked: the densities of all of them cost two matrix products.

    Computed in float32, or in float64 where x_t is; alpha and sigma are (B,).

    Raises:
        SettingsError: no parts.
        IncompatibleError: parts of different bases.
    """

    def __init__(self, parts: Sequence[GaussianPart]):
        self.basis = shared_basis([part.basis for part in parts])
        self.parts = tuple(parts)
        self._sizes = [len(part.component_class) for part in parts]
        self._stacked = joint([part.mixture for part in parts], torch.full((len(parts),), 1 / len(parts)))
        # By label, as they are asked for: all of them would take labels times components.
        self._log_shares: dict[str | None, Tensor] = {}
        self._in_dtype: dict[torch.dtype, GaussianMixture] = {self._stacked.mean.dtype: self._stacked}
        self._given: dict[tuple[int, str | None, torch.dtype], GaussianMixture] = {}

    def __len__(self) -> int:
        return len(self.parts)

    def log_density(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, labels: Labels | None = None) -> Tensor:
        """log p(y | i) + log p_t^i(x_t | y) in the basis, for every source: (B, n).

        Args:
            x_t: (B, *latent_shape).
            labels: B labels, None where an image has none; then, and when left out, log p_t^i(x_t).
        Returns:
            -inf where a source never had the image's label.

        Raises:
            InputError: x_t of another latent space.
            UnknownName: a label that none of the sources ever had.
        """
        z = self.basis.project(x_t)
        components = self._mixture(z.dtype).component_log_prob(z, alpha.to(z.dtype), sigma.to(z.dtype))
        weighted = self._component_shares(labels, len(x_t)).to(z.dtype) + components
        return torch.stack([source.logsumexp(1) for source in weighted.split(self._sizes, dim=1)], dim=1)

    # science.md section 3, analytic start: the x0_hat of each source's own mixture
    def x0_hat(
        self,
        x_t: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        labels: Labels | None = None,
        *,
        needed: Tensor | None = None,
    ) -> Tensor:
        """E[x0 | x_t] (with a label, E[x0 | x_t, y]) under every source: (B, n, *latent_shape).

        `needed`, bool (B, n), spares the work for all others, which are 0.

        Exact for the mixtures in a basis of full rank. Outside a smaller one all sources answer as the core's Gaussian
        (`Basis.lift`). A source that never had the image's label answers without it; its weight is 0 then.

        Raises:
            InputError: x_t of another latent space.
            UnknownName: a label that none of the sources ever had.
        """
        z = self.basis.project(x_t)
        labels = [None] * len(x_t) if labels is None else labels
        check_known([part.shares for part in self.parts], labels)
        estimates = z.new_zeros((len(x_t), len(self), *x_t.shape[1:]))
        for label in dict.fromkeys(labels):
            asked = torch.tensor([row for row, wanted in enumerate(labels) if wanted == label])
            for i in range(len(self)):
                rows = asked if needed is None else asked[needed[asked, i]]
                if not len(rows):
                    continue
                a, s = alpha[rows].to(z.dtype), sigma[rows].to(z.dtype)
                in_basis = self._mixture_given(i, label, z.dtype).x0_hat(z[rows], a, s)
                estimates[rows, i] = self.basis.lift(in_basis, x_t[rows], a, s)
        return estimates

    def _component_shares(self, labels: Labels | None, batch: int) -> Tensor:
        """(K,) without labels, else (B, K)."""
        if labels is None:
            return self._log_shares_of(None)
        check_known([part.shares for part in self.parts], labels)
        assert len(labels) == batch, f"{len(labels)} labels for {batch} images"
        return torch.stack([self._log_shares_of(label) for label in labels])

    def _log_shares_of(self, label: str | None) -> Tensor:
        """(K,)"""
        if label not in self._log_shares:
            self._log_shares[label] = torch.cat([part.log_shares(label) for part in self.parts])
        return self._log_shares[label]

    def _mixture(self, dtype: torch.dtype) -> GaussianMixture:
        if dtype not in self._in_dtype:
            self._in_dtype[dtype] = self._stacked.to(dtype)
        return self._in_dtype[dtype]

    def _mixture_given(self, i: int, label: str | None, dtype: torch.dtype) -> GaussianMixture:
        key = (i, label, dtype)
        if key not in self._given:
            self._given[key] = self.parts[i].given(label).to(dtype)
        return self._given[key]
