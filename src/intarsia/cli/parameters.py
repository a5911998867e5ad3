"""Arguments and options that several commands take, and how their texts are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from intarsia.data.images import Resize

N = TypeVar("N", bound=Hashable)


def vault_place(text: str) -> str:
    """The place of a vault, as it is named on the command line.

    Raises:
        typer.BadParameter: nothing is named: an empty variable must never stand for the current folder.
    """
    if not text:
        raise typer.BadParameter("it is empty; name a place, or say . for the current folder")
    return text


VaultPath = Annotated[
    str,
    typer.Argument(
        help="Folder of the vault, or s3://bucket/name.vault.", metavar="VAULT", show_default=False, parser=vault_place
    ),
]
SourceName = Annotated[str, typer.Argument(help="Name of a source.", metavar="NAME", show_default=False)]
PrincipalName = Annotated[str, typer.Argument(help="Name of a principal.", metavar="NAME", show_default=False)]
GrantedSources = Annotated[list[str], typer.Argument(help="Names of sources.", metavar="SOURCE", show_default=False)]
EmojiFolder = Annotated[
    Path, typer.Option(help="Folder where `intarsia data emoji` put its tables, for addresses like emoji:twemoji.")
]
Fit = Annotated[
    bool, typer.Option("--fit", help="Scale images of another size, on white; without it or --crop they are refused.")
]
Crop = Annotated[bool, typer.Option("--crop", help="Cut images of another size to a square, and scale that.")]
DEFAULT_EMOJI = Path("emoji")
REFUSABLE = "share-alike, non-commercial, no-derivatives, attribution"


def split(option: str, given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Names from an option that may be repeated and may hold several with commas between; None if it was not given.

    Raises:
        typer.BadParameter: it was given without a name: "all" must never be what an empty variable asks for; or with
            the same name twice.
    """
    if not given:
        return None
    names = tuple(name.strip() for text in given for name in text.split(","))
    if not all(names):
        raise typer.BadParameter(f"a name is empty in {', '.join(map(repr, given))}", param_hint=option)
    return distinct(option, names)


def whole_numbers(option: str, given: str | None) -> tuple[int, ...]:
    """Whole numbers with commas between; none if it was not given.

    Raises:
        typer.BadParameter: something else.
    """
    names = split(option, None if given is None else given.split(",")) or ()
    for name in names:
        if not name.isdecimal():
            raise typer.BadParameter(f"{name!r} is not a whole number", param_hint=option)
    return tuple(map(int, names))


def moment(until: str | None) -> datetime | None:
    """The moment that `--until` means.

    Raises:
        SettingsError: neither a day nor a time.
    """
    from intarsia.vault.clock import end_of

    return None if until is None else end_of("--until", until)


def distinct(option: str, names: Sequence[N]) -> tuple[N, ...]:
    """The names, each of which may be given once only.

    Raises:
        typer.BadParameter: one is given twice.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise typer.BadParameter(f"{', '.join(map(repr, twice))} is given more than once", param_hint=option)
    return tuple(names)


def resizing(fit: bool, crop: bool) -> Resize:
    """What becomes of images of another size.

    Raises:
        typer.BadParameter: both `--fit` and `--crop` are given.
    """
    if fit and crop:
        raise typer.BadParameter("it cannot go with --fit; leave one of them out", param_hint="--crop")
    return "fit" if fit else "crop" if crop else "error"


def numbers(option: str, given: Sequence[str] | None) -> dict[str, float] | None:
    """Numbers by name from `name=number` texts; None if there are none.

    Raises:
        typer.BadParameter: something else was given, or a name twice.
    """
    pairs = split(option, given)
    if pairs is None:
        return None
    try:
        read = [(name.strip(), float(value)) for name, value in (pair.split("=") for pair in pairs)]
    except ValueError:
        raise typer.BadParameter(
            f"expected name=number, found {', '.join(map(repr, pairs))}", param_hint=option
        ) from None
    distinct(option, [name for name, _ in read])
    return dict(read)
