"""`ito` in a pipeline: the Bayes filter over the scheduler's own steps, and its refusals."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")

import diffusers

from intarsia.diffusion import ddim_transition
from intarsia.errors import IncompatibleError, SettingsError
from intarsia.integrations.diffusers import compose
from intarsia.integrations.diffusers.process import process_of

from .tiny import BETAS, draw

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs
DDPM = diffusers.DDPMScheduler(**BETAS, clip_sample=False, timestep_spacing="trailing")
CONTINUOUS = {"timestep_type": "continuous", "prediction_type": "v_prediction"}


class Watched:
    """Every latent a pipeline had after a step."""

    def __init__(self) -> None:
        self.latents: list[torch.Tensor] = []

    def __call__(self, pipe: Any, step: int, timestep: int, found: dict[str, Any]) -> dict[str, Any]:
        self.latents.append(found["latents"].clone())
        return {}


@pytest.mark.parametrize(
    "kind", ["DDPMScheduler", pytest.param("EulerAncestralDiscreteScheduler", marks=pytest.mark.integration)]
)
def test_the_filter_is_that_of_the_path(
    kind: str, pipe: Any, loras: dict[str, Path], with_lora: dict[str, Any]
) -> None:
    """logits -= ||x_s - mu_i||^2 / 2 std^2, by hand: from the latents, the models, and the closed form of the step."""
    models = copy.deepcopy(with_lora)
    for model in models.values():  # near each other, so that the weights stay open
        for name, parameter in model.named_parameters():
            parameter.data *= 0.02 if "lora_B" in name else 1.0
    composed = compose(pipe, loras, weights="ito", routing="full")
    pipe.scheduler = getattr(diffusers, kind).from_config(DDPM.config)
    schedule, watched = process_of(pipe.scheduler).schedule, Watched()
    draw(pipe, scale=1.0, steps=4, seeds=[7], callback_on_step_end=watched, cross_attention_kwargs={"scale": 0.02})
    prompt = pipe.encode_prompt(["a red apple"], "cpu", 1, False)[0]
    assert composed.realised.weights[0, 0].tolist() == [0.5, 0.5]
    times = [(t.double() + 1) / 1000 for t in pipe.scheduler.timesteps]
    scales = [(1 / schedule.alpha(t)).item() if kind.startswith("Euler") else 1.0 for t in times]
    for k in range(1, 3):
        t, s = times[k], times[k + 1]
        x_t, x_s = watched.latents[k - 1].double() / scales[k], watched.latents[k].double() / scales[k + 1]
        step = ddim_transition(schedule, t.item(), s.item(), eta=1.0)
        logits = composed.realised.weights[k, 0].log()
        for i, name in enumerate("ab"):
            with torch.no_grad():
                eps = models[name](x_t.float(), pipe.scheduler.timesteps[k], prompt)[0].double()
            x0_hat = (x_t - schedule.sigma(t) * eps) / schedule.alpha(t)
            logits[i] -= (x_s - step.mean(x_t, x0_hat)).square().sum() / (2 * step.std**2)
        torch.testing.assert_close(composed.realised.weights[k + 1, 0], logits.softmax(0), rtol=1e-3, atol=1e-5)
    assert 0.01 < composed.realised.weights[-1, 0, 0] < 0.99


@pytest.mark.parametrize(
    ("scheduler", "drawing", "words"),
    [
        (diffusers.DDIMScheduler(**BETAS), {}, "that of DDIMScheduler is not known here; use DDPMScheduler"),
        (diffusers.DDPMScheduler(**BETAS), {}, "this scheduler clips x0; give it clip_sample=False"),
        (
            diffusers.DDPMScheduler(**BETAS, clip_sample=False, variance_type="learned_range"),
            {},
            "found variance_type 'learned_range'",
        ),
        (DDPM, {"scale": 3.0}, "which guidance bends"),
        (DDPM, {"seeds": [7, 7]}, "asked for twice from the same noise"),
        (DDPM, {"callback_on_step_end": lambda *_: {"latents": torch.ones(2, 4, 8, 8)}}, "times the noise power"),
        (
            diffusers.DDPMScheduler(**BETAS, clip_sample=False),
            {"steps": 2},
            "pure noise, .*timestep_spacing='trailing'",
        ),
    ],
)
def test_what_bends_the_path_is_refused(
    scheduler: Any, drawing: dict[str, Any], words: str, pipe: Any, loras: dict[str, Path]
) -> None:
    composed = compose(pipe, loras, weights="ito", routing="full")
    pipe.scheduler = scheduler
    with pytest.raises(SettingsError, match=words):
        draw(pipe, **({"scale": 1.0} | drawing))
    composed._pipe = None
    with pytest.raises(SettingsError, match=r"bind\(pipe\)"):
        composed(torch.ones(1, 4, 8, 8), 5, torch.ones(1, 12, 16))


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (diffusers.EulerDiscreteScheduler(**CONTINUOUS), "which must count steps"),
        (diffusers.EDMEulerScheduler(), "need a scheduler with alphas_cumprod"),
        (diffusers.CMStochasticIterativeScheduler(), "CMStochasticIterativeScheduler with no prediction type"),
        (diffusers.ScoreSdeVeScheduler(), "ScoreSdeVeScheduler with no prediction type"),
        (diffusers.KarrasVeScheduler(), "KarrasVeScheduler with no prediction type"),
        (diffusers.IPNDMScheduler(), "IPNDMScheduler with no prediction type"),
    ],
)
def test_a_scheduler_that_hides_its_noise_level_is_refused(scheduler: Any, words: str) -> None:
    with pytest.raises(IncompatibleError, match=words):
        process_of(scheduler)


def test_schedulers_of_flow_matching_are_known_by_name_or_by_their_sigmas() -> None:
    flowing = (diffusers.FlowMatchEulerDiscreteScheduler(), diffusers.UniPCMultistepScheduler(use_flow_sigmas=True))
    assert [process_of(one).flows for one in flowing] == [True, True]
    repainting = process_of(diffusers.RePaintScheduler())  # it has no setting, and steps by epsilon
    assert (repainting.flows, repainting.prediction) == (False, "eps")


def test_a_call_remembers_nothing_of_the_one_before(pipe: Any, loras: dict[str, Path]) -> None:
    composed = compose(pipe, loras, weights="ito", routing="full")
    pipe.scheduler = DDPM
    first = draw(pipe, scale=1.0)
    weights = composed.realised.weights

    def stop(pipe: Any, step: int, timestep: int, found: dict[str, Any]) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(pipe, scale=1.0, seeds=[3, 4], callback_on_step_end=stop)
    torch.testing.assert_close(draw(pipe, scale=1.0), first)
    torch.testing.assert_close(composed.realised.weights, weights)
