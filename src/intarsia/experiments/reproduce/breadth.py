"""A generalist who lacks a subject, and a specialist who has nothing else: what does neither draw alone?

The paper's later version, Figure 4, adds a specialist for birds to a generalist who draws them badly. Here the
generalist is one owner of emoji without its animals and food, the specialist another owner's animals and food. Asked
for as many concepts of both kinds, which neither was trained on, each alone, both composed, the monolith and the public
backbone are judged by what they drew, kind by kind; with the prompt left out of the weights, and with it,
`p(source | x_t, t, prompt)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from intarsia.composition import Result
from intarsia.data import Sample, Source
from intarsia.diffusion import keyed_generator
from intarsia.errors import SettingsError
from intarsia.experiments.pictures import contact_sheet
from intarsia.experiments.reproduce.alignment import alignment_scale, beside
from intarsia.experiments.reproduce.bench import Bench, keys_of
from intarsia.experiments.reproduce.figures import markdown, spread
from intarsia.experiments.reproduce.jury import POINTS, REAL, Jury
from intarsia.experiments.reproduce.plots import plot_bars
from intarsia.experiments.reproduce.scale import Scale
from intarsia.experiments.reproduce.study import Study, measured
from intarsia.experiments.reproduce.summary import distance_of, slug, text_of, write_summary
from intarsia.experiments.reproduce.world import Owner, World
from intarsia.experiments.reproduce.worlds import among
from intarsia.files import write_atomic
from intarsia.routers import CaptionSettings, GaussianSettings

SUBJECT = "category"
NARROW = ("Animals & Nature", "Food & Drink")
WITHIN, BEYOND = "animals and food", "the rest"
GENERALIST, SPECIALIST = "generalist", "specialist"
COMPARED = ("gaussian", "posterior", "ancestral", "top-1", "naive")
BY_PROMPT = ("gaussian", "posterior", "ancestral")
SHARE, DIVERSITY = "specialist's share", "diversity"
_BESIDE = (DIVERSITY, "recall", "precision", "calls")
ASKED = "asked.txt"
_SHOWN, _ENLARGED = 12, 2  # concepts of each kind in a picture


# Half an hour of one core for a seed, or less, where it multiplies bfloat16. The specialist has some hundreds of
# drawings: in more steps it would know them by heart.
def breadth_scale(usual: Scale) -> Scale:
    """That of `alignment`, with the part of the weights that goes by the prompt."""
    few = replace(alignment_scale(usual), steps=800, images=320)
    return replace(few, routers=(GaussianSettings(), CaptionSettings()), methods=COMPARED)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two sources, the world that holds nothing else, and who judges there."""

    world: World
    jury: Jury

    @classmethod
    def of(cls, world: World) -> Pair:
        """The last owner without the narrow subjects and the first one's of those; all owners teach the judges.

        The concepts that both drew and that are held out of both are asked for, as many within the narrow subjects as
        beyond.

        Raises:
            SettingsError: none are held out of one of the two kinds.
        """
        special, general = world.owners[0], world.owners[-1]
        asked = _balanced(sorted({*special.held.labels} & {*general.held.labels}), world.attributes[SUBJECT])

        def held(owner: Owner) -> Source:
            return owner.held.select(lambda sample: sample.label in asked)

        def narrow(sample: Sample) -> bool:
            return world.attributes[SUBJECT][sample.label or ""] in NARROW

        pair = among(
            world.name,
            [
                Owner(general.kept.select(lambda sample: not narrow(sample), name=GENERALIST), held(general)),
                Owner(special.kept.select(narrow, name=SPECIALIST), held(special)),
            ],
            world.package,
            world.network,
        )
        return cls(replace(pair, attributes=world.attributes), Jury.of(world))

    @property
    def sources(self) -> list[Source]:
        return [owner.kept for owner in self.world.owners]

    def judge(self, result: Result) -> dict[str, float]:
        """Points and the specialist's share by kind of prompt; distances and diversity."""
        prompts = [asked or "" for asked in result.asked]
        share = _share(result)
        told = self.jury.of_drawn(result) | ({} if share is None else {SHARE: share})
        features = self.world.network.features(result.images)
        return {
            **self._by_kind(told, prompts),
            **measured(result, self.world.yardstick()),
            **self._diversity(features, prompts),
        }

    def real(self, count: int) -> dict[str, float]:
        """Held-out drawings of both: what can be won, and how much two of a concept differ; `count` make the floor."""
        prompts = [sample.label or "" for sample in self.world.reference.manifest]
        points = self._by_kind(self.jury.of_real(self.world), prompts)
        return {
            **points,
            **self.world.yardstick().floor(count),
            **self._diversity(self.world.reference_features, prompts),
        }

    def _by_kind(self, told: Mapping[str, Tensor], prompts: Sequence[str]) -> dict[str, float]:
        within = torch.tensor([self.world.attributes[SUBJECT][prompt] in NARROW for prompt in prompts])
        kinds = {f", {WITHIN}": within, f", {BEYOND}": ~within, "": torch.ones_like(within)}
        asked = {kind: of for kind, of in kinds.items() if of.any()}
        return {f"{name}{kind}": each[of].mean().item() for name, each in told.items() for kind, of in asked.items()}

    def _diversity(self, features: Tensor, prompts: Sequence[str]) -> dict[str, float]:
        """Nothing where no prompt was drawn twice."""
        if len(set(prompts)) == len(prompts):
            return {}
        return {DIVERSITY: spread_within(features, prompts) / spread_within(self.world.reference_features)}


