"""`intarsia audit`: what leaks from a vault, on one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.beside import BESIDE
from intarsia.cli.command import FAILED
from intarsia.cli.output import Output, Table
from intarsia.cli.parameters import Crop, Fit, VaultPath, resizing, split
from intarsia.errors import UnknownName, VaultError

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.experiments.auditing import AuditSettings
    from intarsia.vault import Vault

_AGAINST, _HOW = "What it is held against", "How much is looked at"
_KINDS = "a folder, a .parquet table, a .tar archive or an .npz array"


@dataclass(frozen=True)
class Against:
    """Images that the vault is held against."""

    held_out: Annotated[
        str | None,
        typer.Option(
            help=f"Real images like those of the sources that nothing was trained on: {_KINDS}.",
            rich_help_panel=_AGAINST,
            show_default=False,
        ),
    ] = None
    removed: Annotated[
        str | None,
        typer.Option(help="Images that were forgotten.", rich_help_panel=_AGAINST, show_default=False),
    ] = None
    images: Annotated[
        str | None,
        typer.Option(
            help="Images to look through for copies, such as a folder that `intarsia sample` made; without it some are "
            "drawn.",
            rich_help_panel=_AGAINST,
            show_default=False,
        ),
    ] = None
    fit: Fit = False
    crop: Crop = False

    def read(self, vault: Vault) -> dict[str, Tensor | None]:
        """The images, in [-1, 1]."""
        return {name: self._read(getattr(self, name), vault) for name in ("held_out", "removed", "images")}

    def _read(self, path: str | None, vault: Vault) -> Tensor | None:
        from intarsia.data import ReadOptions, read_pixels, to_float

        if path is None:
            return None
        channels, size, _ = vault.image_shape
        options = ReadOptions(resize=resizing(self.fit, self.crop))
        return to_float(read_pixels(path, size=size, channels=channels, options=options, skip=BESIDE))


@dataclass(frozen=True)
class Looking:
    """How much is looked at; the defaults are the library's."""

    count: Annotated[int, typer.Option(help="Images drawn to look for copies.", rich_help_panel=_HOW)] = 200
    steps: Annotated[int, typer.Option(help="Sampling steps of the images drawn.", rich_help_panel=_HOW)] = 50
    members: Annotated[
        int, typer.Option(help="Images of each source, at most, that attacks are tried on.", rich_help_panel=_HOW)
    ] = 1000
    shadows: Annotated[
        int,
        typer.Option(
            help="Shadow models per source, for LiRA; each takes as long as the compartment took. 0 for none.",
            rich_help_panel=_HOW,
        ),
    ] = 0
    network: Annotated[
        str | None,
        typer.Option(
            help="Where copies are looked for: pixels, or efflite0, a feature network; by the size of the images.",
            rich_help_panel=_HOW,
            show_default=False,
        ),
    ] = None
    unrecorded: Annotated[
        bool,
        typer.Option(
            "--unrecorded",
            help="Draw also from a vault that cannot be written, whose ledger then says nothing of it.",
            rich_help_panel=_HOW,
        ),
    ] = False
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.", rich_help_panel=_HOW)] = 0

    def settings(self) -> AuditSettings:
        from intarsia.experiments.auditing import AuditSettings

        return AuditSettings(**vars(self))


def audit(
    vault: VaultPath,
    against: Against,
    looking: Looking,
    output: Output,
    sources: Annotated[
        list[str] | None, typer.Option(help="Sources to look at, with commas between; without it all of them.")
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            help="Checks to leave out, with commas between: integrity, duplicates, copies, membership, forgetting, "
            "privacy, protection."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="File to make for the page.")] = Path("audit.html"),
) -> None:
    """Test a vault for what leaks from it, and write one page: verdicts, intervals, and what each test cannot tell.

    Looks at stored bytes, pictures that two sources hold, copies among images that are drawn, members that can be told,
    what was forgotten, privacy budgets, and the bound of copy protection. The exit code is 1 if a check failed.

    Example: intarsia audit emoji.vault --held-out more-emoji --out emoji-audit.html
    """
    from intarsia.experiments.auditing import CHECKS, Given, Subject, audit_vault
    from intarsia.files import write_atomic
    from intarsia.vault import Vault
    from intarsia.vault.clock import utc_now

    settings, left_out = looking.settings(), frozenset(split("--skip", skip) or ())
    for name in sorted(left_out - set(CHECKS)):
        raise UnknownName("check", name, CHECKS)
    if out.exists() or not out.absolute().parent.is_dir():
        raise VaultError(f"{out} exists already, or its folder does not; name another file with --out")
    opened = Vault.open(vault)
    named = split("--sources", sources)
    for name in named or ():
        if name not in {info.name for info in opened.sources()}:
            raise UnknownName("source", name, [info.name for info in opened.sources()])
    given = Given(**against.read(opened))
    with output.progress() as bars:
        subject = Subject(opened, settings, given, named, bars.phase, bars.show)
        found = audit_vault(subject, name=opened.root.name or vault, skip=left_out)
    write_atomic(out, found.report(at=f"{utc_now():%Y-%m-%d %H:%M} UTC").html().encode())
    rows = [(name, finding.verdict, finding.said) for name, finding in found.findings.items()]
    output.answer(found.document() | {"out": str(out)}, f"The page: {out}", Table(("check", "verdict", "what"), rows))
    if not found.ok:
        raise typer.Exit(FAILED)
