"""How large a table is: what runs on a desk within an hour or two, and what the paper ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from intarsia.compartments import DeepPrompts, Lora, TrainSettings
from intarsia.composition import SampleSettings
from intarsia.routers import GaussianSettings, HeadSettings, PrototypeSettings
from intarsia.vault.parts import PartSettings

METHODS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "gaussian": ("gaussian", "threshold"),
        "reference": ("reference", "threshold"),
        "prototype": ("prototype", "threshold"),
        "joint": ("joint", "threshold"),
        "ancestral": ("prior", "ancestral"),
        "top-1": ("gaussian", "top_k:1"),
        "naive": ("uniform", "full"),
    }
)
"""What is compared: weights and routing, by the name in the tables."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Budgets that all methods of a table share.

    Args:
        steps: of the monolith; sources share them out equally, so that sample-gradients are the same.
        training: of every compartment, whose steps a study sets.
        sampling: of every set of images.
        images: per set.
        routers: the parts that every compartment gets.
        methods: names of `METHODS`, those that are compared.
        seeds: numbers of training and sampling runs.
    """

    steps: int
    training: TrainSettings
    sampling: SampleSettings
    images: int
    routers: tuple[PartSettings, ...] = (GaussianSettings(), HeadSettings(), PrototypeSettings())
    methods: tuple[str, ...] = tuple(METHODS)
    seeds: tuple[int, ...] = (0, 1, 2)

    def trained(self, *, share: int, seed: int) -> TrainSettings:
        """Training settings of one of `share` sources."""
        return replace(self.training, steps=max(1, self.steps // share), seed=seed)

    def sampled(self, seed: int) -> SampleSettings:
        return replace(self.sampling, seed=seed)

    def settings(self) -> dict[str, Any]:
        """JSON-able; without the seeds, so that more of them can be added to a table."""
        sampling = {name: getattr(self.sampling, name) for name in ("steps", "sampler", "spacing", "guidance_scale")}
        training = {k: v for k, v in self.training.settings().items() if k not in ("seed", "steps")}
        routers = {type(settings).__name__: settings.settings() for settings in self.routers}
        return {
            "steps": self.steps,
            "training": training,
            "routers": routers,
            "sampling": sampling,
            "images": self.images,
        }


# On two cores, 8 px
CPU = Scale(
    steps=3200,
    training=TrainSettings(adapter=Lora(rank=8), steps=3200, rows=64, lr=5e-3),
    sampling=SampleSettings(steps=30, batch=250),
    images=2000,
)

# paper, appendix C: 256 deep prompts on an ImageNet U-ViT, Adam without weight decay, learning rate 0.1, batches
# of 256, 800 epochs, which are 18,750 steps for the 5,994 training images of CUB-200
PAPER = Scale(
    steps=18_752,
    training=TrainSettings(adapter=DeepPrompts(tokens=256), steps=18_752, rows=256, lr=0.1),
    sampling=SampleSettings(steps=50, batch=64),
    images=10_000,
)
SCALES = {"cpu": CPU, "paper": PAPER}
