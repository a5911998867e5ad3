"""`intarsia data`: ready collections, as folders and tables that other tools read too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.cli.output import Output, Table
from intarsia.cli.parameters import distinct, split

if TYPE_CHECKING:
    from intarsia.data import Source

HELP = "Write ready collections: folders of images with metadata.jsonl, or Parquet tables."

Out = Annotated[Path, typer.Argument(help="Folder to make.", metavar="FOLDER", show_default=False)]


def digits(folder: Out, output: Output) -> None:
    """Write scikit-learn's handwritten digits, 8x8, one folder of images for each of five owners.

    Example: intarsia data digits digits
    """
    from intarsia.data.collections import digits as load

    _write(load(), folder, output)


def letters(
    folder: Out,
    output: Output,
    count: Annotated[int, typer.Option(help="How many pictures.")] = 5000,
    size: Annotated[int, typer.Option(help="Side of a picture in pixels.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
) -> None:
    """Draw letters from the fonts that matplotlib ships: a public core set for the digits.

    Example: intarsia data letters letters --count 20000
    """
    from intarsia.data.collections import letters as draw

    _write([draw(count, size=size, seed=seed)], folder, output)


def emoji(
    output: Output,
    folder: Annotated[Path, typer.Argument(help="Folder of the tables.", metavar="[FOLDER]")] = Path("emoji"),
    sources: Annotated[
        list[str] | None, typer.Option(help="Sets to build, with commas between; without it all of them.")
    ] = None,
    size: Annotated[
        list[int] | None, typer.Option(help="Side of a picture in pixels, may be repeated; 32 by default.")
    ] = None,
) -> None:
    """Fetch nine emoji sets by npm, draw them, and write one Parquet table per owner and size.

    What is there already is kept, so an interrupted run goes on where it stopped.

    Example: intarsia data emoji emoji --sources twemoji,openmoji
    """
    from intarsia.data.collections import EMOJI_SOURCES, build_emoji

    wanted, sizes = split("--sources", sources) or tuple(EMOJI_SOURCES), distinct("--size", size or (32,))
    tables = []
    with output.progress() as bars:
        for table in build_emoji(folder, sources=wanted, sizes=sizes):
            tables.append(table)
            bars.show("emoji", len(tables), len(wanted) * len(sizes), f"{table.source} {table.size} px")
    document = [
        {"source": t.source, "size": t.size, "rows": t.rows, "path": str(t.path), "reused": t.reused} for t in tables
    ]
    rows = [(t.source, t.size, t.rows, t.path, "kept" if t.reused else "made") for t in tables]
    output.answer({"tables": document}, Table(("set", "pixels", "emoji", "table", "what"), rows))


def _write(sources: Sequence[Source], folder: Path, output: Output) -> None:
    from intarsia.vault.folders import new_folder

    several = len(sources) > 1
    with new_folder(folder) as scratch:
        for source in sources:
            _write_folder(source, scratch / source.name if several else scratch)
    written = [
        {"name": s.name, "path": str(folder / s.name if several else folder), "images": len(s), "licence": s.licence}
        for s in sources
    ]
    rows = [(w["name"], w["images"], w["licence"], w["path"]) for w in written]
    output.answer({"sources": written}, Table(("source", "images", "licence", "folder"), rows))


def _write_folder(source: Source, folder: Path) -> None:
    """Images, `metadata.jsonl`, and the terms in a file that readers of images pass over."""
    from intarsia.data import encode_png

    folder.mkdir(exist_ok=True)
    lines = []
    for sample, image in zip(source.manifest, source.images, strict=True):
        (folder / sample.file_name).write_bytes(encode_png(image))
        lines.append(json.dumps({"file_name": sample.file_name, "text": sample.text, "label": sample.label}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    terms = f"owner: {source.owner}\nlicence: {source.licence}\n{source.attribution}\n"
    (folder / "ATTRIBUTION.txt").write_text(terms, encoding="utf-8")
