"""Ready collections by address: `letters`, `letters:5000`, `mnist`, `digits:birch`, `emoji:noto,fxemoji`.

An address stands wherever a command takes images, so that nobody must write a collection to the disk to use it. A
folder with such a name is written `./letters`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from intarsia.errors import SettingsError, UnknownName

if TYPE_CHECKING:
    from intarsia.data import Source

ADDRESSES = "letters, letters:COUNT, mnist, mnist:COUNT, digits:OWNER, emoji:SET[,SET…]"
_DRAWN = 20_000

Reader = Callable[[str, int, Path], "list[Source]"]


def collection(address: str, *, size: int, emoji: Path) -> list[Source] | None:
    """The sources at an address, with images of `size` pixels a side; None if it is the path of something else.

    Args:
        emoji: folder of the emoji tables.

    Raises:
        InputError: the emoji tables are missing.
        MissingExtra: a package that draws or reads them is not installed.
        SettingsError: a number that is none.
        UnknownName: no such owner or set.
    """
    kind, _, which = address.partition(":")
    return _READERS[kind](which, size, emoji) if kind in _READERS else None


def _letters(which: str, size: int, emoji: Path) -> list[Source]:
    from intarsia.data.collections import letters

    return [letters(_count("letters", which), size=size)]


def _mnist(which: str, size: int, emoji: Path) -> list[Source]:
    from intarsia.data.collections import mnist

    return [mnist(_count("mnist", which), size=size)]


def _digits(which: str, size: int, emoji: Path) -> list[Source]:
    from intarsia.data.collections import digits

    known = {source.name: source for source in digits()}
    return [_one_of("owner of digits", name, known) for name in _names("digits", which, known)]


def _emoji(which: str, size: int, emoji: Path) -> list[Source]:
    from intarsia.data.collections import EMOJI_SOURCES, load_emoji

    return load_emoji(emoji, _names("emoji", which, EMOJI_SOURCES), size)


_READERS: Mapping[str, Reader] = MappingProxyType(
    {"letters": _letters, "mnist": _mnist, "digits": _digits, "emoji": _emoji}
)


def _count(kind: str, which: str) -> int:
    if which and not (which.isdecimal() and len(which) < 20):
        raise SettingsError(f"{kind}:{which}: expected a number of pictures, as in {kind}:{_DRAWN}")
    return int(which or _DRAWN)


def _names(kind: str, which: str, known: Mapping[str, object]) -> list[str]:
    names = [name.strip() for name in which.split(",")]
    if not all(names):
        raise SettingsError(
            f"'{kind}:{which}' names nobody; expected {kind}:NAME with one of {', '.join(sorted(known))}"
        )
    return names


def _one_of(what: str, name: str, known: Mapping[str, Source]) -> Source:
    if name not in known:
        raise UnknownName(what, name, known)
    return known[name]
