"""What privacy costs: quality, and whether images still show what was asked for, along epsilon.

The paper's Figure 6 shows that private training draws worse images, and pays less heed to their captions. Here two
sources are trained privately and not, with the same sample-gradients. Of digits each holds other classes, and what its
compartment draws alone tells whether these are heeded; emoji are asked for by captions of concepts that nobody was
trained on. Beside it stand the backbone by itself, what is drawn without any of the images, an adapter of captions as
it begins, which reads them already, and an attack on the very trainings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from intarsia.audit import NoNoise, audit_privacy
from intarsia.compartments import Lora, Privacy, SecretNoise, TextPrompts, TrainSettings
from intarsia.compartments.secret import Noise
from intarsia.composition import Result
from intarsia.experiments.pictures import contact_sheet
from intarsia.experiments.reproduce.bench import Bench, keys_of
from intarsia.experiments.reproduce.figures import markdown, spread
from intarsia.experiments.reproduce.heed import OWN, SOURCES, Heed, heed_of
from intarsia.experiments.reproduce.plots import Curve, Panel, plot
from intarsia.experiments.reproduce.scale import EMOJI, Scale
from intarsia.experiments.reproduce.study import UNTRAINED, Study
from intarsia.experiments.reproduce.summary import distance_of, slug, text_of, write_summary
from intarsia.files import write_atomic
from intarsia.routers import GaussianSettings

EPSILONS: Mapping[str, float] = MappingProxyType({"1": 1.0, "3": 3.0, "8": 8.0})
DELTA = 1e-5
NOTHING, NEVER = "backbone alone", "infinity"
REAL, SILENT = "real", "no noise"
DRAWS, CLIP, TOGETHER = 1, 0.05, 64  # TOGETHER: images that run through the network at once
CANARIES, AUDITED = 200, 4  # images, and steps that they are trained for
ASKED = "asked.txt"
_SHOWN, _ENLARGED, _SIDE = 12, 6, 96  # images, and how much larger small ones are made, to this many pixels a side
_QUALITY, _NOISE = ("KID", "precision", "recall"), "noise"


def private(scale: Scale) -> Scale:
    """The budget of private training: few parameters, which share the noise among them.

    That of the paper stays as it is.
    """
    if scale.epochs:
        return scale
    return _of_captions(scale) if scale == EMOJI else _of_classes(scale)


def _of_classes(scale: Scale) -> Scale:
    adapter = Lora(rank=1, targets=("attn.qkv",))
    training = replace(scale.training, adapter=adapter, rows=64, lr=0.006, ema=0.95, label_dropout=0.0)
    sampling = replace(scale.sampling, steps=20)
    return replace(scale, steps=800, training=training, sampling=sampling, images=400)


# The paper's setting (supplementary), with fewer tokens: each of them is noise at first, and takes attention away.
def _of_captions(scale: Scale) -> Scale:
    adapter = TextPrompts(tokens=2, width=4, length=12, gated=False)
    training = replace(scale.training, adapter=adapter, rows=128, lr=0.003, ema=0.9, warmup=5)
    sampling = replace(scale.sampling, steps=15)
    return replace(scale, steps=120, training=training, sampling=sampling, images=400)


def privacy(study: Study) -> None:
    """Fill the table."""
    yardstick, heed = study.world.yardstick(), heed_of(study.world)
    study.bench.cell({"seed": "-", "epsilon": REAL}, lambda: {**yardstick.floor(study.scale.images), **heed.real()})
    for seed in study.scale.seeds:
        study.bench.cell({"seed": seed, "epsilon": NOTHING}, partial(_public, study, heed, seed))
        if study.world.captioned:
            study.bench.cell({"seed": seed, "epsilon": UNTRAINED}, partial(_untrained, study, heed, seed))
        for epsilon in (*EPSILONS, NEVER):
            study.bench.cell({"seed": seed, "epsilon": epsilon}, partial(_trained, study, heed, seed, epsilon))
        for epsilon in (*EPSILONS, SILENT):
            study.bench.cell({"seed": seed, "audit": epsilon}, partial(_audited, study, seed, epsilon))


def settings_of(scale: Scale, epsilon: float | None, *, seed: int) -> TrainSettings:
    """Training settings of one source at an epsilon; without, they have the same sample-gradients."""
    plain = scale.trained(1, SOURCES, seed=seed)
    if epsilon is None:
        return replace(plain, rows=plain.rows * DRAWS, at_once=TOGETHER)
    return replace(plain, privacy=Privacy(epsilon=epsilon, delta=DELTA, clip=CLIP, draws=DRAWS, microbatch=TOGETHER))


def _trained(study: Study, heed: Heed, seed: int, epsilon: str) -> Mapping[str, float]:
    settings = settings_of(study.scale, EPSILONS.get(epsilon), seed=seed)
    team = study.team(f"seed-{seed}-{epsilon}", heed.sources, settings, (GaussianSettings(),))
    result = study.draw(team, list(team.sources), "gaussian", seed)
    found = _judged(study, heed, result, lambda name: study.draw(team, [name], "ancestral", seed).images)
    _keep(study, seed, epsilon, result)
    spent = [each.training["mechanism"]["noise_multiplier"] for each in team.compartments.values() if settings.privacy]
    return {**found, **({_NOISE: sum(spent) / len(spent)} if spent else {})}


def _public(study: Study, heed: Heed, seed: int) -> Mapping[str, float]:
    """What the backbone draws by itself, asked for the captions if there are any."""
    result = study.base(seed)
    _keep(study, seed, NOTHING, result)
    return _judged(study, heed, result, lambda name: result.images)


def _untrained(study: Study, heed: Heed, seed: int) -> Mapping[str, float]:
    result = study.untrained(heed.sources[0], seed)
    _keep(study, seed, UNTRAINED, result)
    return _judged(study, heed, result, lambda name: result.images)


def _judged(study: Study, heed: Heed, result: Result, alone: Callable[[str], Tensor]) -> dict[str, float]:
    return {**study.world.yardstick().measure(result.images), **heed.drawn(result, alone)}


def _audited(study: Study, seed: int, epsilon: str) -> Mapping[str, float]:
    """An attack on training with these settings, of canaries in place of images."""
    asked = EPSILONS.get(epsilon, min(EPSILONS.values()))
    settings = replace(settings_of(study.scale, asked, seed=seed), rows=CANARIES // 2, steps=AUDITED)
    noise: Noise = SecretNoise.generate()
    noise = NoNoise(noise) if epsilon == SILENT else noise
    found = audit_privacy(study.world.backbone, settings, canaries=CANARIES, seed=seed, noise=noise)
    return {
        "claimed": found.claimed,
        "at least": found.epsilon,
        "right": found.correct / found.guesses,
        "guesses": found.guesses,
    }


def _keep(study: Study, seed: int, epsilon: str, result: Result) -> None:
    """The first images of the first seed, for the page, and what they were asked for."""
    if seed != study.scale.seeds[0]:
        return
    images, captions = result.images[:_SHOWN], [asked for asked in result.asked[:_SHOWN] if asked]
    scale = max(1, min(_ENLARGED, _SIDE // images.shape[-1]))
    sheet = contact_sheet([(f"epsilon {epsilon}", images)], scale=scale)
    write_atomic(study.bench.out / f"drawn-{slug(epsilon)}.png", sheet)
    if captions:
        write_atomic(study.bench.out / ASKED, ", ".join(captions).encode())


def report_privacy(bench: Bench, asks: str) -> Path:
    """Quality and heed along epsilon, beside what no image and all of them give; the audit; a plot and images."""
    figure = distance_of(bench)
    drawn = [row for row in bench.rows if "epsilon" in row.key]
    told = list(dict.fromkeys(name for row in drawn for name in row.figures))
    heeded = [name for name in told if name not in (figure, *_QUALITY, _NOISE)]
    shown = [name for name in (figure, *_QUALITY, *heeded, _NOISE) if name in told]
    order = [e for e in (REAL, NOTHING, UNTRAINED, *EPSILONS, NEVER) if e in keys_of(drawn, "epsilon")]
    table = []
    for epsilon in order:
        rows = bench.where(epsilon=epsilon)
        table.append([epsilon, *(text_of(rows, name) for name in shown)])
    places = [epsilon for epsilon in order if epsilon != REAL]
    plot(bench.out / "privacy.png", [_panel(bench, places, name) for name in (figure, *heeded)])
    parts = [
        asks + "\n",
        f"Every source spends epsilon at delta {DELTA:g}, its router part included; sources share no image, so that a "
        f"composition spends no more. {_MEANING[OWN in heeded]}; `{_NOISE}` is the standard deviation of a step's "
        "noise over the clip.\n",
        markdown(["epsilon", *shown], table),
        "![quality and heed along epsilon](privacy.png)\n",
        *_asked(bench),
        *(f"![drawn at {name}](drawn-{slug(name)}.png)\n" for name in places),
        *_attacked(bench),
    ]
    return write_summary(bench, "privacy", parts)


_MEANING = (
    "Points for category and subcategory are of 100, for images that pass for ones of what the caption names; real "
    "pictures show how often the judges are right",
    f"`{OWN}` is the share of the images of each source alone that are legible and show one of its classes",
)


def _asked(bench: Bench) -> list[str]:
    """The captions of the images on the page, if they were drawn for any."""
    path = bench.out / ASKED
    return [f"From left to right: {path.read_text(encoding='utf-8')}.\n"] if path.exists() else []


def _attacked(bench: Bench) -> list[str]:
    """What the attack on the training found."""
    attack = []
    for epsilon in keys_of([row for row in bench.rows if "audit" in row.key], "audit"):
        rows = bench.where(audit=epsilon)
        worst = max(row.figures["at least"] for row in rows)
        mean = (text_of(rows, name) for name in ("claimed", "at least"))
        attack.append([epsilon, *mean, f"{worst:.2f}", text_of(rows, "right")])
    return [
        "## Is it private?\n",
        f"Canaries in place of images, half of them in by a coin; an attack that watches every step guesses the coins. "
        f"`at least` is the lower end for epsilon with 95 % confidence that it proves, as a mean over the seeds, and "
        f"`worst` the largest of them; `{SILENT}` is training with the noise switched off.\n",
        markdown(["epsilon", "claimed", "at least", "worst", "guesses that are right"], attack),
    ]


def _panel(bench: Bench, places: Sequence[str], figure: str) -> Panel:
    spreads = [spread([row.figures[figure] for row in bench.where(epsilon=place)]) for place in places]
    curve = Curve(figure, range(1, len(places) + 1), spreads)
    return Panel(curves=[curve], x="epsilon", y=figure, ticks=tuple(places))
