"""Where a table's compartments are trained and kept: a folder each, and no more bookkeeping than that.

A vault does the same for data that live: it compares sources with each other, keeps an index and writes every change at
once or not at all. A table of hundreds of sources of a few images each would spend its time on that.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, SecretNoise, TextPrompts, TrainSettings, train
from intarsia.compartments.secret import KEY_FILE
from intarsia.composition import CompositeDenoiser, Routing, Weights
from intarsia.composition.member import Conditions
from intarsia.data import Source
from intarsia.experiments.reproduce.latents import Latents, OnEncoded
from intarsia.routers import CaptionBank
from intarsia.vault.captions import read_caption_part, read_prompts
from intarsia.vault.composing import compose
from intarsia.vault.engines import Engine, Work
from intarsia.vault.material import Material
from intarsia.vault.package import Core
from intarsia.vault.parts import PartSettings, check_parts, chosen_parts
from intarsia.vault.training import Recipe, compartment_of, data_of, trainable, trainee_of

_SAVED = 100  # steps between checkpoints
KEPT, UNFINISHED, LATENTS = "compartments", "unfinished", "latents.safetensors"


@dataclass(frozen=True)
class Team:
    """Trained compartments of one set of sources, by name, with what joins them."""

    backbone: Backbone
    core: Core
    compartments: Mapping[str, Compartment]
    sources: Mapping[str, Source]
    latents: Latents

    def asked(self, names: Sequence[str], labels: Sequence[str | None] | None) -> Conditions | None:
        """The labels as these compartments take them: in words, if that is what they were trained on."""
        return prompted(self.backbone, [self.compartments[name] for name in names], labels)

    def told(self, names: Sequence[str]) -> CaptionBank:
        """How likely captions are under each of these sources, by the part `caption`, which all must have.

        Raises:
            IncompatibleError: one of them has none.
        """
        return CaptionBank([read_caption_part(self.compartments[name]) for name in names])

    def compose(
        self, names: Sequence[str], weights: str | Weights, routing: str | Routing, *, precision: str = "auto"
    ) -> CompositeDenoiser:
        """Some of them composed; as `vault.composing.compose`."""
        return compose(
            [self.compartments[name] for name in names],
            self.backbone,
            self.core,
            weights=weights,
            routing=routing,
            precision=precision,
            data=lambda name: data_of(self.sources[name], self.latents.of(self.sources[name])),
        )


def prompted(
    backbone: Backbone, compartments: Sequence[Compartment], labels: Sequence[str | None] | None
) -> Conditions | None:
    """The labels as prompts, where compartments or backbone were trained on such."""
    words = [label for label in labels or () if label is not None]
    reading = [isinstance(each.adapter, TextPrompts) for each in compartments]
    if not words or not (backbone.text is not None or (reading and all(reading))):
        return labels
    prompts = dict(zip(words, read_prompts(words, compartments, backbone), strict=True))
    return [None if label is None else prompts[label] for label in labels or ()]


@dataclass(frozen=True)
class Workshop:
    """Trains compartments on one backbone; what is finished is not trained again.

    The caller sees to it that a place is used for one training only. Without an engine they are trained here, one after
    the other.
    """

    folder: Path
    backbone: Backbone
    core: Core
    on_encoded: OnEncoded
    engine: Engine | None = None

    @cached_property
    def latents(self) -> Latents:
        """Of all sources that are trained here."""
        return Latents(self.folder / LATENTS, self.backbone, self.on_encoded)

    def team(
        self,
        place: str,
        sources: Sequence[Source],
        settings: TrainSettings,
        routers: Sequence[str | PartSettings],
        on_step: Callable[[int, int], None],
    ) -> Team:
        """A compartment for each source, from where an interrupted run stopped; `on_step` sees steps done and in all.

        Raises:
            CorruptError: what is kept is damaged.
            SettingsError: routers that cannot be fitted here.
        """
        recipe = Recipe(trainable(settings, self.backbone), chosen_parts(routers))
        check_parts(recipe.routers, self.backbone, self.core, adapter=recipe.settings.adapter)
        steps = settings.steps
        if self.engine is not None:
            self._hand_out(self.engine, place, sources, recipe, on_step)
        trained = {}
        for number, source in enumerate(sources):

            def advance(step: int, before: int = number * steps) -> None:
                on_step(before + step, steps * len(sources))

            trained[source.name] = self._compartment(place, source, recipe, advance)
        return Team(self.backbone, self.core, trained, {source.name: source for source in sources}, self.latents)

    def _compartment(self, place: str, source: Source, recipe: Recipe, on_step: Callable[[int], None]) -> Compartment:
        kept = self.folder / KEPT / place / source.name
        if kept.exists():
            on_step(recipe.settings.steps)
            return Compartment.load(kept)
        work = self._begun(place, source, recipe)
        data = data_of(source, self.latents.of(source))
        trainee = trainee_of(self.backbone, source, work.record, work.folder, data=data)
        for step in train([trainee]):
            on_step(step.step)
        self._keep(place, compartment_of(trainee, self.core, work.record), work)
        return Compartment.load(kept)

    def _hand_out(
        self,
        engine: Engine,
        place: str,
        sources: Sequence[Source],
        recipe: Recipe,
        on_step: Callable[[int, int], None],
    ) -> None:
        """Have an engine train all that are not finished; what machines tell is summed up over them."""
        left = [source for source in sources if not (self.folder / KEPT / place / source.name).exists()]
        works = [self._begun(place, source, recipe) for source in left]
        total, done = recipe.settings.steps * len(sources), dict.fromkeys((source.name for source in left), 0)
        before = total - recipe.settings.steps * len(left)
        training = engine.train(works, self.backbone, self.core, save_every=_SAVED)
        while True:
            try:
                step = next(training)
            except StopIteration as end:
                finished: list[Compartment] = end.value
                break
            done[step.name] = step.step
            on_step(before + sum(done.values()), total)
        for compartment, work in zip(finished, works, strict=True):
            self._keep(place, compartment, work)

    def _begun(self, place: str, source: Source, recipe: Recipe) -> Work:
        """A training that is begun, or gone on with."""
        unfinished = self.folder / UNFINISHED / place / source.name
        record = recipe.of_source(len(source)).record(self.backbone, self.core, Material(source.manifest, {}).roots)
        unfinished.mkdir(parents=True, exist_ok=True)
        if recipe.settings.privacy and not (unfinished / KEY_FILE).exists():
            SecretNoise.generate().write(unfinished)
        return Work(source.name, record, unfinished, lambda: source)

    def _keep(self, place: str, compartment: Compartment, work: Work) -> None:
        kept, done = self.folder / KEPT / place / work.name, work.folder / "done"
        compartment.save(done)
        kept.parent.mkdir(parents=True, exist_ok=True)
        done.rename(kept)
        shutil.rmtree(work.folder)
