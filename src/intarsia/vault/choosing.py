"""Which samples of a source are meant: by id, by file, by caption or label. All questions are answered, or none."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from intarsia.data import Manifest, Sample, decode, sample_id
from intarsia.data.images import Resize
from intarsia.errors import InputError, IntarsiaError, UnknownName, counted

_SHOWN = 5
_FIELDS = ("caption", "label")
_RESIZED: tuple[Resize, ...] = ("fit", "crop")


def choose(
    manifest: Manifest,
    ids: Iterable[str] = (),
    files: Iterable[str] = (),
    patterns: Iterable[str] = (),
    *,
    size: int = 0,
    channels: int = 0,
) -> tuple[Sample, ...]:
    """The samples that any of the questions stands for, each once, in manifest order.

    Args:
        ids: ids, or beginnings of ids that fit one sample alone.
        files: file names of the manifest; or else files on disk, read as pictures of this `size` and `channels`.
        patterns: `caption:TEXT`, part of the caption in any case, or `label:NAME`.

    Raises:
        UnknownName: an id, a file or a label of no sample.
        InputError: an id or a file of several samples, an id too short, a pattern that is none or that nothing fits.
    """
    found = [manifest.find(given.strip().lower()) for given in ids]
    found += [_of_file(manifest, given, size, channels) for given in files]
    found += [sample for pattern in patterns for sample in _matching(manifest, pattern)]
    wanted = {sample.id for sample in found}
    return tuple(sample for sample in manifest if sample.id in wanted)


def _of_file(manifest: Manifest, given: str, size: int, channels: int) -> Sample:
    found: Sequence[Sample] = [sample for sample in manifest if _same(sample.file_name, given)]
    if not found and Path(given).expanduser().is_file():
        found = _of_picture(manifest, Path(given).expanduser(), size, channels)
    if not found:
        raise UnknownName("file", given, [sample.file_name for sample in manifest])
    if len(found) > 1:
        ids = ", ".join(sample.id[:12] for sample in found[:_SHOWN])
        raise InputError(f"{counted(len(found), 'sample')} have the file name '{given}'; name one by its id: {ids}")
    return found[0]


def _of_picture(manifest: Manifest, path: Path, size: int, channels: int) -> list[Sample]:
    """The samples that this file became, whichever way it was brought to size."""
    try:
        data = path.read_bytes()
        wanted = {sample_id(decode(data, size=size, channels=channels, resize=way)) for way in _RESIZED}
    except (IntarsiaError, OSError) as error:
        raise InputError(f"{path}: {error}; name the sample by its id, or by its file name in the source") from error
    return [sample for sample in manifest if sample.id in wanted]


def _matching(manifest: Manifest, pattern: str) -> list[Sample]:
    field, _, wanted = pattern.partition(":")
    if field not in _FIELDS or not wanted.strip():
        raise InputError(f"'{pattern}' is no pattern; expected caption:TEXT or label:NAME")
    if field == "label":
        found = [sample for sample in manifest if sample.label is not None and _same(sample.label, wanted)]
        if not found:
            raise UnknownName("label", wanted, manifest.labels)
        return found
    part = _spelt(wanted).casefold()
    found = [sample for sample in manifest if sample.text and part in _spelt(sample.text).casefold()]
    if not found:
        raise InputError(f"no caption contains '{wanted}'; `intarsia source show VAULT NAME --samples` lists them")
    return found


def _same(first: str, second: str) -> bool:
    return _spelt(first) == _spelt(second)


def _spelt(text: str) -> str:
    """One spelling of what looks the same: an accent may be a character of its own, as in file names of macOS."""
    return unicodedata.normalize("NFC", text)
