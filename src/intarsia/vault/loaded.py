"""Members of compositions that stay in memory, within a budget of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future

from intarsia.backbone import Backbone
from intarsia.composition import CompartmentMember
from intarsia.errors import ForbiddenError
from intarsia.vault.shelf import Shelf

Key = tuple[str, str, str]
"""Name, digest of the record, precision: equal keys are equal bytes."""


def _nobody(member: CompartmentMember) -> None:
    """Nobody wants to know."""


class Loaded:
    """Members made ready; when they take more than `most` bytes, those that were not asked for longest are given up.

    Whoever holds a member that is given up goes on with it. May be used from several threads.

    Args:
        most: bytes that may be kept; 0 keeps none.
        on_given_up: told of each that is given up.
    """

    def __init__(self, most: int = 0, *, on_given_up: Callable[[CompartmentMember], None] = _nobody):
        self.most, self._on_given_up = most, on_given_up
        self._held: OrderedDict[Key, Future[CompartmentMember]] = OrderedDict()
        self._sizes: dict[Key, int] = {}
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of all that are kept."""
        return sum(self._sizes.values())

    def members(
        self, names: Iterable[str], digests: Mapping[str, str], shelf: Shelf, backbone: Backbone, *, precision: str
    ) -> list[CompartmentMember]:
        """The members of these names, in their order, read where they are not in memory.

        Args:
            digests: by name, the digest of the compartment's record, as it is now.

        Raises:
            ForbiddenError: one was replaced since.
            As `Shelf.compartment` and `CompartmentMember`.
        """

        def make(name: str) -> CompartmentMember:
            compartment = shelf.compartment(name)
            if shelf.record_digest(name) != digests[name]:
                raise ForbiddenError(f"compartment '{name}' was replaced while it was read; compose again")
            return CompartmentMember(backbone, compartment, precision=precision)

        return [self._get((name, digests[name], precision), make) for name in names]

    def _get(self, key: Key, make: Callable[[str], CompartmentMember]) -> CompartmentMember:
        with self._lock:
            future = self._held.get(key)
            mine = future is None
            if future is None:
                future = self._held[key] = Future()
            self._held.move_to_end(key)
        if not mine:
            return future.result()
        try:
            member = make(key[0])
        except BaseException as error:
            with self._lock:
                self._held.pop(key, None)
            future.set_exception(error)
            raise
        future.set_result(member)
        self._keep(key, member.nbytes)
        return member

    def _keep(self, key: Key, size: int) -> None:
        """Count a member in, and give up others until all fit."""
        with self._lock:
            if key in self._held:
                self._sizes[key] = size
            given_up = []
            for old in list(self._held):
                if self.nbytes <= self.most:
                    break
                if old in self._sizes:  # others are being read
                    given_up.append(self._held.pop(old).result())
                    del self._sizes[old]
        for member in given_up:
            self._on_given_up(member)

    def keep(self, digests: Mapping[str, str]) -> None:
        """Give up those that are not what these records say, by name: they were replaced or forgotten."""
        with self._lock:
            strange = [key for key in self._sizes if digests.get(key[0]) != key[1]]
            for key in strange:
                del self._sizes[key]
            given_up = [self._held.pop(key).result() for key in strange]
        for member in given_up:
            self._on_given_up(member)

    def forget(self, source: str) -> None:
        """Keep nothing that learned from a source."""
        with self._lock:
            for key in [key for key in self._sizes if source in self._held[key].result().compartment.sources]:
                del self._held[key], self._sizes[key]
