from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from intarsia.diffusion import PREDICTIONS, Schedule, expand, from_x0, keyed_normal, target, to_eps, to_x0
from intarsia.errors import UnknownName

KINDS = sorted(PREDICTIONS)
FINITE_WITHOUT_SIGNAL = ["v", "velocity", "x0"]


class Case(NamedTuple):
    x0: Tensor
    eps: Tensor
    x_t: Tensor
    alpha: Tensor
    sigma: Tensor


def make_case(schedule: Schedule, times: list[float]) -> Case:
    t = torch.tensor(times, dtype=torch.float64)
    x0, eps = (keyed_normal((len(times), 3, 2, 2), name, dtype=torch.float64) for name in ("x0", "eps"))
    alpha, sigma = expand(schedule.alpha(t), x0), expand(schedule.sigma(t), x0)
    return Case(x0, eps, alpha * x0 + sigma * eps, alpha, sigma)


@pytest.fixture
def case(schedule: Schedule) -> Case:
    return make_case(schedule, [0.1, 0.5, 0.95])


@pytest.mark.parametrize("kind", KINDS)
def test_the_pair_is_recovered(case: Case, kind: str) -> None:
    prediction = target(kind, case.x0, case.eps, case.alpha, case.sigma)
    torch.testing.assert_close(to_x0(kind, prediction, case.x_t, case.alpha, case.sigma), case.x0)
    torch.testing.assert_close(to_eps(kind, prediction, case.x_t, case.alpha, case.sigma), case.eps)


@pytest.mark.parametrize("there", KINDS)
@pytest.mark.parametrize("back", KINDS)
def test_every_pair_of_kinds_round_trips(case: Case, there: str, back: str) -> None:
    x_t, alpha, sigma = case.x_t, case.alpha, case.sigma
    prediction = keyed_normal(x_t.shape, "prediction", dtype=torch.float64)
    x0_hat = to_x0(there, prediction, x_t, alpha, sigma)
    other = from_x0(back, x0_hat, x_t, alpha, sigma)
    again = from_x0(there, to_x0(back, other, x_t, alpha, sigma), x_t, alpha, sigma)
    torch.testing.assert_close(again, prediction, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", FINITE_WITHOUT_SIGNAL)
def test_x0_is_finite_and_right_in_pure_noise(noise_ending: Schedule, kind: str) -> None:
    case = make_case(noise_ending, [1.0])
    prediction = target(kind, case.x0, case.eps, case.alpha, case.sigma)
    torch.testing.assert_close(to_x0(kind, prediction, case.x_t, case.alpha, case.sigma), case.x0)
    torch.testing.assert_close(from_x0(kind, case.x0, case.x_t, case.alpha, case.sigma), prediction)


@pytest.mark.parametrize("kind", ["eps", "v", "velocity"])
def test_both_are_finite_and_right_without_noise(schedule: Schedule, kind: str) -> None:
    case = make_case(schedule, [0.0])
    prediction = target(kind, case.x0, case.eps, case.alpha, case.sigma)
    torch.testing.assert_close(to_x0(kind, prediction, case.x_t, case.alpha, case.sigma), case.x0)
    torch.testing.assert_close(to_eps(kind, prediction, case.x_t, case.alpha, case.sigma), case.eps)


def test_definitions() -> None:
    x0, eps, alpha, sigma = torch.tensor(2.0), torch.tensor(-3.0), 0.6, 0.8
    expected = {"eps": -3.0, "score": 3.75, "x0": 2.0, "v": -3.4, "velocity": -5.0}
    for kind, value in expected.items():
        torch.testing.assert_close(target(kind, x0, eps, alpha, sigma), torch.tensor(value))


def test_flow_matches_the_formulas_of_the_literature() -> None:
    x_t, velocity, s = torch.tensor(0.3), torch.tensor(1.7), 0.25
    torch.testing.assert_close(to_x0("velocity", velocity, x_t, 1 - s, s), x_t - s * velocity)
    torch.testing.assert_close(to_eps("velocity", velocity, x_t, 1 - s, s), x_t + (1 - s) * velocity)


@pytest.mark.parametrize("kind", ["epsilon", ""])
def test_unknown_kind_names_the_known(kind: str) -> None:
    x = torch.zeros(1)
    known = r"unknown prediction.*eps, score, v, velocity, x0"
    for function in (to_x0, to_eps, from_x0):
        with pytest.raises(UnknownName, match=known):
            function(kind, x, x, 1.0, 1.0)
    with pytest.raises(UnknownName, match=known):
        target(kind, x, x, 1.0, 1.0)


def test_expand_is_one_number_per_image_in_the_dtype_of_the_batch() -> None:
    expanded = expand(torch.tensor([1.0, 2.0], dtype=torch.float64), torch.zeros(2, 3, 4, 4))
    assert expanded.shape == (2, 1, 1, 1)
    assert expanded.dtype == torch.float32
