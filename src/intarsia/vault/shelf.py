"""What the folders of a vault hold, read one by one: nothing but the folder that is asked for is opened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from intarsia.compartments import Compartment
from intarsia.compartments.compartment import RECORD_FILE
from intarsia.data import Manifest, Source
from intarsia.digests import digest_of
from intarsia.errors import CorruptError, IncompatibleError, IntarsiaError, SettingsError, UnknownName
from intarsia.files import read_bytes
from intarsia.vault.material import NEIGHBOURS
from intarsia.vault.missing import missing
from intarsia.vault.records import CompartmentInfo, SourceInfo, compartment_info
from intarsia.vault.sources import load_source, read_manifest, source_info
from intarsia.vault.store import COMPARTMENTS, SOURCES, Store


@dataclass(frozen=True)
class Shelf:
    """The sources and compartments of a vault, as they stand in their folders."""

    store: Store

    def check_known(self, name: str) -> None:
        """Raises UnknownName unless there is such a source."""
        if not self.store.holds(SOURCES, name):
            raise UnknownName("source", name, self.store.names(SOURCES))

    def source(self, name: str) -> Source:
        """A source with all its pixels.

        Raises:
            UnknownName: no such source.
            CorruptError: it is damaged.
        """
        self.check_known(name)
        return load_source(self.store.source(name))

    def compartment(self, name: str) -> Compartment:
        """A trained compartment.

        Raises:
            UnknownName: no such source.
            SettingsError: it is not trained yet.
            CorruptError: it is damaged.
        """
        if not self.store.holds(COMPARTMENTS, name):
            self.check_known(name)
            raise SettingsError(f"source '{name}' cannot be used: {missing(self.store, name).reason}")
        folder = self.store.compartment(name)
        try:
            compartment = Compartment.load(folder)
        except CorruptError:
            if folder.exists():
                raise
            raise UnknownName("compartment", name, self.store.names(COMPARTMENTS)) from None  # forgotten meanwhile
        if compartment.name != name:
            raise CorruptError(f"{folder}: holds the compartment '{compartment.name}'; rename the folder or remove it")
        return compartment

    def learned(self, compartment: Compartment) -> Source:
        """The images of its own source that a compartment learned from; those that came later are left out.

        What is made of them goes with the compartment when one of them is forgotten.

        Raises:
            As `source`.
        """
        source = self.source(compartment.name)
        before = (source.manifest.before(batch) for batch in range(1, source.manifest.batches))
        ids = next((frozenset(each.ids) for each in before if each.root == compartment.manifest_root), None)
        return source if ids is None else source.select(lambda sample: sample.id in ids)

    def held(self) -> list[str]:
        """The sources whose images are here, sorted; those whose owners keep them are left out.

        Raises:
            CorruptError: the record of a source is damaged.
        """
        names = self.store.names(SOURCES)
        return [name for name in names if source_info(self.store.source(name)).signer is None]

    def record_digest(self, name: str) -> str | None:
        """The sha256 of a compartment's record, whatever it says; None if there is no compartment."""
        try:
            return digest_of(read_bytes(self.store.compartment(name) / RECORD_FILE, missing="not trained"))
        except CorruptError:
            return None

    def info(self, name: str) -> CompartmentInfo:
        """What the record of a compartment says."""
        return compartment_info(self.store.compartment(name))

    def manifest_root(self, name: str) -> str | None:
        """What the record of a source says of its samples; None if there is none, or it cannot be read."""
        with contextlib.suppress(IntarsiaError):
            return source_info(self.store.source(name)).manifest_root
        return None

    def digests(self, names: Iterable[str]) -> dict[str, str | None]:
        """The digests of compartments; None for one whose record cannot be read."""
        found: dict[str, str | None] = dict.fromkeys(names)
        for name in found:
            with contextlib.suppress(IntarsiaError):
                found[name] = self.info(name).digest
        return found

    def licences(self, compartments: Iterable[Compartment]) -> dict[str, str]:
        """The licence of each source that the compartments saw; neither manifests nor images are opened.

        Raises:
            IncompatibleError: a compartment learned from other samples than those that the licence is of.
            CorruptError: a source is lost or damaged.
        """
        found: dict[str, str] = {}
        for compartment in compartments:
            infos = {name: self._seen_by(compartment, name) for name in {*compartment.sources, compartment.name}}
            roots = {compartment.name: compartment.manifest_root, **compartment.training.get(NEIGHBOURS, {})}
            for name, info in infos.items():
                learned, held = roots.get(name, "unknown ones"), info.manifest_root
                if learned not in info.roots:
                    raise IncompatibleError(
                        f"compartment '{compartment.name}' learned from other samples ({learned[:12]}…) than source "
                        f"'{name}' holds ({held[:12]}…); train it afresh, or forget '{compartment.name}'"
                    )
            found |= {name: infos[name].licence for name in compartment.sources}
        return dict(sorted(found.items()))

    def _seen_by(self, compartment: Compartment, source: str) -> SourceInfo:
        if not self.store.holds(SOURCES, source):
            raise CorruptError(
                f"compartment '{compartment.name}' learned from '{source}', which is not in the vault; forget "
                f"'{compartment.name}'"
            )
        return source_info(self.store.source(source))

    def saw(self, source: str) -> list[str]:
        """The compartments that learned from a source: its own, whether it can be read or not, and any that say so.

        Raises:
            CorruptError: the record of another compartment cannot be read, so that it might have seen the source.
        """
        names = self.store.names(COMPARTMENTS)
        return [name for name in names if name == source or source in self.info(name).sources]

    def readable(self) -> tuple[list[tuple[SourceInfo, Manifest]], list[CompartmentInfo]]:
        """All records, for the index, under the names of their folders.

        Those that are damaged or of another name are left out, so that they block no other; `verify` names them.
        """
        sources: list[tuple[SourceInfo, Manifest]] = []
        compartments: list[CompartmentInfo] = []
        for name in self.store.names(SOURCES):
            with contextlib.suppress(IntarsiaError):
                info, manifest = source_info(self.store.source(name)), read_manifest(self.store.source(name))
                sources += [(info, manifest)] if info.name == name else []
        for name in self.store.names(COMPARTMENTS):
            with contextlib.suppress(IntarsiaError):
                compartment = self.info(name)
                compartments += [compartment] if compartment.name == name else []
        return sources, compartments
