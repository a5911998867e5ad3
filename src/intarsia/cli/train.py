"""`intarsia train`: compartments, each from its own source alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intarsia.cli.engines import Engines
from intarsia.cli.output import Output, Table
from intarsia.cli.owed import keep_receipts, show_steps
from intarsia.cli.parameters import VaultPath, distinct, split
from intarsia.errors import SettingsError, UnknownName

if TYPE_CHECKING:
    from intarsia.compartments import Privacy, TrainSettings
    from intarsia.compartments.adapters import Kind
    from intarsia.vault import CompartmentInfo, Vault

_KIND = "Adapter"
READ_OFF = ("digest", "states")
"""What an adapter says of its text encoder, and nobody can choose."""


@dataclass(frozen=True)
class AdapterOptions:
    """What is trained; an option that the chosen kind does not have is refused."""

    adapter: Annotated[
        str, typer.Option(help="Kind: lora, prompts, parallel, text or full.", rich_help_panel=_KIND)
    ] = "lora"
    rank: Annotated[int | None, typer.Option(help="lora: rank; 16 by default.", rich_help_panel=_KIND)] = None
    scale: Annotated[
        float | None, typer.Option(help="lora: factor on the change; 1 by default.", rich_help_panel=_KIND)
    ] = None
    targets: Annotated[
        list[str] | None,
        typer.Option(
            help="lora: layers that change, with commas between. On a U-ViT attn.qkv, attn.proj, mlp.fc1, mlp.fc2 (the "
            "default), skip_linear; on Stable Diffusion to_q, to_k, to_v, to_out.0 (the default), ff.net.0.proj, "
            "ff.net.2.",
            rich_help_panel=_KIND,
        ),
    ] = None
    tokens: Annotated[
        int | None, typer.Option(help="prompts, text: tokens per layer; 64 by default.", rich_help_panel=_KIND)
    ] = None
    per_class: Annotated[
        bool, typer.Option("--per-class", help="prompts: a set of tokens for each label.", rich_help_panel=_KIND)
    ] = False
    width: Annotated[
        int | None,
        typer.Option(
            help="parallel, text: width of the network beside each layer; 64 by default.", rich_help_panel=_KIND
        ),
    ] = None
    length: Annotated[
        int | None, typer.Option(help="text: tokens of a caption that are read; 32 by default.", rich_help_panel=_KIND)
    ] = None
    gated: Annotated[
        bool | None,
        typer.Option(
            "--gated/--no-gated",
            help="text: begin as the backbone and open up to prompts and captions as far as training tells (the "
            "default), or have them among the image's tokens at once, as in the paper.",
            rich_help_panel=_KIND,
        ),
    ] = None
    encoder: Annotated[
        str | None,
        typer.Option(
            help="text: what reads the captions: minilm (the default), or the folder or hub id of a transformers text "
            "model.",
            rich_help_panel=_KIND,
        ),
    ] = None

    def kind(self) -> Kind:
        """The adapter.

        Raises:
            UnknownName: no such kind, or no such layer.
            SettingsError: an option of another kind, or a value out of range.
            MissingExtra, InputError: the text encoder cannot be had.
        """
        from intarsia.backbone import load_text_encoder
        from intarsia.compartments import ADAPTERS, text_prompts

        if self.adapter not in ADAPTERS:
            raise UnknownName("adapter kind", self.adapter, ADAPTERS)
        given: dict[str, Any] = {"rank": self.rank, "scale": self.scale, "tokens": self.tokens, "width": self.width}
        given |= {"targets": split("--targets", self.targets), "per_class": self.per_class or None}
        chosen = {name: value for name, value in given.items() if value is not None}
        chosen |= {name: value for name in ("length", "gated", "encoder") if (value := getattr(self, name)) is not None}
        known = {field.name for field in fields(ADAPTERS[self.adapter])} - set(READ_OFF)
        if strange := sorted(set(chosen) - known):
            taken = ", ".join(_flag(name) for name in sorted(known)) or "none of these"
            found = ", ".join(_flag(name) for name in strange)
            raise SettingsError(f"the adapter '{self.adapter}' has no {found}; it takes {taken}")
        if (encoder := chosen.pop("encoder", None)) is not None:
            return text_prompts(load_text_encoder(encoder), **chosen)
        return ADAPTERS[self.adapter](**chosen)


@dataclass(frozen=True)
class TrainOptions:
    """How long and how; the defaults are the library's."""

    steps: Annotated[int, typer.Option(help="Training steps of each compartment.")] = 600
    rows: Annotated[int, typer.Option(help="Images per step; on average, where training is private.")] = 64
    at_once: Annotated[
        int | None,
        typer.Option(help="Images of a step that run through the network together; fewer take less memory."),
    ] = None
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; without it the adapter kind's own, on Stable Diffusion 0.0001.")
    ] = None
    slices: Annotated[
        int, typer.Option(help="Slices in which samples join, so that forgetting one need not start afresh.")
    ] = 1
    seed: Annotated[int, typer.Option(help="Seed of every draw.")] = 0
    precision: Annotated[str, typer.Option(help="Of the matrix products: auto, bfloat16 or float32.")] = "auto"
    threads: Annotated[
        int | None, typer.Option(help="Threads, on which the bytes depend; without it as many as torch takes.")
    ] = None


