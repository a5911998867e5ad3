"""Reading everything that is stored, and reporting every problem, not the first."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment
from intarsia.compartments.compartment import ADAPTER_FILE, PEFT_FILE, ROUTER_FILE
from intarsia.compartments.compartment import RECORD_FILE as COMPARTMENT_FILE
from intarsia.composition import CompartmentMember
from intarsia.digests import digest_of
from intarsia.errors import CorruptError, IntarsiaError, VaultError
from intarsia.files import load_tensors, read_json, read_sealed
from intarsia.ledger import Secrets
from intarsia.ledger.log import LEDGER_FILES
from intarsia.vault.accounts import ACCOUNTS, credit_problems
from intarsia.vault.budgets import BUDGET_FILE, read_budget
from intarsia.vault.causes import Cause
from intarsia.vault.events import IMPORT, INGEST, TRAIN
from intarsia.vault.founding import VaultRecord
from intarsia.vault.index import Catalogue
from intarsia.vault.kept import KEPT
from intarsia.vault.material import NEIGHBOURS
from intarsia.vault.meter import USED_FILE, read_used
from intarsia.vault.origin import ORIGIN_FILE
from intarsia.vault.package import Core, check_package, package_files, read_core
from intarsia.vault.parts import read_part
from intarsia.vault.permits import PERMIT_FILE, learners
from intarsia.vault.principals import PRINCIPAL_FILE, read_principal
from intarsia.vault.records import SourceInfo
from intarsia.vault.salts import SALTS
from intarsia.vault.shelf import Shelf
from intarsia.vault.sources import source_info, source_problems
from intarsia.vault.store import (
    BACKBONE,
    BUDGETS,
    COMPARTMENTS,
    CORE,
    INDEX_FILE,
    LEDGER,
    LOCK_FILE,
    PERMITS,
    PRINCIPALS,
    RECORD_FILE,
    SOURCES,
    TRAINING,
    WORK,
    Store,
)
from intarsia.vault.tickets import TICKETS, place, read_ticket, ticket_ids
from intarsia.vault.training import SLICES, read_run

_ROOT = (
    RECORD_FILE,
    INDEX_FILE,
    LOCK_FILE,
    BACKBONE,
    CORE,
    SOURCES,
    COMPARTMENTS,
    TRAINING,
    PRINCIPALS,
    PERMITS,
    BUDGETS,
    WORK,
    LEDGER,
)


@dataclass(frozen=True)
class Problem:
    """Where something is wrong, by its path in the vault, and what."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class VerifyReport:
    """How much was read, and all that is wrong with it."""

    sources: int
    samples: int
    compartments: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(store: Store, record: VaultRecord, catalogue: Catalogue) -> VerifyReport:
    """Check the whole vault while nobody writes: digests, images against ids, and that the parts belong together."""
    found = _Verifier(store, record)
    found.strangers("", {*_ROOT, ORIGIN_FILE})
    found.public()
    infos = [info for name in store.names(SOURCES) if (info := found.source(name)) is not None]
    for name in store.names(COMPARTMENTS):
        found.compartment(name, {info.name: info for info in infos})
    for name in store.names(TRAINING):
        found.training(name)
    for name in store.names(PRINCIPALS):
        found.principal(name)
    for name in store.names(PERMITS):
        found.permit(name)
    for name in store.names(BUDGETS):
        found.budget(name)
    found.ledger()
    found.index(catalogue)
    samples = sum(info.count for info in infos)
    return VerifyReport(len(infos), samples, len(store.names(COMPARTMENTS)), tuple(found.problems))


