"""Why a source cannot be composed, where nobody named it and it is left out: said, never silent."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from intarsia.errors import CorruptError, ForbiddenError, IncompatibleError, LeftOut, SettingsError
from intarsia.vault.causes import Cause
from intarsia.vault.selecting import NOT_TRAINED, Selection
from intarsia.vault.sources import source_info
from intarsia.vault.store import SOURCES, Store

T = TypeVar("T")
_TRIES = 5


@dataclass(frozen=True)
class Missing:
    """Why a source has no compartment, of which `reason` says what to do.

    `owed`: it had one, and a forgetting took it out of use, or its records cannot be read.
    """

    reason: str
    owed: bool


def missing(store: Store, name: str) -> Missing:
    """Why a source of the vault has no compartment.

    Raises:
        CorruptError: its records are damaged.
    """
    if source_info(store.source(name)).signer is not None:
        return Missing(
            "it is out of use: samples were forgotten, and its owner has not handed in a pack that learned without "
            "them; take that in with `intarsia import`",
            owed=True,
        )
    if Cause.read(store.training(name)) is not None:
        return Missing(
            "it is out of use: samples were forgotten or forbidden, and its compartment is not yet trained again "
            f"without them; finish that with `intarsia train VAULT {name} --resume`, vault.resume('{name}') in Python",
            owed=True,
        )
    return Missing(NOT_TRAINED, owed=False)


def with_reasons(store: Store, selection: Selection) -> Selection:
    """The same verdicts; of a source without a compartment it is said why, and what to do."""
    decisions = [
        replace(each, reason=_missing(store, each.name).reason) if each.rule == "trained" else each
        for each in selection.decisions
    ]
    return Selection(tuple(decisions))


def left_out(store: Store, wanted: Collection[str], selection: Selection | None) -> dict[str, str]:
    """The sources that are left out of what nobody chose by name, with the reasons.

    Those that are owed a training are warned of too: whoever asks for all there is would miss them.

    Args:
        selection: what was decided for a principal, who is told nothing of what was not granted.
    """
    if selection is not None:
        found = {each.name: each.reason for each in selection.decisions if not each.allowed and each.rule != "grant"}
        untrained = [each.name for each in selection.decisions if each.rule == "trained"]
    else:
        untrained = [name for name in store.names(SOURCES) if name not in wanted]
        found = {}
    whys = {name: _missing(store, name) for name in untrained}
    for name, why in whys.items():
        if why.owed:
            warnings.warn(f"'{name}' is left out: {why.reason}", LeftOut, stacklevel=5)
    return found | {name: why.reason for name, why in whys.items()}


def nothing_to_join(absent: Mapping[str, str]) -> SettingsError:
    """What is to be raised where no source is left to compose; `absent` says why, by source."""
    reasons = "; ".join(f"'{name}': {reason}" for name, reason in absent.items())
    what = "a composition needs at least one source that is trained; train with `intarsia train`, or name some"
    return SettingsError(f"{what} ({reasons})" if reasons else what)


def what_is_left(join: Callable[[], T]) -> T:
    """Join what nobody chose by name. Where a source goes, comes or is revoked meanwhile, join what there is then.

    What `join` raises twice in the same words has another reason.
    """
    said = ""
    for _ in range(_TRIES):
        try:
            return join()
        except (SettingsError, ForbiddenError, IncompatibleError, CorruptError) as error:
            if str(error) == said:
                raise
            said = str(error)
    return join()


def _missing(store: Store, name: str) -> Missing:
    try:
        return missing(store, name)
    except CorruptError as error:
        return Missing(str(error), owed=True)
