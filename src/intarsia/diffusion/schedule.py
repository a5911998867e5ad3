"""Noise schedules: the two coefficients of the forward process x_t = alpha(t) x0 + sigma(t) eps, t in [0, 1].

t = 0 is data and t = 1 is noise (science.md section 1). A schedule is a value: two that are equal have the same
settings and the same fingerprint, which is what compartments of one composition must share.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from intarsia.digests import canonical_json, digest_of
from intarsia.errors import SettingsError, UnknownName


@dataclass(frozen=True)
class Schedule(ABC):
    """The forward process x_t = alpha(t) x0 + sigma(t) eps.

    Every function of `t` takes a floating-point tensor of any shape and returns the same shape and dtype; inside, all
    is computed in float64. Edges are exact: alpha(0) = 1, sigma(0) = 0, and alpha(1) = 0 where the end is pure noise.
    """

    name: ClassVar[str]

    def alpha(self, t: Tensor) -> Tensor:
        """Signal coefficient (never alpha-bar), falling from 1."""
        return _in_float64(self._alpha, t)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise coefficient, rising from 0."""
        return _in_float64(self._sigma, t)

    def log_snr(self, t: Tensor) -> Tensor:
        """2 log(alpha / sigma): +inf at t = 0, falling, -inf where alpha = 0."""
        return _in_float64(lambda u: 2 * (self._alpha(u).log() - self._sigma(u).log()), t)

    def time(self, log_snr: Tensor) -> Tensor:
        """The t in [0, 1] with this `log_snr`: the inverse function; values out of range give the ends."""
        return _in_float64(self._time, log_snr)

    def diffuse(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t = alpha(t) x0 + sigma(t) eps, for x0 and eps (B, ...) at times t (B,)."""
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps

    def settings(self) -> dict[str, Any]:
        """Name and parameters, JSON-able; `schedule_from` reads them back."""
        return {"name": self.name, **dataclasses.asdict(self)}

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the canonical JSON of `settings()`: equal exactly when the forward processes are."""
        return digest_of(canonical_json(self.settings()))

    @abstractmethod
    def _alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _sigma(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _time(self, log_snr: Tensor) -> Tensor: ...


class _Stepwise(Schedule):
    """Variance preserving, with log alpha_bar given at t = n / steps and linear in between."""

    @abstractmethod
    def _log_alpha_bars(self) -> Tensor:
        """At t = n / steps for n = 0..steps, float64 (steps + 1,), falling from 0."""

    def _alpha(self, t: Tensor) -> Tensor:
        return (self._log_alpha_bar(t) / 2).exp()

    # expm1 keeps sigma accurate where it is small: 1 - alpha_bar would lose every digit there.
    def _sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(self._log_alpha_bar(t))).sqrt()

    def _time(self, log_snr: Tensor) -> Tensor:
        falling = self._table(log_snr)
        steps = len(falling) - 1
        log_alpha_bar = torch.nn.functional.logsigmoid(log_snr).clamp(min=falling[-1])
        segment = torch.searchsorted(-falling, -log_alpha_bar, right=True).clamp(max=steps) - 1
        part = (log_alpha_bar - falling[segment]) / (falling[segment + 1] - falling[segment])
        return (segment + part) / steps

    def _log_alpha_bar(self, t: Tensor) -> Tensor:
        segment, steps = self._segment(t), len(self._log_alpha_bars()) - 1
        return self._table(t)[segment] + self._slope(t) * (t - segment.double() / steps)

    def _slope(self, t: Tensor) -> Tensor:
        table, segment = self._table(t), self._segment(t)
        return (table[segment + 1] - table[segment]) * (len(table) - 1)

    def _segment(self, t: Tensor) -> Tensor:
        steps = len(self._log_alpha_bars()) - 1
        return (t * steps).floor().long().clamp(0, steps - 1)

    def _table(self, like: Tensor) -> Tensor:
        return self._log_alpha_bars().to(like.device)


@final
@dataclass(frozen=True)
class VPLinear(_Stepwise):
    """DDPM's discrete betas in continuous time (Ho et al. 2020); `scaled=True` gives Stable Diffusion's.

    alpha(t)^2 = alpha_bar is exact at t = n / steps, where it is prod_{k <= n} (1 - beta_k); its logarithm is linear in
    between. Timestep n - 1 of diffusers, and of the U-ViT checkpoints, is t = n / steps here.

    Raises:
        SettingsError: unless 0 < beta_start <= beta_end < 1 and steps >= 1.
    """

    name: ClassVar[str] = "vp_linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    steps: int = 1000
    scaled: bool = False

    def __post_init__(self) -> None:
        betas = (self.beta_start, self.beta_end)
        if not all(isinstance(beta, float) for beta in betas) or not 0 < self.beta_start <= self.beta_end < 1:
            raise SettingsError(
                f"betas from {betas[0]!r} to {betas[1]!r}: give two floats, 0 < beta_start <= beta_end < 1"
            )
        if type(self.steps) is not int or self.steps < 1:
            raise SettingsError(f"steps is {self.steps!r}: give a whole number of training steps, at least 1")
        if type(self.scaled) is not bool:
            raise SettingsError(f"scaled is {self.scaled!r}: give true (betas linear in their roots) or false")

    def _log_alpha_bars(self) -> Tensor:
        return _log_alpha_bar_table(self.beta_start, self.beta_end, self.steps, self.scaled)


@final
@dataclass(frozen=True)
class VPTable(_Stepwise):
    """A variance-preserving process whose alpha_bar is given step by step, as diffusers' schedulers hold it.

    `alpha_bar[n - 1]` is that of t = n / N, for n = 1..N; its logarithm is linear in between. Where it ends in 0 (zero
    terminal signal), 2^-24 stands for it, as in diffusers.

    Raises:
        SettingsError: no numbers, or numbers that do not fall from below 1.
    """

    name: ClassVar[str] = "vp_table"
    alpha_bar: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha_bar", tuple(self.alpha_bar))
        kept = [1.0, *(max(value, 2.0**-24) for value in self.alpha_bar)]
        if len(kept) < 2 or not all(late < early for early, late in itertools.pairwise(kept)):
            raise SettingsError(
                f"{len(self.alpha_bar)} values of alpha_bar, from {self.alpha_bar[:1]} to {self.alpha_bar[-1:]}: give "
                "at least one, all below 1 and falling"
            )

    def _log_alpha_bars(self) -> Tensor:
        return _log_alpha_bar_of(self.alpha_bar)


@final
@dataclass(frozen=True)
class Cosine(Schedule):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2): variance preserving, pure noise at t = 1."""

    name: ClassVar[str] = "cosine"

    # cos(pi t / 2) would be 6e-17 at t = 1; this is 0.
    def _alpha(self, t: Tensor) -> Tensor:
        return (math.pi / 2 * (1 - t)).sin()

    def _sigma(self, t: Tensor) -> Tensor:
        return (math.pi / 2 * t).sin()

    def _time(self, log_snr: Tensor) -> Tensor:
        return 2 / math.pi * (-log_snr / 2).exp().atan()


@final
@dataclass(frozen=True)
class Flow(Schedule):
    """alpha = 1 - t, sigma = t: flow matching's straight paths (science.md section 3), pure noise at t = 1."""

    name: ClassVar[str] = "flow"

    def _alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def _sigma(self, t: Tensor) -> Tensor:
        return t

    def _time(self, log_snr: Tensor) -> Tensor:
        return (-log_snr / 2).sigmoid()


