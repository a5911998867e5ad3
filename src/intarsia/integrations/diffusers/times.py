"""The times of one run: those its scheduler set, whatever order they come in."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

_MARK, _marks = "intarsia_run", itertools.count()


class Times:
    """What a scheduler's timesteps say of the calls of a run; nothing where it has none."""

    def __init__(self, scheduler: Any, *, unit: bool):
        """`unit` says that the model is told times up to 1, and not up to the number of training steps."""
        self._steps = getattr(scheduler, "timesteps", None)
        # Pipelines that draw crops keep a copy of the scheduler for each: a tensor's attributes go with its copies.
        self._mark = next(_marks)
        if isinstance(self._steps, Tensor):
            vars(self._steps)[_MARK] = self._mark
        self._per_unit = scheduler.config.num_train_timesteps if unit and self._steps is not None else 1

    def are_of(self, scheduler: Any) -> bool:
        """Whether the scheduler was not set anew since; every pipeline sets its own before it draws."""
        found = getattr(scheduler, "timesteps", None)
        return found is self._steps or (isinstance(found, Tensor) and vars(found).get(_MARK) == self._mark)

    @property
    def are_set(self) -> bool:
        """Whether the scheduler has any."""
        return self._steps is not None

    @property
    def rise(self) -> bool:
        """Whether they rise by themselves: inverting ones do, and interpolated ones beside rounded ones."""
        return self._steps is not None and bool((self._steps[1:] > self._steps[:-1]).any())

    def count(self, timestep: Tensor) -> int:
        """How many steps may be at this timestep () of the model: two where a scheduler looks twice, as Heun's does."""
        if self._steps is None:
            return 1
        told, kind = timestep.double(), timestep.dtype
        steps = self._steps.to("cpu", kind).double() / self._per_unit
        nearly = torch.finfo(kind).eps if kind.is_floating_point else 0.0  # half-precision times run together
        return max(1, int(((steps - told).abs() <= nearly * told.abs()).sum()))
