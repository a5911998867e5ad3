"""What the recipes share: trained compartments that survive an interruption, drawing by every rule, and measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from intarsia.audit import copy_report
from intarsia.compartments import TrainSettings
from intarsia.composition import (
    BackboneMember,
    CompositeDenoiser,
    Full,
    Prior,
    Prototype,
    Result,
    Routing,
    SampleSettings,
    Weights,
    sample,
)
from intarsia.composition.member import Conditions, shares_of
from intarsia.data import Source
from intarsia.errors import SettingsError
from intarsia.experiments.reproduce.bench import Bench
from intarsia.experiments.reproduce.scale import CLIP, METHODS, Scale
from intarsia.experiments.reproduce.workshop import Team, Workshop, prompted
from intarsia.experiments.reproduce.world import World, Yardstick
from intarsia.routers import LabelShares, PrototypeBank, PrototypePart
from intarsia.vault.engines import Engine
from intarsia.vault.parts import PartSettings

MONOLITH, BASE, UNTRAINED = "monolith x1", "backbone", "untrained"
"""Rows of tables: one model of all images, its adapter as large as a source's; no adapter; one that was not trained."""

_STILL = 1e-12  # a learning rate that moves nothing
_SMALL = 64  # pixels a side
_SEEN = 64  # pictures unpacked at once


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

    def untrained(self, source: Source, seed: int) -> Result:
        """A set of images from an adapter that has seen none, for the captions of a source; all begin with the same."""
        settings = replace(self.scale.training, steps=1, rows=1, lr=_STILL, seed=seed)
        team = self.team(f"seed-{seed}-{UNTRAINED}", [source], settings, ())
        return self.draw(team, [source.name], "ancestral", seed)

    def draw(
        self,
        team: Team,
        names: Sequence[str],
        method: str,
        seed: int,
        *,
        routing: str | Routing | None = None,
        analytic_start: float | None = None,
        by_prompt: bool = False,
    ) -> Result:
        """A set of images from these sources, for the captions of the world that they know, where it has any.

        `routing` takes the place of the method's own; `analytic_start` is that of `SampleSettings`; `by_prompt`: how
        likely a caption is under each source counts in the weights.
        """
        weights, usual = METHODS[method]
        made = clip_weights(self.world, team, names) if weights == CLIP else weights
        model = team.compose(names, made, usual if routing is None else routing)
        if by_prompt:
            model = replace(model, told=team.told(names))
        settings = replace(self.scale.sampled(seed), analytic_start=analytic_start)
        return self._sample(model, settings, method, team.asked(names, self._asked(model)))

    def base(self, seed: int) -> Result:
        """A set of images from the public backbone alone, for the captions of the world that it knows."""
        backbone = self.world.backbone
        alone, one = BackboneMember(backbone, 1), torch.ones(1, dtype=torch.float64)
        model = CompositeDenoiser(
            [alone],
            one,
            Prior(shares_of([alone])),
            Full(),
            backbone.schedule,
            backbone.latent_shape,
            vocabulary=frozenset(backbone.labels),
        )
        asked = prompted(backbone, [], self._asked(model))
        return self._sample(model, self.scale.sampled(seed), "backbone", asked)

    def _asked(self, model: CompositeDenoiser) -> list[str | None] | None:
        return self.world.asked(self.scale.images, model.labels | model.vocabulary)

    def _sample(
        self, model: CompositeDenoiser, settings: SampleSettings, title: str, asked: Conditions | None
    ) -> Result:
        return sample(
            model,
            self.scale.images,
            settings,
            decode=self.world.backbone.decode,
            labels=asked,
            on_progress=lambda done, total: self.bench.on_step(title, done, total),
        )


# paper, section 4: "a k-NN classifier with CLIP embeddings", of the decoded x0_hat of every step
def clip_weights(world: World, team: Team, names: Sequence[str]) -> Weights:
    """Softmax of minus the distances to each source's centroids in CLIP's space, found by each source for itself.

    Raises:
        SettingsError: the world has no CLIP to see by.
    """
    if world.sight is None:
        raise SettingsError("the method 'clip' sees by a CLIP, and there is none; give the folder of one, with --clip")
    clip, decode = world.sight, team.backbone.decode
    parts = []
    for name in names:
        source = team.sources[name]
        blocks = torch.arange(len(source)).split(_SEEN)
        seen = torch.cat([clip(source.select_pixels(rows)) for rows in blocks])
        parts.append(PrototypePart.fit(seen, source.manifest.ids, clip.basis))
    bank = PrototypeBank(parts)
    return Prototype(lambda x0_hat: bank(clip(decode(x0_hat))), [LabelShares({}, 1)] * len(parts))


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