_PRIVACY = "Privacy"


@dataclass(frozen=True)
class PrivacyOptions:
    """Differential privacy; see docs/privacy.md."""

    dp_epsilon: Annotated[
        float | None,
        typer.Option(help="Differential privacy of every image: what it may spend.", rich_help_panel=_PRIVACY),
    ] = None
    dp_delta: Annotated[float | None, typer.Option(help="Delta; 1e-5 by default.", rich_help_panel=_PRIVACY)] = None
    clip: Annotated[
        float | None,
        typer.Option(help="By how much an image moves a step at most; 1 by default.", rich_help_panel=_PRIVACY),
    ] = None
    dp_draws: Annotated[
        int | None,
        typer.Option(help="Times and noises per image and step, averaged; 4 by default.", rich_help_panel=_PRIVACY),
    ] = None
    dp_microbatch: Annotated[
        int | None,
        typer.Option(help="Images whose gradients are held at once; 64 by default.", rich_help_panel=_PRIVACY),
    ] = None
    dp_size: Annotated[
        int | None,
        typer.Option(help="Public number of images; by default the source's is published.", rich_help_panel=_PRIVACY),
    ] = None
    dp_total: Annotated[
        float | None,
        typer.Option(help="Budget of epsilon for all trainings; by default one training's.", rich_help_panel=_PRIVACY),
    ] = None

    def privacy(self) -> Privacy | None:
        """What is asked for.

        Raises:
            SettingsError: a value out of range, or an option without --dp-epsilon.
        """
        from intarsia.compartments import Privacy

        given = {name: value for name, value in vars(self).items() if value is not None}
        if given and self.dp_epsilon is None:
            found = ", ".join(_flag(name) for name in given)
            raise SettingsError(f"{found} without --dp-epsilon, which says how private training is to be; give it")
        values = {name.removeprefix("dp_"): value for name, value in given.items()}
        return Privacy(**values) if given else None


@dataclass(frozen=True)
class Course:
    """How a run is begun, saved and gone on with."""

    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="Sources to learn from too, with commas between; they must permit it (`intarsia source permit`).",
            metavar="SOURCE",
        ),
    ] = None
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 100
    restart: Annotated[bool, typer.Option("--restart", help="Train afresh what is trained or begun already.")] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Finish what is unfinished, with the settings it was begun with; takes no other settings."
        ),
    ] = False


