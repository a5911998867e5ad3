"""`intarsia list`: what a vault holds."""

from __future__ import annotations

from dataclasses import asdict

from intarsia.cli.output import Output, Table
from intarsia.cli.parameters import VaultPath


def list_members(vault: VaultPath, output: Output) -> None:
    """List the sources of a vault, and what was trained from each.

    Example: intarsia list emoji.vault
    """
    from intarsia.vault import Vault

    opened = Vault.open(vault)
    sources, compartments = opened.sources(), opened.compartments()
    trained = {compartment.name: compartment for compartment in compartments}
    rows = []
    for source in sources:
        compartment = trained.get(source.name)
        what = f"{compartment.adapter}, {compartment.steps} steps" if compartment else "not trained"
        routers = ", ".join(compartment.routers) if compartment else ""
        rows.append((source.name, source.owner, source.licence, source.count, len(source.labels), what, routers))
    document = {
        "vault": str(vault),
        "sources": [{k: v for k, v in asdict(source).items() if k != "overlaps"} for source in sources],
        "compartments": [asdict(compartment) for compartment in compartments],
    }
    table = Table(("source", "owner", "licence", "images", "labels", "compartment", "router parts"), rows)
    output.answer(document, table)
