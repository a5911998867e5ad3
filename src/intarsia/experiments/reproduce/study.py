"""What the recipes share: trained compartments that survive an interruption, drawing by every rule, and measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from intarsia.audit import copy_report
from intarsia.compartments import TrainSettings
from intarsia.composition import Result, Routing, sample
from intarsia.data import Source
from intarsia.experiments.reproduce.bench import Bench
from intarsia.experiments.reproduce.scale import METHODS, Scale
from intarsia.experiments.reproduce.workshop import Team, Workshop
from intarsia.experiments.reproduce.world import World, Yardstick
from intarsia.vault.engines import Engine
from intarsia.vault.parts import PartSettings

_SMALL = 64  # pixels a side


@dataclass(frozen=True)
class Study:
    """One table: where its cells are kept, in what world, with what budget, and where compartments are trained."""

    bench: Bench
    world: World
    scale: Scale
    engine: Engine | None = None

    @cached_property
    def workshop(self) -> Workshop:

        def on_encoded(done: int, total: int) -> None:
            self.bench.on_step("encode", done, total)

        return Workshop(self.bench.work, self.world.backbone, self.world.core, on_encoded, self.engine)

    def team(
        self, place: str, sources: Sequence[Source], settings: TrainSettings, routers: Sequence[str | PartSettings]
    ) -> Team:
        """A trained compartment for each of these sources."""

        def on_step(done: int, total: int) -> None:
            self.bench.on_step(f"train {place}", done, total)

        return self.workshop.team(place, sources, settings, routers, on_step)

    def monolith(self, place: str, images: Source, settings: TrainSettings) -> Result:
        """A set of images from one compartment that was trained on all of these."""
        team = self.team(place, [replace(images, name="all")], settings, ())
        return self.draw(team, ["all"], "ancestral", settings.seed)

    def draw(
        self,
        team: Team,
        names: Sequence[str],
        method: str,
        seed: int,
        *,
        routing: str | Routing | None = None,
        analytic_start: float | None = None,
    ) -> Result:
        """A set of images from these sources, for the captions of the world that they know, where it has any.

        `routing` takes the place of the method's own; `analytic_start` is that of `SampleSettings`.
        """
        weights, usual = METHODS[method]
        model = team.compose(names, weights, usual if routing is None else routing)
        return sample(
            model,
            self.scale.images,
            replace(self.scale.sampled(seed), analytic_start=analytic_start),
            decode=team.backbone.decode,
            labels=team.asked(names, self.world.asked(self.scale.images, model.labels | model.vocabulary)),
            on_progress=lambda done, total: self.bench.on_step(method, done, total),
        )


def measured(result: Result, yardstick: Yardstick) -> dict[str, float]:
    """Distances, network calls per image, and the largest gap between a source's share and its prior."""
    gap = (result.shares - result.prior).abs().max().item()
    calls = result.calls.double().mean().item()
    return {**yardstick.measure(result.images), "calls": calls, "share gap": gap}


def copied(images: Tensor, world: World) -> float:
    """Share of the images that are copies of training images, by a threshold that flags 1 % of the reference images.

    Small images are compared pixel by pixel; large ones, where that takes too long, by their features.
    """
    features = world.network.features if images.shape[-1] > _SMALL else None
    found = copy_report(images, [world.images], world.reference.pixels(), features=features)
    return found.flagged.double().mean().item()
