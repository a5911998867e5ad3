from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from intarsia.diffusion import Cosine, GaussianMixture, keyed_normal
from intarsia.errors import CorruptError, InputError, SettingsError
from intarsia.files import tensors_to_bytes
from intarsia.routers import Basis


def test_full_rank_changes_nothing_but_the_axes(core: Tensor, basis: Basis) -> None:
    z = basis.project(core.double())
    assert basis.rank == 6
    expected = torch.cdist(core.double().flatten(1), core.double().flatten(1))
    torch.testing.assert_close(torch.cdist(z, z), expected, atol=1e-5, rtol=0)
    one, zero = torch.ones(len(z)).double(), torch.zeros(len(z)).double()
    torch.testing.assert_close(basis.lift(z, core.double(), one, zero), core.double(), atol=1e-5, rtol=0)


def test_a_smaller_rank_keeps_the_directions_of_most_variance(core: Tensor, basis: Basis) -> None:
    small = Basis.fit(core, 2)
    assert torch.equal(small.rows, basis.rows[:2])
    kept = small.project(core).var(0).sum()
    assert all(kept >= (core.flatten(1) @ basis.rows[pair].T).var(0).sum() for pair in ([0, 2], [1, 3], [4, 5]))


def test_the_core_s_mixture_beats_one_gaussian_on_the_core_but_not_by_memorising(core: Tensor, basis: Basis) -> None:
    z, one, zero = basis.project(core).double(), torch.ones(400).double(), torch.zeros(400).double()
    single = GaussianMixture.from_moments(torch.ones(1).double(), z.mean(0, keepdim=True), z.T.cov()[None])
    gain = basis.core.to(torch.float64).log_prob(z, one, zero).mean() - single.log_prob(z, one, zero).mean()
    assert -0.2 < gain < 1.0


def test_spread_is_the_mean_covariance_of_the_core_s_components(basis: Basis) -> None:
    core = basis.core
    covariances = core.eigenvectors @ torch.diag_embed(core.eigenvalues) @ core.eigenvectors.mT
    expected = (core.log_pi.exp()[:, None, None] * covariances).sum(0)
    torch.testing.assert_close(basis.spread.float(), expected, atol=1e-5, rtol=1e-4)


def test_lift_answers_as_the_core_s_gaussian_outside_the_basis(core: Tensor) -> None:
    """A core that is one isotropic Gaussian outside the basis: the exact posterior mean is known there."""
    small = Basis.fit(core, 5)
    x_t = keyed_normal((7, 1, 2, 3), "x_t").double()
    t = torch.linspace(0.1, 0.9, 7).double()
    alpha, sigma = Cosine().alpha(t), Cosine().sigma(t)
    last = Basis.fit(core).rows[5].double()
    along, mean = x_t.flatten(1) @ last, core.double().flatten(1).mean(0) @ last
    variance = small.residual_variance.double()
    expected = mean + alpha * variance / (alpha**2 * variance + sigma**2) * (along - alpha * mean)
    lifted = small.lift(torch.zeros(7, 5).double(), x_t, alpha, sigma)
    torch.testing.assert_close(lifted.flatten(1) @ last, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(small.project(lifted), torch.zeros(7, 5).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rank", [None, 3])
def test_stored_and_read_back(core: Tensor, rank: int | None) -> None:
    basis = Basis.fit(core, rank)
    again = Basis.from_tensors(basis.tensors())
    assert again.fingerprint() == basis.fingerprint()
    assert again.latent_shape == (1, 2, 3)
    assert Basis.fit(core, 4).fingerprint() != basis.fingerprint()


def test_the_same_core_gives_the_same_bytes(core: Tensor) -> None:
    first, second = (tensors_to_bytes(Basis.fit(core.clone()).tensors()) for _ in range(2))
    assert first == second


def test_a_constant_core_is_enough() -> None:
    basis = Basis.fit(torch.ones(5, 1, 2, 2))
    assert basis.core.log_prob(torch.zeros(1, 4), torch.ones(1), torch.zeros(1)).isfinite().all()


def test_what_cannot_be_fitted_is_refused(core: Tensor) -> None:
    with pytest.raises(SettingsError, match="rank 7 for latents of 6 numbers"):
        Basis.fit(core, 7)
    with pytest.raises(InputError, match="core of 1 latents"):
        Basis.fit(core[:1])
    with pytest.raises(InputError, match="finite: False"):
        Basis.fit(core / 0)
    with pytest.raises(InputError, match=r"latents are \(1, 3, 2\)"):
        Basis.fit(core).project(core.reshape(-1, 1, 3, 2))


def test_damage_is_noticed(basis: Basis) -> None:
    tensors = basis.tensors()
    with pytest.raises(CorruptError, match=r"lacks core\.mean"):
        Basis.from_tensors({name: x for name, x in tensors.items() if name != "core.mean"})
    with pytest.raises(CorruptError, match="not orthonormal"):
        Basis.from_tensors(tensors | {"rows": 2 * basis.rows})
    with pytest.raises(CorruptError, match="expected"):
        Basis.from_tensors(tensors | {"complement": basis.complement[:3]})
    with pytest.raises(InputError, match="not orthonormal"):
        dataclasses.replace(basis, rows=basis.rows * 1.1)
