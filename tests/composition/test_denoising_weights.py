"""The diffusion classifier against the exact posterior."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from intarsia.composition import CompositeDenoiser, DiffusionClassifier, Full, SampleSettings, default_prior, sample
from intarsia.diffusion import Cosine, Flow, Schedule, VPLinear, exact_weights, keyed_generator, keyed_normal
from intarsia.errors import SettingsError

from .mixtures import SCHEDULE, ExactMember, members

PRIOR = torch.tensor([0.75, 0.25], dtype=torch.float64)


def noisy(some: list[ExactMember], schedule: Schedule, t: float) -> tuple[Tensor, Tensor]:
    drawn = zip(some, (150, 50), strict=True)
    x0 = torch.cat([m.mixture.sample(count, keyed_generator("x0", m.name)) for m, count in drawn])
    times = torch.full((len(x0),), t, dtype=torch.float64)
    return schedule.diffuse(x0, times, keyed_normal(x0.shape, "eps", dtype=torch.float64)), times


def error(schedule: Schedule, t: float, levels: int) -> float:
    some = members(schedule=schedule)
    x_t, times = noisy(some, schedule, t)
    ours = DiffusionClassifier(some, schedule, levels=levels).log_density(x_t, times, [None] * len(x_t))
    exact = exact_weights(
        [m.mixture for m in some], PRIOR, x_t, schedule.alpha(times), schedule.sigma(times).clamp(min=1e-9)
    )
    return ((ours + PRIOR.log()).softmax(1) - exact).abs().mean().item()


@pytest.mark.parametrize("schedule", [Cosine(), Flow(), VPLinear()], ids=lambda s: s.name)
def test_errors_of_the_members_tell_the_exact_weights_at_every_time(schedule: Schedule) -> None:
    """Also of clean images, at t = 0, and of images that are nearly noise."""
    errors = {t: error(schedule, t, 8) for t in (0.0, 0.1, 0.4, 0.7, 0.95)}
    assert max(errors.values()) < 0.06, errors
    assert errors[0.0] < 0.005
    assert error(schedule, 0.4, 64) < 0.02


def test_noise_says_nothing_and_asks_nobody() -> None:
    some = members()
    classifier = DiffusionClassifier(some, SCHEDULE)
    answer = classifier.log_density(torch.randn(3, 2), torch.ones(3), [None] * 3)
    assert answer.tolist() == [[0, 0]] * 3
    assert [m.rows_seen for m in some] == [[], []]


def test_an_answer_does_not_depend_on_the_batch() -> None:
    some = members()
    x_t, t = noisy(some, SCHEDULE, 0.4)
    classifier = DiffusionClassifier(some, SCHEDULE)
    whole = classifier.log_density(x_t, t, [None] * len(x_t))
    torch.testing.assert_close(classifier.log_density(x_t[7:9], t[7:9], [None] * 2), whole[7:9])


def test_it_samples_with_its_cost_told() -> None:
    some = members((300, 100))
    some[0].classes, some[1].classes = {"cat": 300}, {"cat": 50, "owl": 50}
    weights = DiffusionClassifier(some, SCHEDULE, levels=2)
    model = CompositeDenoiser(some, default_prior(some), weights, Full(), SCHEDULE, (2,))
    settings = SampleSettings(steps=4)
    result = sample(model, 2, settings, decode=lambda x: x, labels=["cat", "owl"])
    assert result.weights[0, 0].tolist() == pytest.approx([0.75 / 0.875, 0.125 / 0.875])
    assert result.weights[:, 1].tolist() == [[0, 1]] * 4
    assert result.router_passes == 4 * 2 * 2 * 2


def test_members_are_asked_for_what_the_images_are_asked_for() -> None:
    """Also for a label that is public, and no source's own: here it moves what the first member says."""
    some = members()
    some[1].deaf = True
    x_t, t = noisy(some, SCHEDULE, 0.4)
    weights = DiffusionClassifier(some, SCHEDULE, levels=2)
    asked = ["cat"] * len(x_t)
    evidence = weights.start()
    evidence.told(asked)
    found = evidence(x_t, t, [None] * len(x_t))
    torch.testing.assert_close(found, weights.log_density(x_t, t, asked))
    assert not torch.allclose(found, weights.log_density(x_t, t, [None] * len(x_t)), atol=0.1)


def test_a_composition_tells_them() -> None:
    some = members()
    weights = DiffusionClassifier(some, SCHEDULE, levels=2)
    model = CompositeDenoiser(some, default_prior(some), weights, Full(), SCHEDULE, (2,), vocabulary=frozenset({"cat"}))
    heard: list[object] = []
    for member in some:
        member.hears = heard.append
    sample(model, 3, SampleSettings(steps=2), decode=lambda x: x, labels=["cat"] * 3)
    assert {*heard} == {("cat",) * 3}


def test_settings_are_checked() -> None:
    for wrong in ({"levels": 0}, {"seed": -1}):
        with pytest.raises(SettingsError, match=f"{next(iter(wrong))} is"):
            DiffusionClassifier(members(), SCHEDULE, **wrong)
