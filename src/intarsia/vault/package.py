"""A backbone package: the public part of a vault, which everybody may have, as a folder.

backbone/                        Backbone.save
core/core.json                   what the core set is: name, owner, licence, attribution, count, manifest root, digests
core/basis.safetensors           the basis of the Gaussian routers, fitted to the core's latents
core/fingerprints.safetensors    ids and thumbnails of all core pictures, with which overlapping sources are found
core/samples.safetensors         some core pictures, if any: the other side of `reference` router parts
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.backbone import Backbone
from intarsia.backbone.backbone import RECORD_FILE as BACKBONE_FILE
from intarsia.backbone.stored import FILES as BACKBONE_FILES
from intarsia.data import Manifest, Sample, Source, to_float, to_uint8
from intarsia.data.images import Pixels
from intarsia.data.source import hash_fraction
from intarsia.errors import CorruptError, SettingsError, UnknownName
from intarsia.files import load_tensors, read_json, save_tensors
from intarsia.routers import Basis
from intarsia.vault.folders import new_folder
from intarsia.vault.records import read_record, write_record
from intarsia.vault.sources import check_shape
from intarsia.vault.store import BACKBONE, CORE

CORE_FILE = "core.json"
BASIS_FILE = "basis.safetensors"
FINGERPRINTS_FILE = "fingerprints.safetensors"
SAMPLES_FILE = "samples.safetensors"
KEPT = 2048
USUAL_RANK = 256  # every component of a Gaussian part costs its square in numbers
OnEncoded = Callable[[int, int], None]
"""Called with (pictures encoded, pictures in all)."""
_BLOCK = 64  # pictures unpacked at once
_THUMBNAIL = 8  # what the comparison of near duplicates looks at
_SPLIT = 0  # seed of the hash that chooses the kept samples


@dataclass(frozen=True)
class Core:
    """What a vault knows of the core set. Tensors are read when they are first asked for.

    Raises (on use):
        CorruptError: something is missing or damaged.
    """

    folder: Path
    record: dict[str, Any]

    @cached_property
    def basis(self) -> Basis:
        return Basis.from_tensors(self._tensors(BASIS_FILE))

    @cached_property
    def fingerprints(self) -> Source:
        """The core as a source of thumbnails under the ids of the full pictures: enough for `refuse_core_overlap`."""
        tensors = self._tensors(FINGERPRINTS_FILE)
        ids = [bytes(row).hex() for row in tensors["ids"].numpy()]
        samples = tuple(Sample(id, id[:16]) for id in ids)
        return Source(
            "core", self.record["owner"], self.record["licence"], "", Manifest(samples), tensors["thumbnails"].numpy()
        )

    @property
    def kept(self) -> bool:
        """Whether some core pictures were kept."""
        return SAMPLES_FILE in self.record["files"]

    @cached_property
    def samples(self) -> Pixels:
        """The core pictures that were kept, uint8 (M, H, W, C), by id; M is 0 if none were."""
        if not self.kept:
            return np.empty((0, 1, 1, 1), np.uint8)
        return self._tensors(SAMPLES_FILE)["images"].numpy()

    def latents(self, backbone: Backbone) -> Tensor:
        """Latents (M, *latent_shape) of the pictures that were kept; encoded once for every backbone."""
        if backbone.digest not in self._latents:
            blocks = np.split(self.samples, range(_BLOCK, len(self.samples), _BLOCK))
            self._latents[backbone.digest] = torch.cat([backbone.encode(to_float(block)) for block in blocks])
        return self._latents[backbone.digest]

    @cached_property
    def _latents(self) -> dict[str, Tensor]:
        return {}

    def _tensors(self, name: str) -> dict[str, Tensor]:
        return load_tensors(self.folder / name, digest=self.record["files"][name])


def make_package(
    out: Path,
    backbone: Backbone,
    core: Source,
    *,
    basis_rank: int | None = None,
    keep_samples: int = KEPT,
    on_encoded: OnEncoded | None = None,
) -> None:
    """`write_package` into a new folder, which is there whole or not at all.

    Raises:
        VaultError: there is something at `out`, or the disk is full.
        IncompatibleError, InputError, SettingsError: as `write_package`.
    """
    with new_folder(out) as scratch:
        write_package(scratch, backbone, core, basis_rank=basis_rank, keep_samples=keep_samples, on_encoded=on_encoded)


def write_package(
    folder: Path,
    backbone: Backbone,
    core: Source,
    *,
    basis_rank: int | None = None,
    keep_samples: int = KEPT,
    on_encoded: OnEncoded | None = None,
) -> None:
    """Write a backbone and what is public about its core set.

    Args:
        basis_rank: of the Gaussian routers' basis; None keeps every dimension of the latent space.
        keep_samples: how many core pictures to keep, at most; those with the smallest hashes.

    Raises:
        IncompatibleError: the core's images are not of the backbone's shape.
        InputError: the core is too small for a basis.
        SettingsError: a rank or a number that makes no sense.
    """
    if keep_samples < 0:
        raise SettingsError(f"keep_samples is {keep_samples}; expected a number of core pictures, or 0 for none")
    check_shape(core, backbone.image_shape)
    basis = Basis.fit(torch.cat([*_encoded(backbone, core, _BLOCK, on_encoded)]), basis_rank)
    backbone.save(folder / BACKBONE)
    place = folder / CORE
    place.mkdir()
    stored = {BASIS_FILE: basis.tensors(), FINGERPRINTS_FILE: _fingerprints(core)}
    if keep_samples:
        stored[SAMPLES_FILE] = {"images": torch.from_numpy(_kept(core, keep_samples))}
    record = {
        "name": core.name,
        "owner": core.owner,
        "licence": core.licence,
        "attribution": core.attribution,
        "count": len(core),
        "manifest_root": core.manifest.root,
        "basis": basis.fingerprint(),
        "kept": min(keep_samples, len(core)),
        "files": {name: save_tensors(place / name, tensors) for name, tensors in stored.items()},
    }
    write_record(place / CORE_FILE, record)


def usual_rank(backbone: Backbone) -> int:
    """The rank of a basis for latents of any size: all their dimensions, but 256 at most."""
    return min(USUAL_RANK, math.prod(backbone.latent_shape))


def read_core(folder: Path) -> Core:
    """The core of a package or a vault.

    Raises:
        CorruptError: its record is missing or damaged.
    """
    place = folder / CORE
    record = read_record(place / CORE_FILE)
    missing = {"owner", "licence", "basis", "files", "manifest_root", "count"} - set(record)
    if missing:
        raise CorruptError(
            f"{place / CORE_FILE}: not a core's record (it lacks {', '.join(sorted(missing))}); restore it"
        )
    return Core(place, record)


def copy_package(package: Path, folder: Path) -> None:
    """Copy a package into `folder`, after reading all of it.

    Raises:
        CorruptError: it is damaged or incomplete.
        IncompatibleError: backbone and basis are of different latent spaces.
    """
    check_package(package)
    for part, names in package_files(package).items():
        (folder / part).mkdir()
        for name in names:
            shutil.copyfile(package / part / name, folder / part / name)


def package_files(package: Path) -> dict[str, list[str]]:
    """What belongs in the folders of a package, by folder; whatever else lies there is a stranger.

    Raises:
        CorruptError: a record is missing or damaged.
    """
    backbone, core = read_json(package / BACKBONE / BACKBONE_FILE), read_core(package).record
    return {
        BACKBONE: [BACKBONE_FILE, *(name for name in BACKBONE_FILES if name in backbone["files"])],
        CORE: [CORE_FILE, *(name for name in (BASIS_FILE, FINGERPRINTS_FILE, SAMPLES_FILE) if name in core["files"])],
    }


def check_package(package: Path) -> Backbone:
    """Read all of a package; returns its backbone.

    Raises:
        CorruptError: it is damaged or incomplete, or its parts do not belong together.
    """
    backbone, core = Backbone.load(package / BACKBONE), read_core(package)
    if core.basis.fingerprint() != core.record["basis"] or core.basis.latent_shape != backbone.latent_shape:
        raise CorruptError(
            f"{core.folder / BASIS_FILE}: not the basis of this core and backbone; write the package again"
        )
    pictures, stated = len(core.fingerprints), core.record["count"]
    if pictures != stated:
        raise CorruptError(f"{core.folder / FINGERPRINTS_FILE}: {pictures} pictures, the record says {stated}")
    channels, height, width = backbone.image_shape
    if core.kept and core.samples.shape[1:] != (height, width, channels):
        raise CorruptError(
            f"{core.folder / SAMPLES_FILE}: images of {core.samples.shape[1:]}, not {(height, width, channels)}"
        )
    return backbone


def find_package(name: str | Path) -> Path:
    """The folder of a package, by path or by the name of one that comes with intarsia.

    Raises:
        UnknownName: neither a package's folder nor a known name; lists those that come with intarsia.
    """
    given = Path(name).expanduser()
    if (given / BACKBONE).is_dir():
        return given
    shipped = Path(str(files("intarsia") / "pretrained"))
    known = sorted(path.parent.name for path in shipped.glob(f"*/{BACKBONE}")) if shipped.is_dir() else []
    if str(name) not in known:
        raise UnknownName("backbone package", str(name), known)
    return shipped / str(name)


def latents_of(backbone: Backbone, source: Source, *, on_encoded: OnEncoded | None = None) -> Tensor:
    """Latents (N, *latent_shape) in manifest order, each image encoded by itself.

    Encoders round differently in batches of different size; a latent must not know what else is in its source.
    """
    return torch.cat([*_encoded(backbone, source, 1, on_encoded)])


def _encoded(backbone: Backbone, source: Source, block: int, on_encoded: OnEncoded | None) -> Iterator[Tensor]:
    """Latents in blocks, of which one at a time is unpacked."""
    for rows in torch.arange(len(source)).split(block):
        yield backbone.encode(source.select_pixels(rows))
        if on_encoded is not None:
            on_encoded(int(rows[-1]) + 1, len(source))


def _fingerprints(core: Source) -> dict[str, Tensor]:
    """Ids (N, 32) and thumbnails (N, 8, 8, C), both uint8."""
    ids = np.stack([np.frombuffer(bytes.fromhex(id), dtype=np.uint8) for id in core.manifest.ids])
    blocks = [
        F.adaptive_avg_pool2d(core.select_pixels(rows), _THUMBNAIL) for rows in torch.arange(len(core)).split(_BLOCK)
    ]
    return {"ids": torch.from_numpy(ids), "thumbnails": torch.from_numpy(np.concatenate([to_uint8(b) for b in blocks]))}


def _kept(core: Source, count: int) -> Pixels:
    """The pictures with the smallest hashes, in the order of their ids."""
    ids: Sequence[str] = core.manifest.ids
    chosen = sorted(range(len(ids)), key=lambda row: hash_fraction(_SPLIT, ids[row]))[:count]
    return np.ascontiguousarray(core.images[sorted(chosen)])
