"""`intarsia credit`: what each source is owed for images."""

from __future__ import annotations

import contextlib
import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.cli.output import Output, Table
from intarsia.cli.owed import quietly
from intarsia.cli.parameters import VaultPath, numbers, split
from intarsia.errors import counted

if TYPE_CHECKING:
    from intarsia.credit import Credit, CreditSettings

CREDIT_FILE, PLOT_FILE, PATH_FILE = "credit.csv", "credit.png", "weights.png"
_FRAMES = 5  # images whose weights over time are shown beside the mean
_HOW = "How it is reckoned"


@dataclass(frozen=True)
class Reckoning:
    """How credit is reckoned; the defaults are the library's."""

    method: Annotated[
        str,
        typer.Option(
            help="responsibility: the probability that an image came from each source; path: the mean of the weights "
            "with which it was drawn, for which no network is asked; leave-one-out, shapley or log-ratio (to the "
            "public core): in nats; divergence: the paper's eq. 6.",
            rich_help_panel=_HOW,
        ),
    ] = "responsibility"
    density: Annotated[
        str,
        typer.Option(
            help="How likely an image is under a source: denoising, by the errors of its compartment; or flow, along "
            "the probability flow, slower.",
            rich_help_panel=_HOW,
        ),
    ] = "denoising"
    repeats: Annotated[
        int, typer.Option(help="Estimates with noise of their own, for the interval; 1 to 10.", rich_help_panel=_HOW)
    ] = 4
    seed: Annotated[int, typer.Option(help="Seed of the noise.", rich_help_panel=_HOW)] = 0

    def settings(self) -> CreditSettings:
        from intarsia.credit import CreditSettings

        return CreditSettings(**vars(self))


def credit(
    vault: VaultPath,
    images: Annotated[
        str,
        typer.Argument(
            help="Images: the folder that `intarsia sample` made, or any folder, table or archive of images.",
            metavar="IMAGES",
            show_default=False,
        ),
    ],
    reckoning: Reckoning,
    output: Output,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            help="Sources among which credit is shared out, with commas between; without it those that drew the "
            "images, or of other images all that are trained."
        ),
    ] = None,
    prior: Annotated[
        list[str] | None,
        typer.Option(
            help="Shares as name=number, with commas between; without it those of the drawing, or by numbers of images."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder to make for {CREDIT_FILE}, a line per image, {PLOT_FILE}, bars with their intervals, and of "
            f"images that were drawn here {PATH_FILE}, the weights over time."
        ),
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Let these shares count in payouts, in place of the weights with which the images were drawn.",
        ),
    ] = False,
) -> None:
    """Say how much of each image is owed to which source, with intervals.

    A responsibility is the probability that an image came from a source, given that it came from one of them. It does
    not say that this image was copied, nor that any image was.

    Example: intarsia credit emoji.vault drawn --out credit
    """
    from intarsia.vault import Vault
    from intarsia.vault.folders import new_folder

    settings, opened = reckoning.settings(), Vault.open(vault)
    asked, shares = split("--sources", sources), numbers("--prior", prior)
    with contextlib.ExitStack() as stack:
        scratch = None if out is None else stack.enter_context(new_folder(out))  # before the ledger hears of it
        bars = stack.enter_context(output.progress())
        with quietly():
            found = opened.credit(
                images,
                settings,
                sources=asked,
                prior=shares,
                record=record,
                on_progress=lambda done, total: bars.show(settings.method, done, total),
            )
        if scratch is not None:
            _write(found, Path(images), scratch)
    rows = list(zip(found.names, *(each.tolist() for each in found.total), strict=True))
    document = {
        "images": len(found.values),
        "method": found.method,
        "unit": found.unit,
        "sources": {name: {"mean": mean, "low": low, "high": high} for name, mean, low, high in rows},
        "notes": list(found.notes),
        "recorded": record,
        "out": None if out is None else str(out),
    }
    shown = [(name, f"{mean:.3f}", f"[{low:.3f}, {high:.3f}]") for name, mean, low, high in rows]
    title = f"{found.method} of {counted(len(found.values), 'image')}, in {found.unit}; mean over the images"
    for note in found.notes:
        output.note(note)
    output.answer(document, title, Table(("source", "mean", "95 % interval"), shown))


def _write(found: Credit, images: Path, folder: Path) -> None:
    from intarsia.experiments.reproduce.figures import Spread
    from intarsia.experiments.reproduce.plots import plot_areas, plot_bars
    from intarsia.vault.drawn import Drawing

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *(f"{name}{part}" for name in found.names for part in ("", " low", " high"))])
    for number, each in enumerate(zip(found.values, found.low, found.high, strict=True)):
        writer.writerow([number, *(value for source in zip(*each, strict=True) for value in map(float, source))])
    (folder / CREDIT_FILE).write_text(text.getvalue(), encoding="utf-8")
    bars = [Spread(mean, low, high, 2) for mean, low, high in zip(*(e.tolist() for e in found.total), strict=True)]
    plot_bars(folder / PLOT_FILE, found.names, bars, x=f"{found.method}, {found.unit}")
    if (drawing := Drawing.read(images.expanduser())) is not None:
        trace = drawing.trace
        frames = {f"mean of {counted(len(trace.weights[0]), 'image')}": trace.over_time().tolist()}
        frames |= {f"image {k}": each.tolist() for k, each in enumerate(trace.weights.unbind(1)[:_FRAMES])}
        plot_areas(folder / PATH_FILE, trace.names, trace.times.tolist(), frames)
