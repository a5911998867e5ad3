"""Checks of what is stored: bytes, pictures that are there twice, and privacy budgets."""

from __future__ import annotations

from typing import Any

from intarsia.data import Overlap, overlaps
from intarsia.errors import counted
from intarsia.experiments.auditing.finding import FAILED, NOTED, PASSED, Finding, first_of
from intarsia.experiments.auditing.subject import Subject


def integrity(subject: Subject) -> Finding:
    """Every stored byte against its record."""
    found = subject.vault.verify()
    figures = {
        "sources": found.sources,
        "samples": found.samples,
        "compartments": found.compartments,
        "problems": [{"where": problem.where, "what": problem.what} for problem in found.problems],
    }
    held = f"{counted(found.sources, 'source')} with {counted(found.samples, 'image')}"
    if found.ok:
        said = f"Every byte of {held} and {counted(found.compartments, 'compartment')} is as recorded."
        return Finding(PASSED, said, figures)
    table = first_of("What is wrong", ("where", "what"), [(problem.where, problem.what) for problem in found.problems])
    return Finding(FAILED, f"{counted(len(found.problems), 'problem')} in {held}.", figures, [table])


def duplicates(subject: Subject) -> Finding:
    """Pictures that two sources hold, or nearly the same."""
    pairs = overlaps(subject.sources)
    same = sum(pair.distance == 0 for pair in pairs)
    figures = {"same": same, "near": len(pairs) - same, "pairs": [str(pair) for pair in pairs]}
    if not pairs:
        said = f"No picture of {counted(len(subject.sources), 'source')} is in another, nor nearly so."
        return Finding(PASSED, said, figures)
    said = (
        f"Two sources hold the same picture in {counted(same, 'case')}, and nearly the same in {len(pairs) - same}: "
        "forgetting one source leaves it with the other, and no copy protection covers it."
    )
    table = first_of("Pairs", ("one", "other", "distance"), [_pair(pair) for pair in pairs])
    return Finding(NOTED, said, figures, [table])


def _pair(pair: Overlap) -> tuple[str, str, str]:
    first, second = f"{pair.first_source}/{pair.first.file_name}", f"{pair.second_source}/{pair.second.file_name}"
    return first, second, "same" if pair.distance == 0 else f"{pair.distance:.3f}"


def privacy(subject: Subject) -> Finding:
    """What was spent, where training was private."""
    budgets: dict[str, Any] = {name: subject.compartment(name).record()["privacy"] for name in subject.trained}
    private = {name: spent for name, spent in budgets.items() if spent is not None}
    if not private:
        said = "No compartment was trained under differential privacy: nothing bounds what leaks."
        return Finding(NOTED, said, budgets)
    rows = [
        (name, f"{spent['spent']:.3g}", f"{spent['total']:.3g}", f"{spent['delta']:.1g}")
        for name, spent in private.items()
    ]
    table = first_of("Budgets", ("compartment", "epsilon spent", "of", "delta"), rows)
    over = [name for name, spent in private.items() if spent["spent"] > spent["total"]]
    if over:
        said = f"More was spent than was meant to be of {', '.join(over)}, as images had to be forgotten."
        return Finding(NOTED, said, budgets, [table])
    said = f"{len(private)} of {counted(len(budgets), 'compartment')} keep to a privacy budget."
    return Finding(PASSED if len(private) == len(budgets) else NOTED, said, budgets, [table])
