"""The linear basis in which all Gaussian parts live. The core fixes it, or densities would not compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from intarsia.diffusion import GaussianMixture, expand
from intarsia.digests import digest_of
from intarsia.errors import CorruptError, IncompatibleError, InputError, SettingsError
from intarsia.files import tensors_to_bytes
from intarsia.routers.expectation import Shrinkage, farthest_first, fit_moments
from intarsia.routers.part import one_thread, stored

CORE_COMPONENTS = 8
CORE_PSEUDO_COUNT = 100.0
RIDGE = 0.01  # of the core's mean variance
_ROUNDS = 20
_MOST = 4096  # core samples that the core's mixture is fitted to, at least; fewer than twice as many


@final
@dataclass(frozen=True, eq=False)
class Basis:
    """Orthonormal directions of the latent space, z = U x, and the core's own mixture p^0 in them.

    Outside the basis every source is taken to be the core's isotropic Gaussian N(`complement`, `residual_variance` I):
    a factor that all densities share, so it is left out of them and cancels in weights; only x0_hat needs it.

    Args:
        rows: U, (k, D) float32, orthonormal, in the order of the core's falling variance.
        core: p^0 in the basis, of dimension k.
        complement: (D,) the part of the core's mean that the basis misses.
        residual_variance: scalar, the core's mean variance over the D - k directions that the basis misses; 0 if none.
        latent_shape: of one latent; its numbers are D.

    Raises:
        InputError: shapes that do not belong together, or rows that are not orthonormal.
    """

    rows: Tensor
    core: GaussianMixture
    complement: Tensor
    residual_variance: Tensor
    latent_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        k, d = self.rows.shape if self.rows.ndim == 2 else (-1, -1)
        shapes = (
            self.core.mean.shape[1],
            *self.complement.shape,
            math.prod(self.latent_shape),
            *self.residual_variance.shape,
        )
        if shapes != (k, d, d):
            raise InputError(
                f"basis of {tuple(self.rows.shape)} rows with a core of dimension {shapes[0]}, a complement "
                f"{tuple(self.complement.shape)} and latents {self.latent_shape}: expected (k, D), k, (D,), D"
            )
        if not torch.allclose(self.rows @ self.rows.T, torch.eye(k), atol=1e-4):
            raise InputError("the rows of the basis are not orthonormal: fit it to the core again")

    @classmethod
    def fit(cls, core_latents: Tensor, rank: int | None = None) -> Basis:
        """Principal directions of the core, latents (N, *latent_shape); rank None keeps all D of them.

        Every component of every part costs k^2 numbers: above some 500 dimensions choose a rank.

        Raises:
            InputError: fewer than two latents, or some that are not finite.
            SettingsError: the rank is not in 1..D.
        """
        x = _core_of(core_latents)
        rank = x.shape[1] if rank is None else rank
        if not 1 <= rank <= x.shape[1]:
            raise SettingsError(
                f"rank {rank} for latents of {x.shape[1]} numbers: give 1 to {x.shape[1]}, or None for all"
            )
        with one_thread():
            variance, rows = _principal(x)
            u = rows[:rank].float()
            complement = x.mean(0) - x.mean(0) @ u.double().T @ u.double()
            residual = variance[rank:].mean() if rank < len(variance) else variance.new_zeros(())
            return cls(
                u, _core_mixture(x @ u.double().T), complement.float(), residual.float(), tuple(core_latents.shape[1:])
            )

    @classmethod
    def along(cls, rows: Tensor, core_latents: Tensor) -> Basis:
        """Given orthonormal directions (k, D), with the mixture of a core in them, latents (N, *latent_shape).

        Where D is too large for principal directions.

        Raises:
            InputError: as `fit`, or directions that are not orthonormal or of other latents.
        """
        x = _core_of(core_latents)
        u = rows.double()
        if u.ndim != 2 or u.shape[1] != x.shape[1]:
            raise InputError(f"directions {tuple(rows.shape)} for latents of {x.shape[1]} numbers: give (k, D)")
        with one_thread():
            complement = x.mean(0) - x.mean(0) @ u.T @ u
            missed = (x - x.mean(0)).square().sum(1).mean() - ((x - x.mean(0)) @ u.T).square().sum(1).mean()
            residual = missed.clamp(min=0) / max(1, x.shape[1] - len(u))
            mixture = _core_mixture(x @ u.T)
        return cls(rows.float(), mixture, complement.float(), residual.float(), tuple(core_latents.shape[1:]))

    @property
    def rank(self) -> int:
        return len(self.rows)

    @cached_property
    def spread(self) -> Tensor:
        """Covariance (k, k), float64, of the core around the nearest centre of its mixture: what shrinkage pulls to."""
        core = self.core.to(torch.float64)
        scaled = core.eigenvectors * core.eigenvalues[:, None, :]
        return torch.einsum("k,kde,kfe->df", core.log_pi.exp(), scaled, core.eigenvectors)

    def check(self, fingerprint: str, what: str) -> None:
        """Refuse a part that was fitted in another basis.

        Raises:
            IncompatibleError: `fingerprint`, which its record holds, is not this basis's.
        """
        if fingerprint != self.fingerprint():
            raise IncompatibleError(
                f"{what} was fitted in the basis {fingerprint[:16]}…, not in {self.fingerprint()[:16]}…: fit it again"
            )

    def project(self, x: Tensor) -> Tensor:
        """Coordinates (B, k) of latents (B, *latent_shape), in the dtype of x.

        Raises:
            InputError: latents of another shape.
        """
        if tuple(x.shape[1:]) != self.latent_shape:
            raise InputError(
                f"latents are {tuple(x.shape[1:])}, this basis is of {self.latent_shape}: use its backbone"
            )
        return x.flatten(1) @ self.rows.to(x.dtype).T

    # science.md section 3, analytic start; outside the basis m + alpha v (x_t - alpha m) / (alpha^2 v + sigma^2)
    def lift(self, z: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Estimates of x0 in the basis, z (B, k), completed by what the core says of x_t (B, ...) outside: (B, ...)."""
        rows = self.rows.to(z.dtype)
        if self.rank == rows.shape[1]:
            return (z @ rows).reshape(x_t.shape)
        flat = x_t.flatten(1)
        a, s = expand(alpha, flat), expand(sigma, flat)
        mean, variance = self.complement.to(z.dtype), self.residual_variance.to(z.dtype)
        outside = flat - (flat @ rows.T) @ rows
        gain = a * variance / (a**2 * variance + s**2).clamp(min=torch.finfo(z.dtype).tiny)
        return (z @ rows + mean + gain * (outside - a * mean)).reshape(x_t.shape)

    def tensors(self) -> dict[str, Tensor]:
        """For a safetensors file; `from_tensors` reads them back."""
        return {
            "rows": self.rows,
            "complement": self.complement,
            "residual_variance": self.residual_variance,
            "latent_shape": torch.tensor(self.latent_shape),
            "core.log_pi": self.core.log_pi,
            "core.mean": self.core.mean,
            "core.eigenvectors": self.core.eigenvectors,
            "core.eigenvalues": self.core.eigenvalues,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Basis:
        """Read what `tensors` gave.

        Raises:
            CorruptError: a tensor is missing or does not fit.
        """
        names = ("rows", "complement", "residual_variance", "latent_shape")
        rows, complement, residual_variance, shape = stored(tensors, names, "the basis")
        mixture = [f"core.{name}" for name in ("log_pi", "mean", "eigenvectors", "eigenvalues")]
        try:
            core = GaussianMixture(*stored(tensors, mixture, "the basis"))
            return cls(rows, core, complement, residual_variance, tuple(shape.tolist()))
        except InputError as error:
            raise CorruptError(f"the basis cannot be read ({error}); restore its file or fit it again") from error

    @cached_property
    def _fingerprint(self) -> str:
        return digest_of(tensors_to_bytes(self.tensors()))

    def fingerprint(self) -> str:
        """sha256 over all tensors: equal exactly when the bases are."""
        return self._fingerprint


def shared_basis(bases: Sequence[Basis]) -> Basis:
    """The one basis of all members of a bank.

    Raises:
        SettingsError: there are no members.
        IncompatibleError: their bases differ.
    """
    if not bases:
        raise SettingsError("a bank of no parts: give at least one")
    if len({basis.fingerprint() for basis in bases}) > 1:
        shown = ", ".join(f"{basis.fingerprint()[:16]}…" for basis in bases)
        raise IncompatibleError(f"parts of different bases ({shown}): fit all of them in one")
    return bases[0]


def _core_of(latents: Tensor) -> Tensor:
    """Latents of a core, flat (N, D) float64."""
    x = latents.detach().flatten(1).double()
    if len(x) < 2 or not x.isfinite().all():
        raise InputError(
            f"a core of {len(x)} latents, finite: {bool(x.isfinite().all())}; give at least two, all finite"
        )
    return x


def _principal(x: Tensor) -> tuple[Tensor, Tensor]:
    """Falling variances (D,) and orthonormal directions (D, D) as rows, each with its largest number positive."""
    variance, vectors = torch.linalg.eigh(x.T.cov(correction=0).reshape(x.shape[1], x.shape[1]))
    rows = vectors.T.flip(0)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return variance.flip(0).clamp(min=0), rows * largest.sign()


def _core_mixture(z: Tensor) -> GaussianMixture:
    """p^0 from core coordinates (N, k), float32. The core is public and fixed, so its order may matter."""
    z = z[:: max(1, len(z) // _MOST)]
    spread = z.T.cov(correction=0).reshape(z.shape[1], z.shape[1])
    shrinkage = Shrinkage(spread, CORE_PSEUDO_COUNT, ridge_of(spread))
    start = farthest_first(z, min(CORE_COMPONENTS, len(z)), 0)
    moments = fit_moments(z, start, shrinkage, _ROUNDS)
    return GaussianMixture.from_moments(moments.pi, moments.mean, moments.covariance).to(torch.float32)


def ridge_of(spread: Tensor, share: float = RIDGE) -> float:
    """A share of the mean variance of `spread` (k, k); positive even for a core that is constant."""
    return max(share * spread.diagonal().mean().item(), 1e-8)
