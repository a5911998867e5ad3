"""Densities along the probability flow, against mixtures whose densities are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from intarsia.composition import CompositeDenoiser, Full
from intarsia.composition.weights import Exact
from intarsia.credit import FlowSettings, composed_drifts, divergence_shares, drift_of, flow_density, log_densities
from intarsia.diffusion import (
    Cosine,
    Flow,
    GaussianMixture,
    MixtureDenoiser,
    Schedule,
    VPLinear,
    joint,
    keyed_generator,
)
from intarsia.errors import SettingsError

from ..composition.mixtures import ExactMember

SCHEDULES = [Cosine(), VPLinear(), Flow()]
PRIOR = torch.tensor([0.7, 0.3], dtype=torch.float64)


def source(dimension: int, seed: int, *, centre: float) -> GaussianMixture:
    """Two modes with correlated covariances."""
    generator = keyed_generator("credit", seed)
    mean = torch.from_numpy(generator.standard_normal((2, dimension))) * 0.7 + centre
    root = torch.from_numpy(generator.standard_normal((2, dimension, dimension))) * 0.3
    covariance = root @ root.transpose(1, 2) + 0.2 * torch.eye(dimension)
    return GaussianMixture.from_moments(torch.tensor([0.6, 0.4], dtype=torch.float64), mean, covariance)


def truth(mixture: GaussianMixture, x0: Tensor, settings: FlowSettings) -> Tensor:
    """log p of x0 with noise of the path's first level."""
    sigma = torch.tensor(-settings.log_snr[0] / 2, dtype=torch.float64).exp().expand(len(x0))
    return mixture.log_prob(x0, torch.ones_like(sigma), sigma)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize("dimension", [1, 3])
def test_log_densities_are_exact_within_a_thousandth_of_a_nat_per_dimension(schedule: Schedule, dimension: int) -> None:
    mixture = source(dimension, 1, centre=0.5)
    x0 = mixture.sample(40, keyed_generator("credit images"))
    settings = FlowSettings(probes=None)
    found = flow_density(drift_of(MixtureDenoiser(schedule, mixture)), schedule, x0, settings)
    assert (found.log_density - truth(mixture, x0, settings)).abs().max() < 1e-3 * dimension
    assert found.spread.eq(0).all()


def test_probes_are_unbiased_and_say_how_far_off_they_are() -> None:
    mixture = source(8, 2, centre=0.0)
    x0 = mixture.sample(30, keyed_generator("credit images"))
    settings = FlowSettings(steps=30, probes=16)
    found = flow_density(drift_of(MixtureDenoiser(Cosine(), mixture)), Cosine(), x0, settings)
    wrong = found.log_density - truth(mixture, x0, settings)
    assert 0.7 < (wrong / found.spread).square().mean().sqrt() < 1.5
    assert found.spread.max() < 2


def pair(dimension: int = 2) -> tuple[list[ExactMember], CompositeDenoiser]:
    mixtures = [source(dimension, 1, centre=-0.4), source(dimension, 2, centre=0.4)]
    members = [ExactMember(f"m{k}", each) for k, each in enumerate(mixtures)]
    weights = Exact(mixtures, Cosine())
    return members, CompositeDenoiser(members, PRIOR, weights, Full(), Cosine(), (dimension,))


def test_members_and_their_composition_have_the_densities_of_their_mixtures() -> None:
    members, model = pair()
    whole = joint([member.mixture for member in members], PRIOR)
    x0 = whole.sample(25, keyed_generator("credit images"))
    settings = FlowSettings(steps=40, probes=None)
    log_q, spread = log_densities(members, Cosine(), x0, [None] * 25, settings)
    for k, member in enumerate(members):
        assert torch.allclose(log_q[:, k], truth(member.mixture, x0, settings), atol=2e-3)
    assert spread.eq(0).all()
    found = flow_density(composed_drifts(model, [None] * 25), Cosine(), x0, settings)
    assert torch.allclose(found.log_density, truth(whole, x0, settings), atol=2e-3)


def test_the_parts_of_the_papers_credit_sum_to_the_density() -> None:
    """Eq. 6, with its sign: log p_0(x_0) = log p_1(x_1) + sum_i of the integral of div(w_i drift_i)."""
    members, model = pair()
    x0 = joint([member.mixture for member in members], PRIOR).sample(25, keyed_generator("credit images"))
    settings = FlowSettings(steps=10, probes=None)
    parts = divergence_shares(model, x0, [None] * 25, settings)

    def mixed(z: Tensor, u: float) -> Tensor:
        return composed_drifts(model, [None] * 25)(z, u).sum(dim=1, keepdim=True)

    whole = flow_density(mixed, Cosine(), x0, settings)
    assert parts.parts.shape == (25, 2)
    assert torch.allclose(parts.parts.sum(dim=1), whole.parts[:, 0], rtol=0, atol=1e-9)


def test_an_image_deep_in_one_sources_ground_owes_it_the_whole_divergence() -> None:
    far, narrow = torch.full((1, 2), 30.0, dtype=torch.float64), 0.1 * torch.eye(2, dtype=torch.float64)[None]
    mixtures = [GaussianMixture.from_moments(torch.ones(1).double(), centre, narrow) for centre in (far, -far)]
    members = [ExactMember(f"m{k}", each) for k, each in enumerate(mixtures)]
    model = CompositeDenoiser(members, PRIOR, Exact(mixtures, Cosine()), Full(), Cosine(), (2,))
    parts = divergence_shares(model, far, [None], FlowSettings(steps=10, probes=None, log_snr=(8.0, 2.0))).parts
    assert parts[0, 0].abs() > 0.5
    assert parts[0, 1].abs() < 1e-6


def test_a_path_ends_where_the_process_does_and_not_where_images_show() -> None:
    """Stable Diffusion's ends at -5.4: what it leaves of an image is a few thousandths of a nat per dimension."""
    short, loud = VPLinear(beta_start=0.00085, beta_end=0.012, scaled=True), VPLinear(beta_end=0.004)
    mixture, settings = source(3, 1, centre=0.5), FlowSettings(probes=None)
    x0 = mixture.sample(40, keyed_generator("credit images"))
    found = flow_density(drift_of(MixtureDenoiser(short, mixture)), short, x0, settings)
    assert (found.log_density - truth(mixture, x0, settings)).abs().max() < 0.02 * 3
    with pytest.raises(SettingsError, match=r"ends at a log-SNR of -1\.\d, where images show"):
        flow_density(drift_of(MixtureDenoiser(loud, mixture)), loud, x0, settings)
    with pytest.raises(SettingsError, match="from the image, high, to the noise, low"):
        FlowSettings(log_snr=(-3.0, 4.0))
