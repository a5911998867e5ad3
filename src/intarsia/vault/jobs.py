"""What a vault does in many steps: what is forgotten or forbidden, and finishing what is unfinished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from intarsia.checks import check_whole
from intarsia.data import ReadOptions, Source
from intarsia.vault.adding import compare, read_into
from intarsia.vault.change import Announce, nobody
from intarsia.vault.extending import Extending, check_terms
from intarsia.vault.forgetting import Forgetting
from intarsia.vault.importing import withdrawal, withdrawn
from intarsia.vault.outcomes import ForgetPlan, Job, Outcome
from intarsia.vault.permits import learners
from intarsia.vault.permitting import Permitting
from intarsia.vault.reading import Names, listed
from intarsia.vault.resuming import Resuming
from intarsia.vault.runs import Runs
from intarsia.vault.sources import check_here, source_info
from intarsia.vault.store import TRAINING
from intarsia.vault.ticketing import VaultTickets

MOST_SLICES = 1000


class VaultJobs(VaultTickets):
    """What `Vault` offers beside reading and granting, for work that may be interrupted and gone on with."""

    def forgetting(
        self, name: str, samples: Names | None = None, *, save_every: int = 100, announce: Announce = nobody
    ) -> Job[Outcome]:
        """Remove a source, or samples of it; they are gone, and what learned from them out of use, when this returns.

        Iterating over the job trains the compartment again, from the last checkpoint that they had no part in, and
        those of other sources that learned from it too; their bytes are then those of ones that never had the samples.
        Work that is interrupted is finished by `resume`; until then what is owed cannot be composed. A training that is
        unfinished goes back likewise, and stays unfinished. Where the owner keeps the images, samples are named by
        their whole ids, and the compartment is out of use until the owner hands in another (`import_pack`).

        Args:
            announce: told of what the ledger will say and what opens it before anything is decided, so that a receipt
                can be made even if this process is killed; if it raises, nothing is done.

        Raises:
            As `forget`.
        """
        check_whole("save_every", save_every)
        self._store.settle()
        forgetting = replace(self._forgetting(save_every), announce=announce)
        if samples is None:
            return forgetting.begin_whole(name)
        if self._is_away(name):
            return withdrawn(self._shelf, name, listed(samples), announce)
        return forgetting.begin(name, listed(samples))

    def plan_forget(self, name: str, samples: Names | None = None, *, measure: bool = True) -> ForgetPlan:
        """What `forgetting` would do and cost; nothing is changed.

        Args:
            measure: try a few steps, so that the plan says about how long it takes.

        Raises:
            As `forgetting`.
        """
        self._store.settle()
        if samples is not None and self._is_away(name):
            return withdrawal(self._shelf, name, listed(samples))
        plan = self._forgetting().plan(name, None if samples is None else listed(samples))
        also_in = self._ask(lambda index: index.holders(name, plan.samples or None))
        plan = replace(plan, also_in=also_in)
        return replace(plan, seconds=self._forgetting().measure(plan)) if measure else plan

    def permits(self, name: str) -> tuple[str, ...]:
        """The sources whose compartments may learn from this one.

        Raises:
            UnknownName: no such source.
            CorruptError: the record is damaged.
        """
        self._store.settle()
        self._shelf.check_known(name)
        return learners(self._store, name)

    def permit(self, name: str, to: Names) -> tuple[str, ...]:
        """Let the compartments of other sources learn from this one (`train(..., neighbours=[name])`).

        Returns:
            All that may.

        Raises:
            UnknownName: no such source.
            SettingsError: a source is to learn from itself, which needs no permit, or none is named.
            VaultError: another process is writing for too long, or the disk is full.
        """
        return Permitting(self._forgetting()).permit(name, listed(to))

    def forbid(self, name: str, to: str) -> Outcome:
        """`forbidding`, to its end.

        Raises:
            As `forbidding`.
        """
        return self.forbidding(name, to).finish()

    def forbidding(self, name: str, to: str, *, save_every: int = 100) -> Job[Outcome]:
        """Withdraw a permit. What the other learned from this source is out of use when this returns.

        Iterating over the job trains the other compartment again without it.

        Raises:
            UnknownName: no such source, or there is no such permit.
            CorruptError: the record of a compartment or training cannot be read.
            VaultError: the other source is being trained, another process is writing for too long, or the disk fails.
        """
        check_whole("save_every", save_every)
        return Permitting(self._forgetting(save_every)).forbid(name, to)

    def extend(
        self,
        name: str,
        data: str | Path | Source,
        *,
        slices: int = 1,
        risk: str | None = None,
        options: ReadOptions | None = None,
        allow_near: bool = True,
    ) -> Outcome:
        """`extending`, to its end.

        Raises:
            As `extending`.
        """
        return self.extending(name, data, slices=slices, risk=risk, options=options, allow_near=allow_near).finish()

    def extending(
        self,
        name: str,
        data: str | Path | Source,
        *,
        slices: int = 1,
        risk: str | None = None,
        options: ReadOptions | None = None,
        allow_near: bool = True,
        save_every: int = 100,
    ) -> Job[Outcome]:
        """Add samples to a source, under its terms; they are in it when this returns, and nothing else has changed.

        Iterating over the job goes on with the training of its compartment, in slices of their own, each as long as
        those before; until that ends the compartment serves as it is. A source that is not trained is just larger.

        Args:
            data: as for `add_source`.
            slices: in how many slices the samples join; more of them take longer, and make forgetting one cheaper.
            risk: as for `add_source`.
            options: how images are read.
            allow_near: take pictures that look nearly like one of the core; the job's `notes` name them.

        Raises:
            UnknownName: no such source.
            IngestError: images that cannot be read, or that the core or the source holds; all are listed.
            InputError: the images of the source are with its owner.
            IncompatibleError: images of another shape, owner or licence.
            SettingsError: the training of the source is unfinished; or labels without prompts.
            CorruptError: the source or its compartment is damaged.
            VaultError: another process is writing, or the disk fails.
        """
        check_whole("slices", slices, most=MOST_SLICES)
        check_whole("save_every", save_every)
        self._store.settle()
        self._shelf.check_known(name)
        info = source_info(self._store.source(name))
        check_here(self._store.source(name))
        if isinstance(data, Source):
            check_terms(data, info)
        terms = {"owner": info.owner, "licence": info.licence, "attribution": info.attribution}
        source = read_into(name, data, image_shape=self.image_shape, options=options or ReadOptions(), **terms)
        source = source.declared(risk) if risk is not None else source
        others = (self._shelf.source(other) for other in self._shelf.held() if other != name)
        notes = [str(pair) for pair in compare(source, self.core, others, allow_near=allow_near)]
        return Extending(self._forgetting(save_every)).begin(source, slices=slices, notes=notes)

    def resume(self, names: Names | None = None) -> tuple[Outcome, ...]:
        """`resuming`, to its end.

        Raises:
            As `resuming`.
        """
        return self.resuming(names).finish()

    def resuming(self, names: Names | None = None, *, save_every: int = 100) -> Job[tuple[Outcome, ...]]:
        """Go on with trainings that are unfinished, one after the other, with the settings they were begun with.

        What is owed after samples were forgotten, and was begun in another environment, is begun again in this one.

        Args:
            names: sources whose training is unfinished; None takes all there are.

        Raises:
            UnknownName: nothing is unfinished under a name.
            SettingsError: it was begun in another environment.
            CorruptError: its record is damaged.
            VaultError: another process trains it, or the disk fails.
        """
        check_whole("save_every", save_every)
        self._store.settle()
        wanted = self._store.names(TRAINING) if names is None else listed(names)
        return Job(Resuming(self._forgetting(save_every)).steps(wanted))

    def _is_away(self, name: str) -> bool:
        """Whether the owner of a source keeps its images."""
        self._shelf.check_known(name)
        return source_info(self._store.source(name)).signer is not None

    def _forgetting(self, save_every: int = 100) -> Forgetting:
        return Forgetting(self._shelf, self._runs, save_every)

    def _runs(self) -> Runs:
        return Runs(self._store, self.backbone, self.core, self._engine)
