"""How large a table is: what runs on a desk within an hour or two, and what the paper ran."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from intarsia.checks import check_whole
from intarsia.compartments import DeepPrompts, FullCopy, Lora, TrainSettings
from intarsia.composition import SampleSettings
from intarsia.diffusion import SAMPLERS
from intarsia.errors import SettingsError, UnknownName
from intarsia.routers import GaussianSettings, HeadSettings, PrototypeSettings
from intarsia.vault.parts import PartSettings

METHODS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "gaussian": ("gaussian", "threshold"),
        "reference": ("reference", "threshold"),
        "prototype": ("prototype", "threshold"),
        "ito": ("ito", "full"),
        "joint": ("joint", "threshold"),
        "ancestral": ("prior", "ancestral"),
        "posterior": ("gaussian", "posterior"),
        "joint-posterior": ("joint", "posterior"),
        "sticky": ("gaussian", "sticky:0.001"),
        "top-1": ("gaussian", "top_k:1"),
        "naive": ("uniform", "full"),
        "soup": ("soup", "full"),
        "diffusion_classifier": ("diffusion_classifier", "threshold"),
        "clip": ("clip", "threshold"),
    }
)
"""What can be compared: weights and routing, by the name in the tables."""


CLIP = "clip"
"""The paper's method for text-to-image, where there is a CLIP to see by."""


def all_but(*names: str) -> tuple[str, ...]:
    """The methods without some, and without `CLIP`, which few tables can have."""
    return tuple(name for name in METHODS if name not in (*names, CLIP))


_PARTS: Mapping[str, type[PartSettings]] = MappingProxyType(
    {"gaussian": GaussianSettings, "reference": HeadSettings, "prototype": PrototypeSettings}
)
_EVENLY = 8
SINGLE = "best single"
"""Compared beside `METHODS`: each source alone, and the best of them."""

