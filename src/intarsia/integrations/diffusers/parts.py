"""Router parts without a vault: fitted to a folder of one source's images, kept beside its LoRA.

router.safetensors   the parts' tensors, by kind
router.json          what they were fitted to and how; the digest of the file above

Beside a single file x.safetensors they are x.router.safetensors and x.router.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from intarsia.audit.clip import KIND as CLIP
from intarsia.audit.clip import Clip
from intarsia.checks import check_whole
from intarsia.data import Source, read_pixels, sample_id, to_float
from intarsia.data.readers import ReadOptions
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.files import check_format, load_tensors, read_json, save_tensors, write_json
from intarsia.integrations.diffusers.arguments import component_of
from intarsia.integrations.diffusers.latents import cosine_basis, encode, side_of, space_of
from intarsia.integrations.diffusers.trained import is_compartment
from intarsia.routers import Basis, GaussianBank, GaussianPart, PrototypeBank, PrototypePart, RouterPart

FORMAT = 1
RANK = 256
Images = Source | str | Path
TENSORS, RECORD = "router.safetensors", "router.json"


@dataclass(frozen=True, eq=False)
class RouterParts:
    """One source's parts: `tensors` by "kind.name", and the record, JSON-able."""

    tensors: Mapping[str, Tensor]
    record: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the latents it was fitted to."""
        channels, height, width = self.record["latents"]["shape"]
        return channels, height, width

    @cached_property
    def basis(self) -> Basis:
        """The basis they were fitted in: the slow cosines, and the core's mixture if there was one.

        Raises:
            CorruptError: it is not the one of the record.
        """
        basis, core = cosine_basis(self.shape, self.record["rank"]), self.of("basis")
        if core:
            basis = Basis.from_tensors(core | {"rows": basis.rows})
        if basis.fingerprint() != self.record["basis"]:
            raise CorruptError("a router part's basis is not the one it was fitted in; fit the part again")
        return basis

    @property
    def count(self) -> int:
        """Number of samples."""
        return int(self.record["count"])

    def of(self, kind: str) -> dict[str, Tensor]:
        """Tensors of one kind, by name."""
        return {name.removeprefix(f"{kind}."): t for name, t in self.tensors.items() if name.startswith(f"{kind}.")}

    def save(self, place: Path) -> None:
        """Write both files beside a member, the record last."""
        tensors, record = paths(place)
        digest = save_tensors(tensors, self.tensors)
        write_json(record, dict(self.record) | {"digest": digest})

    @classmethod
    def load(cls, name: str, place: Path) -> RouterParts:
        """Read what `save` wrote.

        Raises:
            SettingsError: there is none, or a newer version of intarsia wrote it.
            CorruptError: damaged.
        """
        tensors, path = paths(place)
        if not path.exists():
            raise SettingsError(
                f"'{name}' has no router part: there is no {path}; make one from its images by fit_router(pipe, "
                "images, place), or choose weights that need none: 'uniform', 'prior', 'ito' or shares"
            )
        record = read_json(path)
        check_format(path, record.get("format"), FORMAT)
        if wrong := [key for key, sound in _SOUND.items() if key not in record or not sound(record[key])]:
            raise CorruptError(f"{path}: {', '.join(wrong)} missing or no such thing; fit the router part again")
        return cls(load_tensors(tensors, digest=record["digest"]), record)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _latents(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("space", ""), str | None):
        return False
    shape = value.get("shape")
    return isinstance(shape, list) and len(shape) == 3 and all(map(_whole, shape))


def _kinds(value: object) -> bool:
    return (
        isinstance(value, dict)
        and {"gaussian", "prototype"} <= value.keys()
        and all(isinstance(each, dict) for each in value.values())
    )


_SOUND: Mapping[str, Callable[[object], bool]] = MappingProxyType(
    {
        "count": _whole,
        "digest": lambda value: isinstance(value, str),
        "latents": _latents,
        "rank": _whole,
        "basis": lambda value: isinstance(value, str),
        "kinds": _kinds,
    }
)


def paths(place: Path) -> tuple[Path, Path]:
    """Where the parts of a member stand: (tensors, record)."""
    if place.is_dir():
        return place / TENSORS, place / RECORD
    return place.with_name(f"{place.stem}.{TENSORS}"), place.with_name(f"{place.stem}.{RECORD}")


def is_part(path: Path) -> bool:
    """Whether a file is the tensors of a router part, which stands beside its member."""
    return path.name == TENSORS or path.name.endswith(f".{TENSORS}")


def fit_router(
    pipe: Any,
    images: Images,
    place: str | Path,
    *,
    core: Images | None = None,
    clip: str | Path | None = None,
    size: int | None = None,
    rank: int = RANK,
) -> RouterParts:
    """Fit one source's router parts and save them beside its LoRA.

    They see that source and what is public, so nobody's parts depend on anybody else's data.

    Args:
        pipe: the pipeline to draw with; its autoencoder makes the latents.
        images: a source, a folder, a table or an archive; larger pictures are scaled to fit, with white margins.
        place: the folder or file of the member.
        core: public images, the same for all members, that show what pictures are like in general. Without them the
            standard normal stands for that, and sources of fewer than some fifty images are told apart poorly.
        clip: folder or hub id of a CLIP image model, for weights "clip".
        size: the side of the images that will be drawn; None takes the pipeline's own.
        rank: how many slow cosines of a latent the densities look at, at most as many as it has numbers.

    Raises:
        InputError: images that cannot be read.
        SettingsError: a size or rank that makes no sense, no such place, or one where nothing is put.
    """
    if not isinstance(place, str | Path):
        raise SettingsError(f"place is {place!r}, expected the folder or file of the member")
    check_whole("rank", rank)
    place = Path(place).expanduser()
    if not place.exists():
        raise SettingsError(f"there is no member at {place}; give the folder or file of the LoRA")
    if is_compartment(place):
        raise SettingsError(
            f"{place} is a compartment of a vault, to which nothing is added; give a folder of its own, and name it in "
            "compose(..., routers={...})"
        )
    if size is not None:
        check_whole("size", size)
    side = side_of(pipe, component_of(pipe)) if size is None else size
    pixels = _pixels(images, side)
    ids, shown = list(pixels), to_float(np.stack(list(pixels.values())))
    latents = encode(pipe, shown)
    shape = (latents.shape[1], latents.shape[2], latents.shape[3])
    basis = cosine_basis(shape, min(rank, latents[0].numel()))
    if core is not None:
        public = to_float(np.stack(list(_pixels(core, side).values())))
        basis = Basis.along(basis.rows, encode(pipe, public))
    fitted: dict[str, RouterPart] = {
        "gaussian": GaussianPart.fit(latents, ids, None, basis),
        "prototype": PrototypePart.fit(latents, ids, basis),
    }
    kinds = {kind: part.settings() for kind, part in fitted.items()}
    if clip is not None:
        model = Clip.load(clip)
        fitted[CLIP] = model.fit(shown, ids)
        kinds[CLIP] = fitted[CLIP].settings() | {"model": model.digest}
    record = {
        "format": FORMAT,
        "count": len(ids),
        "latents": {"shape": list(shape), "space": space_of(pipe)},
        "rank": basis.rank,
        "basis": basis.fingerprint(),
        "kinds": kinds,
    }
    tensors = {f"{kind}.{name}": t for kind, part in fitted.items() for name, t in part.tensors().items()}
    if core is not None:
        tensors |= {f"basis.{name}": t for name, t in basis.tensors().items() if name != "rows"}
    parts = RouterParts(tensors, record)
    parts.save(place)
    return parts


def _pixels(images: Images, side: int) -> dict[str, Any]:
    """Distinct pictures uint8 (S, S, 3) by id."""
    if isinstance(images, Source):
        found = images.images
        if found.shape[1:3] != (side, side):
            raise SettingsError(
                f"source '{images.name}' has {found.shape[1]} x {found.shape[2]} pixels, expected {side} x {side}; "
                "read it with that size, or give size="
            )
        found = np.repeat(found, 3 // found.shape[3], axis=3)
    else:
        found = read_pixels(images, size=side, options=ReadOptions(resize="fit"))
    return {sample_id(picture): picture for picture in found}


def check_alike(parts: Mapping[str, RouterParts], space: str | None) -> None:
    """Raises IncompatibleError unless all parts were fitted to latents of this space, where known, and in one basis."""
    first = next(iter(parts.values()))
    for name, one in parts.items():
        if None not in (space, fitted := one.record["latents"]["space"]) and fitted != space:
            raise IncompatibleError(
                f"'{name}': its router part was fitted in the latent space of another autoencoder; fit it again"
            )
        if one.record["basis"] != first.record["basis"]:
            raise IncompatibleError(
                f"'{name}': its router part was fitted to latents {one.shape} with rank {one.record['rank']}, that "
                f"of another to {first.shape} with rank {first.record['rank']}, or with another core; fit all alike"
            )


def gaussian_bank(parts: Sequence[RouterParts]) -> GaussianBank:
    """Raises CorruptError, IncompatibleError: parts that cannot be read or were fitted in another basis."""
    basis = parts[0].basis
    return GaussianBank(
        [GaussianPart.from_tensors(one.of("gaussian"), one.record["kinds"]["gaussian"], basis) for one in parts]
    )


def prototype_bank(parts: Sequence[RouterParts]) -> PrototypeBank:
    """Raises as `gaussian_bank`."""
    basis = parts[0].basis
    return PrototypeBank(
        [PrototypePart.from_tensors(one.of("prototype"), one.record["kinds"]["prototype"], basis) for one in parts]
    )


def default_prior(parts: Sequence[RouterParts]) -> Tensor:
    """Shares proportional to the numbers of samples (science.md section 1): (n,) float64."""
    counts = torch.tensor([float(one.count) for one in parts], dtype=torch.float64)
    return counts / counts.sum()


def clip_bank(parts: Mapping[str, RouterParts], clip: Clip) -> PrototypeBank:
    """Raises as `Clip.bank`."""
    return clip.bank({name: (one.of(CLIP), one.record["kinds"].get(CLIP)) for name, one in parts.items()})
