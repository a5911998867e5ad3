"""`intarsia reproduce`: the paper's tables and ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intarsia.cli.output import Output


def reproduce(
    output: Output,
    name: Annotated[str, typer.Argument(help="splits.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the table; by default, the recipe's name.")] = None,
    scale: Annotated[str, typer.Option(help="cpu, or the paper's own.")] = "cpu",
    seeds: Annotated[int, typer.Option(help="Training and sampling runs; more can be added later.")] = 3,
) -> None:
    """Compute a table of the paper, or one of ours, with its plots.

    What is computed is kept: an interrupted run goes on where it stopped, and more seeds only add theirs.

    Example: intarsia reproduce splits --seeds 3
    """
    from intarsia.experiments.reproduce import reproduce as run

    folder = out or Path(name)
    with output.progress() as bars:
        page = run(name, folder, scale=scale, seeds=seeds, on_phase=bars.phase, on_step=bars.show)
    output.answer({"recipe": name, "summary": str(page)}, f"The table: {page}")
