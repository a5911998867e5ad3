"""`intarsia sample`: pictures from the compartments that may be used."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intarsia.beside import GRID_FILE, RECEIPT_FILE, REPORT_FILE, WEIGHTS_FILE
from intarsia.checks import check_whole
from intarsia.cli.mixing import Mixing
from intarsia.cli.output import Output, Table
from intarsia.cli.owed import finish_owed, note_left_out
from intarsia.cli.parameters import REFUSABLE, VaultPath, split
from intarsia.errors import ForbiddenError, InputError, SettingsError, counted

if TYPE_CHECKING:
    from intarsia.composition import Result
    from intarsia.vault import Composition, Vault

_WHO = "Which sources"
_MOST = 100_000  # pictures are numbered with five digits
_SMALLEST_CELL = 64  # pixels; smaller pictures are enlarged in the grid


@dataclass(frozen=True)
class Choice:
    """For whom, and which sources may be used; a source is used only if every rule that is given admits it."""

    sources: Annotated[
        list[str] | None,
        typer.Option(
            help="Sources to compose, with commas between; without it all that the rules admit.", rich_help_panel=_WHO
        ),
    ] = None
    licence: Annotated[
        list[str] | None,
        typer.Option(help="Admit only sources under this SPDX expression; may be repeated.", rich_help_panel=_WHO),
    ] = None
    owner: Annotated[
        list[str] | None, typer.Option(help="Admit only sources of this owner; may be repeated.", rich_help_panel=_WHO)
    ] = None
    exclude_share_alike: Annotated[
        bool,
        typer.Option(
            "--exclude-share-alike", help="Admit no source under a share-alike licence.", rich_help_panel=_WHO
        ),
    ] = False
    refuse: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Admit no source whose licence brings this: {REFUSABLE}; with commas between.", rich_help_panel=_WHO
        ),
    ] = None
    as_: Annotated[
        str | None,
        typer.Option("--as", help="Draw as this principal: from what was granted to it alone.", rich_help_panel=_WHO),
    ] = None
    key_file: Annotated[
        Path | None,
        typer.Option(help="File with the API key of the principal to draw as.", rich_help_panel=_WHO),
    ] = None

    def principal(self, vault: Vault) -> str | None:
        """For whom images are drawn; None for the vault's owner.

        Raises:
            ForbiddenError: the key is nobody's.
            InputError: the key's file cannot be read.
        """
        if self.key_file is None:
            return self.as_
        if self.as_ is not None:
            raise typer.BadParameter("the key says who it is; give one of the two", param_hint="--as")
        try:
            key = self.key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.key_file}: no API key can be read from it ({error})") from None
        return vault.authenticate(key)

    def rules(self) -> dict[str, Collection[str]]:
        """Those that were given, as `Vault.select` takes them."""
        refuse = (*(split("--refuse", self.refuse) or ()), *(("share-alike",) if self.exclude_share_alike else ()))
        given: dict[str, Collection[str] | None] = {"licences": self.licence, "owners": self.owner, "refuse": refuse}
        return {name: value for name, value in given.items() if value}

    def wanted(self, vault: Vault) -> Collection[str] | None:
        """The sources that may be drawn from once they are trained; None for all."""
        from intarsia.vault.selecting import Rules

        named = split("--sources", self.sources)
        if not (rules := self.rules()):
            return named
        admitted = [source.name for source in vault.sources() if Rules(**rules).objection(source) is None]
        return [name for name in admitted if named is None or name in named]

    def names(self, vault: Vault, principal: str | None, output: Output) -> tuple[str, ...] | None:
        """The sources to compose; None for all that are trained, or that the principal may use.

        Raises:
            ForbiddenError: a source that was named is not admitted, or none is; with the reason.
        """
        named = split("--sources", self.sources)
        if not (rules := self.rules()):
            return named
        selection = vault.select(**rules)
        refused = {decision.name: decision.reason for decision in selection.decisions if not decision.allowed}
        if principal is not None:
            entitled = vault.decide(principal, named).decisions
            refused |= {decision.name: decision.reason for decision in entitled if not decision.allowed}
        if named is not None:
            barred = [f"'{name}' may not be used: {refused[name]}" for name in named if name in refused]
            if barred:
                raise ForbiddenError("; ".join(barred))
            return named
        allowed = tuple(name for name in selection.names if name not in refused)
        if not allowed:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items()) or "the vault has none"
            raise ForbiddenError(f"no source may be used ({reasons})")
        for name, reason in refused.items():
            output.note(f"left out {name}: {reason}")
        return allowed


@dataclass(frozen=True)
class Drawing:
    """How images are drawn; the defaults are the library's."""

    seed: Annotated[int, typer.Option(help="Seed; image k depends on it and on k alone.")] = 0
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 50
    sampler: Annotated[str, typer.Option(help="ddpm, ddim, heun, dpmpp_2m or dpmpp_2m_sde.")] = "ddpm"
    spacing: Annotated[str, typer.Option(help="Spacing of the steps: uniform or log_snr.")] = "uniform"
    eta: Annotated[float, typer.Option(help="ddim: share of fresh noise, from 0 (none) to 1 (as ddpm).")] = 0.0
    guidance_scale: Annotated[
        float, typer.Option(help="Guidance towards labels or prompts; 1 is none, prompts take 3 to 5.")
    ] = 1.0
    batch: Annotated[int, typer.Option(help="Images drawn at once.")] = 64
    batch_invariant: Annotated[
        bool, typer.Option("--batch-invariant", help="Draw each image by itself, so that its bytes depend on no other.")
    ] = False
    analytic_start: Annotated[
        float | None,
        typer.Option(
            help="Let closed forms take the noisy steps, as far as they change an image by at most so many nats: "
            "fewer network calls.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class Motif:
    """How many images, and of what."""

    count: Annotated[int, typer.Option("--count", "-n", help="How many images.")] = 16
    label: Annotated[
        list[str] | None, typer.Option(help="Label of the images; several, by repeating it, are given in turn.")
    ] = None
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="What to draw, in words, from compartments that were trained on captions (`train --adapter text`, or "
            "any on Stable Diffusion); several, by repeating it, are given in turn."
        ),
    ] = None
    text_encoder: Annotated[
        str | None,
        typer.Option(
            help="Folder or hub id of the text encoder, if it is not where it was in training.", show_default=False
        ),
    ] = None

    prompt_weights: Annotated[
        bool,
        typer.Option(
            "--prompt-weights",
            help="Weigh sources also by how likely the prompt is under their captions; needs the router part caption.",
        ),
    ] = False

    def each(self, what: str) -> list[str] | None:
        """A `label` or `prompt` for every image, of those that were given, in turn; None if none was.

        Raises:
            SettingsError: there are more than images to draw.
        """
        given: list[str] = getattr(self, what) or []
        if len(given) > self.count:
            raise SettingsError(
                f"{counted(len(given), what)} given for {counted(self.count, 'image')}; give a --count of as many"
            )
        return list(islice(cycle(given), self.count)) or None


