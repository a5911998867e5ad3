"""The emoji asked for in words: three owners' captions, on a backbone that never saw text.

A tenth of the concepts is held out of all owners' images, as in the emoji demo. The page asks for some of them by name,
and for things that are no emoji's name at all, in each owner's hand, in all of theirs, and without one of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from intarsia.audit import OwnerClassifier, fit_owner_classifier
from intarsia.compartments import TextPrompts, TrainSettings
from intarsia.composition import Result, SampleSettings
from intarsia.data.collections.emoji import load_emoji
from intarsia.data.source import by_stem
from intarsia.experiments.demo import Stage, train_all
from intarsia.experiments.emoji_demo import BACKBONE, HELD_OUT, OWNERS, PICTURE_FILE, Owners, of_concepts, recognised
from intarsia.experiments.pictures import contact_sheet, grid, shares
from intarsia.experiments.report import Picture, Report, Section, Table
from intarsia.files import write_atomic
from intarsia.vault import Vault

# Fewer and shorter than the paper's 64 prompts: attention over them is what a step costs on a processor.
TRAINING = TrainSettings(
    adapter=TextPrompts(tokens=16, length=12), steps=300, rows=32, lr=1.5e-2, label_dropout=0.1, threads=1
)
STEPS = 20
GUIDANCE = 5.0
IN_WORDS = (
    "red apple",
    "a red fruit",
    "panda",
    "an angry cat",
    "grinning face",
    "a happy dog",
    "crescent moon",
    "a night with stars",
    "a yellow flower",
    "a slice of pizza",
    "a boat on the sea",
    "a golden cup",
)
JUDGED = 24
ALL = "all three"


def captions_demo(stage: Stage, folder: Path) -> Report:
    """Run it on the tables in `folder`; see `demo.run_demo`."""
    with stage.phase("read the emoji and their captions, hold out concepts, open a vault"):
        owners = read_owners(folder)
        vault = Vault.create(stage.out / "emoji.vault", backbone=BACKBONE)
        for source in owners.kept:
            vault.add_source(source.name, source)
    with stage.phase(f"train {len(OWNERS)} compartments, each on its owner's pictures and captions alone"):
        train_all(stage, vault, OWNERS, _training(stage))
    return captions_page(stage, vault, owners)


def read_owners(folder: Path) -> Owners:
    """The three owners' images, with a tenth of the concepts held out."""
    split = [source.split(HELD_OUT, group=by_stem) for source in load_emoji(folder, OWNERS, 32, label="caption")]
    return Owners([train for train, _ in split], [rest for _, rest in split])


def captions_page(stage: Stage, vault: Vault, owners: Owners) -> Report:
    """What a vault with the three trained compartments draws for prompts."""
    allowed = vault.select(refuse=["share-alike"])
    left_out = next(decision for decision in allowed.decisions if not decision.allowed)
    drawn: dict[str, Result] = {}
    concepts = owners.some_unseen(JUDGED, stage.seed)
    with stage.phase("draw the same words from each owner alone, from all, and without share-alike"):
        groups: dict[str, Sequence[str]] = {name: [name] for name in OWNERS}
        groups |= {ALL: OWNERS, f"without {left_out.name}": allowed.names}
        for title, names in groups.items():
            drawn[title] = _draw(stage, vault, names, IN_WORDS, title)
    with stage.phase("draw concepts that no owner gave, by their names"):
        judged = {title: _draw(stage, vault, groups[title], concepts, title) for title in (*OWNERS, ALL)}
    with stage.phase("judge: whose style, which concept"):
        classifier = fit_owner_classifier(owners.kept)
    rows = [(title, result.images) for title, result in drawn.items()]
    write_atomic(stage.out / PICTURE_FILE, contact_sheet(rows, scale=2))
    return Report(
        title="Red apple, in three hands",
        lead="Each compartment learned, just now, from one owner's emoji and their captions alone, on a backbone that "
        "never saw text. The same words, from each owner, from all of them together, and without one.",
        sections=[
            _in_words(owners, drawn, f"{left_out.name}: {left_out.reason}"),
            _judged(owners, classifier, judged, concepts),
            _rest(stage, judged[ALL]),
        ],
        settings=json.dumps({"training": _training(stage).settings(), "sampling": asdict(_settings(stage))}, indent=1),
        sources=[f"{source.name}: {source.attribution} ({source.licence})" for source in owners.kept],
    )


def _training(stage: Stage) -> TrainSettings:
    return replace(TRAINING, seed=stage.seed)


def _settings(stage: Stage) -> SampleSettings:
    return SampleSettings(seed=stage.seed, steps=STEPS, guidance_scale=GUIDANCE)


def _draw(stage: Stage, vault: Vault, names: Sequence[str], prompts: Sequence[str], title: str) -> Result:
    return vault.compose(names).draw(
        len(prompts), _settings(stage), prompt=prompts, on_progress=lambda done, all_: stage.on_step(title, done, all_)
    )


def _in_words(owners: Owners, drawn: Mapping[str, Result], reason: str) -> Section:
    licences = {source.name: f" ({source.licence})" for source in owners.kept}
    return Section(
        title="",
        text=f"Left to right: {', '.join(IN_WORDS)}. All rows have the same seed.",
        wide=True,
        pictures=[
            Picture(
                f"{title}{licences.get(title, '')}",
                grid(result.images, columns=len(IN_WORDS), scale=2, gap=4),
                f"Emoji drawn for twelve prompts: {title}",
                reason if title.startswith("without") else "",
            )
            for title, result in drawn.items()
        ],
    )


def _judged(
    owners: Owners, classifier: OwnerClassifier, judged: Mapping[str, Result], concepts: Sequence[str]
) -> Section:
    real, rows, pictures = classifier.confusion(owners.held).diagonal(), [], []
    for place, source in enumerate(owners.held):
        images = judged[source.name].images
        styled = (classifier.predict(images) == place).double().mean().item()
        found = recognised(images, source, concepts)
        rows.append((source.name, f"{styled:.1%}", f"{real[place]:.1%}", f"{found:.1%}"))
        shown = min(12, len(concepts))
        both = torch.cat([images[:shown], of_concepts(source, concepts[:shown])])
        title, seen = f"{source.name}: asked for {', '.join(concepts[:shown])}", "Drawn above, the owner's own below"
        pictures.append(Picture(title, grid(both, columns=shown, scale=2, gap=4), seen, seen, folded=True))
    note = (
        f"{len(concepts)} of the concepts that no owner gave, at random, asked for by name. A concept is found when "
        f"the nearest of the owner's own held-out drawings of them, in pixels, is that of the concept; chance is "
        f"{1 / len(concepts):.1%}."
    )
    columns = ("owner", "style taken for the owner's", "real held-out ones", "unseen concept found")
    return Section(
        "Whose style, which concept?", tables=[Table("One compartment alone", columns, rows, note)], pictures=pictures
    )


def _rest(stage: Stage, ours: Result) -> Section:
    return Section(
        "Shares and cost",
        f"Guidance {GUIDANCE:g}: with and without the words, each composed with its own weights. "
        f"{ours.calls.double().mean().item():.0f} network calls per image from all three; one plain model takes "
        f"{2 * STEPS}.",
        pictures=[
            Picture(
                "Owners' shares of what all three drew",
                shares(ours.prior.tolist(), ours.shares.tolist(), ours.names),
                "Bars of realised shares beside the prior",
            )
        ],
        tables=[stage.timetable()],
    )
