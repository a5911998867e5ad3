"""Compositions that are at hand: made once, used by all requests of the same right, given up with their members."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

from intarsia.composition import CompartmentMember
from intarsia.errors import ForbiddenError
from intarsia.vault import Composition, Vault
from intarsia.vault.loaded import Loaded

MOST = 256
"""Compositions that are kept; their members are counted in bytes, by `Loaded`."""

Key = tuple[str | None, tuple[str, ...], str, str, str]


class Library:
    """The compositions of a vault, by principal, sources, weights, routing and precision.

    Every use asks anew whether the composition may be used. That of another right, or of a compartment that was
    replaced, is made again.

    Args:
        most_bytes: of the members in memory.
    """

    def __init__(self, vault: Vault, most_bytes: int):
        self._vault = vault
        self.loaded = Loaded(most_bytes, on_given_up=self._without)
        self._kept: OrderedDict[Key, Composition] = OrderedDict()
        self._lock = threading.Lock()

    def composition(
        self, principal: str | None, names: Sequence[str] | None, *, weights: str, routing: str, precision: str
    ) -> Composition:
        """One that may be used right now; `names` of None is what the principal may use.

        Raises:
            As `Vault.compose`.
        """
        names = None if names is None else sorted(names)  # whoever asks first decides on no rounding of the others
        key = (principal, tuple(names or ()), weights, routing, precision)
        with self._lock:
            kept = self._kept.get(key) if names else None
        if kept is not None:
            with contextlib.suppress(ForbiddenError):
                kept.check()
                return kept
        made = self._vault.compose(
            names, weights=weights, routing=routing, precision=precision, principal=principal, loaded=self.loaded
        )
        if names:
            with self._lock:
                self._kept[key] = made
                self._kept.move_to_end(key)
                while len(self._kept) > MOST:
                    self._kept.popitem(last=False)
        return made

    def forget(self, source: str) -> None:
        """Keep nothing that learned from a source."""
        with self._lock:
            for key, composition in list(self._kept.items()):
                if source in composition.licences:
                    del self._kept[key]
        self.loaded.forget(source)

    def sweep(self) -> None:
        """Keep nothing that another process has forgotten or replaced."""
        self.loaded.keep({info.name: info.digest for info in self._vault.compartments()})

    def _without(self, member: CompartmentMember) -> None:
        with self._lock:
            for key, composition in list(self._kept.items()):
                if any(each is member for each in composition.model.members):
                    del self._kept[key]
