"""All checks on one vault, in order; and the page that tells what they found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from intarsia.errors import CorruptError, IntarsiaError
from intarsia.experiments.auditing.copying import copies, protection
from intarsia.experiments.auditing.finding import FAILED, NOTED, PASSED, SKIPPED, Finding
from intarsia.experiments.auditing.members import membership
from intarsia.experiments.auditing.removal import forgetting
from intarsia.experiments.auditing.stored import duplicates, integrity, privacy
from intarsia.experiments.auditing.subject import AuditSettings, Subject
from intarsia.experiments.report import Number, Report, Section


@dataclass(frozen=True)
class Check:
    """A check, what it asks, and what it cannot tell whatever it finds."""

    asks: str
    limits: str
    run: Callable[[Subject], Finding]


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "integrity": Check(
            "Is everything stored as it was recorded?",
            "Whoever can write the vault has its key. That a history was written anew shows only against a checkpoint "
            "of the ledger that somebody has kept.",
            integrity,
        ),
        "duplicates": Check(
            "Do two sources hold the same picture?",
            "Near duplicates are found by thumbnails of 8 by 8; a picture that was moved, turned or cut is missed. "
            "Images that owners keep at home are not compared.",
            duplicates,
        ),
        "copies": Check(
            "Are images that are drawn copies of training images?",
            "Only so many images were looked at, drawn without labels. Between pixels, copies that moved by more than "
            "one are missed. Where a source holds families of nearly equal drawings the threshold falls, and copies of "
            "these pass. The backbone's own core set is not searched.",
            copies,
        ),
        "membership": Check(
            "Can somebody with a compartment tell what it was trained on?",
            "A better attack may come; only differential privacy bounds all of them. Held-out images must be like "
            "those of the source: any other difference makes every attack look strong. LiRA tests the way of training, "
            "on models of half of the images that are tried, which leak more than one of all would. Images are judged "
            "without labels and captions.",
            membership,
        ),
        "forgetting": Check(
            "Is what was forgotten gone?",
            "That the bytes are those of a vault that never had it is shown by training again (intarsia verify "
            "--replay). Held-out images must be like those forgotten: any other difference passes for memory. Copies "
            "made elsewhere, images drawn earlier and what the core set taught the backbone are out of reach.",
            forgetting,
        ),
        "privacy": Check(
            "What bounds what leaks?",
            "A budget holds for single images, if the accountant's assumptions do; it says nothing of what many images "
            "of one person show together.",
            privacy,
        ),
        "protection": Check(
            "What bound would protected images have?",
            "Of the members' own densities, estimated from a few images; void for pictures that two sources hold. Near "
            "access-freeness is not freedom from infringement.",
            protection,
        ),
    }
)


@dataclass(frozen=True)
class Audit:
    """What all checks found, in order."""

    vault: str
    findings: Mapping[str, Finding]
    settings: AuditSettings

    @property
    def ok(self) -> bool:
        """Whether no check failed; one that could not be run has not failed."""
        return all(finding.verdict != FAILED for finding in self.findings.values())

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        checks = {
            name: {
                "verdict": finding.verdict,
                "said": finding.said,
                "limits": CHECKS[name].limits,
                "figures": dict(finding.figures),
            }
            for name, finding in self.findings.items()
        }
        return {"vault": self.vault, "ok": self.ok, "checks": checks, "settings": asdict(self.settings)}

    def report(self, *, at: str) -> Report:
        """The page; `at` says when."""
        counts = {verdict: sum(each.verdict == verdict for each in self.findings.values()) for verdict in _MARKS}
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        numbers = [
            Number(CHECKS[name].asks, finding.verdict, finding.said, _MARKS[finding.verdict])
            for name, finding in self.findings.items()
        ]
        sections = [
            Section(
                f"{CHECKS[name].asks} {finding.verdict.capitalize()}.",
                finding.said,
                pictures=finding.pictures,
                tables=finding.tables,
                wide=True,
                limits=CHECKS[name].limits,
            )
            for name, finding in self.findings.items()
        ]
        overview = Section("", "A check that was not run has found nothing, and says what it needs.", numbers)
        settings = "\n".join(f"{name}: {value}" for name, value in asdict(self.settings).items())
        lead = f"{len(self.findings)} checks of {self.vault} at {at}: {told}."
        return Report("Audit of a vault", lead, [overview, *sections], settings)


_MARKS: Mapping[str, bool | None] = MappingProxyType({PASSED: True, NOTED: None, FAILED: False, SKIPPED: None})


def audit_vault(subject: Subject, *, name: str, skip: frozenset[str] = frozenset()) -> Audit:
    """Run all checks, but those that are to be left out.

    What cannot be read is a failure, and the other checks go on; what a check needs and has not got is said.

    Args:
        name: what the vault is called in the report.
    """
    findings = {}
    for each, check in CHECKS.items():
        if each in skip:
            continue
        subject.on_phase(check.asks)
        try:
            findings[each] = check.run(subject)
        except CorruptError as error:
            findings[each] = Finding(FAILED, str(error))
        except IntarsiaError as error:
            findings[each] = Finding(SKIPPED, str(error))
    return Audit(name, findings, subject.settings)
