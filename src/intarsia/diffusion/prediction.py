"""What a network may predict, and one line for each way from one quantity to another (science.md section 1).

Given x_t = alpha x0 + sigma eps, every quantity below is affine in eps. Each formula solves its own 2x2 linear system,
so it holds for any (alpha, sigma), variance preserving or not, and nothing is divided by alpha unless the quantity
itself ceases to determine x0 at alpha = 0 (eps and score do; v, velocity and x0 do not). Shapes: x_t, x0, eps and the
predictions are (B, ...); alpha and sigma are floats or tensors broadcastable to them (see `expand`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from intarsia.errors import UnknownName

Coefficient = Tensor | float


# x_t = alpha x0 + sigma eps
def x0_from_eps(eps: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """(x_t - sigma eps) / alpha."""
    return (x_t - sigma * eps) / alpha


def eps_from_x0(x0: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """(x_t - alpha x0) / sigma."""
    return (x_t - alpha * x0) / sigma


# score = -eps / sigma (science.md section 1); with it x0 is Tweedie's formula
def x0_from_score(score: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """(x_t + sigma^2 score) / alpha."""
    return (x_t + sigma**2 * score) / alpha


def eps_from_score(score: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """-sigma score."""
    return -sigma * score


# v = alpha eps - sigma x0 (Salimans and Ho 2022); the denominator is 1 where the variance is preserved
def x0_from_v(v: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """(alpha x_t - sigma v) / (alpha^2 + sigma^2)."""
    return (alpha * x_t - sigma * v) / (alpha**2 + sigma**2)


def eps_from_v(v: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """(sigma x_t + alpha v) / (alpha^2 + sigma^2)."""
    return (sigma * x_t + alpha * v) / (alpha**2 + sigma**2)


# velocity = eps - x0 (flow matching, science.md section 3); the denominator is 1 on the flow schedule
def x0_from_velocity(velocity: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """(x_t - sigma velocity) / (alpha + sigma)."""
    return (x_t - sigma * velocity) / (alpha + sigma)


def eps_from_velocity(velocity: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """(x_t + alpha velocity) / (alpha + sigma)."""
    return (x_t + alpha * velocity) / (alpha + sigma)


@dataclass(frozen=True)
class Prediction:
    """One kind of network output: from it to x0 and eps, and back from the pair.

    `to_x0` and `to_eps` take (prediction, x_t, alpha, sigma); `of` takes (x0, eps, alpha, sigma).
    """

    to_x0: Callable[[Tensor, Tensor, Coefficient, Coefficient], Tensor]
    to_eps: Callable[[Tensor, Tensor, Coefficient, Coefficient], Tensor]
    of: Callable[[Tensor, Tensor, Coefficient, Coefficient], Tensor]


PREDICTIONS: Mapping[str, Prediction] = MappingProxyType(
    {
        "eps": Prediction(x0_from_eps, lambda eps, x_t, alpha, sigma: eps, lambda x0, eps, alpha, sigma: eps),
        "score": Prediction(x0_from_score, eps_from_score, lambda x0, eps, alpha, sigma: -eps / sigma),
        "x0": Prediction(lambda x0, x_t, alpha, sigma: x0, eps_from_x0, lambda x0, eps, alpha, sigma: x0),
        "v": Prediction(x0_from_v, eps_from_v, lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0),
        "velocity": Prediction(x0_from_velocity, eps_from_velocity, lambda x0, eps, alpha, sigma: eps - x0),
    }
)


def to_x0(kind: str, prediction: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """x0 from a prediction of any kind; finite at alpha = 0 for "v", "velocity" and "x0".

    Raises:
        UnknownName: `kind` is not in `PREDICTIONS`.
    """
    return _known(kind).to_x0(prediction, x_t, alpha, sigma)


def to_eps(kind: str, prediction: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """eps from a prediction of any kind; finite at sigma = 0 for all but "x0".

    Raises:
        UnknownName: `kind` is not in `PREDICTIONS`.
    """
    return _known(kind).to_eps(prediction, x_t, alpha, sigma)


def from_x0(kind: str, x0_hat: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """The prediction of that kind which means `x0_hat`; needs sigma > 0, except for "x0".

    Raises:
        UnknownName: `kind` is not in `PREDICTIONS`.
    """
    return target(kind, x0_hat, eps_from_x0(x0_hat, x_t, alpha, sigma), alpha, sigma)


def target(kind: str, x0: Tensor, eps: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """The quantity itself, from the pair that made x_t: what a network of this kind is trained to predict.

    Raises:
        UnknownName: `kind` is not in `PREDICTIONS`.
    """
    return _known(kind).of(x0, eps, alpha, sigma)


def _known(kind: str) -> Prediction:
    if kind not in PREDICTIONS:
        raise UnknownName("prediction", kind, PREDICTIONS)
    return PREDICTIONS[kind]
