"""The emoji demo: three owners under three licences, on a backbone that saw other public sets only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from intarsia.audit import CopyReport, OwnerClassifier, copy_report, fit_owner_classifier
from intarsia.compartments import Lora, TrainSettings
from intarsia.composition import Result, SampleSettings
from intarsia.data import Source
from intarsia.data.collections.emoji import load_emoji
from intarsia.data.source import by_stem
from intarsia.experiments.demo import Stage, clearest_change, draw, train_all
from intarsia.experiments.pictures import grid, shares, weights_over_time
from intarsia.experiments.recipes import EMOJI_CORE
from intarsia.experiments.report import Number, Picture, Report, Section, Table
from intarsia.vault import Vault

BACKBONE = "uvit-tiny-32"
OWNERS = ("twemoji", "openmoji", "fluent3d")
HELD_OUT = 0.1
TRAINING = TrainSettings(adapter=Lora(rank=16), steps=600, rows=64, lr=4e-3, threads=2)
STEPS = 40
GUIDANCE = 2.0
SHOWN = (
    "face-smiling",
    "face-concerned",
    "cat-face",
    "person",
    "person-role",
    "heart",
    "hand-fingers-open",
    "animal-mammal",
    "food-fruit",
    "food-sweet",
    "transport-ground",
    "time",
    "sky & weather",
    "clothing",
    "geometric",
    "zodiac",
)
PER_METHOD = 192


def emoji_demo(stage: Stage, folder: Path) -> Report:
    """Run it on the tables in `folder`; see `demo.run_demo`."""
    with stage.phase("read the emoji, hold out concepts, open a vault on the pretrained backbone"):
        split = [source.split(HELD_OUT, group=by_stem) for source in load_emoji(folder, OWNERS, 32)]
        kept, held = [train for train, _ in split], [rest for _, rest in split]
        vault = Vault.create(stage.out / "emoji.vault", backbone=BACKBONE)
        near = sum(len(vault.add_source(source.name, source).overlaps) for source in kept)
    with stage.phase(f"train {len(OWNERS)} compartments, each on its owner's images alone"):
        train_all(stage, vault, OWNERS, TRAINING)
    labels = drawn_labels(kept, PER_METHOD)
    settings = SampleSettings(seed=stage.seed, steps=STEPS, guidance_scale=GUIDANCE, batch=64)
    with stage.phase("draw from each owner alone, from all, by naive averaging, and without share-alike"):
        alone = {name: draw(stage, vault, [name], PER_METHOD, settings, labels=labels) for name in OWNERS}
        ours = draw(stage, vault, OWNERS, PER_METHOD, settings, labels=labels)
        naive = draw(stage, vault, OWNERS, PER_METHOD, settings, labels=labels, weights="uniform", routing="full")
        allowed = vault.select(share_alike=False)
        free = draw(stage, vault, allowed.names, PER_METHOD, settings, labels=labels)
    with stage.phase("judge: whose style, and is anything a copy"):
        classifier = fit_owner_classifier(kept)
        copies = {name: copy_report(r.images, kept, _pixels(held)) for name, r in {**alone, "all three": ours}.items()}
    gone = next(decision.name for decision in allowed.decisions if not decision.allowed)
    with stage.phase(f"forget {gone}"):
        vault.forget(gone)
        clean = vault.verify().ok
    core_concepts = {sample.file_name for source in load_emoji(folder, EMOJI_CORE, 32) for sample in source.manifest}
    unseen = {sample.file_name for source in held for sample in source.manifest}
    reasons = "; ".join(f"{d.name}: {d.reason}" for d in allowed.decisions)
    sections = [
        _styles(alone, ours, naive, free, labels, reasons),
        _paths(ours),
        _judged(classifier, held, alone, ours, naive, copies),
        _copies(ours, copies["all three"], kept),
        _rest(stage, ours, gone, clean, near, len(unseen & core_concepts), len(unseen)),
    ]
    return Report(
        title="Three owners, three licences, one model",
        lead="Each compartment was trained, just now, on one owner's emoji alone. intarsia composes whichever you may use: all, one, or "
        "everything except share-alike. The same noise and the same kind of picture in each column.",
        sections=sections,
        settings=json.dumps(
            {"training": TRAINING.settings(), "sampling": str(settings), "backbone": BACKBONE}, indent=1
        ),
        sources=[f"{source.name}: {source.attribution} ({source.licence})" for source in kept],
    )


def drawn_labels(sources: Sequence[Source], count: int) -> list[str | None]:
    """The shown kinds of picture first, then kinds as frequent as they are in the sources."""
    known = Counter(sample.label for source in sources for sample in source.manifest if sample.label is not None)
    shown: list[str | None] = [label for label in SHOWN if label in known]
    names = sorted(known)
    frequencies = torch.tensor([known[name] for name in names], dtype=torch.float64)
    chosen = torch.multinomial(
        frequencies, count - len(shown), replacement=True, generator=torch.Generator().manual_seed(0)
    )
    return [*shown, *(names[k] for k in chosen.tolist())]


def _pixels(sources: Sequence[Source]) -> Tensor:
    return torch.cat([source.pixels() for source in sources])


def _row(images: Tensor) -> bytes:
    return grid(images[: len(SHOWN)], columns=len(SHOWN), scale=2, gap=4)


def _styles(
    alone: dict[str, Result], ours: Result, naive: Result, free: Result, labels: Sequence[str | None], reasons: str
) -> Section:
    kinds = ", ".join(str(label) for label in labels[: len(SHOWN)])
    return Section(
        title="",
        text=f"Left to right: {kinds}.",
        wide=True,
        pictures=[
            *(
                Picture(f"{name} alone", _row(result.images), f"Sixteen emoji in the style of {name}")
                for name, result in alone.items()
            ),
            Picture(
                "Composed of all three",
                _row(ours.images),
                "Sixteen composed emoji",
                "Each picture settles on one owner's style.",
            ),
            Picture(
                "Everything except share-alike", _row(free.images), "Sixteen emoji composed of fewer owners", reasons
            ),
            Picture(
                "Naively averaged, for comparison",
                _row(naive.images),
                "Sixteen blurred emoji",
                "",
                "styles run into each other",
                False,
            ),
        ],
    )


def _paths(ours: Result) -> Section:
    one = clearest_change(ours.weights)
    return Section(
        "Whose picture is this becoming?",
        pictures=[
            Picture(
                f"Image {one}: {ours.labels[one]}",
                grid(ours.images[one : one + 1], columns=1, scale=6),
                "One composed emoji",
            ),
            Picture(
                "Its weights",
                weights_over_time(ours.weights[:, one], ours.names, title=""),
                "Stacked areas of weights over time",
            ),
            Picture(
                "Owners' shares of all images",
                shares(ours.prior.tolist(), ours.shares.tolist(), ours.names),
                "Bars of realised shares beside the prior",
            ),
        ],
    )


def _judged(
    classifier: OwnerClassifier,
    held: Sequence[Source],
    alone: dict[str, Result],
    ours: Result,
    naive: Result,
    copies: dict[str, CopyReport],
) -> Section:
    real = classifier.confusion(held).diagonal()
    rows = []
    for place, (name, result) in enumerate(alone.items()):
        right = (classifier.predict(result.images) == place).double().mean().item()
        rows.append(
            (name, f"{right:.1%}", f"{real[place]:.1%}", f"{int(copies[name].flagged.sum())} of {len(copies[name])}")
        )
    sure = {"composed": ours, "naive": naive}
    agreed = (classifier.predict(ours.images) == ours.weights[-1].argmax(dim=1)).double().mean().item()
    confidence = {name: classifier.probabilities(r.images).amax(dim=1).mean().item() for name, r in sure.items()}
    note = (
        f"Composed pictures are taken for the owner with the largest final weight in {agreed:.1%} of the cases. The classifier's mean "
        f"confidence is {confidence['composed']:.2f} on composed pictures and {confidence['naive']:.2f} on naive averages."
    )
    columns = ("owner", "samples taken for it", "real held-out taken for it", "copies among its samples")
    return Section(
        "Whose style is it?",
        "A classifier that tells the owners apart by style was fitted to real images and tried on held-out concepts.",
        tables=[Table("Recognised as the owner's", columns, rows, note)],
    )


def _copies(ours: Result, report: CopyReport, training: Sequence[Source]) -> Section:
    known = {(source.name, id): row for source in training for row, id in enumerate(source.manifest.ids)}
    by_name = {source.name: source for source in training}
    nearest = torch.stack(
        [by_name[s].pixels()[known[s, id]] for s, id in zip(report.sources[:24], report.ids[:24], strict=True)]
    )
    pairs = torch.stack([ours.images[:24], nearest], dim=1).flatten(0, 1)
    flagged = int(report.flagged.sum())
    return Section(
        "Nothing is a copy" if flagged == 0 else f"{flagged} of {len(report)} look like copies",
        "Each drawn picture (left of a pair) beside the nearest of all training images. A picture counts as a copy when it is much "
        "nearer to one training image than to the others; the threshold flags 1 % of real held-out images.",
        pictures=[
            Picture(
                "Drawn, nearest",
                grid(pairs, columns=12, scale=2, gap=4),
                "Pairs of drawn pictures and nearest training images",
                str(report),
            )
        ],
        wide=True,
    )


def _rest(stage: Stage, ours: Result, gone: str, clean: bool, near: int, seen: int, held: int) -> Section:
    calls = ours.calls.double().mean().item()
    return Section(
        "Provenance and cost",
        f"{held} concepts (code points) were held out of every owner's images; the backbone's core set drew {seen} of them in other "
        f"styles. No picture of an owner is in the core; {near} look close to one there or to another owner's, and were reported. "
        f"Composing three with guidance took {calls:.0f} network calls per image; one plain model with guidance takes {2 * STEPS}.",
        numbers=[
            Number(
                f"{gone} forgotten",
                "vault clean" if clean else "vault damaged",
                "every digest on disk checked afterwards",
                clean,
            )
        ],
        tables=[stage.timetable()],
    )
