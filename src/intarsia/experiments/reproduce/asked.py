"""What a recipe is asked to do otherwise than usual; what it would ignore is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from intarsia.audit import Alignment, QuestionAlignment, load_answerer, load_clip
from intarsia.audit.neighbourhoods import PRECISION_NEIGHBOURS
from intarsia.checks import check_whole
from intarsia.errors import SettingsError
from intarsia.experiments.reproduce.recipes import Calculation, Recipe
from intarsia.experiments.reproduce.scale import Scale
from intarsia.vault.engines import Engine


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a table is computed from, where it is not the digits that come along.

    Args:
        data: the folder of emoji tables, or at paper scale of images in one sub-folder per class, or with captions and
            aesthetic scores.
        mnist: so many pictures of MNIST's digits in the place of the 1,797 digits that come along.
        backbone: a package, by name or folder.
        inception: the file of the FID's network.
        clip, answerer: folders of a CLIP, and of a ViLT that answers questions, for tables of alignment.
        engine: where compartments are trained; None trains them here, one after the other.
    """

    data: Path | None = None
    mnist: int | None = None
    backbone: str | None = None
    inception: Path | None = None
    clip: Path | None = None
    answerer: Path | None = None
    engine: Engine | None = None

    def aligners(self) -> tuple[Alignment, ...]:
        """The judges of captions whose weights are given.

        Raises:
            InputError, MissingExtra: they cannot be read.
        """
        clip = () if self.clip is None else (load_clip(self.clip),)
        return (*clip, *(() if self.answerer is None else (QuestionAlignment(load_answerer(self.answerer)),)))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of a table that trains is computed, where it is not the usual.

    Args:
        methods: those to be compared, in `splits`, `owners` and `alignment`.
        images: drawn per set.
        counts: numbers of sources that a data set is shared out among, in `splits` and `caption-splits`.
        steps, sampler: how images are drawn.
    """

    methods: Sequence[str] = ()
    images: int | None = None
    counts: Sequence[int] = ()
    steps: int | None = None
    sampler: str | None = None

    def check(self, name: str, recipe: Recipe | Calculation[Any]) -> None:
        """Refuse what this recipe would ignore, and images too few to be measured."""
        if self.methods and not (isinstance(recipe, Recipe) and recipe.compares):
            raise SettingsError(f"'{name}' has methods of its own; leave {', '.join(self.methods)} out")
        if self.counts and not (isinstance(recipe, Recipe) and recipe.counted):
            raise SettingsError(f"'{name}' has numbers of sources of its own; leave {self.counts[0]} out")
        if self.images is not None:
            check_whole("images", self.images, least=PRECISION_NEIGHBOURS + 1)
        drawing = {"images": self.images, "steps": self.steps, "sampler": self.sampler}
        given = [f"--{option} {value}" for option, value in drawing.items() if value is not None]
        if given and isinstance(recipe, Calculation):
            raise SettingsError(f"'{name}' draws numbers of its own; leave {', '.join(given)} out")
        if given and isinstance(recipe, Recipe) and not recipe.draws:
            raise SettingsError(f"'{name}' draws no images; leave {', '.join(given)} out")

    def of(self, usual: Scale) -> Scale:
        sampling = replace(
            usual.sampling,
            steps=usual.sampling.steps if self.steps is None else self.steps,
            sampler=self.sampler or usual.sampling.sampler,
        )
        return replace(
            usual,
            methods=tuple(self.methods) or usual.methods,
            images=usual.images if self.images is None else self.images,
            counts=tuple(self.counts) or usual.counts,
            sampling=sampling,
        )
