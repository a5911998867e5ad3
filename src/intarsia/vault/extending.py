"""Adding samples to a source: they join training in slices of their own, after all that were there.

What was learned before stays as it is and in use; the training goes on from its last checkpoint. So forgetting is as
exact as before: the bytes are a function of the samples, of the batches they came in, and of the settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from intarsia.compartments import Extension, TextPrompts
from intarsia.compartments.adapters import DeepPrompts
from intarsia.data import Manifest, Source
from intarsia.errors import IncompatibleError, IngestError, SettingsError
from intarsia.vault.captions import check_captions
from intarsia.vault.causes import Cause
from intarsia.vault.events import extended
from intarsia.vault.forgetting import Forgetting
from intarsia.vault.material import neighbours_in, read_material
from intarsia.vault.outcomes import Job, Outcome
from intarsia.vault.records import SourceInfo
from intarsia.vault.rollback import Learned, Rollback, learned_by_compartment, roll_back
from intarsia.vault.runs import Run
from intarsia.vault.sources import copy_with, read_manifest
from intarsia.vault.store import COMPARTMENTS, SOURCES, TRAINING

_EXTEND = "extend"


def check_terms(source: Source, info: SourceInfo) -> None:
    """Refuse samples that are another owner's, or under another licence: they are a source of their own.

    Raises:
        IncompatibleError: says whose, or which.
    """
    for what in ("owner", "licence"):
        found, expected = getattr(source, what), getattr(info, what)
        if found != expected:
            raise IncompatibleError(
                f"the samples to add have the {what} '{found}', source '{info.name}' has '{expected}'; add them as a "
                "source of their own"
            )


@dataclass(frozen=True)
class Extending:
    """Adding samples to sources of one vault."""

    forgetting: Forgetting

    def begin(self, new: Source, *, slices: int, notes: Sequence[str] = ()) -> Job[Outcome]:
        """Put samples into the source of their name; the job that is returned trains on them, if it was trained.

        Args:
            new: the samples, under the name of the source.
            slices: in how many slices they join.
            notes: what there is to say about them.

        Raises:
            UnknownName: no such source.
            IngestError: the source holds some of them already.
            SettingsError: its training is unfinished; or they have labels for which a compartment with prompts per
                class has none.
            IncompatibleError: its compartment learned from other samples than the source holds.
            EncoderError: the text encoder that it was trained with cannot be had.
            CorruptError: the source or its compartment is damaged.
            VaultError: another process is writing, or the disk fails.
        """
        shelf, name = self.forgetting.shelf, new.name
        with shelf.store.change() as change:
            shelf.check_known(name)
            before = read_manifest(shelf.store.source(name))
            _refuse_known(before, new)
            learned = self._learned(name, before)
            if learned is not None and learned.recipe.mechanism is not None:
                raise SettingsError(
                    f"'{name}' was trained privately, and to learn more would spend on all its images again; add the "
                    "new ones as a source of their own"
                )
            new = _in_batch(new, before.batches if learned else before.batches - 1)
            merged = Manifest((*before.samples, *new.manifest.samples))
            run, rollback = None, None
            if learned is not None:
                rollback = self._rollback(name, learned, merged, Extension(before.batches, slices))
                run = (name, rollback.record)
            cause = self._cause(name, len(new), before, rollback)
            if rollback is not None:
                folder = change.put(f"{TRAINING}/{name}")
                rollback.write(folder)
                cause.write(folder)
            copy_with(shelf.store.source(name), change.put(f"{SOURCES}/{name}"), merged, new)
            change.record(extended(cause.outcome(name, manifest_after=merged.root, after={})))
        runs: list[Run] = [run] if run else []
        work = self.forgetting.carry_on(name, cause, runs, change.receipts)
        return Job(work, change.receipts, notes=notes)

    def _learned(self, name: str, before: Manifest) -> Learned | None:
        """What the finished training was; None if there is none yet."""
        store = self.forgetting.shelf.store
        if store.holds(TRAINING, name):
            raise SettingsError(
                f"the training of '{name}' is unfinished; finish it first: `intarsia train VAULT {name} --resume`, "
                f"vault.resume('{name}') in Python"
            )
        if not store.holds(COMPARTMENTS, name):
            return None
        learned = learned_by_compartment(store.compartment(name))
        if learned.record["manifest_root"] != before.root:
            raise IncompatibleError(
                f"the compartment of '{name}' learned from other samples than the source holds; train it afresh first "
                "(--restart, restart=True in Python)"
            )
        return learned

    def _rollback(self, name: str, learned: Learned, merged: Manifest, new: Extension) -> Rollback:
        runs = self.forgetting.runs
        material = read_material(runs.store, name, neighbours_in(learned.record))
        after = replace(material, own=merged)
        adapter = learned.recipe.settings.adapter
        if isinstance(adapter, TextPrompts):
            check_captions(name, merged, adapter, runs.backbone)
        strange = set(after.manifest.labels) - set(material.manifest.labels)
        if isinstance(adapter, DeepPrompts) and adapter.per_class and strange:
            raise SettingsError(
                f"the compartment of '{name}' has prompts per class, and none for {', '.join(sorted(strange))}; leave "
                "these labels out, or add the samples as a source of their own"
            )
        return roll_back(learned, material, after, backbone=runs.backbone, core=runs.core, new=[new])

    def _cause(self, name: str, count: int, before: Manifest, rollback: Rollback | None) -> Cause:
        digests = self.forgetting.shelf.digests({name} if rollback else ())
        again, steps = (rollback.again, rollback.steps) if rollback else ((), 0)
        return Cause(_EXTEND, count, before.root, digests, again, steps)


def _in_batch(source: Source, batch: int) -> Source:
    samples = tuple(replace(sample, batch=batch) for sample in source.manifest)
    return replace(source, manifest=Manifest(samples))


def _refuse_known(manifest: Manifest, new: Source) -> None:
    known = {sample.id: sample.file_name for sample in manifest}
    twice = [(sample.file_name, known[sample.id]) for sample in new.manifest if sample.id in known]
    if twice:
        raise IngestError(new.name, [f"{one}: the same picture as {other}, which is there" for one, other in twice])
