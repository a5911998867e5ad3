"""One call of a pipeline, seen from its denoiser: weights at every step, and what they led to.

Guidance shows the denoiser each image twice or more: once per branch, in one batch (Stable Diffusion puts the null
branch first, DiT last) or in calls of their own (Flux). Rows that start from the same noise are branches of one image:
they share every draw. What a branch's weights remember of its own estimates stays with that branch. Guidance may be
switched off or on at any step, as callbacks do: the images stay the same ones, in fewer or more rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from intarsia.composition import Evidence, Routing, Weights
from intarsia.composition.routing import Turn
from intarsia.composition.weights import Memoryless
from intarsia.diffusion import expand, to_x0
from intarsia.errors import IncompatibleError, SettingsError
from intarsia.integrations.diffusers.arguments import Call
from intarsia.integrations.diffusers.latents import unpacked
from intarsia.integrations.diffusers.path import Path
from intarsia.integrations.diffusers.process import Process, check_path, process_of
from intarsia.integrations.diffusers.times import Times


@dataclass(frozen=True)
class Plan:
    """What a composition does in every run.

    `prior` (n,) sums to 1. `weights` makes the weights for a process; None of them look at it unless `looks`, which
    says that the weights need to know the scheduler. `shape` is that of the latents that router parts were fitted to.
    """

    names: tuple[str, ...]
    prior: Tensor
    kind: str
    weights: Callable[[Process | None], Weights]
    looks: bool
    routing: Routing
    shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.kind == "ito" and self.routing.name != "full":
            raise SettingsError(
                f"ito weights need every member at every step, routing '{self.routing.name}' leaves some out; use "
                "routing='full'"
            )

    @property
    def weighs(self) -> bool:
        """Whether weights are computed at all."""
        return self.routing.needs_weights and len(self.names) > 1

    @property
    def follows(self) -> bool:
        """Whether a run must know the scheduler: weights that look at the image, and draws that last for one image."""
        return self.routing.draws or (self.looks and self.weighs)


@dataclass
class Realised:
    """What a run did: weights per call of the denoiser, and calls of members' networks per row.

    `images[b]` numbers the image to which row b of the first call belongs: under guidance it has several rows.
    """

    names: tuple[str, ...]
    prior: Tensor
    images: tuple[int, ...]
    calls: Tensor
    timesteps: list[float] = field(default_factory=list)
    trace: list[Tensor] = field(default_factory=list)

    @property
    def weights(self) -> Tensor:
        """(calls of the denoiser, rows of the first call, n), in order.

        Where guidance was off, the branch that was asked stands for all branches.
        """
        return torch.stack([of_rows(each, len(self.images)) for each in self.trace])

    def count(self, rows: Tensor, of: int) -> None:
        """A member's network was called for these rows of a call of so many; fewer than usual are the last ones."""
        self.calls.index_add_(0, (rows - of) % len(self.calls), torch.ones_like(rows))

    @property
    def shares(self) -> Tensor:
        """Realised shares (n,): the mean over rows of the weights at the last call, to be read beside `prior`."""
        return self.trace[-1].mean(dim=0)

    def report(self) -> dict[str, Any]:
        """Counts, shares and calls, JSON-able."""
        sources = zip(self.names, self.prior.tolist(), self.shares.tolist(), strict=True)
        return {
            "images": len(set(self.images)),
            "branches": len(self.images) // len(set(self.images)),
            "sources": {name: {"prior": prior, "share": share} for name, prior, share in sources},
            "calls_per_row": self.calls.double().mean().item(),
        }


@dataclass
class _Branch:
    """What the weights remember of the calls for one branch; `x0_hat` is what they were shown last."""

    evidence: Evidence
    x0_hat: Tensor | None = None

    def show(self, x0_hat: Tensor) -> None:
        self.evidence.show(x0_hat)
        self.x0_hat = x0_hat