def sample(
    vault: VaultPath,
    choice: Choice,
    mixing: Mixing,
    drawing: Drawing,
    motif: Motif,
    output: Output,
    out: Annotated[Path, typer.Option(help="Folder to make for the images and their report.", show_default=False)],
    grid: Annotated[bool, typer.Option("--grid", help=f"Write a contact sheet too, {GRID_FILE}.")] = False,
) -> None:
    """Draw images from a composition of compartments. Nothing of a source that is left out is opened.

    Writes one PNG per image; report.json with the settings, the licences, the realised shares and the network calls;
    weights.safetensors with the weights of every step and image; and receipt.json, which proves what the vault's ledger
    says of these images (`intarsia ledger verify` checks it).

    Example: intarsia sample emoji.vault --exclude-share-alike --count 64 --out samples --grid
    """
    from intarsia.composition import SampleSettings
    from intarsia.vault import Vault
    from intarsia.vault.folders import new_folder

    count = motif.count
    check_whole("--count", count, most=_MOST)
    settings = SampleSettings(**vars(drawing))
    opened = Vault.open(vault)
    principal = choice.principal(opened)
    if principal is None:  # who was granted some sources has no business in the others
        finish_owed(opened, choice.wanted(opened), output)
    names = choice.names(opened, principal, output)
    if motif.text_encoder is not None and not motif.prompt:
        raise typer.BadParameter("it reads a prompt; give one with --prompt", param_hint="--text-encoder")
    with new_folder(out) as scratch:  # before the composition, which the ledger hears of
        composition = mixing.compose(opened, names, principal)
        with output.progress() as bars:
            result = composition.draw(
                count,
                settings,
                labels=motif.each("label"),
                prompt=motif.each("prompt"),
                text_encoder=motif.text_encoder,
                prompt_weights=motif.prompt_weights,
                on_progress=lambda done, total: bars.show("sampling", done, total),
            )
        about: dict[str, object] = {"vault": str(vault), "principal": principal}
        about |= mixing.document() | _about(composition, result) | {"prompt_weights": motif.prompt_weights}
        _write(result, about, scratch, grid=grid)
        composition.check()
    calls = f"{about['calls_per_image']:.1f} network calls per image"
    title, limits = f"{counted(count, 'image')} in {out}, {calls}", _limits(result)
    note_left_out(composition, output)
    output.answer(about | {"out": str(out)}, title, _table(composition, result), *limits)


