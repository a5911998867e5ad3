"""From a composition to pictures, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.backbone.text import Prompt
from intarsia.composition.analytic import Switch, find_switch
from intarsia.composition.composite import CompositeDenoiser, CompositeRun
from intarsia.composition.member import Conditions, labels_of, prompts_of
from intarsia.composition.result import Result, SampleSettings
from intarsia.composition.together import Asked, x0_hats
from intarsia.diffusion import SAMPLERS, ImageNoise, finished, time_grid
from intarsia.errors import SettingsError

OnProgress = Callable[[int, int], None]
"""Called with (steps done, steps in all) over all batches."""

OnStep = Callable[[int, Tensor, CompositeRun], None]
"""Called after each step of a batch with (step, x0_hat (B, *latent_shape), run), steps counted from 0."""


@dataclass(frozen=True)
class Drawn:
    """One batch at its end: latents (B, *latent_shape), and the run with what it realised."""

    latents: Tensor
    run: CompositeRun


@dataclass(frozen=True)
class Batch:
    """Images that are drawn together: `asking` asks members for estimates, and returns what was drawn.

    `rows` is the number of images that a step asks about, both branches of guidance counted. `alone` says that no other
    batch may be answered in the same forward.
    """

    asking: Generator[list[Asked], list[Tensor], Drawn]
    rows: int
    alone: bool


Drive = Callable[[Sequence[Batch]], Sequence[Drawn]]
"""Carries batches to their end and returns what was drawn, in their order."""


def one_by_one(batches: Sequence[Batch]) -> list[Drawn]:
    """Each batch by itself, from beginning to end."""
    return [finished(batch.asking, x0_hats) for batch in batches]


def sample(
    model: CompositeDenoiser,
    count: int,
    settings: SampleSettings,
    *,
    decode: Callable[[Tensor], Tensor],
    labels: Conditions | None = None,
    first: int = 0,
    on_progress: OnProgress | None = None,
    on_step: OnStep | None = None,
    drive: Drive = one_by_one,
) -> Result:
    """Draw `count` images, numbered from `first`, or none: what the model's guard forbids on the way ends it.

    Image k depends on (seed, k) alone: up to rounding, or exactly if asked to (`batch_invariant`). With an analytic
    start it depends on the switch too, which is found anew for each call, from the labels that are asked for.

    Args:
        decode: latents (B, *latent_shape) to images (B, C, H, W).
        labels: one label, caption or None per image.
        drive: how the batches are carried to their end; it may answer what they ask together with other work.

    Raises:
        SettingsError: no images, labels of another length or that a source cannot be asked for, guidance without.
        UnknownName: a label that no source has.
        ForbiddenError: the members may not be used, or not any more.
    """
    check_asked(count, labels)
    with model.drawing(count):
        return draw_mixture(
            model,
            range(first, first + count),
            settings,
            decode=decode,
            labels=labels,
            on_progress=on_progress,
            on_step=on_step,
            drive=drive,
        )


def check_asked(count: int, labels: Conditions | None) -> None:
    """Refuse what cannot be drawn.

    Raises:
        SettingsError: no images, labels or prompts of another length, or labels that are no text.
    """
    if count < 1:
        raise SettingsError(f"{count} images were asked for; ask for at least one")
    if labels is not None and len(labels) != count:
        raise SettingsError(f"{len(labels)} labels or prompts for {count} images; give one each")
    for label in labels or ():
        if label is not None and not isinstance(label, str | Prompt):
            raise SettingsError(f"label {label!r} is no text; give '{label}'")


def draw_mixture(
    model: CompositeDenoiser,
    indices: Sequence[int],
    settings: SampleSettings,
    *,
    decode: Callable[[Tensor], Tensor],
    labels: Conditions | None,
    on_progress: OnProgress | None = None,
    on_step: OnStep | None = None,
    drive: Drive = one_by_one,
) -> Result:
    """The images of these numbers; whoever calls sees to it that they may be drawn (`CompositeDenoiser.drawing`).

    Raises:
        As `sample`.
    """
    switch, count = _switch(model, settings, labels), len(indices)
    size = 1 if settings.batch_invariant else settings.batch
    numbers = [range(k, min(k + size, count)) for k in range(0, count, size)]
    look = _looking(len(numbers) * settings.steps, on_progress, on_step)
    batches = [
        _batch(model, [indices[k] for k in some], settings, labels and [labels[k] for k in some], switch, look)
        for some in numbers
    ]
    drawn = drive(batches)
    images = torch.cat([decode(each.latents) for each in drawn])
    run, asked = drawn[0].run, [None] * count if labels is None else labels
    return Result(
        images=images,
        latents=torch.cat([each.latents for each in drawn]),
        weights=torch.cat([_per_step(each.run) for each in drawn], dim=1),
        times=torch.tensor(sorted(set(run.times), reverse=True)),
        calls=torch.cat([each.run.calls for each in drawn]),
        router_passes=run.router_passes,
        names=model.names,
        prior=model.prior,
        labels=labels_of(asked),
        settings=settings,
        switch=switch,
        weighing=model.weights.name,
        routing=model.routing.name,
        by_prompt=model.told is not None,
        prompts=prompts_of(asked),
    )


def _looking(steps: int, on_progress: OnProgress | None, on_step: OnStep | None) -> OnStep:
    """What is called after every step of every batch; it counts them for `on_progress`."""
    done = 0

    def look(step: int, x0_hat: Tensor, run: CompositeRun) -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, steps)
        if on_step is not None:
            on_step(step, x0_hat, run)

    return look


def _switch(model: CompositeDenoiser, settings: SampleSettings, labels: Conditions | None) -> Switch | None:
    if settings.analytic_start is None:
        return None
    return find_switch(
        model,
        time_grid(model.schedule, settings.steps, settings.spacing),
        budget=settings.analytic_start,
        seed=settings.seed,
        labels=labels,
        guidance_scale=settings.guidance_scale,
    )


def _batch(
    model: CompositeDenoiser,
    indices: Sequence[int],
    settings: SampleSettings,
    labels: Conditions | None,
    switch: Switch | None,
    look: OnStep,
) -> Batch:
    run = model.run(
        indices,
        seed=settings.seed,
        labels=labels,
        guidance_scale=settings.guidance_scale,
        calls_per_step=SAMPLERS[settings.sampler].calls_per_step,
        networks_below=switch.below if switch else 1.0,
    )
    rows = len(indices) * (1 if settings.guidance_scale == 1 else 2)
    return Batch(_asking(run, settings, look), rows, settings.batch_invariant)


@torch.no_grad()
def _asking(run: CompositeRun, settings: SampleSettings, look: OnStep) -> Generator[list[Asked], list[Tensor], Drawn]:
    noise = ImageNoise(settings.seed, run.indices)
    steps = SAMPLERS[settings.sampler].steps(
        run,
        noise.initial(run.model.latent_shape),
        time_grid(run.schedule, settings.steps, settings.spacing),
        eta=settings.eta,
        noise=noise,
        on_step=lambda step, x_s, x0_hat: look(step, x0_hat, run),
    )
    try:
        x_t, t = next(steps)
        while True:
            x_t, t = steps.send((yield from run.asking(x_t, t)))
    except StopIteration as end:
        return Drawn(end.value, run)


def _per_step(run: CompositeRun) -> Tensor:
    """Weights (steps, B, n), falling in time; of two calls at one time (Heun's), the later counts."""
    latest = dict(zip(run.times, run.trace, strict=True))
    return torch.stack([latest[t] for t in sorted(latest, reverse=True)])