class Run:
    """The state of one pipeline call; the next one begins with a new one.

    Raises:
        SettingsError, IncompatibleError: weights that this scheduler cannot serve.
    """

    def __init__(self, plan: Plan, scheduler: Any, call: Call):
        self.plan, self.scheduler = plan, scheduler
        self._times = Times(scheduler, unit=call.kind.unit_time)
        self.process = process_of(scheduler) if plan.looks and plan.weighs else None
        self._weights = plan.weights(self.process) if plan.weighs else None
        self.keys = [noise_key(row) for row in call.x_t]
        self._numbers = {key: number for number, key in enumerate(dict.fromkeys(self.keys))}
        self.realised = Realised(
            plan.names,
            plan.prior,
            tuple(self._numbers[key] for key in self.keys),
            torch.zeros(call.rows, dtype=torch.int64),
        )
        self._path: Path | None = None
        if plan.weighs and plan.kind == "ito":
            check_path(scheduler)
            assert self.process is not None
            self._path = Path(scheduler, self.process)
        self._branches: list[_Branch] = []
        self._step = self._branch = -1
        self._looks = 0  # how many x_t were seen at the time of the last call
        self._last: tuple[Tensor, Tensor] | None = None

    def goes_on(self, scheduler: Any, call: Call) -> bool:
        """Whether a call belongs to this run, and not to the next one of the pipeline.

        Every pipeline sets its scheduler's timesteps anew. Loops that do not are told by time that runs backwards.
        """
        if scheduler is not self.scheduler or not self._times.are_of(scheduler):
            return False
        same = bool(keys_of_rows(self.keys, call.rows)) if self._times.are_set else call.rows == len(self.keys)
        return same and (self._last is None or not self._rises(call) or self._times.rise)

    def _rises(self, call: Call) -> bool:
        assert self._last is not None
        return bool((call.timestep > of_rows(self._last[0], call.rows)).any())

    def weigh(self, call: Call) -> Tensor:
        """Realised weights (B, n) float64.

        Raises:
            SettingsError: a call that these weights cannot follow.
            IncompatibleError: evidence that is no number.
        """
        self._advance(call)
        blind = self.plan.prior.expand(call.rows, -1)
        weights = blind
        if self._weights is not None and not self._repeats_draw:
            t = self._time(call)
            evidence = self._branches[self._branch].evidence
            weights = (blind.log() + evidence(self._latents(call, call.x_t), t, [None] * call.rows)).softmax(dim=1)
            self._check_numbers(weights, call)
        previous = of_rows(self.realised.trace[-1], call.rows) if self.realised.trace else None
        if self.plan.routing.draws:
            weights = previous if self._repeats_draw and previous is not None else self._paired(weights)
        realised = self.plan.routing(weights, blind, Turn(0, self.keys, self._step, previous)).double()
        self.realised.timesteps.append(call.timestep[0].item())
        self.realised.trace.append(realised)
        return realised

    def heard(self, call: Call, answer: Tensor, answers: list[Tensor], realised: Tensor) -> None:
        """Be shown the composed answer (B, ...) and, where the weights follow the path, each member's."""
        if self.process is None:
            return
        x0_hat = self._x0_hat(call, answer)
        self._branches[self._branch].show(self._latents(call, x0_hat))
        if self._path is not None:
            estimates = torch.stack([self._x0_hat(call, one) for one in answers], dim=1)
            self._path.left(_seen(call.x_t), self._time(call), x0_hat, estimates, realised > 0)

    @property
    def follows_path(self) -> bool:
        return self._path is not None

    @property
    def _repeats_draw(self) -> bool:
        """Whether a member was already drawn for this step, for a branch that was called before."""
        return self.plan.routing.draws and self._branch > 0

    def _advance(self, call: Call) -> None:
        """Tell a new step from another branch of the same one, which brings the very same x_t at the same time."""
        self.keys = keys_of_rows(self.keys, call.rows)
        again = self._last is not None and _alike(call.timestep, self._last[0])
        same = self._last is not None and again and _alike(call.x_t, self._last[1])
        self._branch = self._branch + 1 if same else 0
        self._step += not same
        self._looks = self._looks + (not same) if again else 1
        self._recall(call)
        self._check_followed(call)
        if self._path is not None:
            self._check_unguided()
            if self._step and not same:
                self._branches[0].evidence.moved(self._path.moved(_seen(call.x_t), self._time(call)))
        self._last = (call.timestep, call.x_t.clone())

    def _recall(self, call: Call) -> None:
        """Have evidence for this branch, about the rows that are shown now."""
        if self._weights is None:
            return
        if self._branch == len(self._branches):
            self._branches.append(_Branch(self._weights.start()))
        branch = self._branches[self._branch]
        if branch.x0_hat is not None and len(branch.x0_hat) != call.rows:
            branch.evidence = self._weights.start()
            branch.show(of_rows(branch.x0_hat, call.rows))

    def _check_followed(self, call: Call) -> None:
        """To weights that remember, every x_t is the next one of the image; the crops of a large one are not."""
        evidence, told = self._branches[self._branch].evidence if self._branches else None, call.timestep[0]
        if evidence is None or isinstance(evidence, Memoryless) or self._looks <= self._times.count(told):
            return
        raise SettingsError(
            f"{self.plan.kind} weights remember the step before, and found another picture at timestep {told:g}, "
            "as of crops; use weights 'gaussian', 'uniform' or 'prior'"
        )

    def _check_numbers(self, weights: Tensor, call: Call) -> None:
        if not bool(weights.isfinite().all()):
            raise IncompatibleError(
                f"{self.plan.kind} weights found what are no numbers at timestep {call.timestep[0].item():g}; a model "
                "beyond the range of half precision says such, so give it or the autoencoder float32"
            )

    def _check_unguided(self) -> None:
        if self._branch > 0 or len(set(self.keys)) < len(self.keys):
            raise SettingsError(
                "ito weights take the path for one of the composition's own, which guidance bends (or an image was "
                "asked for twice from the same noise); use guidance_scale=1, or other weights"
            )

    def _paired(self, weights: Tensor) -> Tensor:
        """The mean over the rows of an image, so that one draw serves all its branches."""
        image = torch.tensor([self._numbers[key] for key in self.keys])
        together = (image[:, None] == image[None]).to(weights.dtype)
        return together @ weights / together.sum(dim=1, keepdim=True)

    def _time(self, call: Call) -> Tensor:
        if self.process is None:
            return torch.ones(call.rows, dtype=torch.float64)
        steps = 1 if call.kind.unit_time else self.scheduler.config.num_train_timesteps
        return self.process.time(call.timestep, steps)

    def _latents(self, call: Call, x: Tensor) -> Tensor:
        """As router parts look at it."""
        return _seen(x) if self.plan.shape is None else unpacked(_seen(x), self.plan.shape, call.grid)

    def _x0_hat(self, call: Call, answer: Tensor) -> Tensor:
        assert self.process is not None
        t, x_t = self._time(call), _seen(call.x_t)
        alpha, sigma = (expand(c, x_t) for c in (self.process.schedule.alpha(t), self.process.schedule.sigma(t)))
        return to_x0(self.process.prediction, _seen(call.denoised(answer)), x_t, alpha, sigma)