def train(
    vault: VaultPath,
    adapter: AdapterOptions,
    options: TrainOptions,
    private: PrivacyOptions,
    course: Course,
    engines: Engines,
    output: Output,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Sources to train side by side; without any, all that have no compartment yet.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    routers: Annotated[
        list[str] | None,
        typer.Option(
            help="Router parts to fit: gaussian (the default), reference, prototype, and with --adapter text caption, "
            "with commas between; or none."
        ),
    ] = None,
) -> None:
    """Train the compartments of a vault. Each sees its own source, neighbours that permit it, and the public backbone.

    An interrupted run goes on from its last checkpoint and ends with the same bytes. What was trained with the same
    settings is left as it is.

    Example: intarsia train emoji.vault twemoji openmoji --adapter prompts --tokens 64 --steps 2000
    """
    from intarsia.compartments import TrainSettings

    if course.resume:
        given = (adapter, options, private) != (AdapterOptions(), TrainOptions(), PrivacyOptions())
        if given or routers or course.restart or course.with_:
            raise SettingsError("--resume goes on with the settings it was begun with; leave out all others")
        with engines.opened(vault) as opened:
            _resume(opened, list(distinct("NAME", names or ())), output, save_every=course.save_every)
        return
    settings = TrainSettings(adapter=adapter.kind(), privacy=private.privacy(), **vars(options))
    with engines.opened(vault) as opened:
        _train(
            opened, list(distinct("NAME", names or ())), settings, _parts(split("--routers", routers)), course, output
        )


def _train(
    opened: Vault, names: list[str], settings: TrainSettings, routers: Sequence[str], course: Course, output: Output
) -> None:
    before = {compartment.name: compartment.digest for compartment in opened.compartments()}
    wanted = names or _all(opened, set() if course.restart else set(before))
    steps = opened.training(
        wanted,
        settings,
        neighbours=split("--with", course.with_) or (),
        routers=routers,
        restart=course.restart,
        save_every=course.save_every,
    )
    trained = set()
    with output.progress() as bars:
        for step in steps:
            trained.add(step.name)
            bars.show(step.name, step.step, step.steps, "" if step.loss is None else f"loss {step.loss:.4f}")
    _report(
        output,
        vault=opened.place,
        infos=[info for info in opened.compartments() if info.name in wanted],
        trained=trained,
    )


def _resume(vault: Vault, names: list[str], output: Output, *, save_every: int) -> None:
    outcomes = show_steps(vault.resuming(names or None, save_every=save_every), output)
    keep_receipts(vault, outcomes, output)
    trained = {outcome.source for outcome in outcomes}
    infos = [info for info in vault.compartments() if info.name in trained]
    _report(output, vault=vault.place, infos=infos, trained=trained)


def _parts(given: Sequence[str] | None) -> Sequence[str]:
    return () if given and list(given) == ["none"] else given or ("gaussian",)


def _all(vault: Vault, trained: set[str]) -> list[str]:
    sources = [source.name for source in vault.sources() if source.signer is None]
    if not sources:
        raise SettingsError(f"{vault.place} has no sources to train; add one with `intarsia source add`")
    if wanted := [name for name in sources if name not in trained]:
        return wanted
    raise SettingsError("every source is trained already; name those to train afresh and say --restart")


def _report(output: Output, *, vault: str, infos: list[CompartmentInfo], trained: set[str]) -> None:
    what = {info.name: "trained" if info.name in trained else "left as it was" for info in infos}
    document = {"vault": vault, "compartments": [asdict(info) | {"trained": info.name in trained} for info in infos]}
    rows = [
        (i.name, what[i.name], i.adapter, i.steps, i.count, ", ".join(i.routers), privacy_of(i), i.digest[:12])
        for i in infos
    ]
    table = Table(("compartment", "what", "adapter", "steps", "images", "router parts", "privacy", "digest"), rows)
    output.answer(document, table)


def privacy_of(info: CompartmentInfo) -> str:
    """What the images of a compartment have spent, in words; nothing where it was not trained privately."""
    return "" if info.epsilon is None else f"epsilon {info.epsilon:.3g} at delta {info.delta:g}"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