def _table(composition: Composition, result: Result) -> Table:
    """A line per source: prior and share of a mixture, exponent and bound of protected images."""
    bounds = result.bounds
    rows = [
        (name, composition.licences.get(name, ""), f"{p:.3f}", f"{bounds[name]:.2f}" if bounds else f"{s:.3f}")
        for name, p, s in _shares(result)
    ]
    return Table(("source", "licence", *(("exponent", "k, nats") if bounds else ("prior", "share"))), rows)


def _limits(result: Result) -> list[str]:
    """What is promised of images that are protected or limited, and what it took."""
    said = []
    if (protection := result.protection) is not None:
        share = protection.report()["effective_share"]
        said.append(
            f"{protection.particles} particles per image, of which {share['mean']:.0%} counted on average and "
            f"{share['least']:.0%} at least; KL from the model of each source is at most its k, if no image is in two "
            "sources"
        )
    if (access := result.access) is not None:
        said.append(
            f"{access.acceptance:.1%} of the candidates are within {access.k:g} nats; no image is more than "
            f"exp({access.bound:.1f}) times as likely as under any one source"
        )
    return said


def _about(composition: Composition, result: Result) -> dict[str, object]:
    return result.report() | {
        "operator": composition.operator.settings(),
        "isolated": composition.isolated,
        "recorded": result.receipt is not None,
        "licences": dict(composition.licences),
        "left_out": dict(composition.left_out),
        "labels": list(result.labels),
        "prompts": list(result.prompts),
        "settings": asdict(result.settings),
    }


def _shares(result: Result) -> list[tuple[str, float, float]]:
    return list(zip(result.names, result.prior.tolist(), result.shares.tolist(), strict=True))


def _write(result: Result, about: Mapping[str, object], folder: Path, *, grid: bool) -> None:
    from intarsia.experiments.pictures import grid as contact_sheet
    from intarsia.files import save_tensors, write_json

    result.save(folder)
    save_tensors(folder / WEIGHTS_FILE, {"weights": result.weights, "times": result.times})
    write_json(folder / REPORT_FILE, about)
    if result.receipt is not None:
        write_json(folder / RECEIPT_FILE, result.receipt)
    if grid:
        count, _, side, _ = result.images.shape
        scale = max(1, -(-_SMALLEST_CELL // side))
        sheet = contact_sheet(result.images, columns=math.ceil(math.sqrt(count)), scale=scale)
        (folder / GRID_FILE).write_bytes(sheet)
