"""The check of what was forgotten: whether it is finished, and whether anybody can tell."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from intarsia.audit import Attack, Resampling, attack, denoising_scores, look
from intarsia.audit.membership import DENOISING
from intarsia.composition import BackboneMember
from intarsia.data import sample_id, to_uint8
from intarsia.errors import counted
from intarsia.experiments.auditing.finding import FAILED, NOTED, PASSED, Finding, attack_row, first_of
from intarsia.experiments.auditing.subject import Subject
from intarsia.experiments.report import Table
from intarsia.vault.events import FORGET

_ERROR = 0.05  # that the intervals of all compartments together leave


def forgetting(subject: Subject) -> Finding:
    """What the ledger says was forgotten, whether it is finished, and whether it can be told."""
    entries = [(number, entry) for number, entry, _ in subject.vault.history() if entry.kind == FORGET]
    owed = [each.name for each in subject.vault.unfinished() if each.owed]
    figures: dict[str, Any] = {"forgettings": len(entries), "owed": owed}
    rows = [(str(number), entry.time, str(entry.about.get("scope"))) for number, entry in reversed(entries)]
    tables = [first_of("In the ledger, latest first", ("entry", "when", "what"), rows)] if rows else []
    if owed:
        said = f"Forgetting owes a training of {', '.join(owed)}; go on with `intarsia train --resume`."
        return Finding(FAILED, said, figures, tables)
    told = f"{counted(len(entries), 'forgetting')} in the ledger, none of which owes a training"
    if subject.given.removed is None:
        more = " Whether the images can be told was not tested, as nobody gave them (--removed)." if entries else ""
        return Finding(PASSED, f"{told}.{more}", figures, tables)
    if still := _still_there(subject):
        said = f"Images that were given as forgotten are in {', '.join(still)}."
        return Finding(FAILED, said, figures | {"still_in": still}, tables)
    return _attacked(subject, told, figures, tables)


def _still_there(subject: Subject) -> list[str]:
    """The sources that hold some of the removed images."""
    assert subject.given.removed is not None
    ids = {sample_id(image) for image in to_uint8(subject.given.removed)}
    return [source.name for source in subject.sources if ids & set(source.manifest.ids)]


def _attacked(subject: Subject, told: str, figures: dict[str, Any], tables: list[Table]) -> Finding:
    """Attack what was forgotten, against images that nothing was trained on."""
    removed, held_out = subject.given.removed, subject.given.held_out
    assert removed is not None
    if held_out is None:
        said = f"{told}, and no source holds the images; to attack them takes --held-out."
        return Finding(PASSED, said, figures, tables)
    groups, schedule = (subject.encoded(removed), subject.encoded(held_out)), subject.vault.backbone.schedule
    plain = [look(BackboneMember(subject.vault.backbone, 1), schedule, group) for group in groups]
    attacks: dict[str, Attack] = {}
    together = Resampling(replicates=2000, confidence=1 - _ERROR / len(subject.trained))
    for name in subject.trained:
        ours, theirs = (look(subject.member(name), schedule, group) for group in groups)
        attacks[name] = attack(
            DENOISING, denoising_scores(ours, plain[0]), denoising_scores(theirs, plain[1]), together
        )
    figures["attacks"] = {name: asdict(found) for name, found in attacks.items()}
    note = "Intervals are wide enough for all compartments together to be wrong once in twenty times."
    columns = ("compartment", "area under the curve", "caught at 1 % accused", "forgotten and others")
    rows = [attack_row(name, found) for name, found in attacks.items()]
    tables = [*tables, first_of("The forgotten images against those held out", columns, rows, note)]
    if telling := [name for name, found in attacks.items() if found.tells]:
        said = (
            f"With {', '.join(telling)} the forgotten images can be told from those held out: they were not left out, "
            "or the two are not alike."
        )
        return Finding(FAILED, said, figures, tables)
    if odd := [name for name, found in attacks.items() if not found.covers_chance]:
        said = (
            f"{told}; with {', '.join(odd)} the images look less like members than those held out do, by chance or "
            "because they were pushed out where they should have been left out."
        )
        return Finding(NOTED, said, figures, tables)
    return Finding(PASSED, f"{told}; to every compartment the images look like those held out.", figures, tables)
