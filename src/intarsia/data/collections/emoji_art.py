"""What the emoji packages hold: the concepts of Unicode, and each set's drawing of them.

A drawing is found by code point where the package says which it draws, otherwise by the slug of its name.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from intarsia.data.collections.emoji import code_point_key
from intarsia.errors import CorruptError

CATEGORIES = {
    "activities": "Activities",
    "animals-nature": "Animals & Nature",
    "flags": "Flags",
    "food-drink": "Food & Drink",
    "objects": "Objects",
    "people-body": "People & Body",
    "smileys-emotion": "Smileys & Emotion",
    "symbols": "Symbols",
    "travel-places": "Travel & Places",
}
_SUBCATEGORIES = {"arts-crafts": "arts & crafts", "light-video": "light & video", "sky-weather": "sky & weather"}
_GENDERED = re.compile(r"-(2640|2642)$|^1f46[89]-200d")
# In the pack of 3D drawings, but with other people's products or marks in the picture.
_FLUENT3D_DOUBTFUL = frozenset({"1f468-200d-1f4bb", "1f469-200d-1f4bb", "1f9d1-200d-1f4bb", "1f3ae", "1f4ce"})

Members = Mapping[str, bytes]
SVG = str
Drawing = bytes | SVG


@dataclass(frozen=True)
class Concept:
    """One base emoji (no skin tone), as Unicode and CLDR describe it."""

    key: str
    unicode: str
    emoji: str
    name: str
    caption: str
    keywords: str
    category: str
    subcategory: str
    gender_variant: bool
    sort_order: int


def concepts(openmoji: bytes) -> list[Concept]:
    """The base emoji of Unicode from the table that the openmoji package carries, in its order.

    Raises:
        CorruptError: the table cannot be read.
    """
    try:
        rows = json.loads(openmoji)
        return [_concept(row) for row in rows if row["group"] in CATEGORIES and not row["skintone"]]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(
            f"the emoji table of openmoji cannot be read ({error!r}); fetch the package again"
        ) from error


def _concept(row: dict[str, Any]) -> Concept:
    key = code_point_key(row["hexcode"])
    return Concept(
        key=key,
        unicode=row["hexcode"],
        emoji="".join(chr(int(code, 16)) for code in row["hexcode"].split("-")),
        name=_unicode_name(key) or row["annotation"].lower(),
        caption=row["annotation"].lower(),
        keywords=row["tags"],
        category=CATEGORIES[row["group"]],
        subcategory=_SUBCATEGORIES.get(row["subgroups"], row["subgroups"]),
        gender_variant=bool(_GENDERED.search(key)),
        sort_order=int(row["order"]),
    )


def _unicode_name(key: str) -> str:
    return "" if "-" in key else unicodedata.name(chr(int(key, 16)), "").lower()


class IconSet:
    """An Iconify package: SVG bodies by slug, and slugs by code point where the package tells them."""

    def __init__(self, members: Members):
        try:
            self._icons = json.loads(members["icons.json"])
            chars = json.loads(members["chars.json"])
            self.names = frozenset(self._icons["icons"]) | frozenset(self._icons.get("aliases", {}))
        except (ValueError, KeyError) as error:
            raise CorruptError(f"the icon set cannot be read ({error!r}); fetch the package again") from error
        self.slugs = {code_point_key(code): slug for code, slug in chars.items()}

    def svg(self, slug: str | None) -> SVG | None:
        """The drawing as an SVG document; None where there is none, or only as a transformed alias."""
        alias = self._icons.get("aliases", {}).get(slug, {})
        icon = self._icons["icons"].get(alias["parent"] if set(alias) == {"parent"} else slug)
        if icon is None:
            return None
        width, height = (icon.get(side, self._icons.get(side, 16)) for side in ("width", "height"))
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}" width="{width}" height="{height}">'
            f"{icon['body']}</svg>"
        )


Drawings = Iterator[tuple[Concept, Drawing]]


def by_code_point(icons: IconSet, wanted: list[Concept]) -> Drawings:
    """Drawings of an Iconify set that tells its code points."""
    for concept in wanted:
        svg = icons.svg(icons.slugs.get(concept.key))
        if svg:
            yield concept, svg


def by_slug(icons: IconSet, wanted: list[Concept], slugs: Mapping[str, str]) -> Drawings:
    """Drawings of a set without code points: by the slug of a set that has them, else by the slug of the caption."""
    for concept in wanted:
        caption = re.sub(r"[^a-z0-9]+", "-", re.sub("['’]", "", concept.caption)).strip("-")
        tried = [slugs.get(concept.key, ""), caption]
        tried += [slug.replace("flag-", "flag-for-") for slug in tried]
        svg = icons.svg(next((slug for slug in tried if slug in icons.names), None))
        if svg:
            yield concept, svg


def by_squashed_name(icons: IconSet, wanted: list[Concept]) -> Drawings:
    """Drawings of a set whose slugs are names without any separator; each is used once."""
    used: set[str] = set()
    for concept in wanted:
        squashed = [re.sub(r"[^a-z0-9]", "", text.lower()) for text in (concept.name, concept.caption)]
        slug = next((slug for slug in squashed if slug in icons.names - used), None)
        svg = icons.svg(slug)
        if slug and svg:
            used.add(slug)
            yield concept, svg


def of_openmoji(members: Members, wanted: list[Concept]) -> Drawings:
    """The colour drawings of the openmoji package."""
    for concept in wanted:
        svg = members.get(f"color/svg/{concept.unicode}.svg")
        if svg:
            yield concept, svg.decode()


def of_fluent3d(members: Members, wanted: list[Concept], opened: Callable[[str], bool]) -> Drawings:
    """The 3D drawings that Microsoft published itself: those `opened` in its flat set, and nothing doubtful."""
    files: dict[str, bytes] = {}
    for path in sorted(members, reverse=True):
        files.setdefault(code_point_key(path.removeprefix("assets/").removesuffix(".webp")), members[path])
    for concept in wanted:
        if concept.key in files and opened(concept.key) and concept.key not in _FLUENT3D_DOUBTFUL:
            yield concept, files[concept.key]