def _balanced(concepts: Sequence[str], subjects: Mapping[str, str]) -> frozenset[str]:
    """As many concepts within the narrow subjects as beyond."""
    within = [concept for concept in concepts if subjects[concept] in NARROW]
    beyond = [concept for concept in concepts if subjects[concept] not in NARROW]
    if not within or not beyond:
        raise SettingsError(
            f"{len(within)} held-out concepts are of {WITHIN} and {len(beyond)} of {BEYOND}, expected some of both; "
            "make the emoji of all owners with intarsia data emoji"
        )
    count = min(len(within), len(beyond))
    chosen = (keyed_generator("breadth", len(some)).permutation(len(some))[:count] for some in (within, beyond))
    return frozenset(some[k] for some, places in zip((within, beyond), chosen, strict=True) for k in places)


def spread_within(features: Tensor, groups: Sequence[str] | None = None) -> float:
    """The mean distance between two rows of features (N, d); with groups (N,), between two of one group."""
    distances = torch.cdist(features.double(), features.double())
    pairs = torch.ones_like(distances, dtype=torch.bool)
    if groups is not None:
        places = {group: place for place, group in enumerate(groups)}
        own = torch.tensor([places[group] for group in groups])
        pairs = own[:, None] == own
    return distances[pairs.fill_diagonal_(False)].mean().item()


def _share(result: Result) -> Tensor | None:
    """The specialist's weight at the last step, for every image (N,), where both take part."""
    names = list(result.names)
    return result.weights[-1][:, names.index(SPECIALIST)] if len(names) > 1 else None


def breadth(study: Study) -> None:
    """Fill the table."""
    pair = Pair.of(study.world)
    study = replace(study, world=pair.world)
    study.bench.cell({"seed": "-", "method": REAL}, partial(pair.real, study.scale.images))
    for seed in study.scale.seeds:
        for title, draw in _draws(study, pair, seed).items():
            study.bench.cell({"seed": seed, "method": title}, partial(_judged, study, pair, draw, seed, title))


def _draws(study: Study, pair: Pair, seed: int) -> dict[str, Callable[[], Result]]:
    """Who draws, by the names in tables; nothing is trained before it is needed."""
    names = [source.name for source in pair.sources]

    def by(method: str, *some: str, by_prompt: bool = False) -> Result:
        settings = study.scale.trained(1, len(names), seed=seed)
        team = study.team(f"seed-{seed}", pair.sources, settings, study.scale.routers)
        return study.draw(team, some or names, method, seed, by_prompt=by_prompt)

    return {
        **beside(study, pair.sources[0], seed),
        **{f"{name} alone": partial(by, "ancestral", name) for name in names},
        **{method: partial(by, method) for method in COMPARED},
        **{f"{method} by prompt": partial(by, method, by_prompt=True) for method in BY_PROMPT},
    }


