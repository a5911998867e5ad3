"""Which sources a request is about: what the caller may use, and of that what it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from intarsia.serving.callers import Caller
from intarsia.serving.service import Service
from intarsia.vault import Composition, Decision
from intarsia.vault.missing import what_is_left


def verdicts(service: Service, caller: Caller) -> tuple[Decision, ...]:
    """The verdict on every source of which a caller may know; of what was not granted not even the name is told."""
    if caller.principal is None:
        return service.vault.select().decisions
    found = service.vault.decide(caller.principal).decisions
    return found if caller.sees_all else tuple(each for each in found if each.rule != "grant")


def composed(
    service: Service, caller: Caller, named: Sequence[str] | None, *, weights: str, routing: str, precision: str
) -> Composition:
    """The sources that were named, joined, or all that the caller may use; then `left_out` says which are missing.

    Raises:
        ForbiddenError: the caller may not use a source that was named, or may use none, with the reasons.
        As `Vault.compose`.
    """
    join = partial(service.library.composition, caller.principal, weights=weights, routing=routing, precision=precision)
    if named is not None:
        return replace(join(list(named)), left_out={})

    def allowed() -> Composition:
        known = verdicts(service, caller)
        # Composing decides again; of None it says why there is nothing.
        composition = join([each.name for each in known if each.allowed] or None)
        absent = {each.name: each.reason for each in known if not each.allowed and each.rule != "grant"}
        return replace(composition, left_out=absent)

    return what_is_left(allowed)