COSTLY = "diffusion_classifier"
"""Compared only if asked for: its weights take 16 network calls of every member where the others take none."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Budgets that all methods of a table share.

    Args:
        steps: of the monolith; sources share them out equally, so that sample-gradients are the same.
        epochs: passes over all training images, where these decide the steps (see `over`).
        training: of every compartment, whose steps a study sets.
        sampling: of every set of images.
        images: per set.
        routers: the parts that every compartment gets.
        methods: names of `METHODS`, or `SINGLE`: those that are compared.
        counts: numbers of sources that a data set is shared out among.
        seeds: numbers of training and sampling runs.

    Raises:
        UnknownName: no such method.
    """

    steps: int
    training: TrainSettings
    sampling: SampleSettings
    images: int
    routers: tuple[PartSettings, ...] = (GaussianSettings(), HeadSettings(), PrototypeSettings())
    methods: tuple[str, ...] = (*all_but(COSTLY), SINGLE)
    counts: tuple[int, ...] = (2, 4, 8)
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int | None = None

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in (*METHODS, SINGLE):
                raise UnknownName("method", name, (*METHODS, SINGLE))
        check_whole("images", self.images)
        for count in self.counts:
            check_whole("number of sources", count, least=2)

    @property
    def lacking(self) -> tuple[str, ...]:
        """Methods whose weights are made of a router part that no compartment gets."""
        needed = {method: _PARTS.get(METHODS[method][0]) for method in self.methods if method in METHODS}
        fitted = {type(settings) for settings in self.routers}
        return tuple(method for method, part in needed.items() if part is not None and part not in fitted)

    def check_methods(self, *, of_its_own: bool = False) -> None:
        """Refuse a method that these settings rule out, before anything is trained for it.

        Args:
            of_its_own: whether the table draws by these methods whatever is asked for.

        Raises:
            SettingsError: there is one.
        """
        sampling = self.sampling
        noisy = SAMPLERS[sampling.sampler].stochastic or sampling.eta > 0
        averaged = isinstance(self.training.adapter, Lora | FullCopy)
        reasons = {
            "ito": None if noisy else f"reads the fresh noise of every step, and '{sampling.sampler}' adds none",
            "soup": None
            if averaged
            else f"averages weights, which '{self.training.adapter.name}' adapters leave alone",
        }
        if sampling.guidance_scale != 1:
            reasons["ito"] = f"takes no guidance, which is {sampling.guidance_scale:g} here"
        for method in self.methods:
            if (reason := reasons.get(method)) is not None:
                others = ",".join(each for each in self.methods if each != method)
                instead = "give another" if of_its_own else f"leave it out{f': --methods {others!r}' * bool(others)}"
                raise SettingsError(f"the method '{method}' {reason}; {instead}")

    def over(self, images: int) -> Scale:
        """The scale for so many training images: `epochs` passes, in steps that 2, 4 and 8 sources share out evenly."""
        if self.epochs is None:
            return self
        return replace(self, steps=_EVENLY * math.ceil(self.epochs * images / self.training.rows / _EVENLY))

    def trained(self, parts: int, of: int, *, seed: int) -> TrainSettings:
        """Training settings for so many of `of` equal parts of the steps."""
        return replace(self.training, steps=parts * max(1, self.steps // of), seed=seed)

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


def larger(settings: TrainSettings, times: int) -> TrainSettings:
    """The settings with an adapter of `times` as many parameters.

    Raises:
        SettingsError: an adapter that cannot grow.
    """
    adapter = settings.adapter
    if times == 1:
        return settings
    if isinstance(adapter, Lora):
        # Adam moves every entry of B by the learning rate, so B A x by as many of them as there are ranks: with a scale
        # of 1 / rank (Hu et al. 2021) steps stay as large; with 1 / sqrt(rank) (rsLoRA) one seed of three diverged.
        grown = replace(adapter, rank=adapter.rank * times, scale=adapter.scale / times)
        return replace(settings, adapter=grown)
    if isinstance(adapter, DeepPrompts):
        return replace(settings, adapter=replace(adapter, tokens=adapter.tokens * times))
    raise SettingsError(f"an adapter of the kind '{adapter.name}' cannot be made {times} times as large")


DIGITS = Scale(
    steps=3200,
    training=TrainSettings(adapter=Lora(rank=32), steps=3200, rows=64, lr=5e-3),
    sampling=SampleSettings(steps=30, batch=250),
    images=1000,
)
EMOJI = Scale(
    steps=2400,
    training=TrainSettings(adapter=Lora(rank=16), steps=2400, rows=64, lr=4e-3),
    sampling=SampleSettings(steps=40, guidance_scale=2.0, batch=64),
    images=1000,
    methods=(*all_but(COSTLY, "ito"), SINGLE),  # guided paths are none that ito could filter
)

# paper, appendix C: 256 deep prompts on an ImageNet U-ViT, Adam without weight decay, learning rate 0.1, batches
# of 256, 800 epochs. It says nothing of warm-up, decay of the rate and averaging, nor of the sampler and the number of
# images: these are ours. The steps are those of the 5,994 training images of CUB-200, until the images are known.
PAPER = Scale(
    steps=18_736,
    training=TrainSettings(adapter=DeepPrompts(tokens=256), rows=256, lr=0.1),
    sampling=SampleSettings(steps=50, batch=64),
    images=10_000,
    methods=(*all_but(COSTLY, "soup"), SINGLE),  # there is no mean of two sets of prompts
    epochs=800,
)
# Section 5 and appendix C: Stable Diffusion 2.1 as a whole, Adam without weight decay, learning rate 1e-4, batches of
# 256, about 15,000 steps for each of three sources. It does not say how many the model of all of them had (here three
# times as many, as everywhere: equally many sample-gradients), nor anything of warm-up and averaging, nor of sampler,
# guidance and the number of images.
PAPER_TEXT = Scale(
    steps=45_000,
    training=TrainSettings(adapter=FullCopy(), rows=256, at_once=8, lr=1e-4),
    sampling=SampleSettings(steps=50, sampler="ddim", guidance_scale=7.5, batch=16),
    images=2000,
    routers=(GaussianSettings(), PrototypeSettings()),
    methods=all_but(COSTLY, "ito", "joint", "joint-posterior", "reference"),  # no guidance; made for a U-ViT
)
# For class-conditional generation, which its Table 1 is of, the paper trains 8 prompts for each class.
PAPER_CLASSES = replace(PAPER, training=replace(PAPER.training, adapter=DeepPrompts(tokens=8, per_class=True)))
