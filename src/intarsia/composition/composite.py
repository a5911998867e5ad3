"""The composed model: a denoiser made of the permitted members, mixed at every step and for every image.

Proposition 3.1 of the paper: sum_i w_i(x_t, t) eps_i(x_t, t) is the model of the mixture sum_i lambda_i p^i, where w_i
is the probability that x_t came from source i. Rows of w sum to 1, so the same weights mix x0_hat, which is what is
mixed here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from intarsia.backbone.text import Prompt
from intarsia.composition.guard import Guard
from intarsia.composition.member import Conditions, Labels, Member, shares_of
from intarsia.composition.prior import check_prior
from intarsia.composition.routing import Full, Routing, Turn
from intarsia.composition.together import Asked, x0_hats
from intarsia.composition.weights import Moved, Weights
from intarsia.diffusion import Schedule, Transition, expand, finished
from intarsia.errors import SettingsError, UnknownName
from intarsia.routers import label_log_shares

Asking = Generator[list[Asked], list[Tensor], Tensor]
"""A call of a composition under way: asks members for estimates, and returns x0_hat (B, ...)."""


class ClosedForm(Protocol):
    """Estimates that need no network, such as those of `GaussianBank`."""

    def x0_hat(
        self,
        x_t: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        labels: Labels | None = None,
        *,
        needed: Tensor | None = None,
    ) -> Tensor:
        """E[x0 | x_t] under every member: x_t (B, ...), alpha and sigma (B,) -> (B, n, ...).

        `needed`, bool (B, n), says which of them will be looked at, if not all.
        """
        ...


Told = Callable[[Conditions], Tensor]
"""log p(y | i) (B, n) of the captions that images are asked for, such as `CaptionBank` gives."""


@dataclass(frozen=True)
class CompositeDenoiser:
    """Members, prior, weights and routing. Immutable; `run` gives the denoiser for one batch.

    `vocabulary` holds the labels that the shared backbone learned from the core. A label of it that no member ever had
    says nothing about the sources, so weights leave it out; the members' networks see it all the same.

    `prior` (n,) sums to 1; `default_prior` makes it proportional to the members' sizes. `closed_form`
    answers for the members, in their order, in an analytic start. `guard` is asked before every use of the members.
    `told` lets captions count in the weights by how likely they are under each source; None leaves that open.

    Raises:
        SettingsError: no members, two of one name, a prior that is none, or a routing that the weights cannot use.
    """

    members: Sequence[Member]
    prior: Tensor
    weights: Weights
    routing: Routing
    schedule: Schedule
    latent_shape: tuple[int, ...]
    vocabulary: frozenset[str] = frozenset()
    closed_form: ClosedForm | None = None
    guard: Guard | None = None
    told: Told | None = None

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if not names:
            raise SettingsError("a composition needs at least one source")
        if len(set(names)) < len(names):
            raise SettingsError(f"a composition holds each source once, found {', '.join(sorted(names))}")
        check_prior(self.prior, names)
        if self.weights.follows_path and not isinstance(self.routing, Full):
            raise SettingsError(
                f"{self.weights.name} weights need every source at every step, routing '{self.routing.name}' leaves "
                "some out; use routing 'full'"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.members)

    @cached_property
    def _by_name(self) -> Tensor:
        """Places of the members in the order of their names."""
        return torch.tensor(sorted(range(len(self.members)), key=lambda place: self.members[place].name))

    def realised(self, weights: Tensor, prior: Tensor, turn: Turn) -> Tensor:
        """What the routing makes of weights (B, n); lots and ties do not depend on the order of the members."""
        order = self._by_name
        previous = None if turn.previous is None else turn.previous[:, order]
        routed = self.routing(weights[:, order], prior[:, order], replace(turn, previous=previous))
        return routed[:, order.argsort()]

    @property
    def weighs(self) -> bool:
        """Whether weights are computed at all: not for a single member, nor where the routing does not look at them."""
        return self.routing.needs_weights and len(self.members) > 1

    @property
    def labels(self) -> frozenset[str]:
        """Labels that at least one member had."""
        return frozenset(label for member in self.members for label in member.classes)

    def drawing(self, count: int) -> AbstractContextManager[None]:
        """Around whatever draws `count` images and hands them over.

        Raises:
            ForbiddenError: as `Guard.drawing`.
        """
        return nullcontext() if self.guard is None else self.guard.drawing(count)

    def run(
        self,
        indices: Sequence[int],
        *,
        seed: int = 0,
        labels: Conditions | None = None,
        guidance_scale: float = 1.0,
        calls_per_step: int = 1,
        networks_below: float = 1.0,
    ) -> CompositeRun:
        """A denoiser for the images of these indices.

        Args:
            indices: the index of each image under `seed`; draws of a routing are keyed by it.
            labels: the label or the caption of each image, None for none.
            guidance_scale: 1 means no extra guidance; both branches are composed with their own weights, then guided.
            calls_per_step: how often the sampler calls the denoiser in a step; a routing draws once per step.
            networks_below: time above which the closed form answers (`find_switch`); at 1 the networks always do.

        Raises:
            SettingsError: labels of another length, guidance without labels or where the weights forbid it, or a label
                that a source has images of but cannot be asked for.
            UnknownName: a label that neither a member nor the backbone ever had.
        """
        wanted = [None] * len(indices) if labels is None else list(labels)
        if len(wanted) != len(indices):
            raise SettingsError(f"{len(wanted)} labels for {len(indices)} images; give one each")
        if guidance_scale != 1 and any(label is None for label in wanted):
            raise SettingsError(
                f"guidance_scale {guidance_scale} needs a label or a prompt for every image; 1 means no guidance"
            )
        if guidance_scale != 1 and self.weights.follows_path:
            raise SettingsError(
                f"{self.weights.name} weights take the path for one of the composition's own, which guidance_scale "
                f"{guidance_scale} bends; use 1, or other weights"
            )
        for label in dict.fromkeys(wanted):
            if label is not None:
                self._check_label(label)
        return CompositeRun(
            self, tuple(indices), seed, tuple(wanted), guidance_scale, calls_per_step, networks_below=networks_below
        )

    def _check_label(self, label: str | Prompt) -> None:
        """Refuse a label that nobody knows, and one, or a caption, that a member with a share in it would ignore."""
        if isinstance(label, Prompt):
            if deaf := [member.name for member in self.members if not member.conditions(label)]:
                raise SettingsError(
                    f"prompt '{label.text}': {', '.join(deaf)} cannot be asked in words, or not with this text "
                    "encoder; train with the adapter 'text', or compose sources that can"
                )
            return
        known = self.labels | self.vocabulary
        if label not in known:
            raise UnknownName("label", label, known)
        asked = [member for member in self.members if label in member.classes] or list(self.members)
        deaf = [member.name for member in asked if not member.conditions(label)]
        if deaf:
            able = ", ".join(member.name for member in asked if member.conditions(label)) or "none"
            raise SettingsError(
                f"label '{label}': {', '.join(deaf)} cannot be asked for it, and would be drawn from without a label "
                f"(sources that can: {able}); train with prompts per class, on a backbone that knows the label, "
                "compose sources that can, or leave the labels out"
            )


@dataclass
class CompositeRun:
    """The denoiser of one batch, with what it realised: weights per call, network calls per image."""

    model: CompositeDenoiser
    indices: tuple[int, ...]
    seed: int
    labels: tuple[str | Prompt | None, ...]
    guidance_scale: float
    calls_per_step: int = 1
    networks_below: float = 1.0
    times: list[float] = field(default_factory=list)
    trace: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.calls = torch.zeros(len(self.indices), dtype=torch.int64)
        self.router_passes = 0.0
        self._follows = self.model.weights.follows_path and self.model.weighs
        self._last: tuple[Tensor, Tensor, Tensor] | None = None
        # At 0 the null branch alone makes the image: it is the one that is recorded, and no other is run.
        asked = [self.labels] if self.guidance_scale else []
        asked += [(None,) * len(self.indices)] if self.guidance_scale != 1 else []
        self._branches = [_Branch(self.model, labels) for labels in asked]

    @property
    def schedule(self) -> Schedule:
        return self.model.schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, *latent_shape), t (B,) -> x0_hat (B, *latent_shape)."""
        return finished(self.asking(x_t, t), x0_hats)

    @torch.no_grad()
    def asking(self, x_t: Tensor, t: Tensor) -> Asking:
        """The same, asking for the members' estimates instead of calling them."""
        realised = self._realised(x_t, t)
        return (yield from self._step(x_t, t, realised, closed=t[0].item() > self.networks_below))

    @torch.no_grad()
    def both(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """What the closed form and the networks say, with one set of weights; a step like any other."""
        realised = self._realised(x_t, t)
        closed = guided(self._mix_closed(x_t, t, realised), self.guidance_scale)
        return closed, finished(self._step(x_t, t, realised, closed=False), x0_hats)

    def _step(self, x_t: Tensor, t: Tensor, realised: list[Tensor], *, closed: bool) -> Asking:
        mixed = self._mix_closed(x_t, t, realised) if closed else (yield from self._mix(x_t, t, realised))
        for branch, x0_hat in zip(self._branches, mixed, strict=True):
            branch.evidence.show(x0_hat)
        self.times.append(t[0].item())
        self.trace.append(realised[0])
        return guided(mixed, self.guidance_scale)

    def observe(self, x_s: Tensor, transition: Transition) -> None:
        """Called by stochastic samplers after each step: hands it to weights that follow the path."""
        if not self._follows:
            return
        assert self._last is not None
        x_t, estimates, took_part = self._last
        means = transition.mean(x_t[:, None], estimates)
        self._branches[0].evidence.moved(Moved(x_s, means, transition.std, transition.s, took_part))

    def _realised(self, x_t: Tensor, t: Tensor) -> list[Tensor]:
        """Weights (B, n) of each branch; a member drawn by lot serves all branches, and all calls of a step."""
        if self.model.guard is not None:
            self.model.guard.check()
        if self.model.routing.draws and len(self.trace) % self.calls_per_step:
            return self.trace[-1:] * len(self._branches)
        previous = self.trace[-1] if self.trace else None
        turn = Turn(self.seed, self.indices, len(self.trace) // self.calls_per_step, previous)
        drawing = self._branches[:1] if self.model.routing.draws else self._branches
        self.router_passes += len(drawing) * self.model.weights.passes * self.model.weighs
        realised = [branch.weights(x_t, t, turn) for branch in drawing]
        return realised * (len(self._branches) // len(drawing))

    # paper eq. 5, Proposition 3.1: sum_i w_i x0_hat_i; a member is called only for the images where its weight is not 0
    def _mix(
        self, x_t: Tensor, t: Tensor, realised: list[Tensor]
    ) -> Generator[list[Asked], list[Tensor], list[Tensor]]:
        rows_of = [w.shape[0] for w in realised]
        weights = torch.cat(realised)
        x, times = x_t.repeat(len(realised), *[1] * (x_t.ndim - 1)), t.repeat(len(realised))
        labels = [label for branch in self._branches for label in branch.labels]
        out = torch.zeros_like(x)
        estimates = x.new_zeros(len(x), len(self.model.members) if self._follows else 0, *x.shape[1:])
        needed = [(i, rows) for i, w in enumerate(weights.unbind(1)) if len(rows := w.nonzero()[:, 0])]
        asked = [
            Asked(self.model.members[i], x[rows], times[rows], [labels[row] for row in rows]) for i, rows in needed
        ]
        answers = yield asked
        for (i, rows), x0_hat in zip(needed, answers, strict=True):
            out.index_add_(0, rows, expand(weights[rows, i], x0_hat) * x0_hat)
            if self._follows:
                estimates[rows, i] = x0_hat
            self.calls.index_add_(0, rows % len(x_t), torch.ones_like(rows))
        self._last = (x_t, estimates, weights > 0) if self._follows else None
        return list(out.split(rows_of))

    # science.md section 3, analytic start: sum_i w_i E_i[x0 | x_t] under each source's own Gaussian mixture
    def _mix_closed(self, x_t: Tensor, t: Tensor, realised: list[Tensor]) -> list[Tensor]:
        closed_form, schedule = self.model.closed_form, self.model.schedule
        assert closed_form is not None
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        estimates = [
            closed_form.x0_hat(x_t, alpha, sigma, branch.telling, needed=None if self._follows else w > 0)
            for branch, w in zip(self._branches, realised, strict=True)
        ]
        if self._follows:
            self._last = (x_t, estimates[0], torch.ones_like(realised[0], dtype=torch.bool))
        return [
            (expand(w.flatten(), each.flatten(0, 1)) * each.flatten(0, 1)).unflatten(0, w.shape).sum(dim=1)
            for w, each in zip(realised, estimates, strict=True)
        ]


class _Branch:
    """The conditional or the null half of a guided run, with weights of its own."""

    def __init__(self, model: CompositeDenoiser, labels: Conditions):
        self.model, self.labels = model, labels
        known = model.labels
        self.telling = [label if isinstance(label, str) and label in known else None for label in labels]
        self.evidence = model.weights.start()
        self.evidence.told(labels)
        self._log_prior = model.prior.double().log()
        if model.told is not None:
            self._log_prior = self._log_prior + model.told(labels)
        # Without the image: lambda_i p(y | i), which is what routings that look at no weights draw from.
        self._blind = (self._log_prior + label_log_shares(shares_of(model.members), self.telling)).softmax(dim=1)

    def weights(self, x_t: Tensor, t: Tensor, turn: Turn) -> Tensor:
        """Realised weights (B, n) in the dtype of x_t."""
        weights = self._blind
        if self.model.weighs:
            weights = (self._log_prior + self.evidence(x_t, t, self.telling)).softmax(dim=1)
        return self.model.realised(weights, self._blind, turn).to(x_t.dtype)


# Ho and Salimans 2022, with 1 meaning no extra guidance
def guided(branches: Sequence[Tensor], scale: float) -> Tensor:
    """null + scale (conditional - null), given [conditional, null]; at a scale of 1 or 0 the one that counts."""
    if len(branches) == 1:
        return branches[0]
    conditional, null = branches
    return null + scale * (conditional - null)
