"""Whole trajectories against diffusers' own schedulers, with a nonlinear toy network and the same noise."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from intarsia.diffusion import ImageNoise, VPLinear, ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, expand, keyed_normal, to_x0

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # diffusers' own, on import
    pytest.importorskip("diffusers")
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
    from diffusers.schedulers import scheduling_ddpm

SHAPE = (3, 4, 4)
NOISE = ImageNoise(11, [0, 3])
SCHEDULES = {"linear": VPLinear(), "scaled_linear": VPLinear(beta_start=0.00085, beta_end=0.012, scaled=True)}
KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}

Path = list[tuple[Tensor, Tensor]]


def network(x_t: Tensor, t: Tensor) -> Tensor:
    """Deterministic, nonlinear in x_t and t, mixes pixels, stays bounded."""
    neighbours = x_t.roll(1, dims=-1) - 0.5 * x_t.flip(-2)
    return torch.tanh(neighbours + 2 * expand(t, x_t)) + 0.3 * torch.sin(3 * x_t)


@dataclasses.dataclass(frozen=True)
class Toy:
    schedule: VPLinear
    kind: str

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = expand(self.schedule.alpha(t), x_t), expand(self.schedule.sigma(t), x_t)
        return to_x0(self.kind, network(x_t, t), x_t, alpha, sigma)


def settings(betas: str, prediction: str, **more: object) -> dict[str, Any]:
    schedule = SCHEDULES[betas]
    ends = {"beta_start": schedule.beta_start, "beta_end": schedule.beta_end}
    return {"beta_schedule": betas, "prediction_type": prediction, **ends, **more}


def exact_betas(scheduler: Any) -> Tensor:
    config = scheduler.config
    power = {"linear": 1, "scaled_linear": 2}[config.beta_schedule]
    ends = (config.beta_start ** (1 / power), config.beta_end ** (1 / power))
    return torch.linspace(*ends, config.num_train_timesteps, dtype=torch.float64) ** power


def theirs(scheduler: Any, steps: int, **step_arguments: Any) -> tuple[Path, Tensor]:
    """Their trajectory [(x_s, x0_hat or nothing)] and the times at which it called the network, then 0.

    Their tables are float32, in which 1 - alpha_bar has four digits at the last steps: they are filled in float64.
    """
    scheduler.alphas_cumprod = torch.cumprod(1 - exact_betas(scheduler), 0)
    scheduler.set_timesteps(steps)
    if isinstance(scheduler, DPMSolverMultistepScheduler):
        alpha_bar = scheduler.alphas_cumprod[scheduler.timesteps]
        scheduler.sigmas = torch.cat([((1 - alpha_bar) / alpha_bar).sqrt(), torch.zeros(1)])
    x_t, path = NOISE.initial(SHAPE).double(), []
    times = (scheduler.timesteps.double() + 1) / 1000
    for k, (n, t) in enumerate(zip(scheduler.timesteps, times, strict=True)):
        noise = {"variance_noise": NOISE.step(k, SHAPE).double()} if draws_noise(scheduler, step_arguments) else {}
        step = scheduler.step(network(x_t, t.expand(2)), n, x_t, **step_arguments, **noise)
        x_t = step.prev_sample
        path.append((x_t, step.get("pred_original_sample")))
    return path, torch.cat([times, torch.zeros(1, dtype=torch.float64)])


def draws_noise(scheduler: Any, step_arguments: Mapping[str, float]) -> bool:
    return "eta" in step_arguments or scheduler.config.get("algorithm_type") == "sde-dpmsolver++"


def assert_same(ours: Path, reference: Path) -> None:
    assert len(ours) == len(reference)
    for (x_s, x0_hat), (their_x_s, their_x0_hat) in zip(ours, reference, strict=True):
        scale = max(1.0, their_x_s.abs().max().item())  # of states that a network unfit for its schedule blows up
        torch.testing.assert_close(x_s, their_x_s.double(), rtol=1e-5, atol=1e-5 * scale)
        if their_x0_hat is not None:
            torch.testing.assert_close(x0_hat, their_x0_hat.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("betas", SCHEDULES)
@pytest.mark.parametrize("prediction", KINDS)
def test_ddim(eta: float, spacing: str, betas: str, prediction: str) -> None:
    scheduler = DDIMScheduler(**settings(betas, prediction, clip_sample=False, timestep_spacing=spacing))
    reference, times = theirs(scheduler, 20, eta=eta)
    ours: Path = []
    toy, start = Toy(SCHEDULES[betas], KINDS[prediction]), NOISE.initial(SHAPE).double()
    ddim(toy, start, times, eta=eta, noise=NOISE, on_step=lambda _, *state: ours.append(state))
    assert_same(ours, reference)


@pytest.mark.parametrize("steps", [10, 50, 250])
@pytest.mark.parametrize("betas", SCHEDULES)
@pytest.mark.parametrize("prediction", KINDS)
def test_ddpm(monkeypatch: pytest.MonkeyPatch, steps: int, betas: str, prediction: str) -> None:
    draws = iter(range(steps))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: NOISE.step(next(draws), SHAPE).double())
    scheduler = DDPMScheduler(**settings(betas, prediction, clip_sample=False, variance_type="fixed_small"))
    reference, times = theirs(scheduler, steps)
    ours: Path = []
    toy, start = Toy(SCHEDULES[betas], KINDS[prediction]), NOISE.initial(SHAPE).double()
    ddpm(toy, start, times, noise=NOISE, on_step=lambda _, *state: ours.append(state))
    assert_same(ours, reference)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs, torch tensors to numpy
@pytest.mark.parametrize("steps", [2, 10, 40])  # theirs treats fewer than 15 steps apart
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("betas", SCHEDULES)
@pytest.mark.parametrize("prediction", KINDS)
def test_dpmpp_2m(steps: int, spacing: str, betas: str, prediction: str) -> None:
    """Comparable where theirs ends at sigma = 0, which makes its last step first order at any number of steps."""
    options = {
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "lower_order_final": True,
        "final_sigmas_type": "zero",
    }
    scheduler = DPMSolverMultistepScheduler(**settings(betas, prediction, timestep_spacing=spacing, **options))
    reference, times = theirs(scheduler, steps)
    ours: Path = []
    toy, start = Toy(SCHEDULES[betas], KINDS[prediction]), NOISE.initial(SHAPE).double()
    dpmpp_2m(toy, start, times, on_step=lambda _, *state: ours.append(state))
    assert_same(ours, reference)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("steps", [2, 10, 40])
@pytest.mark.parametrize("betas", SCHEDULES)
@pytest.mark.parametrize("prediction", KINDS)
def test_dpmpp_2m_sde(steps: int, betas: str, prediction: str) -> None:
    options = {
        "algorithm_type": "sde-dpmsolver++",
        "solver_order": 2,
        "lower_order_final": True,
        "final_sigmas_type": "zero",
    }
    reference, times = theirs(DPMSolverMultistepScheduler(**settings(betas, prediction, **options)), steps)
    ours: Path = []
    toy, start = Toy(SCHEDULES[betas], KINDS[prediction]), NOISE.initial(SHAPE).double()
    dpmpp_2m_sde(toy, start, times, noise=NOISE, on_step=lambda _, *state: ours.append(state))
    assert_same(ours, reference)


def test_schedule_equals_theirs() -> None:
    for betas, schedule in SCHEDULES.items():
        theirs_alpha_bar = DDPMScheduler(**settings(betas, "epsilon")).alphas_cumprod
        t = torch.arange(1, 1001, dtype=torch.float64) / 1000
        torch.testing.assert_close(schedule.alpha(t).float() ** 2, theirs_alpha_bar, rtol=1e-4, atol=1e-6)


def test_the_toy_network_is_nonlinear() -> None:
    x, t = keyed_normal((1, *SHAPE), 0, dtype=torch.float64), torch.tensor([0.5]).double()
    assert (network(2 * x, t) - 2 * network(x, t)).abs().max() > 0.1
