"""Fetch the emoji packages, draw them, and write one Parquet file per owner and size."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from intarsia.checks import check_whole
from intarsia.data.collections.emoji import EMOJI_SOURCES, licence_of
from intarsia.data.collections.emoji_art import (
    Concept,
    Drawing,
    Drawings,
    IconSet,
    Members,
    by_code_point,
    by_slug,
    by_squashed_name,
    concepts,
    of_fluent3d,
    of_openmoji,
)
from intarsia.data.collections.npm import Package, fetch, read_members
from intarsia.data.images import Pixels, decode, encode_png
from intarsia.errors import CorruptError, SettingsError, UnknownName, require
from intarsia.files import write_atomic

OPENMOJI_TABLE = "data/openmoji.json"
PACKAGES: Mapping[str, Package] = MappingProxyType(
    {
        "emojione": Package(
            "@iconify-json/emojione", "1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"
        ),
        "fluent3d": Package(
            "@lobehub/fluent-emoji-3d", "1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
        ),
        "fluentflat": Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        ),
        "fluenthc": Package(
            "@iconify-json/fluent-emoji-high-contrast",
            "1.2.6",
            "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
        ),
        "fxemoji": Package(
            "@iconify-json/fxemoji", "1.2.2", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef"
        ),
        "noto": Package(
            "@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"
        ),
        "noto_v1": Package(
            "@iconify-json/noto-v1", "1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"
        ),
        "openmoji": Package("openmoji", "17.0.0", "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68"),
        "twemoji": Package(
            "@iconify-json/twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"
        ),
    }
)
# Packages that a set needs beside its own: openmoji names the concepts of all.
_HELPERS = {"emojione": ("noto",), "noto_v1": ("noto",), "fluent3d": ("fluentflat",)}
_RECIPE = "1"  # raise it when the same packages would give other rows
_DRAWN_AT = 128
_LARGEST = 1024  # pixels a side
_PLAINEST = 2.0  # standard deviation of grey levels below which a drawing shows nothing

Load = Callable[[str], Members]


@dataclass(frozen=True)
class EmojiTable:
    """One file that `build_emoji` wrote, or found ready (`reused`)."""

    source: str
    size: int
    rows: int
    path: Path
    reused: bool


def build_emoji(
    folder: str | Path, *, sources: Sequence[str] | None = None, sizes: Sequence[int] = (32,)
) -> Iterator[EmojiTable]:
    """Write `<source>_<size>.parquet` into `folder` for every source and size, yielding each as it is done.

    Packages are fetched by npm into `folder/packages`, and checked against pinned digests. A file that is there and was
    made by this recipe is kept, so an interrupted run goes on where it stopped.

    Raises:
        CorruptError: a package is not the pinned one.
        InputError: a package cannot be fetched.
        MissingExtra: npm, resvg_py or pyarrow is not installed.
        SettingsError: no size, or one that is not positive or far too large.
        UnknownName: a source that does not exist.
        VaultError: the folder cannot be written.
    """
    names = list(EMOJI_SOURCES if sources is None else sources)
    for name in names:
        if name not in EMOJI_SOURCES:
            raise UnknownName("emoji source", name, EMOJI_SOURCES)
    if not sizes:
        raise SettingsError("no size was given; give at least one, in pixels")
    for size in sizes:
        check_whole("size", size, most=_LARGEST)
    parquet = require("pyarrow.parquet", "experiments")
    require("resvg_py", "experiments")
    return _build(Path(folder), names, tuple(sizes), parquet)


def _build(folder: Path, names: list[str], sizes: tuple[int, ...], parquet: Any) -> Iterator[EmojiTable]:
    load = _loader(folder / "packages")
    for name in names:
        paths = {size: folder / f"{name}_{size}.parquet" for size in sizes}
        ready = {size: _rows_if_ready(parquet, path, name) for size, path in paths.items()}
        missing = [size for size in sizes if ready[size] is None]
        tables = _draw(name, load, missing) if missing else {}
        for size, path in paths.items():
            rows = ready[size]
            if rows is None:
                write_atomic(path, _to_parquet(parquet, tables[size], name))
            yield EmojiTable(name, size, len(tables[size]) if rows is None else rows, path, rows is not None)


def _loader(folder: Path) -> Load:
    @lru_cache(maxsize=4)
    def load(name: str) -> Members:
        return read_members(fetch(PACKAGES[name], folder), _wanted)

    return load


def _wanted(path: str) -> bool:
    return path in ("icons.json", "chars.json", OPENMOJI_TABLE) or path.startswith(("color/svg/", "assets/"))


def _draw(name: str, load: Load, sizes: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Rows by size. Each drawing is rendered once."""
    tables: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for concept, drawing in drawings(name, load):
        picture = _render(drawing)
        images = {size: decode(picture, size=size, channels=3, resize="fit") for size in sizes}
        if min(image.std() for image in images.values()) < _PLAINEST:
            continue
        for size, image in images.items():
            tables[size].append(_row(name, concept, image))
    if not all(tables.values()):
        raise CorruptError(f"the package {PACKAGES[name].spec} draws none of the known emoji; fetch it again")
    return tables


def drawings(name: str, load: Load) -> Drawings:
    """Each concept that the set draws, with its drawing: an SVG document or the bytes of an image.

    `load` gives the members of the package of a set.
    """
    wanted = concepts(load("openmoji")[OPENMOJI_TABLE])
    if name == "openmoji":
        return of_openmoji(load(name), wanted)
    if name == "fluent3d":
        return of_fluent3d(load(name), wanted, IconSet(load("fluentflat")).slugs.__contains__)
    icons = IconSet(load(name))
    if name in ("emojione", "noto_v1"):
        return by_slug(icons, wanted, IconSet(load("noto")).slugs)
    if name == "fxemoji":
        return by_squashed_name(icons, wanted)
    return by_code_point(icons, wanted)


def _render(drawing: Drawing) -> bytes:
    if isinstance(drawing, bytes):
        return drawing
    resvg = require("resvg_py", "experiments")
    return bytes(resvg.svg_to_bytes(svg_string=drawing, width=_DRAWN_AT))


def _row(name: str, concept: Concept, image: Pixels) -> dict[str, Any]:
    about = EMOJI_SOURCES[name]
    record = asdict(concept)
    del record["key"]
    return {
        "source": name,
        "owner": about.owner,
        **record,
        "licence": licence_of(name, concept.subcategory),
        "attribution": f"{about.attribution}; npm {PACKAGES[name].spec}",
        "image": encode_png(image),
    }


def _recipe(name: str) -> bytes:
    """Digest of all that a file of this set is made from, kept in the file."""
    packages = [PACKAGES[part].sha256 for part in ("openmoji", name, *_HELPERS.get(name, ()))]
    return hashlib.sha256("\n".join([_RECIPE, *packages]).encode()).hexdigest().encode()


def _to_parquet(parquet: Any, rows: list[dict[str, Any]], name: str) -> bytes:
    arrow = require("pyarrow", "experiments")
    table = arrow.Table.from_pylist(rows).replace_schema_metadata({b"intarsia.recipe": _recipe(name)})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _rows_if_ready(parquet: Any, path: Path, name: str) -> int | None:
    if not path.is_file():
        return None
    try:
        about = parquet.read_metadata(path)
    except (ValueError, OSError):
        return None
    ready = (about.metadata or {}).get(b"intarsia.recipe") == _recipe(name)
    return int(about.num_rows) if ready else None