def keys_of_rows(keys: Sequence[int], rows: int) -> list[int]:
    """The images of a call of so many rows, after one with these keys; none where it cannot be of the same images.

    Pipelines repeat all their images branch by branch, so that another number of branches is another number of repeats.
    """
    fewer = min(len(keys), rows)
    once = list(keys[:fewer])
    if list(keys) != once * (len(keys) // fewer) or rows % fewer:
        return []
    return once * (rows // fewer)


def of_rows(told: Tensor, rows: int) -> Tensor:
    """What was told of the rows (R, ...) of a call, for another of the same images: (rows, ...).

    Where guidance can be switched off, the conditional branch stands last, and is what is left.
    """
    return told[-rows:] if rows <= len(told) else told.repeat(rows // len(told), *[1] * (told.ndim - 1))


def _alike(told: Tensor, before: Tensor) -> bool:
    """Whether two calls say the same of the images, in however many rows."""
    return torch.equal(told[: len(before)], before[: len(told)])


def noise_key(x: Tensor) -> int:
    """A number for an image, by what it starts from: the same in any batch, on any run of the same seed."""
    data = _seen(x).contiguous().numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _seen(x: Tensor) -> Tensor:
    """As weights look at it: they are small, and live on the CPU in float32."""
    return x.detach().float().cpu()
