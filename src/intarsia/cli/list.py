"""`intarsia list`: what a vault holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from intarsia.cli.output import Output, Table
from intarsia.cli.parameters import VaultPath
from intarsia.cli.train import privacy_of

if TYPE_CHECKING:
    from intarsia.vault import CompartmentInfo, Unfinished


_OWED = {
    "forget": "out of use until trained again without what it forgot: ",
    "extend": "images were added, on which it is trained next: ",
}


def list_members(vault: VaultPath, output: Output) -> None:
    """List the sources of a vault, and what was trained or is being trained from each.

    Example: intarsia list emoji.vault
    """
    from intarsia.vault import Vault

    opened = Vault.open(vault)
    sources, compartments = opened.sources(), opened.compartments()
    trained = {compartment.name: compartment for compartment in compartments}
    unfinished = {run.name: run for run in opened.unfinished()}
    rows = []
    for source in sources:
        compartment = trained.get(source.name)
        what = _state(compartment, unfinished.get(source.name))
        if source.signer is not None:
            what = f"{what}, images with the owner" if compartment else "out of use until the owner hands in a pack"
        routers = ", ".join(compartment.routers) if compartment else ""
        spent = privacy_of(compartment) if compartment else ""
        rows.append((source.name, source.owner, source.licence, source.count, len(source.labels), what, routers, spent))
    document = {
        "vault": str(vault),
        "sources": [{k: v for k, v in asdict(source).items() if k != "overlaps"} for source in sources],
        "compartments": [asdict(compartment) for compartment in compartments],
        "unfinished": [asdict(run) for run in unfinished.values()],
    }
    table = Table(("source", "owner", "licence", "images", "labels", "compartment", "router parts", "privacy"), rows)
    output.answer(document, table)


def _state(compartment: CompartmentInfo | None, run: Unfinished | None) -> str:
    """What there is of a compartment, in words."""
    finished = f"{compartment.adapter}, {compartment.steps} steps" if compartment else ""
    if run is None:
        return finished or "not trained"
    why = _OWED.get(run.owed or "", "")
    under_way = f"{why}unfinished, {run.done} of {run.steps} steps"
    return f"{finished}; {'' if why else 'another '}{under_way}" if finished else under_way
