"""The path filter against the exact posterior, and the samplings it cannot follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from intarsia.composition import (
    CompositeDenoiser,
    CompositeRun,
    Full,
    Ito,
    SampleSettings,
    Threshold,
    default_prior,
    sample,
)
from intarsia.composition.member import shares_of
from intarsia.composition.routing import Routing
from intarsia.diffusion import SAMPLERS, Cosine, Flow, ImageNoise, Schedule, exact_weights, time_grid
from intarsia.errors import SettingsError

from .mixtures import SCHEDULE, ExactMember, members


def composed(some: Sequence[ExactMember], *, routing: Routing | None = None) -> CompositeDenoiser:
    schedule = some[0].schedule
    weights = Ito(schedule, shares_of(some))
    return CompositeDenoiser(some, default_prior(some), weights, routing or Full(), schedule, (2,))


def followed(model: CompositeDenoiser, steps: int, images: int, eta: float) -> tuple[CompositeRun, list[Tensor]]:
    """A run with ddim, and the x_t of every call."""
    run, noise, times = model.run(range(images), seed=1), ImageNoise(1, range(images)), time_grid(model.schedule, steps)
    path = [noise.initial((2,)).double()]
    SAMPLERS["ddim"](run, path[0], times, eta=eta, noise=noise, on_step=lambda step, x_s, x0_hat: path.append(x_s))
    return run, path[:-1]


def error(model: CompositeDenoiser, run: CompositeRun, path: list[Tensor]) -> float:
    """Mean absolute error of the weights over steps, images and members."""
    mixtures, errors = [member.mixture for member in model.members if isinstance(member, ExactMember)], []
    for x_t, t, weights in zip(path, run.times, run.trace, strict=True):
        at = torch.full((len(x_t),), t, dtype=torch.float64)
        exact = exact_weights(mixtures, model.prior, x_t, model.schedule.alpha(at), model.schedule.sigma(at))
        errors.append((weights - exact).abs().mean())
    return torch.stack(errors).mean().item()


@pytest.mark.parametrize("schedule", [Cosine(), Flow()], ids=lambda s: s.name)
def test_the_filter_finds_the_exact_weights_at_eta_1(schedule: Schedule) -> None:
    model = composed(members((300, 100), schedule))
    fine, coarse = (error(model, *followed(model, steps, 24, 1.0)) for steps in (400, 40))
    assert fine < 0.006
    assert fine < coarse < 0.03


def test_with_less_noise_it_is_a_posterior_of_the_path_and_not_of_the_image() -> None:
    model = composed(members((300, 100)))
    assert 0.03 < error(model, *followed(model, 100, 24, 0.5)) < 0.15


def test_its_samples_have_the_right_shares() -> None:
    result = sample(
        composed(members((300, 100))), 500, SampleSettings(steps=30, batch=500, spacing="log_snr"), decode=lambda x: x
    )
    left = (result.images.mean(dim=1) < 0.25).double().mean().item()
    assert left == pytest.approx(0.75, abs=0.06)
    assert result.shares[0].item() == pytest.approx(left, abs=0.03)


def test_a_member_without_the_label_has_no_part_in_the_filter() -> None:
    some = members()
    some[0].classes, some[1].classes = {"cat": 60, "dog": 40}, {"dog": 20, "owl": 80}
    settings = SampleSettings(steps=5)
    weights = sample(composed(some), 3, settings, decode=lambda x: x, labels=["cat", "dog", "owl"]).weights
    assert weights[:, 0].tolist() == [[1, 0]] * 5
    assert weights[:, 2].tolist() == [[0, 1]] * 5
    assert weights[0, 1].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert not torch.equal(weights[1, 1], weights[0, 1])


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpmpp_2m"])
def test_a_path_without_noise_is_refused(sampler: str) -> None:
    with pytest.raises(SettingsError, match="this sampler adds none; use ddpm, dpmpp_2m_sde, or ddim with eta > 0"):
        sample(composed(members()), 2, SampleSettings(steps=4, sampler=sampler), decode=lambda x: x)


def test_any_share_of_noise_will_do() -> None:
    settings = SampleSettings(steps=4, sampler="ddim", eta=0.3)
    weights = sample(composed(members()), 2, settings, decode=lambda x: x).weights
    assert not torch.equal(weights[-1], weights[0])


def test_what_would_make_it_wrong_is_refused() -> None:
    some = members()
    with pytest.raises(SettingsError, match="routing 'threshold' leaves some out; use routing 'full'"):
        composed(some, routing=Threshold())
    model = composed([replace(member, classes={"cat": 100}) for member in some])
    with pytest.raises(SettingsError, match="guidance_scale 2 bends"):
        model.run(range(1), labels=["cat"], guidance_scale=2)
    with pytest.raises(SettingsError, match="start from pure noise, the first step has a log-SNR of 0"):
        model.run(range(1))(torch.zeros(1, 2), torch.full((1,), 0.5))


def test_one_member_is_followed_by_nobody() -> None:
    alone = composed(members()[:1])
    assert alone.schedule == SCHEDULE
    assert sample(alone, 2, SampleSettings(steps=3, sampler="heun"), decode=lambda x: x).shares.tolist() == [1]