class _Verifier:
    """Collects problems; a part that cannot be read is reported and the rest is still checked."""

    def __init__(self, store: Store, record: VaultRecord):
        self.store, self.record = store, record
        self.problems: list[Problem] = []
        self._public: tuple[Backbone, Core] | None = None

    @contextlib.contextmanager
    def at(self, where: str) -> Iterator[None]:
        """What goes wrong inside is a problem of `where`."""
        try:
            yield
        except (IntarsiaError, OSError) as error:
            self.problems.append(Problem(where, str(error)))

    def strangers(self, where: str, expected: Collection[str]) -> None:
        """Report what lies in a folder and does not belong there."""
        folder = self.store.root / where
        names = sorted({path.name for path in folder.iterdir()} - set(expected)) if folder.is_dir() else []
        self.problems += [Problem(f"{where}/{name}".lstrip("/"), "does not belong here; remove it") for name in names]

    def public(self) -> None:
        """The backbone and what is known of its core."""
        with self.at(RECORD_FILE):
            VaultRecord.read(self.store.root)
        with self.at(f"{BACKBONE}, {CORE}"):
            backbone, core = check_package(self.store.root), read_core(self.store.root)
            if (backbone.digest, core.record["basis"]) != (self.record.backbone, self.record.basis):
                raise CorruptError(
                    "not the backbone and core with which this vault was made; restore them from a backup"
                )
            self._public = backbone, core
            for part, names in package_files(self.store.root).items():
                self.strangers(part, names)

    def source(self, name: str) -> SourceInfo | None:
        """Record, manifest and pixels; the record, if it can be read."""
        where, folder = f"{SOURCES}/{name}", self.store.source(name)
        self.problems += [Problem(where, line) for line in source_problems(folder)]
        try:
            info = source_info(folder)
        except IntarsiaError:
            return None  # reported above
        if info.name != name:
            self.problems.append(Problem(where, f"holds the source '{info.name}'; rename the folder or remove it"))
        return info

    def compartment(self, name: str, sources: Mapping[str, SourceInfo]) -> None:
        """Digests of all files, the source it was trained on, and whether it fits backbone and basis."""
        where, folder = f"{COMPARTMENTS}/{name}", self.store.compartment(name)
        expected = [ADAPTER_FILE, PEFT_FILE, ROUTER_FILE, COMPARTMENT_FILE, SLICES]
        with self.at(where):
            compartment = Compartment.load(folder)
            if compartment.adapter.name != "lora":
                expected.remove(PEFT_FILE)
            self._digests(folder)
            self._slices(folder, compartment)
            if compartment.name != name:
                raise CorruptError(f"holds the compartment '{compartment.name}'; rename the folder or remove it")
            missing = [source for source in compartment.sources if source not in sources]
            if missing:
                raise CorruptError(f"was trained on {', '.join(missing)}, which is not in the vault; forget '{name}'")
            roots = {name: compartment.manifest_root, **compartment.training.get(NEIGHBOURS, {})}
            if any(root not in sources[each].roots for each, root in roots.items() if each in sources):
                raise CorruptError("was trained on other samples than its source holds; train it again")
            self._fits(compartment)
        self.strangers(where, expected)

    def _digests(self, folder: Path) -> None:
        """Files that no tensor is read from have a digest too."""
        digests = read_json(folder / COMPARTMENT_FILE)["files"]
        assert isinstance(digests, dict)  # or the compartment would not have loaded
        for name, digest in digests.items():
            if digest_of((folder / name).read_bytes()) != digest:
                raise CorruptError(f"{folder / name}: not the bytes that the record says; train it again")

    def _slices(self, folder: Path, compartment: Compartment) -> None:
        digests = compartment.training.get(SLICES, {})
        for name, digest in digests.items():
            load_tensors(folder / SLICES / f"{name}.safetensors", digest=digest)
        self.strangers(f"{COMPARTMENTS}/{folder.name}/{SLICES}", [f"{name}.safetensors" for name in digests])

    def _fits(self, compartment: Compartment) -> None:
        if self._public is None:
            return
        CompartmentMember(self._public[0], compartment, precision="float32")
        for kind in compartment.router_settings:
            read_part(compartment, kind, self._public[1])

    def training(self, name: str) -> None:
        """A run under way belongs to a source; its checkpoints may be in the making while this looks on."""
        where = f"{TRAINING}/{name}"
        with self.at(where):
            if not self.store.holds(SOURCES, name):
                raise CorruptError(f"is of a source that is not in the vault; forget '{name}'")
            read_run(self.store.training(name))
            Cause.read(self.store.training(name))
            for path in sorted(self.store.training(name).glob("[!.]*.safetensors")):
                read_sealed(path)

    def permit(self, name: str) -> None:
        """Both ends of an edge are there."""
        where = f"{PERMITS}/{name}"
        with self.at(where):
            if missing := sorted({name, *learners(self.store, name)} - set(self.store.names(SOURCES))):
                raise CorruptError(f"is about {', '.join(missing)}, which is not in the vault; remove it")
        self.strangers(where, [PERMIT_FILE])

    def budget(self, name: str) -> None:
        """What was spent is of a source that is there."""
        where = f"{BUDGETS}/{name}"
        with self.at(where):
            read_budget(self.store, name)
            if not self.store.holds(SOURCES, name):
                raise CorruptError(f"is of a source that is not in the vault; forget '{name}'")
        self.strangers(where, [BUDGET_FILE])

    def principal(self, name: str) -> None:
        """Grants are of sources that are there."""
        where, folder = f"{PRINCIPALS}/{name}", self.store.principal(name)
        with self.at(where):
            principal = read_principal(folder)
            read_used(folder)
            if missing := sorted(set(principal.grants) - set(self.store.names(SOURCES))):
                raise CorruptError(f"was granted {', '.join(missing)}, which is not in the vault; revoke that")
        # Images may be counted while this looks on; what a killed process left is swept by the next that counts.
        scratch = [path.name for path in folder.glob(f".{USED_FILE}.*.part")]
        self.strangers(where, [PRINCIPAL_FILE, USED_FILE, *scratch])

    def ledger(self) -> None:
        """Every entry against the signed head, the keys against each other and the vault, and what lies beside them."""
        ledger, salts = self.store.ledger, self.store.salts
        damage = ledger.problems()
        self.problems += [Problem(LEDGER, line) for line in damage]
        with self.at(LEDGER):
            if str(ledger.key) != self.record.ledger:
                raise CorruptError("not the ledger with which this vault was made; restore it from a backup")
        expected = (*LEDGER_FILES, *(Path(each).name for each in (SALTS, TICKETS, ACCOUNTS, KEPT)))
        self.strangers(LEDGER, (*expected, *(path.name for path in ledger.scratch())))
        for id in ticket_ids(self.store):
            with self.at(place(id)):
                if (source := read_ticket(self.store, id).source) not in (None, *self.store.names(SOURCES)):
                    raise CorruptError(f"about '{source}', which is not in the vault; close the ticket")
        for name in salts.names():
            with self.at(salts.place(name)):
                salts.of(name)
                if not self.store.holds(SOURCES, name):
                    raise CorruptError(f"of the source '{name}', which is not in the vault; forget '{name}'")
        if not damage:
            self.problems += [Problem(where, what) for where, what in credit_problems(self.store)]
            self.recorded()

    def recorded(self) -> None:
        """Whether all that is there came in a way that the ledger tells of; an older ledger put in place does not."""
        known: dict[str, Secrets] = {}
        for name in self.store.names(SOURCES):
            with contextlib.suppress(IntarsiaError):  # reported above
                known |= self.store.salts.all([name])
        told = {(entry.kind, name) for entry in self.store.ledger.entries() for name in entry.names(known)}
        for kind, came in ((SOURCES, (INGEST, IMPORT)), (COMPARTMENTS, (TRAIN, IMPORT))):
            for name in self.store.names(kind):
                if not any((each, name) in told for each in came):
                    text = "the ledger does not tell how it came; restore the ledger from a backup, or forget it"
                    self.problems.append(Problem(f"{kind}/{name}", text))

    def index(self, catalogue: Catalogue) -> None:
        """What the index says against what is there."""
        sources, compartments = Shelf(self.store).readable()
        infos = [info for info, _ in sources]
        samples = [(info.name, sample) for info, manifest in sources for sample in manifest]
        indexed = None
        with contextlib.suppress(VaultError):
            indexed = (catalogue.sources(), catalogue.compartments(), catalogue.samples())
        if indexed != (infos, compartments, samples):
            self.store.distrust_index()
            text = "did not agree with the folders; it is made again from them when the vault is next listed"
            self.problems.append(Problem(INDEX_FILE, text))
