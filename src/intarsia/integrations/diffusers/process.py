"""What a diffusers scheduler says about the forward process: schedule, kind of prediction, the law of its own steps.

A model sees x_t on the scale of its training whatever the scheduler: Euler's inputs are scaled back before they reach
it, and flow matching's timestep is the noise level itself. So (model input, timestep) is (x_t, t) here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from intarsia.diffusion import Flow, Schedule, Transition, VPTable, ddim_transition
from intarsia.errors import IncompatibleError, SettingsError

PREDICTION_OF = MappingProxyType({"epsilon": "eps", "v_prediction": "v", "sample": "x0"})
WORD_OF = MappingProxyType({ours: word for word, ours in PREDICTION_OF.items()})
# By what their steps do with an answer; they have no setting for it.
IMPLIED = MappingProxyType({"RePaintScheduler": "epsilon"})
PATH_SCHEDULERS = ("DDPMScheduler", "EulerAncestralDiscreteScheduler", "FlowMatchEulerDiscreteScheduler")


@dataclass(frozen=True)
class Process:
    """The forward process of a model, and what the model predicts (a name of `intarsia.diffusion.PREDICTIONS`)."""

    schedule: Schedule
    prediction: str

    @property
    def flows(self) -> bool:
        return isinstance(self.schedule, Flow)

    def time(self, timestep: Tensor, steps: int) -> Tensor:
        """Timesteps (B,) of a scheduler with that many training steps -> t (B,) float64 in (0, 1]."""
        n = timestep.detach().cpu().double()
        return ((n if self.flows else n + 1) / steps).clamp(max=1.0)


def process_of(scheduler: Any) -> Process:
    """The forward process that a scheduler undoes.

    Raises:
        IncompatibleError: a scheduler without alphas that is not one of flow matching, no prediction type or an unknown
            one, or timesteps that do not count steps.
    """
    name, config = type(scheduler).__name__, scheduler.config
    if flows(name, config):
        return Process(Flow(), "velocity")
    prediction = config.get("prediction_type", IMPLIED.get(name))
    if prediction == "v_prediction" and config.get("timestep_type") == "continuous":
        raise IncompatibleError(
            f"{name} with timestep_type 'continuous': weights that look at the image read noise "
            "levels off timesteps, which must count steps; choose another scheduler, or weights 'uniform' or 'prior'"
        )
    if prediction not in PREDICTION_OF or not hasattr(scheduler, "alphas_cumprod"):
        found = f"prediction type '{prediction}'" if prediction else "no prediction type"
        raise IncompatibleError(
            f"{name} with {found}: weights that look at the image need a scheduler with alphas_cumprod and epsilon, "
            "v_prediction or sample, or one of flow matching; choose such a scheduler, or weights 'uniform' or 'prior'"
        )
    return Process(_table(tuple(scheduler.alphas_cumprod.double().tolist())), PREDICTION_OF[prediction])


def flows(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a scheduler of this class and configuration is one of flow matching."""
    return "FlowMatch" in name or bool(config.get("use_flow_sigmas"))


@functools.lru_cache(maxsize=8)
def _table(alpha_bar: tuple[float, ...]) -> VPTable:
    return VPTable(alpha_bar)


def check_path(scheduler: Any) -> None:
    """Refuse a scheduler whose fresh noise is not known exactly, for weights that read it (`ito`).

    Raises:
        SettingsError: says what is in the way.
    """
    name, config = type(scheduler).__name__, scheduler.config
    if name not in PATH_SCHEDULERS:
        raise SettingsError(
            f"ito weights read the fresh noise of every step, and that of {name} is not known here; use "
            f"{', '.join(PATH_SCHEDULERS[:-1])}, or {PATH_SCHEDULERS[-1]} with stochastic_sampling=True"
        )
    if name == PATH_SCHEDULERS[-1] and not config.stochastic_sampling:
        raise SettingsError(f"ito weights need fresh noise at every step: give {name} stochastic_sampling=True")
    if name == "DDPMScheduler":
        if config.variance_type not in ("fixed_small", "fixed_small_log", "fixed_large"):
            raise SettingsError(
                f"ito weights need a variance that the model does not predict, found variance_type "
                f"'{config.variance_type}'; use fixed_small or fixed_large"
            )
        if config.clip_sample or config.thresholding:
            raise SettingsError(
                "ito weights take each step for linear in what the members say, and this scheduler clips x0; give it "
                "clip_sample=False and thresholding=False"
            )


def transition_of(scheduler: Any, schedule: Schedule, t: float, s: float) -> Transition:
    """The step from t down to s of a scheduler that `check_path` lets pass."""
    if isinstance(schedule, Flow):
        return Transition(t=t, s=s, a=0.0, b=1 - s, std=s)
    # Euler's ancestral step is DDIM's at eta = 1, in other coordinates.
    step = ddim_transition(schedule, t, s, eta=1.0)
    if scheduler.config.get("variance_type") != "fixed_large":
        return step
    at = torch.tensor([t, s], dtype=torch.float64)
    kept = schedule.alpha(at) ** 2
    return Transition(t=t, s=s, a=step.a, b=step.b, std=(1 - kept[0] / kept[1]).sqrt().item())
