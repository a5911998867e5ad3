"""Deterministic expectation-maximisation for Gaussian mixtures whose covariances are shrunk towards a public one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDING = 1e-12  # of the largest squared norm: equal pictures get coordinates that differ in the last float32 bit


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """Where covariances are pulled to, and how hard: C = (n_k S_k + m T) / (n_k + m) + ridge I.

    `target` T is (D, D), `pseudo_count` m and `ridge` are > 0, so that one sample is enough for a proper covariance.
    """

    target: Tensor
    pseudo_count: float
    ridge: float

    def apply(self, scatter: Tensor, count: Tensor) -> Tensor:
        """Covariances (K, D, D) from scatter sums n_k S_k (K, D, D) and counts n_k (K,)."""
        pulled = (scatter + self.pseudo_count * self.target) / (count[:, None, None] + self.pseudo_count)
        return pulled + self.ridge * torch.eye(len(self.target), dtype=self.target.dtype)


@dataclass(frozen=True, eq=False)
class Moments:
    """Shares (K,), means (K, D) and covariances (K, D, D) of a mixture, float64."""

    pi: Tensor
    mean: Tensor
    covariance: Tensor


def farthest_first(z: Tensor, components: int, first: int) -> Tensor:
    """Rows of z (N, D) that lie far apart: from row `first` on, always the one farthest from those chosen; (K,) int64.

    Gives fewer than `components` rows when z has fewer that differ by more than rounding.
    """
    chosen = [first]
    nearest = (z - z[first]).square().sum(1)
    alike = _ROUNDING * z.square().sum(1).max()
    while len(chosen) < components and nearest.max() > alike:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (z - z[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)


def fit_moments(z: Tensor, start: Tensor, shrinkage: Shrinkage, iterations: int) -> Moments:
    """EM on z (N, D) from the centres z[start]; a fixed number of rounds, so that nothing depends on a tolerance."""
    nearest = torch.cdist(z, z[start], compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    r = torch.nn.functional.one_hot(nearest, len(start)).to(z.dtype)
    moments = maximise(z, r, shrinkage)
    for _ in range(iterations if len(start) > 1 else 0):
        moments = maximise(z, responsibilities(z, moments), shrinkage)
    return moments


# M-step, with the covariances of `Shrinkage`
def maximise(z: Tensor, r: Tensor, shrinkage: Shrinkage) -> Moments:
    """Moments from points (N, D) and responsibilities (N, K)."""
    count = r.sum(0)
    mean = (r.T @ z) / count.clamp(min=1e-12)[:, None]
    scatter = torch.stack([(r[:, k : k + 1] * (z - m)).T @ (z - m) for k, m in enumerate(mean)])
    return Moments(count / len(z), mean, shrinkage.apply((scatter + scatter.mT) / 2, count))


# E-step: r_k ∝ pi_k N(z; m_k, C_k), by Cholesky factors because no noise level is involved
def responsibilities(z: Tensor, moments: Moments) -> Tensor:
    """Posterior of the components given z (N, D): (N, K)."""
    factors = torch.linalg.cholesky(moments.covariance)
    residual = (z[None] - moments.mean[:, None]).mT
    whitened = torch.linalg.solve_triangular(factors, residual, upper=False)
    log_det = factors.diagonal(dim1=1, dim2=2).log().sum(1, keepdim=True)
    log_normal = -0.5 * whitened.square().sum(1) - log_det - 0.5 * z.shape[1] * math.log(2 * math.pi)
    return (moments.pi.log()[:, None] + log_normal).softmax(0).T