SCHEDULES: Mapping[str, type[Schedule]] = MappingProxyType(
    {kind.name: kind for kind in (VPLinear, VPTable, Cosine, Flow)}
)


def schedule_from(settings: Mapping[str, Any]) -> Schedule:
    """The schedule that `Schedule.settings()` described; absent parameters take their defaults.

    Raises:
        UnknownName: no schedule of that name.
        SettingsError: no name, a parameter the schedule does not have, or a value it refuses.
    """
    if "name" not in settings:
        raise SettingsError(f"schedule settings {dict(settings)} have no 'name': give one of {', '.join(SCHEDULES)}")
    name = str(settings["name"])
    if name not in SCHEDULES:
        raise UnknownName("schedule", name, SCHEDULES)
    parameters = {key: value for key, value in settings.items() if key != "name"}
    known = [field.name for field in dataclasses.fields(SCHEDULES[name])]
    if unknown := sorted(set(parameters) - set(known)):
        raise SettingsError(
            f"schedule '{name}' has no setting {', '.join(unknown)}; it has: {', '.join(known) or 'none'}"
        )
    return SCHEDULES[name](**parameters)


def expand(coefficient: Tensor, like: Tensor) -> Tensor:
    """One number per image, ready to multiply a batch: (B,) -> (B, 1, ..., 1) in the dtype of `like` (B, ...)."""
    return coefficient.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def _in_float64(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    if not t.is_floating_point():
        raise SettingsError(f"times are of dtype {t.dtype}: give floats in [0, 1], where step n of N is n / N")
    return function(t.double()).to(t.dtype)


@functools.lru_cache(maxsize=16)
def _log_alpha_bar_table(beta_start: float, beta_end: float, steps: int, scaled: bool) -> Tensor:
    """log alpha_bar at t = n / steps for n = 0..steps, float64 (steps + 1,)."""
    power = 2 if scaled else 1
    betas = torch.linspace(beta_start ** (1 / power), beta_end ** (1 / power), steps, dtype=torch.float64) ** power
    return torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-betas).cumsum(0)])


@functools.lru_cache(maxsize=16)
def _log_alpha_bar_of(alpha_bar: tuple[float, ...]) -> Tensor:
    """log alpha_bar at t = n / N for n = 0..N, float64 (N + 1,)."""
    return torch.tensor([1.0, *alpha_bar], dtype=torch.float64).clamp(min=2.0**-24).log()
