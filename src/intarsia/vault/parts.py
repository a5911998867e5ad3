"""The kinds of router parts a compartment may carry: fitted to one source and to what is public, stored beside its adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, TrainData
from intarsia.errors import IncompatibleError, SettingsError, UnknownName
from intarsia.routers import GaussianPart, GaussianSettings, RouterPart
from intarsia.routers.heads import HeadSettings
from intarsia.routers.prototype import BackboneFeatures, BasisFeatures, FeatureMap, PrototypePart, PrototypeSettings
from intarsia.routers.reference import ReferencePart
from intarsia.vault.package import Core

PartSettings = GaussianSettings | HeadSettings | PrototypeSettings


@dataclass(frozen=True)
class PartKind:
    """A kind of part: its settings' type, and how it is fitted to one source."""

    settings: type[PartSettings]
    fit: Callable[[TrainData, Backbone, Core, Any], RouterPart]


def _fit_gaussian(data: TrainData, backbone: Backbone, core: Core, settings: GaussianSettings) -> RouterPart:
    return GaussianPart.fit(data.latents, data.ids, data.labels, core.basis, settings=settings)


def _fit_reference(data: TrainData, backbone: Backbone, core: Core, settings: HeadSettings) -> RouterPart:
    if core.samples is None:
        raise SettingsError("this vault's core kept no pictures, which 'reference' parts need; write its package with keep_samples")
    return ReferencePart.fit(data.latents, data.ids, backbone.encode(core.samples), backbone, settings=settings)


def _fit_prototype(data: TrainData, backbone: Backbone, core: Core, settings: PrototypeSettings) -> RouterPart:
    return PrototypePart.fit(data.latents, data.ids, prototype_features(backbone, core), settings=settings)


PARTS: Mapping[str, PartKind] = MappingProxyType(
    {
        "gaussian": PartKind(GaussianSettings, _fit_gaussian),
        "reference": PartKind(HeadSettings, _fit_reference),
        "prototype": PartKind(PrototypeSettings, _fit_prototype),
    }
)


def prototype_features(backbone: Backbone, core: Core) -> FeatureMap:
    """The public map in which prototypes live: pixels of tiny pictures as they are, features of the backbone for latents."""
    return BasisFeatures(core.basis) if backbone.autoencoder is None else BackboneFeatures(backbone)


def chosen_parts(routers: Sequence[str | PartSettings]) -> dict[str, PartSettings]:
    """Settings by kind, in the order of the kinds' names; a kind given by name takes its default settings.

    Raises:
        UnknownName: no such kind.
        SettingsError: one kind twice.
    """
    chosen: dict[str, PartSettings] = {}
    for given in routers:
        kind = given if isinstance(given, str) else _kind_of(given)
        if kind not in PARTS:
            raise UnknownName("router part", kind, PARTS)
        if kind in chosen:
            raise SettingsError(f"the router part '{kind}' is asked for twice; name it once")
        chosen[kind] = PARTS[kind].settings() if isinstance(given, str) else given
    return dict(sorted(chosen.items()))


def _kind_of(settings: PartSettings) -> str:
    return next((kind for kind, part in PARTS.items() if isinstance(settings, part.settings)), type(settings).__name__)


def fit_parts(
    chosen: Mapping[str, PartSettings], data: TrainData, backbone: Backbone, core: Core
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Fit them; (tensors under `<kind>.<name>`, settings by kind), as a compartment stores them."""
    parts = {kind: PARTS[kind].fit(data, backbone, core, settings) for kind, settings in chosen.items()}
    tensors = {f"{kind}.{name}": tensor for kind, part in parts.items() for name, tensor in part.tensors().items()}
    return tensors, {kind: part.settings() for kind, part in parts.items()}


def stored_part(compartment: Compartment, kind: str) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """(tensors, settings) of one part of a compartment.

    Raises:
        IncompatibleError: the compartment has no part of this kind.
    """
    if kind not in compartment.router_settings:
        found = ", ".join(sorted(compartment.router_settings)) or "none"
        raise IncompatibleError(
            f"compartment '{compartment.name}' has no router part '{kind}' (it has: {found}); train it again with it, or "
            "choose other weights"
        )
    prefix = f"{kind}."
    tensors = {name.removeprefix(prefix): tensor for name, tensor in compartment.router.items() if name.startswith(prefix)}
    return tensors, compartment.router_settings[kind]
