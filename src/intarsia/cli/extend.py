"""`intarsia extend`: more images of a source that is there."""

from __future__ import annotations

from typing import Annotated

import typer

from intarsia.cli.engines import Engines
from intarsia.cli.forget import outcome_lines
from intarsia.cli.output import Output
from intarsia.cli.owed import show_steps
from intarsia.cli.parameters import SourceName, VaultPath
from intarsia.cli.source import Reading
from intarsia.errors import counted

_SHOWN = 10


def extend(
    vault: VaultPath,
    name: SourceName,
    data: Annotated[
        str,
        typer.Argument(help="Folder of images, .parquet table or .tar archive.", metavar="DATA", show_default=False),
    ],
    reading: Reading,
    engines: Engines,
    output: Output,
    slices: Annotated[
        int,
        typer.Option(
            help="Slices in which the images join training, each as long as those before; more of them take longer, "
            "and make forgetting one of the images cheaper."
        ),
    ] = 1,
    risk: Annotated[
        str | None,
        typer.Option(help="Risk of deletion, high or normal, of images of which the data says nothing."),
    ] = None,
    refuse_near: Annotated[
        bool,
        typer.Option(
            "--refuse-near", help="Refuse images that look nearly like one of the core; by default they are listed."
        ),
    ] = False,
) -> None:
    """Add images to a source, under its terms. If it is trained, its training goes on with them in slices of their own.

    Nothing else changes, and what was learned serves until the training ends; `intarsia train --resume` finishes one
    that was interrupted. A new owner's images are a source of their own: `intarsia source add`.

    Example: intarsia extend emoji.vault twemoji images/newer --slices 2
    """
    options = reading.options()
    with engines.opened(vault) as opened:
        job = opened.extending(name, data, slices=slices, risk=risk, options=options, allow_near=not refuse_near)
        for note in job.notes[:_SHOWN]:
            output.note(f"look at {note}")
        if len(job.notes) > _SHOWN:
            output.note(f"… and {len(job.notes) - _SHOWN} more, listed with --json")
        outcome = show_steps(job, output)
    document = {"vault": opened.place, **outcome.document(), "overlaps": list(job.notes)}
    output.answer(document, f"Added {counted(outcome.samples, 'image')} to '{name}'.", *outcome_lines(outcome))
