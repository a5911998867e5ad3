"""A source on disk, one file per sample, so that one sample can be erased alone.

source.json     owner, licence, attribution, count, labels, image shape, manifest root
manifest.json   the samples: id, file name, caption, label
images/<id>.png
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from intarsia.data import Manifest, Sample, Source, decode, encode_png, sample_id
from intarsia.data.images import Pixels
from intarsia.digests import digest_of
from intarsia.errors import CorruptError, IncompatibleError, InputError, IntarsiaError
from intarsia.files import read_bytes
from intarsia.vault.records import SourceInfo, read_record, write_record

SOURCE_FILE = "source.json"
MANIFEST_FILE = "manifest.json"
IMAGES = "images"
_WHOLE = (SOURCE_FILE, MANIFEST_FILE, IMAGES)
_MISSING = "restore it from a backup, or forget the source and add it again"


def check_shape(source: Source, image_shape: Sequence[int]) -> None:
    """Refuse images that the backbone cannot take.

    Raises:
        IncompatibleError: they are not of `image_shape`, (C, H, W).
    """
    channels, height, width = image_shape
    found = source.images.shape[1:]
    if found != (height, width, channels):
        raise IncompatibleError(
            f"source '{source.name}' has images of {found[0]}x{found[1]} with {found[2]} channels, the backbone "
            f"takes {height}x{width} with {channels}; read them with that size and number of channels"
        )


def write_source(folder: Path, source: Source) -> SourceInfo:
    """Write a source into an empty folder; the change that stages it brings all files to the disk at once."""
    (folder / IMAGES).mkdir()
    for sample, image in zip(source.manifest, source.images, strict=True):
        image_file(folder, sample).write_bytes(encode_png(image))
    info = SourceInfo(
        name=source.name,
        owner=source.owner,
        licence=source.licence,
        attribution=source.attribution,
        count=len(source),
        labels=source.manifest.labels,
        manifest_root=source.manifest.root,
        earlier_roots=roots_in(source.manifest)[:-1],
    )
    _write_manifest(folder, source.manifest)
    _write_info(folder, info, source.images.shape[1:])
    return info


def copy_without(source: Path, folder: Path, left: Manifest) -> SourceInfo:
    """Write what is left of a source into an empty folder, as if the other samples had never been in it.

    Pictures are copied as they are: one that is damaged does not keep another from being forgotten.

    Raises:
        CorruptError: the source's record or a picture is missing.
    """
    info = _renewed(source_info(source), left)
    (folder / IMAGES).mkdir()
    for sample in left:
        image_file(folder, sample).write_bytes(read_bytes(image_file(source, sample), missing=_MISSING))
    _write_manifest(folder, left)
    _write_info(folder, info, shape_of(source))
    return info


def copy_with(source: Path, folder: Path, merged: Manifest, new: Source) -> SourceInfo:
    """Write a source and what is added to it into an empty folder; the pictures that are there are copied.

    Raises:
        CorruptError: the source's record or a picture is missing.
    """
    come = frozenset(new.manifest.ids)
    before = Manifest(tuple(sample for sample in merged if sample.id not in come))
    info = _renewed(source_info(source), merged)
    (folder / IMAGES).mkdir()
    for sample in before:
        image_file(folder, sample).write_bytes(read_bytes(image_file(source, sample), missing=_MISSING))
    for sample, image in zip(new.manifest, new.images, strict=True):
        image_file(folder, sample).write_bytes(encode_png(image))
    _write_manifest(folder, merged)
    _write_info(folder, info, shape_of(source))
    return info


def _renewed(info: SourceInfo, manifest: Manifest) -> SourceInfo:
    """The record of a source with other samples."""
    return replace(
        info,
        count=len(manifest),
        labels=manifest.labels,
        manifest_root=manifest.root,
        earlier_roots=roots_in(manifest)[:-1],
    )


def roots_in(manifest: Manifest) -> tuple[str, ...]:
    """The roots that the manifest had before each later batch came, and its own."""
    return (*(manifest.before(batch).root for batch in range(1, manifest.batches)), manifest.root)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_FILE).write_text(manifest.to_json() + "\n", encoding="utf-8")


def _write_info(
    folder: Path, info: SourceInfo, shape: Sequence[int], more: Mapping[str, Any] = MappingProxyType({})
) -> None:
    record = {
        "name": info.name,
        "owner": info.owner,
        "licence": info.licence,
        "attribution": info.attribution,
        "count": info.count,
        "labels": list(info.labels),
        "manifest_root": info.manifest_root,
        "image_shape": list(shape),
        **more,
    }
    if info.earlier_roots:
        record["earlier_roots"] = list(info.earlier_roots)
    write_record(folder / SOURCE_FILE, record)


def source_info(folder: Path) -> SourceInfo:
    """What a source's record says; neither manifest nor images are opened.

    Raises:
        CorruptError: the record is missing or damaged.
    """
    record = read_record(folder / SOURCE_FILE)
    try:
        return SourceInfo(
            name=record["name"],
            owner=record["owner"],
            licence=record["licence"],
            attribution=record["attribution"],
            count=record["count"],
            labels=tuple(record["labels"]),
            manifest_root=record["manifest_root"],
            earlier_roots=tuple(record.get("earlier_roots", ())),
            signer=record.get("signer"),
        )
    except (KeyError, TypeError) as error:
        raise CorruptError(
            f"{folder / SOURCE_FILE}: not a source's record ({error}); restore it from a backup"
        ) from error


@dataclass(frozen=True)
class Handed:
    """What is kept of the packs of a source whose owner keeps the images, so that no earlier one comes back.

    `number` is that of the last one, `refused` the digests of the roots of samples of which some were forgotten.
    """

    number: int
    refused: tuple[str, ...] = ()

    def refuses(self, root: str) -> bool:
        """Whether something is not taken any more that learned from the samples of this root."""
        return digest_of(root.encode()) in self.refused

    def refusing(self, root: str) -> Handed:
        """From now on refusing the samples of this root too."""
        return replace(self, refused=tuple(sorted({*self.refused, digest_of(root.encode())})))


def write_away(folder: Path, info: SourceInfo, shape: Sequence[int], handed: Handed) -> None:
    """Write a source whose owner keeps the images into an empty folder: its record is all there is.

    Args:
        shape: (H, W, C) of the images.
    """
    refused = {"refused": list(handed.refused)} if handed.refused else {}
    _write_info(folder, info, shape, {"signer": info.signer, "pack": handed.number, **refused})


def handed_in(folder: Path) -> Handed:
    """What is kept of the packs of such a source.

    Raises:
        CorruptError: the record is missing or damaged.
    """
    record = read_record(folder / SOURCE_FILE)
    try:
        return Handed(int(record["pack"]), tuple(map(str, record.get("refused", ()))))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(
            f"{folder / SOURCE_FILE}: does not say which packs came ({error}); forget the source and import it again"
        ) from error


def read_manifest(folder: Path) -> Manifest:
    """The samples of a source; none where its owner keeps them.

    Raises:
        CorruptError: missing, damaged, or not those that the record states.
        VaultError: they cannot be read.
    """
    if source_info(folder).signer is not None:
        return Manifest(())
    path = folder / MANIFEST_FILE
    data = read_bytes(path, missing=_MISSING)
    try:
        manifest = Manifest.from_json(data)
    except CorruptError as error:
        raise CorruptError(f"{path}: {error}") from error
    stated = source_info(folder).manifest_root
    if manifest.root != stated:
        raise CorruptError(
            f"{path}: hashes to {manifest.root[:16]}…, the record says {stated[:16]}…; restore it from a backup"
        )
    return manifest


def load_source(folder: Path) -> Source:
    """The source with all its pixels, every one checked against its id.

    Raises:
        InputError: its owner keeps the images.
        CorruptError: something is missing or damaged.
    """
    check_here(folder)
    info, manifest, shape = source_info(folder), read_manifest(folder), shape_of(folder)
    pixels = [_read_image(folder, sample, shape) for sample in manifest]
    return Source(info.name, info.owner, info.licence, info.attribution, manifest, np.stack(pixels))


def check_here(folder: Path) -> None:
    """Raises InputError if the images of a source are with its owner."""
    info = source_info(folder)
    if info.signer is not None:
        raise InputError(
            f"the images of source '{info.name}' are with {info.owner}, who handed in a pack; what needs images is "
            "done there"
        )


def source_problems(folder: Path) -> list[str]:
    """All that is wrong with a source on disk, one line each."""
    try:
        manifest, shape = read_manifest(folder), shape_of(folder)
    except IntarsiaError as error:
        return [str(error)]
    problems = []
    for sample in manifest:
        try:
            _read_image(folder, sample, shape)
        except IntarsiaError as error:
            problems.append(str(error))
    away = source_info(folder).signer is not None
    expected = {image_file(folder, sample).name for sample in manifest}
    found = {path.name for path in (folder / IMAGES).iterdir()} if (folder / IMAGES).is_dir() else set()
    strange = [folder / IMAGES / name for name in sorted(found - expected)]
    strange += [p for p in sorted(folder.iterdir()) if p.name not in ([SOURCE_FILE] if away else _WHOLE)]
    return problems + [f"{path}: belongs to no sample; remove it" for path in strange]


def image_file(folder: Path, sample: Sample) -> Path:
    """Where the pixels of a sample are."""
    return folder / IMAGES / f"{sample.id}.png"


def _read_image(folder: Path, sample: Sample, shape: tuple[int, int, int]) -> Pixels:
    """The pixels of one sample, uint8 of `shape` (H, W, C).

    Raises:
        CorruptError: missing, damaged, or not those of the sample.
        VaultError: they cannot be read.
    """
    path = image_file(folder, sample)
    data = read_bytes(path, missing=_MISSING)
    try:
        image = decode(data, size=shape[0], channels=shape[2])
    except IntarsiaError as error:
        raise CorruptError(f"{path}: {error}; restore it from a backup") from error
    if sample_id(image) != sample.id:
        raise CorruptError(
            f"{path}: its pixels are not those of the sample it is named after; restore it from a backup"
        )
    return image


def shape_of(folder: Path) -> tuple[int, int, int]:
    """(H, W, C) of the images of a source.

    Raises:
        CorruptError: its record is missing or damaged.
    """
    try:
        height, width, channels = read_record(folder / SOURCE_FILE)["image_shape"]
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(
            f"{folder / SOURCE_FILE}: not a source's record ({error}); restore it from a backup"
        ) from error
    return height, width, channels
