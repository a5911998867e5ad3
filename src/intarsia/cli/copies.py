"""`intarsia copies`: the nearest training image of each image, and which of them are copies."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.beside import BESIDE
from intarsia.cli.output import Output, Table
from intarsia.cli.parameters import DEFAULT_EMOJI, Crop, EmojiFolder, Fit, resizing, split
from intarsia.cli.ready import ADDRESSES, collection
from intarsia.errors import InputError, SettingsError, UnknownName, counted

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.audit import CopyReport, CopySettings, FeatureNetwork
    from intarsia.data import ReadOptions, Source

COPIES_FILE, PAIRS_FILE = "copies.csv", "pairs.png"
_PIXELS, _FEATURES = "pixels", "efflite0"
_COLOURS = 3
_SHOWN = 10  # images at a terminal


@dataclass(frozen=True)
class Originals:
    """Which images are compared, and how they are read."""

    sources: Annotated[
        list[str] | None,
        typer.Option(help="Where REAL is a vault: its sources, with commas between; without it all of them."),
    ] = None
    held_out: Annotated[
        str | None,
        typer.Option(
            help="Real images that nothing was trained on, which set the threshold; without it every training image "
            "is held against the others.",
            show_default=False,
        ),
    ] = None
    fit: Fit = False
    crop: Crop = False
    emoji: EmojiFolder = DEFAULT_EMOJI

    @property
    def options(self) -> ReadOptions:
        from intarsia.data import ReadOptions

        return ReadOptions(resize=resizing(self.fit, self.crop))

    def training(self, real: str, images: str) -> list[Source]:
        """The sources of a vault, a ready collection, or images of anybody, in the size of `images`."""
        from intarsia.data import read_pixels, read_source
        from intarsia.vault.founding import is_vault

        if is_vault(real):
            return self._of_vault(real)
        if self.sources:
            raise SettingsError(f"{real} is no vault, but --sources names sources of one; give the folder of a vault")
        side = read_pixels(images, size=None, channels=_COLOURS, options=self.options, skip=BESIDE).shape[1]
        ready = collection(real, size=side, emoji=self.emoji)
        if ready is not None:
            return ready
        anybody = {"name": "real", "owner": "unknown", "licence": "LicenseRef-unknown"}
        return [read_source(real, **anybody, size=side, channels=_COLOURS, options=self.options)]

    def _of_vault(self, path: str) -> list[Source]:
        from intarsia.vault import Vault

        vault = Vault.open(path)
        here = [info.name for info in vault.sources() if info.signer is None]
        named = split("--sources", self.sources) or here
        for name in named:
            if name not in here:
                raise UnknownName("source with images here", name, here)
        if not named:
            raise InputError(f"{path} holds no images to compare with; only owners who keep theirs can look for copies")
        return [vault.source(name) for name in named]

    def pixels(self, path: str, like: Source) -> Tensor:
        """Images in the shape of a source's, in [-1, 1]."""
        from intarsia.data import read_pixels, to_float

        _, side, _, channels = like.images.shape
        return to_float(read_pixels(path, size=side, channels=channels, options=self.options, skip=BESIDE))


@dataclass(frozen=True)
class Searching:
    """How copies are told; the defaults are the library's."""

    network: Annotated[
        str, typer.Option(help="Where distances are taken: pixels, or efflite0, a feature network for larger images.")
    ] = _PIXELS
    neighbours: Annotated[
        int, typer.Option(help="Training images whose mean distance the nearest one is compared with.")
    ] = 50
    false_positives: Annotated[float, typer.Option(help="Share of real images that the threshold lets be flagged.")] = (
        0.01
    )

    def settings(self) -> CopySettings:
        from intarsia.audit import CopySettings

        return CopySettings(neighbours=self.neighbours, false_positives=self.false_positives)

    def features(self) -> FeatureNetwork | None:
        from intarsia.audit import load_network

        if self.network not in (_PIXELS, _FEATURES):
            raise UnknownName("way to compare images", self.network, (_PIXELS, _FEATURES))
        return None if self.network == _PIXELS else load_network(self.network)


