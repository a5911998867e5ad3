"""`read_pixels`: pictures without terms, to be looked at and not to be learned from."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

from intarsia.data.images import Pixels, check_pixel_settings, decode, side_of
from intarsia.data.readers.entries import Problem, ReadOptions
from intarsia.data.readers.ingest import find
from intarsia.errors import IngestError, InputError

_DEFAULT_OPTIONS = ReadOptions()
_ARRAYS = (".npz", ".npy")


def read_pixels(
    path: str | Path,
    *,
    size: int | None = None,
    channels: int = 3,
    options: ReadOptions = _DEFAULT_OPTIONS,
    skip: Collection[str] = (),
) -> Pixels:
    """uint8 (N, S, S, channels) of the pictures at `path`, in the order of their names; the same one may come twice.

    Args:
        path: what `read_source` reads, or a local `.npz` or `.npy` of one uint8 array (N, S, S, 1 or 3).
        size: S; None takes that of the first picture.
        channels: 1 (greyscale) or 3 (RGB).
        options: how foreign images are read. Arrays are never scaled.
        skip: file names that belong to something else.

    Raises:
        IngestError: images are unreadable or of another size; every such file is listed.
        InputError: nothing is at `path`, nothing is in it, or an array of another kind.
        MissingExtra: the reader of this format is not installed.
        SettingsError: `size`, `channels` or `resize` makes no sense.
    """
    check_pixel_settings(size=1 if size is None else size, channels=channels, resize=options.resize)
    if str(path).lower().endswith(_ARRAYS):
        return _array(Path(path).expanduser(), size, channels)
    found = find(str(path), options)
    entries = sorted((entry for entry in found.entries if entry.file_name not in skip), key=lambda e: e.file_name)
    problems = [problem for problem in found.problems if problem.where not in skip]
    if not entries and not problems:
        raise InputError(f"{path} holds no images; expected at least one PNG, JPEG or WEBP image")
    pictures = []
    for entry in entries:
        try:
            data = entry.load()
            size = size or side_of(data, options.limits)
            pictures.append(decode(data, size=size, channels=channels, limits=options.limits, resize=options.resize))
        except (InputError, OSError) as error:
            problems.append(Problem(entry.file_name, str(error)))
    if problems:
        raise IngestError(str(path), [str(problem) for problem in sorted(problems, key=lambda p: p.place)])
    return np.stack(pictures)


def _array(path: Path, size: int | None, channels: int) -> Pixels:
    pixels = _load(path)
    side = size or pixels.shape[1] if pixels.ndim == 4 else None
    fits = pixels.shape[1:] in ((side, side, 1), (side, side, channels))
    if pixels.dtype != np.uint8 or not fits or not len(pixels):
        kinds = "1" if channels == 1 else f"1 or {channels}"
        raise InputError(
            f"{path} holds {pixels.dtype} of shape {pixels.shape}; expected uint8 images (N, S, S, {kinds})"
            + (f" with S = {size}" if size else "")
        )
    return np.repeat(pixels, channels // pixels.shape[3], axis=3)


def _load(path: Path) -> Pixels:
    try:
        with path.open("rb") as handle:
            held = np.load(handle, allow_pickle=False)
            if isinstance(held, np.ndarray):
                return held
            if len(held.files) != 1 and "arr_0" not in held.files:
                raise InputError(f"{path} holds the arrays {', '.join(held.files) or 'none'}; expected one of images")
            return held["arr_0" if "arr_0" in held.files else held.files[0]]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected an array of images") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as arrays ({error}); save it with numpy.savez again") from error