def _judged(study: Study, pair: Pair, draw: Callable[[], Result], seed: int, title: str) -> Mapping[str, float]:
    result = draw()
    if seed == study.scale.seeds[0]:
        _show(study.bench.out, pair, result, title)
    return pair.judge(result)


def _show(out: Path, pair: Pair, result: Result, title: str) -> None:
    """The first drawings of a few concepts of each kind, the same for every method, and what they are."""
    first: dict[str, int] = {}
    for row, asked in enumerate(result.asked):
        first.setdefault(asked or "", row)
    kinds: dict[str, list[str]] = {WITHIN: [], BEYOND: []}
    for prompt in sorted(first):
        kinds[WITHIN if pair.world.attributes[SUBJECT][prompt] in NARROW else BEYOND].append(prompt)
    chosen = {kind: some[:_SHOWN] for kind, some in kinds.items() if some}
    rows = [(kind, result.images[[first[prompt] for prompt in some]]) for kind, some in chosen.items()]
    write_atomic(out / f"drawn-{slug(title)}.png", contact_sheet(rows, scale=_ENLARGED))
    write_atomic(out / ASKED, "".join(f"{', '.join(some)}\n" for some in chosen.values()).encode())


def report_breadth(bench: Bench, asks: str) -> Path:
    """Points and shares by kind of prompt, and diversity; bars of what was right; what was drawn."""
    distance, methods = distance_of(bench), keys_of(bench.rows, "method")
    told, one = bench.where(method=REAL)[0].figures, f", {WITHIN}"
    judges = [name.removesuffix(one) for name in told if name.endswith(one)]
    points = [f"{name}{kind}" for name in judges for kind in ("", one, f", {BEYOND}")]
    shown = (*points, f"{SHARE}{one}", f"{SHARE}, {BEYOND}", *_BESIDE, distance)
    lines = [[method, *(text_of(bench.where(method=method), figure) for figure in shown)] for method in methods]
    for kind in (WITHIN, BEYOND):
        figure = f"{judges[0]}, {kind}"
        told_of = {
            method: [row.figures[figure] for row in bench.where(method=method) if figure in row.figures]
            for method in methods
        }
        bars = {method: spread(values) for method, values in told_of.items() if values}
        plot_bars(bench.out / f"{slug(kind)}.png", list(bars), list(bars.values()), x=f"{figure} right, of 100")
    drawn = [
        f"### {method}\n\n![drawn by {method}](drawn-{slug(method)}.png)\n" for method in methods if method != REAL
    ]
    parts = [
        asks + "\n",
        markdown(["method", *shown], lines),
        POINTS + "\n",
        f"`{GENERALIST}`: one owner without its {WITHIN}; `{SPECIALIST}`: another owner's {WITHIN}, and nothing else. "
        f"`{SHARE}`: the mean of its weights at the last step; its prior is its share of the training images. "
        f"`{DIVERSITY}`: the mean distance between two drawings of one prompt, where that between two real drawings of "
        "anything is 1. Recall, precision and distances are to held-out drawings of both owners; in the line of real "
        "drawings, those of the training images.\n",
        *(f"![{judges[0]} right for {kind}]({slug(kind)}.png)\n" for kind in (WITHIN, BEYOND)),
        "## Drawn\n",
        *_asked(bench),
        *drawn,
    ]
    return write_summary(bench, "breadth", parts)


def _asked(bench: Bench) -> list[str]:
    """What the rows of the pictures were drawn for, if that is still there."""
    path = bench.out / ASKED
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return ["From left to right, in the first row and in the second:\n", *(f"- {line}" for line in lines), ""]
