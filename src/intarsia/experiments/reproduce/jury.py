"""Who judges whether drawings show what they were asked for: attributes of what captions name, and models given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.audit import Alignment, AttributeAlignment, fit_attributes
from intarsia.composition import Result
from intarsia.experiments.reproduce.world import World

REAL = "real drawings"
POINTS = (
    "Points, of 100: images whose attribute passes for that of the prompt, questions answered as the prompt says, "
    "or CLIP's cosine. For real held-out drawings they say how often the judge itself is right."
)
_BLOCK = 64  # pictures unpacked at once


@dataclass(frozen=True, eq=False)
class Jury:
    """Judges of images against the captions that they were drawn for."""

    aligners: Sequence[Alignment]

    @classmethod
    def of(cls, world: World) -> Jury:
        """By the attributes of a world's captions, fitted to all its training images, and by what else it has."""
        labels = [sample.label or "" for sample in world.images.manifest]
        by_attributes = tuple(
            AttributeAlignment(
                name,
                world.network,
                fit_attributes(world.training_features, [values[label] for label in labels]),
                values,
            )
            for name, values in world.attributes.items()
        )
        return cls((*by_attributes, *world.aligners))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.aligners)

    def of_drawn(self, result: Result) -> dict[str, Tensor]:
        """Points of every image (N,), by judge."""
        return self._points(result.images, [asked or "" for asked in result.asked])

    def of_real(self, world: World) -> dict[str, Tensor]:
        """The same of held-out drawings under their own captions: what is left to win."""
        prompts = [world.caption(sample) or "" for sample in world.reference.manifest]
        blocks = torch.arange(len(prompts)).split(_BLOCK)
        points = [self._points(world.reference.select_pixels(b), [prompts[k] for k in b.tolist()]) for b in blocks]
        return {name: torch.cat([block[name] for block in points]) for name in self.names}

    def _points(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        return {each.name: each.scores(images, prompts) for each in self.aligners}


def means(points: Mapping[str, Tensor]) -> dict[str, float]:
    """Over all images, by judge."""
    return {name: each.mean().item() for name, each in points.items()}
