"""Pure diffusion mathematics: schedules, predictions, the denoiser protocol, samplers, keyed noise, the exact mixture.

No files, no networks, no compartments. Notation as in `x_t = alpha(t) x0 + sigma(t) eps`, t in [0, 1] with t = 1 noise.
"""

from intarsia.diffusion.asking import Steps, finished
from intarsia.diffusion.denoiser import Denoiser, PathObserver
from intarsia.diffusion.gaussian_mixture import GaussianMixture, MixtureDenoiser, exact_weights, joint
from intarsia.diffusion.grid import SPACINGS, time_grid
from intarsia.diffusion.noise import ImageNoise, StepNoise, keyed_generator, keyed_normal
from intarsia.diffusion.prediction import PREDICTIONS, Prediction, from_x0, target, to_eps, to_x0
from intarsia.diffusion.samplers import SAMPLERS, Sampler, ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, heun
from intarsia.diffusion.schedule import SCHEDULES, Cosine, Flow, Schedule, VPLinear, VPTable, expand, schedule_from
from intarsia.diffusion.transition import Transition, ddim_transition

__all__ = [
    "PREDICTIONS",
    "SAMPLERS",
    "SCHEDULES",
    "SPACINGS",
    "Cosine",
    "Denoiser",
    "Flow",
    "GaussianMixture",
    "ImageNoise",
    "MixtureDenoiser",
    "PathObserver",
    "Prediction",
    "Sampler",
    "Schedule",
    "StepNoise",
    "Steps",
    "Transition",
    "VPLinear",
    "VPTable",
    "ddim",
    "ddim_transition",
    "ddpm",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "exact_weights",
    "expand",
    "finished",
    "from_x0",
    "heun",
    "joint",
    "keyed_generator",
    "keyed_normal",
    "schedule_from",
    "target",
    "time_grid",
    "to_eps",
    "to_x0",
]
