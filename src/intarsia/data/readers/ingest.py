"""`read_source`: find the entries, decode them all, report every problem together."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import fsspec
import numpy as np
from fsspec import AbstractFileSystem

from intarsia.data.images import SUFFIXES, Pixels, check_pixel_settings, decode
from intarsia.data.licence import check_licence
from intarsia.data.manifest import Manifest, Sample, sample_id
from intarsia.data.readers.entries import Entry, Found, Problem, ReadOptions
from intarsia.data.readers.folder import find_in_folder
from intarsia.data.readers.parquet import find_in_parquet
from intarsia.data.readers.webdataset import find_in_tar
from intarsia.data.source import Source, check_name, check_owner
from intarsia.errors import IngestError, InputError

_DEFAULT_OPTIONS = ReadOptions()
_TABLES = (".parquet", ".pq")
_TARS = (".tar",)


def read_source(
    path: str | Path,
    *,
    name: str,
    owner: str,
    licence: str,
    size: int,
    channels: int = 3,
    attribution: str = "",
    options: ReadOptions = _DEFAULT_OPTIONS,
    only: Collection[str] | None = None,
) -> Source:
    """Read a folder of images, a Parquet file or a WebDataset tar into a `Source`; `path` may be an fsspec address.

    A folder describes its images by `metadata.jsonl` (one JSON object per line: `file_name`, `text`, `label`, `risk`),
    by `.txt` sidecars (captions), by class sub-folders (labels), or not at all; a table by its columns; a tar by
    members of one key with the endings `.txt`, `.cls` and `.json`. Captions, labels and risks are optional. Of images
    that are not among `only`, if that is given, nothing but what describes them is read.

    Raises:
        IngestError: rows and files do not match, or images are unreadable, duplicate or of another size; every such
            file is listed.
        InputError: nothing is at `path`, nothing is in it, or the name, owner or licence is not valid.
        MissingExtra: the reader of this format is not installed.
        SettingsError: `size`, `channels` or `resize` makes no sense.
    """
    if not str(path).strip():
        raise InputError("the place of the images is empty; expected a folder, a .parquet table or a .tar archive")
    check_name(name)
    check_owner(name, owner)
    check_licence(licence)
    check_pixel_settings(size=size, channels=channels, resize=options.resize)
    found = find(str(path), options)
    if not found.entries and not found.problems:
        raise InputError(f"{path} holds no images; expected at least one PNG, JPEG or WEBP image")
    entries = [entry for entry in found.entries if only is None or entry.file_name in only]
    decoded, problems = _decode_all(entries, size, channels, options)
    problems = sorted(problems + found.problems, key=lambda problem: problem.place)
    if problems:
        raise IngestError(str(path), [str(problem) for problem in problems])
    decoded.sort(key=lambda pair: pair[0].id)
    images = np.stack([image for _, image in decoded])
    return Source(name, owner, licence, attribution, Manifest(tuple(sample for sample, _ in decoded)), images)


def find(path: str, options: ReadOptions) -> Found:
    """What a reader sees at a path or an address.

    Raises:
        InputError: nothing is there, or nothing that is read.
        MissingExtra: the reader of this format is not installed.
    """
    columns, limits = options.columns, options.limits
    fs, root = _resolve(path)
    if fs.isdir(root):
        return find_in_folder(fs, root, columns, limits)
    if not fs.isfile(root):
        raise InputError(f"{path} does not exist; expected a folder of images, a .parquet table or a .tar archive")
    if root.lower().endswith(_TABLES):
        return find_in_parquet(fs, root, columns)
    if root.lower().endswith(_TARS):
        return find_in_tar(fs, root, columns, limits)
    hint = "; give its folder" if root.lower().endswith(SUFFIXES) else ""
    raise InputError(f"{path} is a single file; expected a folder of images, a .parquet table or a .tar archive{hint}")


def _resolve(path: str) -> tuple[AbstractFileSystem, str]:
    try:
        fs, root = fsspec.core.url_to_fs(os.path.expanduser(path))
    except (ImportError, ValueError) as error:
        raise InputError(f"{path} cannot be opened ({error}); use a local path or an address fsspec knows") from error
    return fs, str(root)


def _decode_all(
    entries: list[Entry], size: int, channels: int, options: ReadOptions
) -> tuple[list[tuple[Sample, Pixels]], list[Problem]]:
    decoded: list[tuple[Sample, Pixels]] = []
    problems: list[Problem] = []
    first: dict[str, str] = {}
    for entry in entries:
        try:
            image = decode(entry.load(), size=size, channels=channels, limits=options.limits, resize=options.resize)
            sample = Sample(sample_id(image), entry.file_name, entry.text, entry.label, entry.risk)
        except (InputError, OSError) as error:
            problems.append(Problem(entry.file_name, str(error)))
            continue
        earlier = first.setdefault(sample.id, entry.file_name)
        if earlier != entry.file_name:
            problems.append(Problem(entry.file_name, f"the same picture as {earlier}; keep one of them"))
            continue
        decoded.append((sample, image))
    return decoded, problems