def copies(
    images: Annotated[
        str,
        typer.Argument(
            help="Images to look through: a folder, a .parquet table, a .tar archive or an .npz array.",
            metavar="IMAGES",
            show_default=False,
        ),
    ],
    real: Annotated[
        str,
        typer.Argument(
            help=f"What they may be copies of: a vault; the same kinds; or a ready collection: {ADDRESSES}.",
            metavar="REAL",
            show_default=False,
        ),
    ],
    originals: Originals,
    searching: Searching,
    output: Output,
    out: Annotated[
        Path | None,
        typer.Option(help=f"Folder to make for {COPIES_FILE}, a line per image, and {PAIRS_FILE}.", show_default=False),
    ] = None,
) -> None:
    """Find the nearest training image of every image, and say which images are copies.

    A copy is much nearer to one training image than to the next ones; how much nearer is set by real images, of which
    one in a hundred is flagged. Training images that are all but the same count once.

    Example: intarsia copies drawn emoji.vault --out copies
    """
    from intarsia.audit import copy_report
    from intarsia.vault.folders import new_folder

    settings, network = searching.settings(), searching.features()
    training = originals.training(real, images)
    looked = originals.pixels(images, training[0])
    held_out = None if originals.held_out is None else originals.pixels(originals.held_out, training[0])
    with output.progress() as bars:
        bars.phase(f"{counted(len(looked), 'image')} against {sum(map(len, training))} of {real}")
        found = copy_report(
            looked, training, held_out, features=network.features if network else None, settings=settings
        )
    rows = _rows(found, training)
    if out is not None:
        with new_folder(out) as scratch:
            _write(found, rows, looked, training, scratch)
    document = {
        "images": len(found),
        "copies": int(found.flagged.sum()),
        "share": asdict(found.share),
        "by_chance": found.by_chance,
        "threshold": found.threshold,
        "real_flagged": found.held_out_flagged,
        "nearest": [dict(zip(_COLUMNS, row, strict=True)) for row in rows],
        "out": None if out is None else str(out),
    }
    output.answer(document, _said(found), Table(_COLUMNS, [_told(row) for row in sorted(rows, key=_ratio)[:_SHOWN]]))


_COLUMNS = ("image", "source", "file", "distance", "ratio", "copy")

Row = tuple[int, str, str, float, float, bool]


def _ratio(row: Row) -> float:
    return row[4]


def _told(row: Row) -> tuple[object, ...]:
    number, source, file, distance, ratio, hit = row
    return number, source, file, f"{distance:.3f}", f"{ratio:.3f}", "yes" if hit else ""


def _said(found: CopyReport) -> str:
    share = found.share
    return (
        f"{int(found.flagged.sum())} of {counted(len(found), 'image')} are copies ({share.low:.1%} to "
        f"{share.high:.1%}); of real images as many would be flagged with a probability of {found.by_chance:.2g}"
    )


def _rows(found: CopyReport, training: list[Source]) -> list[Row]:
    """A line per image, in their order."""
    files = {(source.name, sample.id): sample.file_name for source in training for sample in source.manifest}
    columns = zip(
        found.sources, found.ids, found.distance.tolist(), found.ratio.tolist(), found.flagged.tolist(), strict=True
    )
    return [
        (number, source, files[source, id], distance, ratio, hit)
        for number, (source, id, distance, ratio, hit) in enumerate(columns)
    ]


def _write(found: CopyReport, rows: list[Row], images: Tensor, training: list[Source], folder: Path) -> None:
    from intarsia.experiments.auditing import pairs_sheet

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_COLUMNS, *rows])
    (folder / COPIES_FILE).write_text(text.getvalue(), encoding="utf-8")
    (folder / PAIRS_FILE).write_bytes(pairs_sheet(found, images, training))
