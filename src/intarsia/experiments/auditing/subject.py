"""What is audited: a vault, what somebody gives to hold it against, and images that are drawn from it once for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from intarsia.audit import FeatureNetwork, load_network
from intarsia.checks import check_seed, check_whole
from intarsia.compartments import Compartment, TrainData
from intarsia.compartments.adapters import Kind
from intarsia.composition import CompartmentMember, Member, Operator, Result, SampleSettings
from intarsia.data import Source
from intarsia.errors import InputError, SettingsError, UnknownName
from intarsia.vault import Vault
from intarsia.vault.captions import with_captions
from intarsia.vault.operators import USUAL_ROUTING, USUAL_WEIGHTS
from intarsia.vault.training import train_data

OnPhase = Callable[[str], None]
OnStep = Callable[[str, int, int], None]
PIXELS, FEATURES = "pixels", "efflite0"
_LARGE = 64  # pixels a side, above which distances between pixels say little and take long
_PROTECTED = 8  # images from which the bound is estimated


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """How much is looked at.

    Args:
        count: images that are drawn to look for copies among them.
        steps: of every image that is drawn.
        members: images of each source, at most, that attacks are tried on.
        shadows: models per source that LiRA trains, 0 for none; each takes as long as the compartment took.
        network: where copies are looked for: `pixels`, or a feature network; None decides by the size of the images.
        unrecorded: test also a vault that cannot be written, whose ledger then says nothing of it.
        seed: of everything that is drawn.
    """

    count: int = 200
    steps: int = 50
    members: int = 1000
    shadows: int = 0
    network: str | None = None
    unrecorded: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("count", self.count, most=100_000)
        check_whole("steps", self.steps, most=10_000)
        check_whole("members", self.members, least=2)
        check_whole("shadows", self.shadows, least=0, most=256)
        if self.shadows in (1, 2):
            raise SettingsError(f"shadows is {self.shadows}: each is attacked by the others; give at least 3, or 0")
        if self.network not in (None, PIXELS, FEATURES):
            raise UnknownName("way to compare images", self.network, (PIXELS, FEATURES))
        check_seed(self.seed)


@dataclass(frozen=True)
class Given:
    """What is held against the vault, all float32 (N, C, H, W) in [-1, 1]; None where nobody gave any.

    `held_out`: real images like those of the sources, that nothing here was trained on. `removed`: images that were
    forgotten. `images`: to be looked through for copies, in place of some that are drawn.
    """

    held_out: Tensor | None = None
    removed: Tensor | None = None
    images: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """A vault under audit; what is read or drawn is kept for the next check."""

    vault: Vault
    settings: AuditSettings
    given: Given
    names: tuple[str, ...] | None
    on_phase: OnPhase
    on_step: OnStep

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The sources that are looked at and trained, by name.

        Raises:
            SettingsError: there is none.
        """
        there = [info.name for info in self.vault.compartments()]
        found = tuple(name for name in there if self.names is None or name in self.names)
        if not found:
            raise SettingsError("nothing is trained, so there is nothing to test; train with `intarsia train`")
        return found

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """Those that are looked at and whose images are here, not with their owners.

        Raises:
            InputError: there is none.
        """
        infos = [info for info in self.vault.sources() if info.signer is None]
        found = tuple(self.vault.source(each.name) for each in infos if self.names is None or each.name in self.names)
        if not found:
            raise InputError("no images are here to compare with: their owners keep them, or no source was added")
        return found

    @property
    def held_trained(self) -> list[Source]:
        """The trained ones whose images are here."""
        return [source for source in self.sources if source.name in self.trained]

    def compartment(self, name: str) -> Compartment:
        return self.vault.compartment(name)

    def member(self, name: str) -> Member:
        return CompartmentMember(self.vault.backbone, self.compartment(name))

    def data(self, source: Source, reader: Kind | None = None) -> TrainData:
        """Some of its images as training has them, at most as many as attacks are tried on: the first by their ids.

        With captions if `reader`, the adapter that is to be trained, or the network reads them.
        """
        ids, backbone = frozenset(source.manifest.ids[: self.settings.members]), self.vault.backbone
        some = source.select(lambda sample: sample.id in ids)
        data = train_data(backbone, some)
        return data if reader is None else with_captions(data, some, backbone, reader)

    def encoded(self, images: Tensor) -> Tensor:
        """Latents of images one by one, as training has them."""
        return torch.cat([self.vault.backbone.encode(image[None]) for image in images])

    @cached_property
    def network(self) -> FeatureNetwork | None:
        """Where copies are looked for; None for between pixels."""
        side = self.vault.image_shape[-1]
        chosen = self.settings.network or (FEATURES if side > _LARGE else PIXELS)
        return None if chosen == PIXELS else load_network(chosen)

    @cached_property
    def looked_through(self) -> Tensor:
        """The images among which copies are looked for."""
        if self.given.images is not None:
            return self.given.images
        self.on_phase(f"draw {self.settings.count} images")
        return self._draw(Operator(), self.settings.count, alone=True).images

    @cached_property
    def protected(self) -> Result:
        """A few images by the protected operator.

        Raises:
            SettingsError: fewer than two sources are trained.
        """
        self.on_phase(f"draw {_PROTECTED} protected images")
        return self._draw(Operator(name="protected"), _PROTECTED, alone=False)

    def _draw(self, operator: Operator, count: int, *, alone: bool) -> Result:
        """Images for the test alone: the ledger hears of the composition, and nobody earns credit by them.

        `alone`: each by one compartment, which is exact, needs no router part, and hides no copy.
        """
        weights, routing = ("prior", "ancestral") if alone else (USUAL_WEIGHTS, USUAL_ROUTING)
        composition = self.vault.compose(
            self.trained, weights=weights, routing=routing, operator=operator, unrecorded=self.settings.unrecorded
        )
        settings = SampleSettings(seed=self.settings.seed, steps=self.settings.steps)
        return replace(composition, record=None).draw(
            count, settings, on_progress=lambda done, total: self.on_step(operator.name, done, total)
        )
