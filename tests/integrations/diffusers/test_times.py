"""One drawing is one run, whatever the times of its scheduler; weights that remember follow one picture."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")

import diffusers
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

from intarsia.composition import Evidence
from intarsia.errors import SettingsError
from intarsia.integrations.diffusers.times import Times

from .tiny import BETAS, compose

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # theirs
NAMES = sorted({one.name for one in KarrasDiffusionSchedulers} | {"SASolverScheduler", "LCMScheduler", "TCDScheduler"})
WAYS: tuple[dict[str, Any], ...] = (
    {"timestep_spacing": "leading"},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True, "timestep_spacing": "trailing"},
)
MISSING = {"DPMSolverSDEScheduler": "torchsde"}  # what a scheduler needs beyond diffusers


class Remembering(Evidence):
    """Evidence that has a memory, as that of prototypes, clip and ito."""

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor, labels: Any) -> torch.Tensor:
        return torch.zeros(len(x_t), 2)

    @classmethod
    def start(cls) -> Remembering:
        return cls()


@pytest.fixture
def composed(pipe: Any, loras: dict[str, Path]) -> Any:
    composed = compose(pipe, loras, routing="posterior")
    plan = dataclasses.replace(composed.plan, weights=lambda process: Remembering, kind="prototype")
    composed.composition = dataclasses.replace(composed.composition, plan=plan)
    # What is drawn is of no interest here, nor are the seconds of a network.
    composed.base.forward = lambda sample, timestep, encoder_hidden_states, return_dict=True: (sample / 2,)
    return composed


def schedulers(name: str) -> Iterator[Any]:
    kind = getattr(diffusers, name)
    known = inspect.signature(kind).parameters
    for way in WAYS:
        yield kind(**{key: value for key, value in (BETAS | way).items() if key in known})


def drawing(pipe: Any, scheduler: Any, steps: int = 6) -> int:
    """A pipeline's loop, and how often it asks its model."""
    pipe.scheduler = scheduler
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(2, 4, 8, 8, generator=generator) * scheduler.init_noise_sigma
    more = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for t in scheduler.timesteps:
        answer = pipe.unet(scheduler.scale_model_input(latents, t), t, torch.ones(2, 12, 16))[0]
        latents = scheduler.step(answer, t, latents, **more).prev_sample
    return len(scheduler.timesteps)


@pytest.mark.parametrize("name", NAMES)
def test_one_drawing_is_one_run(name: str, pipe: Any, composed: Any) -> None:
    if name in MISSING:
        pytest.importorskip(MISSING[name])
    for scheduler in schedulers(name):
        for _ in range(2):
            calls = drawing(pipe, scheduler)
            assert len(composed.realised.trace) == calls, dict(scheduler.config)


def test_a_loop_that_sets_no_times_is_told_by_time_that_runs_backwards(pipe: Any, composed: Any) -> None:
    pipe.scheduler.set_timesteps(3)
    for _ in range(2):
        for t in pipe.scheduler.timesteps:
            composed(torch.full((1, 4, 8, 8), float(t)), t, torch.ones(1, 12, 16))
        assert len(composed.realised.trace) == 3


def test_crops_are_no_steps_of_each_other(pipe: Any, composed: Any) -> None:
    pipe.scheduler.set_timesteps(3)
    prompt, crops = torch.ones(1, 12, 16), torch.randn(2, 1, 4, 8, 8)
    composed(crops[0], pipe.scheduler.timesteps[0], prompt)
    composed(crops[0], pipe.scheduler.timesteps[0], prompt)  # another branch of the same picture
    with pytest.raises(SettingsError, match=r"prototype weights remember the step before, .* use weights 'gaussian'"):
        composed(crops[1], pipe.scheduler.timesteps[0], prompt)


def test_weights_without_a_memory_see_crops(pipe: Any, loras: dict[str, Path]) -> None:
    composed = compose(pipe, loras)
    larger = diffusers.StableDiffusionPanoramaPipeline(**pipe.components, requires_safety_checker=False)
    larger.scheduler = diffusers.DDIMScheduler.from_config(copy.deepcopy(pipe.scheduler.config))
    composed.bind(larger)
    larger.set_progress_bar_config(disable=True)
    # Its crops are 64 latents wide, of eight pixels each, however wide the autoencoder's are.
    size = {"height": 16, "width": 8 * 72, "num_inference_steps": 2, "output_type": "latent"}
    assert larger("a hat", generator=torch.Generator().manual_seed(7), **size).images.isfinite().all()
    assert len(composed.realised.trace) == 2 * 2  # crops in each of two steps
    assert composed.realised.images == (0, 0)


def test_half_precision_times_are_counted_with_those_they_are_rounded_to() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(28)
    times, told = Times(scheduler, unit=True), (scheduler.timesteps.to(torch.bfloat16) / 1000)
    for one in told:
        assert times.count(one) >= (told == one).sum()
    assert times.count(torch.tensor(1.0)) == 1
    assert times.count(torch.tensor(0.12345)) == 1  # a loop of the user's own
