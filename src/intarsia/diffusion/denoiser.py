"""What a sampler asks of a model: the expected clean picture, given a noisy one and its time."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from intarsia.diffusion.schedule import Schedule
from intarsia.diffusion.transition import Transition


class Denoiser(Protocol):
    """x0_hat(x_t, t) = E[x0 | x_t]: a network, a composition of networks, or a closed form.

    x0_hat is the currency because it stays finite where alpha = 0; `prediction.to_x0` makes it from whatever a network
    predicts.
    """

    @property
    def schedule(self) -> Schedule:
        """The forward process the model was trained on."""
        ...

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        """x_t (B, ...), t (B,) in [0, 1] -> x0_hat (B, ...)."""
        ...


@runtime_checkable
class PathObserver(Protocol):
    """A denoiser that wants to see where each DDIM or DDPM step led (science.md section 3, `ito`)."""

    def observe(self, x_s: Tensor, transition: Transition) -> None:
        """Called once after each step, with the new x_s (B, ...) and the step that drew it."""
        ...
