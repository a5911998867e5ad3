"""The kinds of router parts that a compartment may carry, each fitted to one source and to what is public."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, PrivateSteps, TextPrompts, TrainData
from intarsia.compartments.adapters import Kind
from intarsia.compartments.training import deterministic
from intarsia.errors import IncompatibleError, SettingsError, UnknownName
from intarsia.routers import (
    Basis,
    CaptionPart,
    CaptionSettings,
    GaussianPart,
    GaussianSettings,
    HeadSettings,
    PrototypePart,
    PrototypeSettings,
    ReferencePart,
    RouterPart,
)
from intarsia.routers.heads import feature_dim
from intarsia.routers.part import SampleSet
from intarsia.routers.private import fit_private, label_counts
from intarsia.vault.package import Core

PartSettings = GaussianSettings | HeadSettings | PrototypeSettings | CaptionSettings
CAPTION = "caption"


@dataclass(frozen=True)
class PartKind:
    """A kind of part: its settings' type, how it is fitted to one source, and how it is read again."""

    settings: type[PartSettings]
    fit: Callable[[TrainData, Backbone, Core, Any], RouterPart]
    read: Callable[[Mapping[str, Tensor], Mapping[str, Any], Basis], RouterPart]


def _fit_gaussian(data: TrainData, backbone: Backbone, core: Core, settings: GaussianSettings) -> RouterPart:
    return GaussianPart.fit(data.latents, data.ids, data.labels, core.basis, settings=settings)


def _fit_reference(data: TrainData, backbone: Backbone, core: Core, settings: HeadSettings) -> RouterPart:
    return ReferencePart.fit(data.latents, data.ids, core.latents(backbone), backbone, settings=settings)


def _fit_prototype(data: TrainData, backbone: Backbone, core: Core, settings: PrototypeSettings) -> RouterPart:
    return PrototypePart.fit(data.latents, data.ids, core.basis, settings=settings)


def _fit_caption(data: TrainData, backbone: Backbone, core: Core, settings: CaptionSettings) -> RouterPart:
    return CaptionPart.fit(data.captions, data.ids, settings=settings)


def _read_caption(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], basis: Basis) -> RouterPart:
    return CaptionPart.from_tensors(tensors, settings)


def _read_reference(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], basis: Basis) -> RouterPart:
    return ReferencePart.from_tensors(tensors, settings)


PARTS: Mapping[str, PartKind] = MappingProxyType(
    {
        "gaussian": PartKind(GaussianSettings, _fit_gaussian, GaussianPart.from_tensors),
        "reference": PartKind(HeadSettings, _fit_reference, _read_reference),
        "prototype": PartKind(PrototypeSettings, _fit_prototype, PrototypePart.from_tensors),
        CAPTION: PartKind(CaptionSettings, _fit_caption, _read_caption),
    }
)


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


def check_parts(
    chosen: Collection[str], backbone: Backbone, core: Core, *, private: bool = False, adapter: Kind | None = None
) -> None:
    """Refuse parts that cannot be fitted here, before anything is trained.

    Raises:
        SettingsError: `reference` parts, and the core kept no pictures for their other side, or the backbone has no
            features for them; or there is no private way to fit a part; or a part for captions without the adapter
            'text'.
    """
    if private and (strange := sorted(set(chosen) - {"gaussian"})):
        raise SettingsError(
            f"the router part '{strange[0]}' cannot be fitted privately; take 'gaussian', or none at all: the weights "
            "'ito' and 'prior' need none"
        )
    if CAPTION in chosen and adapter is not None and not isinstance(adapter, TextPrompts):
        raise SettingsError(
            f"the router part '{CAPTION}' goes with the adapter 'text', which needs a U-ViT, and this one is "
            f"'{adapter.name}'; train with 'text', or leave the part out"
        )
    if "reference" in chosen:
        feature_dim(backbone)  # which refuses
    if "reference" in chosen and not core.kept:
        raise SettingsError(
            "this vault's core kept no pictures, which 'reference' parts need; make the vault from a package that "
            "keeps some (--keep-samples, or keep_samples in Python)"
        )


def _kind_of(settings: PartSettings) -> str:
    return next((kind for kind, part in PARTS.items() if isinstance(settings, part.settings)), type(settings).__name__)


def fit_parts(
    chosen: Mapping[str, PartSettings],
    data: TrainData,
    backbone: Backbone,
    core: Core,
    *,
    private: PrivateSteps | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Fit them; (tensors under `<kind>.<name>`, settings by kind), as a compartment stores them.

    The bytes do not depend on how many threads the process has.
    """
    with deterministic(1):
        parts = {
            kind: _fit_private(data, core, settings, private)
            if private
            else PARTS[kind].fit(data, backbone, core, settings)
            for kind, settings in chosen.items()
        }
    tensors = {f"{kind}.{name}": tensor for kind, part in parts.items() for name, tensor in part.tensors().items()}
    return tensors, {kind: part.settings() for kind, part in parts.items()}


def _fit_private(data: TrainData, core: Core, settings: PartSettings, private: PrivateSteps) -> RouterPart:
    multiplier = private.mechanism.router_multiplier
    assert isinstance(settings, GaussianSettings)  # check_parts refused all others
    assert multiplier is not None  # the mechanism was made for this recipe
    return fit_private(
        SampleSet(data.latents, data.ids, data.labels),
        core.basis,
        size=private.mechanism.size,
        multiplier=multiplier,
        normal=lambda shape: private.noise.normal(shape, "router", *shape),
        settings=settings,
    )


def public_counts(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], data: TrainData, size: int
) -> dict[str, int]:
    """How many images of a private source have each label: with the router part's noise, or else in equal shares."""
    if "gaussian" in settings:
        return dict(zip(settings["gaussian"]["labels"], tensors["gaussian.label_counts"].tolist(), strict=True))
    return label_counts(dict.fromkeys(data.labels, 1.0), size)


def read_part(compartment: Compartment, kind: str, core: Core) -> RouterPart:
    """One part of a compartment.

    Raises:
        IncompatibleError: the compartment has no part of this kind, or one of another basis.
        CorruptError: it is damaged.
    """
    if kind not in compartment.router_settings:
        found = ", ".join(sorted(compartment.router_settings)) or "none"
        raise IncompatibleError(
            f"compartment '{compartment.name}' has no router part '{kind}' (it has: {found}); train it again with it, "
            "or choose other weights"
        )
    prefix = f"{kind}."
    tensors = {
        name.removeprefix(prefix): tensor for name, tensor in compartment.router.items() if name.startswith(prefix)
    }
    return PARTS[kind].read(tensors, compartment.router_settings[kind], core.basis)
