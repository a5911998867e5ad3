"""`intarsia evaluate`: how far images are from real ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.beside import BESIDE
from intarsia.cli.output import Output, Table
from intarsia.cli.parameters import DEFAULT_EMOJI, Crop, EmojiFolder, Fit, resizing, split
from intarsia.cli.ready import ADDRESSES, collection
from intarsia.errors import SettingsError

if TYPE_CHECKING:
    from intarsia.audit import Report
    from intarsia.data.images import Pixels

_DIGITS = "digitnet"
_COLLECTION_SIZE = 32  # pixels, where none are asked for; the digits have but one size


@dataclass(frozen=True)
class Pictures:
    """Which images are compared, and how they are read."""

    sources: Annotated[
        list[str] | None,
        typer.Option(help="Where REAL is a vault: its sources, with commas between; without it all of them."),
    ] = None
    size: Annotated[int | None, typer.Option(help="Pixels a side; without it those of the real images.")] = None
    fit: Fit = False
    crop: Crop = False
    emoji: EmojiFolder = DEFAULT_EMOJI

    def read(self, path: str, *, size: int | None, channels: int) -> Pixels:
        """Images of a folder, a table or an array; what `intarsia sample` writes beside its images is no image."""
        from intarsia.data import ReadOptions, read_pixels

        options = ReadOptions(resize=resizing(self.fit, self.crop))
        return read_pixels(path, size=size, channels=channels, options=options, skip=BESIDE)

    def real(self, path: str, *, channels: int) -> Pixels:
        """Images of a vault, a ready collection, a folder, a table or an array.

        Raises:
            SettingsError: sources are named, but not of a vault.
        """
        from intarsia.vault.founding import is_vault

        if is_vault(path):
            return self._of_vault(path, channels)
        if self.sources:
            raise SettingsError(f"{path} is no vault, but --sources names sources of one; give the folder of a vault")
        ready = collection(path, size=self.size or _COLLECTION_SIZE, emoji=self.emoji)
        if ready is None:
            return self.read(path, size=self.size, channels=channels)
        return _joined([source.images for source in ready], channels, path)

    def _of_vault(self, path: str, channels: int) -> Pixels:
        from intarsia.vault import Vault

        vault = Vault.open(path)
        names = split("--sources", self.sources) or [info.name for info in vault.sources()]
        images = _joined([vault.source(name).images for name in names], channels, path)
        if self.size not in (None, images.shape[1]):
            raise SettingsError(f"--size is {self.size}, but the images of {path} have {images.shape[1]} pixels a side")
        return images


@dataclass(frozen=True)
class Comparing:
    """What is measured, and in which network."""

    network: Annotated[
        str,
        typer.Option(help="Feature network: efflite0; inception, with --weights; or digitnet, for 8-pixel digits."),
    ] = "efflite0"
    weights: Annotated[
        Path | None, typer.Option(help="File of the weights of inception: pt_inception-2015-12-05-6726825d.pth.")
    ] = None
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            help="Of fd, kid, precision, recall, density and coverage, with commas between; without it all of them."
        ),
    ] = None
    small: Annotated[
        bool, typer.Option("--small", help="Compare fewer than 1,500 images a side, with more bias and noise.")
    ] = False
    replicates: Annotated[int, typer.Option(help="Random halves for the intervals and the floor.")] = 100
    confidence: Annotated[float, typer.Option(help="Share of the intervals.")] = 0.95
    seed: Annotated[int, typer.Option(help="Of the random halves.")] = 0


def evaluate(
    samples: Annotated[
        str,
        typer.Argument(
            help="Images to judge: a folder, a .parquet table, a .tar archive or an .npz array.",
            metavar="SAMPLES",
            show_default=False,
        ),
    ],
    real: Annotated[
        str,
        typer.Argument(
            help=f"Real images: the same kinds; a vault; or a ready collection: {ADDRESSES}.",
            metavar="REAL",
            show_default=False,
        ),
    ],
    pictures: Pictures,
    comparing: Comparing,
    output: Output,
) -> None:
    """Compare images with real ones: distances and overlap in a feature network, with intervals and a floor.

    The floor is what one half of the real images scores against the other half. Hold it against the column beside it,
    which is the samples' figure at as many images. Both sides are thinned out to equal counts.

    Example: intarsia evaluate samples emoji.vault --sources twemoji --small
    """
    from intarsia.audit import METRICS, Resampling, check_count, load_network, measure, network_channels, unseen_digits

    settings = Resampling(replicates=comparing.replicates, confidence=comparing.confidence, seed=comparing.seed)
    metrics = split("--metrics", comparing.metrics) or tuple(METRICS)
    channels = network_channels(comparing.network)
    known = pictures.real(real, channels=channels)
    drawn = pictures.read(samples, size=known.shape[1], channels=channels)
    if comparing.network == _DIGITS:
        given, known = len(known), unseen_digits(known)
        if len(known) < given:
            output.note(f"left out {given - len(known)} real digits that {_DIGITS} learned from")
    check_count(min(len(drawn), len(known)), small=comparing.small)
    with output.progress() as bars:
        bars.phase(f"{len(drawn)} images against {len(known)} real ones in {comparing.network}")
        network = load_network(comparing.network, weights=comparing.weights)
        report = measure(
            drawn,
            known,
            network=network,
            metrics=metrics,
            settings=settings,
            small=comparing.small,
            on_progress=bars.show,
        )
    about = {"samples": samples, "real": real, "sources": list(pictures.sources or [])}
    output.answer(about | report.document(), *_lines(report))


def _lines(report: Report) -> tuple[str | Table, ...]:
    half, share = report.count // 2, f"{report.settings.confidence:.0%}"
    headings = ("figure", f"{report.count} a side", share, f"{half} a side", f"floor, {half} a side", share)
    rows = [
        (
            report.label(name),
            f"{score.value.value:.4g}",
            f"{score.value.low:.4g} to {score.value.high:.4g}",
            f"{score.halves:.4g}",
            f"{score.floor.value:.4g}",
            f"{score.floor.low:.4g} to {score.floor.high:.4g}",
        )
        for name, score in report.scores.items()
    ]
    return Table(headings, rows), f"network {report.network}, sha256 {report.digest[:16]}…, {report.image_size} pixels"


def _joined(parts: list[Pixels], channels: int, path: str) -> Pixels:
    import numpy as np

    if any(part.shape[3] not in (1, channels) for part in parts):
        raise SettingsError(f"the images of {path} are in colour, but this network reads grey ones; choose another")
    return np.concatenate([np.repeat(part, channels // part.shape[3], axis=3) for part in parts])
