from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from intarsia.diffusion import (
    Cosine,
    GaussianMixture,
    MixtureDenoiser,
    Schedule,
    exact_weights,
    joint,
    keyed_generator,
    keyed_normal,
)
from intarsia.errors import InputError

LEVELS = torch.tensor([0.02, 0.3, 0.6, 0.9, 1.0], dtype=torch.float64)
Moments = tuple[Tensor, Tensor, Tensor]


def noisy(schedule: Schedule, d: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """One point per noise level, with its alpha and sigma."""
    return (
        1.5 * keyed_normal((len(LEVELS), d), "x_t", dtype=torch.float64),
        schedule.alpha(LEVELS),
        schedule.sigma(LEVELS),
    )


def reference(moments: Moments, alpha: Tensor, sigma: Tensor) -> MixtureSameFamily:
    """torch's own mixture for one noise level."""
    pi, mean, covariance = moments
    noise = sigma**2 * torch.eye(mean.shape[1], dtype=mean.dtype)
    return MixtureSameFamily(Categorical(pi), MultivariateNormal(alpha * mean, alpha**2 * covariance + noise))


def test_densities_equal_torch_distributions(mixture: GaussianMixture, moments: Moments, schedule: Schedule) -> None:
    x_t, alpha, sigma = noisy(schedule)
    components, total = mixture.component_log_prob(x_t, alpha, sigma), mixture.log_prob(x_t, alpha, sigma)
    for row in range(len(x_t)):
        p_t = reference(moments, alpha[row], sigma[row])
        torch.testing.assert_close(components[row], p_t.component_distribution.log_prob(x_t[row]))
        torch.testing.assert_close(total[row], p_t.log_prob(x_t[row]))


def test_responsibilities_are_bayes_rule(mixture: GaussianMixture, moments: Moments, schedule: Schedule) -> None:
    x_t, alpha, sigma = noisy(schedule)
    p = moments[0] * mixture.component_log_prob(x_t, alpha, sigma).exp()
    torch.testing.assert_close(mixture.responsibilities(x_t, alpha, sigma), p / p.sum(1, keepdim=True))


def test_score_equals_autograd(mixture: GaussianMixture, schedule: Schedule) -> None:
    x_t, alpha, sigma = noisy(schedule)
    x_t.requires_grad_()
    (expected,) = torch.autograd.grad(mixture.log_prob(x_t, alpha, sigma).sum(), x_t)
    torch.testing.assert_close(mixture.score(x_t, alpha, sigma), expected, rtol=1e-9, atol=1e-9)


def test_x0_hat_equals_the_formula_of_the_analytic_start(
    mixture: GaussianMixture, moments: Moments, schedule: Schedule
) -> None:
    """science.md section 3, with the inverse written out."""
    x_t, alpha, sigma = noisy(schedule)
    _, mean, covariance = moments
    r = mixture.responsibilities(x_t, alpha, sigma)
    eye = torch.eye(4, dtype=torch.float64)
    for row, (a, s) in enumerate(zip(alpha, sigma, strict=True)):
        whitened = torch.linalg.solve(a**2 * covariance + s**2 * eye, (x_t[row] - a * mean).unsqueeze(-1))
        per_component = mean + a * (covariance @ whitened).squeeze(-1)
        torch.testing.assert_close(mixture.x0_hat(x_t, alpha, sigma)[row], r[row] @ per_component)


def test_pure_noise_says_nothing(mixture: GaussianMixture, moments: Moments) -> None:
    x_t, alpha, sigma = keyed_normal((2, 4), 0, dtype=torch.float64), torch.zeros(2).double(), torch.ones(2).double()
    torch.testing.assert_close(mixture.responsibilities(x_t, alpha, sigma), moments[0].expand(2, -1))
    torch.testing.assert_close(mixture.x0_hat(x_t, alpha, sigma), (moments[0] @ moments[1]).expand(2, -1))


def test_without_noise_x0_hat_is_x_t(mixture: GaussianMixture) -> None:
    x_t = keyed_normal((2, 4), 0, dtype=torch.float64)
    one, zero = torch.ones(2).double(), torch.zeros(2).double()
    torch.testing.assert_close(mixture.x0_hat(x_t, one, zero), x_t)


def test_samples_have_the_mixture_s_moments(mixture: GaussianMixture, moments: Moments) -> None:
    pi, mean, covariance = moments
    x0 = mixture.sample(40_000, keyed_generator("sample"))
    centred = mean - pi @ mean
    total = torch.einsum("k,kde->de", pi, covariance + centred[:, :, None] * centred[:, None, :])
    torch.testing.assert_close(x0.mean(0), pi @ mean, rtol=0, atol=0.04)
    torch.testing.assert_close(x0.T.cov(), total, rtol=0.05, atol=0.05)


def test_samples_depend_on_the_generator_only(mixture: GaussianMixture) -> None:
    draws = [mixture.sample(8, keyed_generator("draw", key)) for key in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_float32_is_close_to_float64(mixture: GaussianMixture) -> None:
    x_t, alpha, sigma = noisy(Cosine())
    single = mixture.to(torch.float32).x0_hat(x_t.float(), alpha.float(), sigma.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), mixture.x0_hat(x_t, alpha, sigma), rtol=1e-4, atol=1e-4)


def test_component_without_share_never_appears(moments: Moments) -> None:
    _, mean, covariance = moments
    pi = torch.tensor([0.5, 0.0, 0.5]).double()
    mixture = GaussianMixture.from_moments(pi, mean, covariance)
    assert (mixture.responsibilities(*noisy(Cosine()))[:, 1] == 0).all()
    assert mixture.x0_hat(*noisy(Cosine())).isfinite().all()
    assert mixture.sample(10, keyed_generator(0)).isfinite().all()


def test_point_masses_are_the_softmax_over_data() -> None:
    """Zero covariance: the ideal denoiser of a data set is a softmax-weighted mean of its points."""
    points = keyed_normal((5, 4), "points", dtype=torch.float64)
    mixture = GaussianMixture.from_moments(torch.full((5,), 0.2).double(), points, torch.zeros(5, 4, 4).double())
    x_t, alpha, sigma = noisy(Cosine())
    distance = ((x_t[:, None] - alpha[:, None, None] * points) ** 2).sum(-1)
    expected = (-distance / (2 * sigma[:, None] ** 2)).softmax(1) @ points
    torch.testing.assert_close(mixture.x0_hat(x_t, alpha, sigma), expected)


def test_denoiser_takes_pictures(mixture: GaussianMixture, schedule: Schedule) -> None:
    x_t, alpha, sigma = noisy(schedule)
    picture = MixtureDenoiser(schedule, mixture)(x_t.reshape(-1, 1, 2, 2), LEVELS)
    torch.testing.assert_close(picture, mixture.x0_hat(x_t, alpha, sigma).reshape(-1, 1, 2, 2))


@pytest.mark.parametrize("field", ["log_pi", "mean", "eigenvectors", "eigenvalues"])
def test_shapes_that_disagree_are_refused(mixture: GaussianMixture, field: str) -> None:
    with pytest.raises(InputError, match=r"expected \(K,\), \(K, D\), \(K, D, D\), \(K, D\)"):
        dataclasses.replace(mixture, **{field: getattr(mixture, field)[:2]})


def test_senseless_mixtures_are_refused(moments: Moments) -> None:
    pi, mean, covariance = moments
    with pytest.raises(InputError, match="sum to 1"):
        GaussianMixture.from_moments(2 * pi, mean, covariance)
    with pytest.raises(InputError, match=">= 0"):
        GaussianMixture.from_moments(torch.tensor([1.5, -0.25, -0.25]).double(), mean, covariance)
    with pytest.raises(InputError, match="not finite"):
        GaussianMixture.from_moments(pi, mean * math.nan, covariance)
    with pytest.raises(InputError, match="not finite"):
        GaussianMixture.from_moments(pi, mean, covariance / 0)
    with pytest.raises(InputError, match="variances must be >= 0"):
        GaussianMixture.from_moments(pi, mean, -covariance)


def test_a_covariance_of_low_rank_is_accepted(moments: Moments) -> None:
    """Rounding leaves its zero eigenvalues slightly negative."""
    pi, mean, _ = moments
    direction = keyed_normal((3, 4, 1), "direction", dtype=torch.float64)
    mixture = GaussianMixture.from_moments(pi, mean, direction @ direction.mT)
    assert mixture.x0_hat(*noisy(Cosine())).isfinite().all()


def test_weighted_members_are_the_monolith(sources: list[GaussianMixture], schedule: Schedule) -> None:
    """Paper, Proposition 3.1: sum_i w_i x0_hat_i is the x0_hat of the mixture of all sources."""
    prior = torch.tensor([0.2, 0.5, 0.3]).double()
    x_t, alpha, sigma = noisy(schedule)
    w = exact_weights(sources, prior, x_t, alpha, sigma)
    members = torch.stack([source.x0_hat(x_t, alpha, sigma) for source in sources], dim=1)
    composed = (w[:, :, None] * members).sum(1)
    torch.testing.assert_close(composed, joint(sources, prior).x0_hat(x_t, alpha, sigma), rtol=1e-10, atol=1e-10)


def test_the_same_weights_mix_scores(sources: list[GaussianMixture], schedule: Schedule) -> None:
    prior = torch.tensor([0.2, 0.5, 0.3]).double()
    x_t, alpha, sigma = noisy(schedule)
    w = exact_weights(sources, prior, x_t, alpha, sigma)
    members = torch.stack([source.score(x_t, alpha, sigma) for source in sources], dim=1)
    composed = (w[:, :, None] * members).sum(1)
    torch.testing.assert_close(composed, joint(sources, prior).score(x_t, alpha, sigma), rtol=1e-9, atol=1e-9)


def test_weights_are_posteriors(sources: list[GaussianMixture], schedule: Schedule) -> None:
    prior = torch.tensor([0.2, 0.5, 0.3]).double()
    x_t, alpha, sigma = noisy(schedule)
    w = exact_weights(sources, prior, x_t, alpha, sigma)
    p = prior * torch.stack([source.log_prob(x_t, alpha, sigma).exp() for source in sources], dim=1)
    torch.testing.assert_close(w, p / p.sum(1, keepdim=True))


def test_weights_in_pure_noise_are_the_prior_and_a_source_without_share_has_none(
    sources: list[GaussianMixture], noise_ending: Schedule
) -> None:
    prior = torch.tensor([0.75, 0.0, 0.25]).double()
    w = exact_weights(sources, prior, *noisy(noise_ending))
    torch.testing.assert_close(w[-1], prior)
    assert (w[:, 1] == 0).all()


@pytest.mark.parametrize("prior", [[0.5, 0.5], [0.5, 0.7, -0.2], [0.0, 0.0, 0.0], [0.5, 0.5, math.nan]])
def test_senseless_priors_are_refused(sources: list[GaussianMixture], prior: list[float]) -> None:
    with pytest.raises(InputError, match="for 3 sources: give one share"):
        exact_weights(sources, torch.tensor(prior).double(), *noisy(Cosine()))


def test_joint_needs_a_share_for_each(sources: list[GaussianMixture]) -> None:
    with pytest.raises(InputError, match="for 3 sources"):
        joint(sources, torch.tensor([0.5, 0.5]).double())
    with pytest.raises(InputError, match="sum to 1"):
        joint(sources, torch.tensor([0.5, 0.5, 0.5]).double())
