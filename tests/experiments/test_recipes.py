"""Every recipe from end to end, with a few steps and images: what is asked of a table, not how good its figures are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from intarsia.audit.features import Images, as_drawn
from intarsia.backbone import Backbone, Prompt, UViT, UViTConfig, load_text_encoder
from intarsia.compartments import Compartment, DeepPrompts, Lora, TextPrompts, TrainSettings, text_prompts
from intarsia.composition import SampleSettings
from intarsia.credit import FlowSettings
from intarsia.data import Manifest, Source, encode_png
from intarsia.diffusion import Cosine, keyed_normal
from intarsia.errors import CorruptError, InputError, SettingsError
from intarsia.experiments.reproduce import Inputs, breadth, prompts, reproduce
from intarsia.experiments.reproduce.bench import Bench, Row, keys_of
from intarsia.experiments.reproduce.breadth import NARROW
from intarsia.experiments.reproduce.caption_splits import by_subject
from intarsia.experiments.reproduce.credited import METHODS as CREDITED
from intarsia.experiments.reproduce.credited import Flows
from intarsia.experiments.reproduce.credits import domains_of as credit_domains
from intarsia.experiments.reproduce.curves import ANCESTRAL, COMPOSED, REAL, RETRAINED, arrivals, report_curves
from intarsia.experiments.reproduce.domains import domains_of, settling
from intarsia.experiments.reproduce.forgetting import expected
from intarsia.experiments.reproduce.heed import heed_of
from intarsia.experiments.reproduce.jury import REAL as REAL_DRAWINGS
from intarsia.experiments.reproduce.life import ANEW, REMADE, VAULT
from intarsia.experiments.reproduce.life import arrivals as arrivals_of_life
from intarsia.experiments.reproduce.limit import thin
from intarsia.experiments.reproduce.memorization import EACH, TIMES
from intarsia.experiments.reproduce.privacy import private
from intarsia.experiments.reproduce.protection import CP_K
from intarsia.experiments.reproduce.rules import MIXTURE, MONOLITH, NAIVE, PARTICLES, PROTECTED, SINGLE
from intarsia.experiments.reproduce.run import fill
from intarsia.experiments.reproduce.scale import DIGITS, EMOJI, PAPER, Scale
from intarsia.experiments.reproduce.start import NATS
from intarsia.experiments.reproduce.study import BASE, UNTRAINED, Study
from intarsia.experiments.reproduce.study import MONOLITH as MONOLITH_X1
from intarsia.experiments.reproduce.summary import paired
from intarsia.experiments.reproduce.target import DRAWN
from intarsia.experiments.reproduce.world import Owner, World, by_class
from intarsia.experiments.reproduce.worlds import among, emoji_world, folder_world
from intarsia.files import read_json
from intarsia.routers import CaptionSettings, GaussianSettings, HeadSettings, PrototypeSettings
from intarsia.vault import write_package

QUICK = Scale(
    steps=16,
    training=TrainSettings(adapter=Lora(rank=1), steps=16, rows=4, precision="float32"),
    sampling=SampleSettings(steps=2, batch=64),
    images=12,
    routers=(GaussianSettings(), PrototypeSettings(prototypes=2)),
    methods=("gaussian", "naive"),
    seeds=(0,),
)
LABELS = tuple(f"label {k}" for k in range(8))
BESIDE = [BASE, UNTRAINED, MONOLITH_X1]


def nobody(*_: object) -> None:
    """Is told of progress and does nothing."""


@dataclass(frozen=True)
class Blurred:
    """A feature network: the picture at a quarter of its size."""

    name: str = "blurred"
    digest: str = "blurred"
    image_size: int = 2

    def features(self, images: Images) -> Tensor:
        return F.adaptive_avg_pool2d(as_drawn(images), self.image_size).flatten(1)


def bars(name: str, count: int, seed: int, *, labels: Sequence[str] = LABELS) -> Source:
    """Grey images of 8 px: a bar whose place is the label, in noise."""
    images = np.random.default_rng(seed).integers(0, 60, (count, 8, 8, 1), dtype=np.uint8)
    given = [labels[k % len(labels)] for k in range(count)]
    for image, label in zip(images, given, strict=True):
        image[LABELS.index(label)] += 150
    names = [f"{k}.png" for k in range(count)]
    return Source.build(name, owner="Ada", licence="MIT", images=images, file_names=names, labels=given)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny backbone that takes the labels, with random parameters."""
    network = UViT(UViTConfig(image_size=8, channels=1, patch_size=2, dim=16, depth=3, heads=2, num_classes=9))
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(0.3 * keyed_normal(p.shape, "tiny", name) + float("norm" in name and p.ndim == 1))
    folder = tmp_path_factory.mktemp("packages") / "tiny"
    folder.mkdir()
    write_package(folder, Backbone(network, Cosine(), labels=LABELS), bars("core", 80, 7))
    return folder


@pytest.fixture(scope="module")
def world(package: Path) -> World:
    return World("bars", package, bars("all", 64, 0), bars("reference", 120, 1), Blurred())


@pytest.fixture(scope="module")
def owned(package: Path) -> World:
    """Two owners; the last two labels are held out of both."""
    owners = [
        Owner(bars(name, 36, seed, labels=LABELS[:6]), bars(f"{name}-held", 60, seed + 1, labels=LABELS[6:]))
        for name, seed in (("fluent3d", 10), ("fluentflat", 20))
    ]
    return among("bars", owners, package, Blurred())


def run(name: str, out: Path, world: World, scale: Scale = QUICK) -> tuple[Bench, str]:
    """Fill a table, then go on with it, which must compute nothing; the bench and the page."""
    page = fill(name, out, world, scale, nobody, nobody)
    before = (out / "results.csv").read_bytes(), page.read_bytes()

    def none(text: str, *_: object) -> None:
        pytest.fail(f"computed again: {text}")

    assert fill(name, out, world, scale, none, none) == page
    assert ((out / "results.csv").read_bytes(), page.read_bytes()) == before
    return Bench(out, read_json(out / "settings.json"), nobody, nobody), page.read_text(encoding="utf-8")


def test_shares_lack_images_or_steps_or_both(tmp_path: Path, world: World) -> None:
    bench, page = run("shares", tmp_path, world)
    assert page.count(" of the images, ") == 4
    assert (tmp_path / "shares.png").stat().st_size > 5_000
    trained = [Compartment.load(place / "all") for place in (tmp_path / "work/compartments").iterdir()]
    assert {(each.count, each.training["settings"]["steps"]) for each in trained} == {
        (images, steps) for images in (64, 8) for steps in (QUICK.steps, QUICK.steps // 8)
    }
    assert len(bench.where(seed=0)) == len(trained) == 4


@pytest.mark.integration
def test_curves_keep_labels_and_budgets_in_step(tmp_path: Path, world: World) -> None:
    bench, page = run("curves", tmp_path, world)
    assert [len(bench.where(sources=count)) for count in range(1, 9)] == [4] * 8
    assert "## At most 1 % worse by forgetting?" in page
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    part = Compartment.load(tmp_path / "work/compartments/seed-0-sources/class-0").training["settings"]["steps"]
    for count in (1, 3, 8):
        anew = Compartment.load(tmp_path / f"work/compartments/seed-0-retrained-{count}/all")
        assert anew.training["settings"]["steps"] == count * part
        assert sorted(anew.classes) == [f"label {place}" for place in sorted(arrivals(0)[:count])]


def test_a_composition_does_not_know_in_which_order_its_sources_came(tmp_path: Path, world: World) -> None:
    sources = by_class(world.images, 8)[:3]
    results = []
    for name, order in (("up", [0, 1, 2]), ("down", [2, 0, 1])):
        study = Study(Bench(tmp_path / name, {}, nobody, nobody), world, QUICK)
        team = study.team("team", [sources[k] for k in order], QUICK.trained(1, 8, seed=0), ["gaussian"])
        results.append((study.draw(team, [source.name for source in sources], "gaussian", 0), team))
    (up, first), (down, second) = results
    assert torch.equal(up.images, down.images)
    assert all(first.compartments[s.name].digest == second.compartments[s.name].digest for s in sources)


def test_the_claim_is_judged_by_the_interval(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {}, nobody, nobody)
    for count, factors in {
        1: (1.0, 1.0, 1.0),
        6: (1.0, 1.001, 1.002),
        7: (1.05, 1.051, 1.052),
        8: (0.9, 1.0, 1.2),
    }.items():
        for seed, factor in enumerate(factors):
            for method, value in {COMPOSED: 2 * factor, RETRAINED: 2.0, ANCESTRAL: 2.0, REAL: 1.0}.items():
                bench.cell({"seed": seed, "sources": count, "method": method}, lambda value=value: {"FD-x": value})
    page = report_curves(bench, "?").read_text(encoding="utf-8")
    assert "Against the retrained monolith: it holds with 6 left; it fails with 7 left." in page
    assert "Against the composition before: it holds with 6 left; it is open with 7 left." in page


@pytest.mark.integration
def test_limit_ends_with_one_call_to_the_nearest(tmp_path: Path, world: World) -> None:
    bench, page = run("limit", tmp_path, world)
    once = ("posterior", "ancestral")
    assert {(row.key["sources"], row.key["method"]) for row in bench.rows} == {
        ("0", "real"),
        *((count, method) for count in ("8", "32") for method in ("gaussian", "prototype", "sticky", "ito", *once)),
        *(("64", method) for method in ("nearest", "top-1", *once)),
    }
    alone = {row.key["method"]: row.figures for row in bench.where(sources=64)}
    assert {figures["calls"] for figures in alone.values()} == {QUICK.sampling.steps}
    assert {method for method, figures in alone.items() if "router / call" in figures} == {*alone} - {"ancestral"}
    nearest = alone["nearest"]
    assert nearest["router / call"] > 0
    assert 0 <= nearest["copies"] <= 1
    assert nearest["bytes"] < bench.where(sources=8, method="gaussian")[0].figures["bytes"]
    assert "ratio to gaussian, 8 sources" in page


@pytest.mark.parametrize("count", [1, 8, 32, 128, 877])
def test_smaller_sources_share_the_same_sample_gradients(count: int) -> None:
    budget, settings = DIGITS.steps * DIGITS.training.rows, thin(DIGITS, count, seed=3)
    assert budget * 0.99 <= count * settings.steps * settings.rows <= budget
    assert settings.warmup <= settings.steps / 5
    assert settings.seed == 3


@pytest.mark.integration
def test_domains_keep_the_weights_over_time(tmp_path: Path, world: World) -> None:
    bench, _ = run("domains", tmp_path, world)
    assert [(row.key["domain"], row.key["method"]) for row in bench.rows] == [
        (domain, method) for domain in ("by class", "at random") for method in ("gaussian", "naive", "ancestral")
    ]
    for name in ("by-class", "at-random"):
        lines = (tmp_path / f"weights-{name}-seed-0.csv").read_text().splitlines()[1:]
        times, *ranks = zip(*(map(float, line.split(",")) for line in lines), strict=True)
        assert list(times) == sorted(times, reverse=True)
        assert np.allclose(np.sum(ranks, axis=0), 1)
        assert all(np.all(np.diff(line) <= 0) for line in np.transpose(ranks))
    (tmp_path / "weights-by-class-seed-0.csv").unlink()
    with pytest.raises(CorruptError, match=r"take the lines of this domain and seed out of results\.csv"):
        fill("domains", tmp_path, world, QUICK, nobody, nobody)


@pytest.mark.integration
def test_credit_is_held_against_a_model_of_every_subset(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Flows(FlowSettings(steps=1, probes=1), repeats=1)
    for name, fewer in (("credits.FLOWS", small), ("credited.REPEATS", 1), ("retrained.NOISES", 1)):
        monkeypatch.setattr(f"intarsia.experiments.reproduce.{name}", fewer)
    bench, page = run("credit", tmp_path, world, replace(QUICK, steps=2, images=3))
    for domain in ("by class", "at random"):
        methods = [row.key["method"] for row in bench.where(domain=domain) if "method" in row.key]
        assert methods == [*CREDITED, "composition"]
        owed = [row.figures for row in bench.where(domain=domain) if "source" in row.key]
        for share in ("path", "responsibility"):
            assert sum(each[share] for each in owed) == pytest.approx(1)
        folder = tmp_path / f"work/compartments/seed-0-{domain.replace(' ', '-')}-retrained"
        assert len(list(folder.iterdir())) == 15
        everyone = Compartment.load(folder / "subset-0-1-2-3")
        assert everyone.count == len(world.images)
        assert everyone.training["settings"]["steps"] == 2
    assert page.count("## Sources") == 2
    assert (tmp_path / "by-class.png").stat().st_size > 5_000


def test_settling_is_the_first_passing_of_nine_tenths() -> None:
    largest = torch.tensor([[0.5, 0.5, 0.5], [0.95, 0.5, 0.5], [0.6, 0.92, 0.6], [0.99, 0.99, 0.7]])
    weights, times = torch.stack([largest, 1 - largest], dim=2), torch.tensor([1.0, 0.7, 0.4, 0.1])
    found = settling(weights, times)
    assert found["settled at t"] == pytest.approx((0.7 + 0.4) / 2)
    assert found["never settled"] == pytest.approx(1 / 3)
    assert settling(weights[:1], times[:1]) == {"never settled": 1.0}


@pytest.fixture(scope="module")
def worded(owned: World, tiny_text: Path) -> tuple[World, Scale]:
    """The same two owners with captions, every other of which is of an animal, and a scale that reads them."""
    world = captioned(owned)
    kinds = {label: "Objects" if place % 2 else NARROW[0] for place, label in enumerate(LABELS)}
    world = replace(world, attributes={**world.attributes, "category": kinds})
    adapter = text_prompts(load_text_encoder(str(tiny_text)), tokens=2, width=2, length=12)
    sampling = replace(QUICK.sampling, guidance_scale=1.5)
    return world, replace(QUICK, training=replace(QUICK.training, adapter=adapter), sampling=sampling)


def test_alignment_asks_every_owner_and_every_rule_in_words(tmp_path: Path, worded: tuple[World, Scale]) -> None:
    world, scale = worded
    bench, page = run("alignment", tmp_path, world, scale)
    singles = ["fluent3d alone", "fluentflat alone"]
    assert keys_of(bench.rows, "method") == [REAL_DRAWINGS, *BESIDE, *singles, "gaussian", "naive"]
    assert all(0 <= row.figures["half"] <= 100 for row in bench.rows)
    assert bench.where(method=REAL_DRAWINGS)[0].figures["half"] > 60, "the judge can tell upper from lower bars"
    assert "error left out" in page
    assert "](half.png)" in page
    assert (tmp_path / "half.png").stat().st_size > 5_000
    untrained, trained = (bench.where(method=name)[0].figures for name in (UNTRAINED, MONOLITH_X1))
    assert untrained["FD-blurred"] != trained["FD-blurred"]
    sources = [owner.kept for owner in world.owners]
    team = Study(bench, world, scale).team("seed-0-owners", sources, scale.trained(1, 2, seed=0), ())
    asked = team.asked(["fluent3d"], ["label 6", None, "label 6"])
    assert asked is not None
    assert [isinstance(each, Prompt) and each.text for each in asked] == ["label 6", False, "label 6"]


@pytest.mark.integration
def test_a_specialist_beside_a_generalist_is_asked_for_both_kinds(tmp_path: Path, worded: tuple[World, Scale]) -> None:
    world, scale = worded
    bench, page = run("breadth", tmp_path, world, replace(scale, routers=(GaussianSettings(), CaptionSettings())))
    rows = {row.key["method"]: row.figures for row in bench.rows}
    prompted = [f"{method} by prompt" for method in breadth.BY_PROMPT]
    alone = ["generalist alone", "specialist alone"]
    assert list(rows) == [REAL_DRAWINGS, *BESIDE, *alone, *breadth.COMPARED, *prompted]
    trained = {
        name: Compartment.load(tmp_path / f"work/compartments/seed-0/{name}") for name in ("generalist", "specialist")
    }
    assert {name: sorted(each.classes) for name, each in trained.items()} == {
        "generalist": ["label 1", "label 3", "label 5"],
        "specialist": ["label 0", "label 2", "label 4"],
    }
    share = f"{breadth.SHARE}, {breadth.WITHIN}"
    assert rows["gaussian by prompt"][share] != rows["gaussian"][share]
    assert rows["naive"][share] == pytest.approx(0.5)
    assert share not in rows["specialist alone"]
    assert all(
        0 <= row[f"category, {kind}"] <= 100 for row in rows.values() for kind in (breadth.WITHIN, breadth.BEYOND)
    )
    both = [rows["naive"][f"half, {kind}"] for kind in (breadth.WITHIN, breadth.BEYOND)]
    assert min(both) <= rows["naive"]["half"] <= max(both)
    assert "- label 6\n- label 7\n" in page
    for picture in ("drawn-gaussian-by-prompt", "animals-and-food", "the-rest"):
        assert f"]({picture}.png)" in page
        assert (tmp_path / f"{picture}.png").stat().st_size > 500


def test_a_specialist_needs_held_out_concepts_of_both_kinds(worded: tuple[World, Scale]) -> None:
    world, _ = worded
    things = replace(world, attributes={"category": dict.fromkeys(LABELS, "Objects")})
    with pytest.raises(SettingsError, match="0 held-out concepts are of animals and food and 2 of the rest"):
        breadth.Pair.of(things)


def test_breadth_of_prompts_of_one_kind_leaves_the_other_out(tmp_path: Path, worded: tuple[World, Scale]) -> None:
    """Few images may all be asked for one kind of thing."""
    world, scale = worded
    pair = breadth.Pair.of(world)
    animals = replace(pair.world, reference=pair.world.reference.select(lambda sample: sample.label == "label 6"))
    study = Study(Bench(tmp_path, {"recipe": "breadth"}, nobody, nobody), animals, scale)
    drawn = study.base(0)
    assert set(drawn.asked) == {"label 6"}
    breadth._show(tmp_path, pair, drawn, "backbone")
    assert (tmp_path / "asked.txt").read_text() == "label 6\n"
    figures = pair.judge(drawn)
    assert f"half, {breadth.WITHIN}" in figures
    assert f"half, {breadth.BEYOND}" not in figures


def test_a_floor_is_that_of_sets_as_large_as_those_beside_it(world: World) -> None:
    whole, few, again = (world.yardstick().floor(count)["FD-blurred"] for count in (1000, 16, 16))
    assert whole < few == again


def test_of_a_distance_of_nothing_there_is_no_ratio() -> None:
    mine, base = (
        [Row({"seed": str(seed)}, {"FD": each}) for seed, each in enumerate(some)] for some in ([0, 2], [1, 1])
    )
    found = paired(mine, base, "FD")
    assert found is not None
    assert (found.mean, found.count) == (2, 1)
    assert paired(mine[:1], base[:1], "FD") is None


def test_two_drawings_of_one_prompt_tell_how_diverse_they_are() -> None:
    features = torch.tensor([[0.0], [1.0], [10.0]])
    assert breadth.spread_within(features, ["a", "a", "b"]) == 1
    assert breadth.spread_within(features) == pytest.approx((1 + 10 + 9) / 3)


@pytest.mark.integration
def test_captions_are_shared_out_by_subject_and_at_random(tmp_path: Path, worded: tuple[World, Scale]) -> None:
    world, scale = worded
    methods = ("gaussian", "naive")
    bench, page = run("caption-splits", tmp_path, world, replace(scale, methods=methods, counts=(2,)))
    assert keys_of(bench.rows, "method") == [REAL_DRAWINGS, MONOLITH_X1, *methods]
    for split in ("subject", "random"):
        assert [row.key["method"] for row in bench.where(split=split, sources=2)] == list(methods)
        assert (tmp_path / f"{split}.png").stat().st_size > 5_000
    assert "| method | FD-blurred | ratio to the monolith | half | category | precision |" in page
    sources = by_subject(world.images, world.attributes["category"], 2)
    assert [set(source.labels) for source in sources] == [{*LABELS[0:6:2]}, {*LABELS[1:6:2]}]
    with pytest.raises(InputError, match="2 subjects cannot be shared out evenly among 3 sources"):
        by_subject(world.images, world.attributes["category"], 3)


def test_prompts_are_told_apart_by_subject_and_not_by_owners_who_say_the_same(
    tmp_path: Path, owned: World, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "load_text_encoder", lambda _: load_text_encoder(str(tiny_text)))
    words = ("red", "rede", "reder", "zzz", "zzzz", "zy", "redd", "zyz")
    texts = dict(zip(LABELS, words, strict=True))
    told = [Owner(said(owner.kept, texts), said(owner.held, texts)) for owner in owned.owners]
    subjects = {name: "reds" if name.startswith("r") else "zs" for name in (*words,)}
    subjects |= {label: subjects[text] for label, text in texts.items()}
    world = replace(among("bars", told, owned.package, Blurred()), attributes={"category": subjects})
    bench, _ = run("prompts", tmp_path, world)
    best = {
        split: min(row.figures["nats"] for row in bench.where(split=split)) for split in keys_of(bench.rows, "split")
    }
    (by_prior,) = bench.where(split="by subject", method=prompts.PRIOR)
    assert best["by subject"] < by_prior.figures["nats"]
    owners = [row.figures["nats"] for row in bench.where(split="by owner")]
    assert max(owners) - min(owners) < 0.05, "who says the same is not told apart, and nothing is claimed"


def said(source: Source, texts: Mapping[str, str] | None = None) -> Source:
    """The source with captions: its labels, or what stands for them."""
    samples = (replace(s, text=texts[s.label or ""] if texts else s.label) for s in source.manifest)
    return replace(source, manifest=Manifest(tuple(samples)))


def test_domains_of_owners_are_styles_halves_and_renderings(owned: World) -> None:
    two, halves, near = domains_of(owned, seed=0)
    assert [source.name for source in near.sources] == ["fluent3d", "fluentflat"]
    assert [source.manifest for source in two.sources] == [owner.kept.manifest for owner in owned.owners]
    first, second = (set(source.manifest.ids) for source in halves.sources)
    assert not first & second
    assert first | second == set(owned.owners[-1].kept.manifest.ids)
    assert set(halves.world.reference.manifest.ids) == set(owned.owners[-1].held.manifest.ids)


def test_owners_draw_what_none_of_them_was_trained_on(tmp_path: Path, owned: World) -> None:
    methods = tuple(name for name in EMOJI.methods if not name.startswith("joint"))  # which take long to fit
    guided = replace(QUICK, sampling=replace(QUICK.sampling, guidance_scale=2.0), methods=methods)
    guided = replace(guided, routers=(*QUICK.routers, HeadSettings(steps=2)))
    bench, _ = run("owners", tmp_path, owned, guided)
    single = {"real", "monolith x1", "monolith x2", "best single"}
    assert {row.key["method"] for row in bench.rows} == single | set(methods)
    asked = owned.asked(QUICK.images, LABELS)
    assert asked is not None
    assert set(asked) == set(LABELS[6:])
    assert not set(asked) & set(owned.images.labels)
    # Two calls a step: one for the label, one without.
    assert bench.where(method="monolith x1")[0].figures["calls"] == 2 * QUICK.sampling.steps
    sizes = [
        sum(p.numel() for p in Compartment.load(tmp_path / f"work/compartments/seed-0-all-x{k}/all").params.values())
        for k in (1, 2)
    ]
    assert sizes[1] == 2 * sizes[0]


@pytest.mark.integration
def test_start_saves_calls_within_its_budget(tmp_path: Path, world: World, owned: World) -> None:
    bench, page = run("start", tmp_path / "digits", world)
    for domain in ("by class", "at random"):
        rows = [bench.where(domain=domain, method="gaussian", nats=nats)[0].figures for nats in NATS]
        assert "networks below t" not in rows[0]
        below = [row["networks below t"] for row in rows[1:]]
        assert below == sorted(below, reverse=True)
        assert rows[-1]["calls"] <= rows[0]["calls"]
        assert bench.where(domain=domain, method="ancestral")[0].figures["calls"] == QUICK.sampling.steps
    assert (tmp_path / "digits/by-class.png").stat().st_size > 10_000
    assert "## Sources at random" in page
    bench, _ = run("start", tmp_path / "owners", owned)
    assert {row.key["domain"] for row in bench.rows} == {"owners"}


@pytest.mark.integration
def test_paper_scale_runs_on_a_folder_of_classes(tmp_path: Path, package: Path) -> None:
    birds = bars("birds", 80, 5)
    for sample, image in zip(birds.manifest, birds.images, strict=True):
        place = tmp_path / "birds" / str(sample.label)
        place.mkdir(parents=True, exist_ok=True)
        (place / sample.file_name).write_bytes(encode_png(np.kron(image, np.ones((2, 2, 1), dtype=np.uint8))))

    def tiny(scale: Scale) -> Scale:
        assert isinstance(scale.training.adapter, DeepPrompts)
        training = replace(scale.training, adapter=DeepPrompts(tokens=2), rows=4, lr=0.01)
        return replace(QUICK, training=training, methods=("gaussian",), routers=(GaussianSettings(),))

    inputs = Inputs(data=tmp_path / "birds", backbone=str(package))
    page = reproduce(
        "domains", tmp_path / "out", scale="paper", inputs=inputs, seeds=1, budget=tiny, on_phase=nobody, on_step=nobody
    )
    assert "FD-EffLite0" in page.read_text(encoding="utf-8")
    said = read_json(tmp_path / "out" / "settings.json")
    assert said["training"]["adapter"]["kind"] == "prompts"
    for place in (tmp_path, package.parent):
        assert str(place) not in (tmp_path / "out" / "settings.json").read_text()


def test_folders_that_make_no_table_are_refused(tmp_path: Path, package: Path) -> None:
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(encode_png(bars("loose", 3, 6).images[k]))
    with pytest.raises(InputError, match="is in no class"):
        folder_world(tmp_path, package)
    with pytest.raises(InputError, match=r"holds emoji of 8 px of: none; .* intarsia data emoji --size 8"):
        emoji_world(tmp_path, package)
    with pytest.raises(InputError, match="8 classes cannot be shared out among 9 sources"):
        by_class(bars("all", 16, 0), 9)


@pytest.mark.integration
def test_the_cost_of_forgetting_is_counted_beside_its_formula(tmp_path: Path, world: World) -> None:
    bench, page = run("forgetting-cost", tmp_path, world)
    assert expected(8, 4, 1) == pytest.approx((4 + 1) / (2 * 4 * 8))  # science.md section 4
    assert expected(8, 1, 16) == pytest.approx(1 - (1 - 1 / 8) ** 16)
    for slices, requests in ((1, 1), (4, 1), (4, 16)):
        (row,) = bench.where(slices=slices, requests=requests)
        assert row.figures["counted"] == pytest.approx(row.figures["formula"], rel=0.25)
        assert row.figures["counted"] <= row.figures["most"] <= 1
    (one,) = bench.where(slices=1, requests=1)
    assert (one.figures["counted"], one.figures["most"], one.figures["sources asked"]) == (0.125, 0.125, 1)
    assert {row.key["part"] for row in bench.rows if "part" in row.key} == {"gaussian", "prototype"}
    trained = Compartment.load(tmp_path / "work/compartments/seed-0-slices-4/class-0").training["settings"]
    assert (trained["slices"], trained["steps"]) == (4, 8)
    assert "The aim, at most 1/12 of the monolith for one request with 4 slices: with `gaussian` parts" in page
    assert (tmp_path / "cost.png").stat().st_size > 10_000


@pytest.mark.integration
def test_a_life_costs_what_its_events_train_and_leaves_nothing_of_what_went(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    bench, page = run("life", tmp_path, world)
    events = keys_of(bench.rows, "event")
    vault, anew = ([bench.where(event=event, method=name)[0].figures for event in events] for name in (VAULT, ANEW))
    counts = [len(source.manifest.ids) for source in arrivals_of_life(world.images, seed=0)]
    assert [row["sources"] for row in vault] == [1, 2, 3, 3, 4, 5, 4, 4, 4, 3]
    first, second, third, fourth, fifth = counts
    assert [row["images"] for row in vault] == [row["images"] for row in anew]
    came = np.cumsum([first, second, -(-third // 2), third // 2, fourth, fifth])
    gone = np.cumsum([second, 1, 1, fifth])
    assert [row["images"] for row in vault] == [*came, *(came[-1] - gone)]
    whole, part = 4 * QUICK.training.rows, QUICK.training.rows  # a slice is one step here
    assert [row["sample-gradients"] for row in vault[:8]] == [whole, whole, whole, 2 * part, whole, whole, 0, part]
    assert part < vault[8]["sample-gradients"] <= whole
    assert vault[9]["sample-gradients"] == 0
    assert [row["sample-gradients"] for row in anew] == [
        steps * part for steps in (4, 8, 12, 14, 18, 22, 18, 18, 18, 14)
    ]
    (remade,) = bench.where(method=REMADE)
    assert (remade.figures["identical"], remade.figures["compartments"]) == (4, 4)
    assert "4 of 4 compartments have the same bytes, over 1 seed." in page
    assert (tmp_path / "life.png").stat().st_size > 10_000
    assert [path.name for path in (tmp_path / "work/life-0").iterdir()] == ["10.vault"]


def test_a_secret_is_counted_for_every_rule(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intarsia.credit.access.FLOW", FlowSettings(steps=1, probes=1))
    monkeypatch.setattr("intarsia.experiments.reproduce.target.STEPS", 2)
    few = {name: (draw, 2, 4) for name, (draw, *_) in DRAWN.items()}
    monkeypatch.setattr("intarsia.experiments.reproduce.protection.DRAWN", few)
    bench, page = run("protection", tmp_path, world)
    assert keys_of(bench.rows, "known") == [*DRAWN]
    (limited,) = bench.where(method=CP_K)
    assert limited.figures["images"] == QUICK.images / 2
    others = [row for row in bench.rows if "method" in row.key and row is not limited]
    assert {row.figures["images"] for row in others} == {QUICK.images}
    assert {row.key.get("method") for row in bench.rows if "k" in row.figures} == {PROTECTED, CP_K}
    (protected,) = bench.where(method=PROTECTED)
    assert protected.figures["calls"] == QUICK.sampling.steps * PARTICLES * 2
    trained = Compartment.load(tmp_path / "work/compartments/seed-0/random-0")
    assert trained.count == 32 + 4  # a tenth of it is the secret
    assert "the other source alone | 0.00 [0.00" in page
    assert (tmp_path / "secret.png").stat().st_size > 5_000


@pytest.mark.integration
def test_members_are_told_before_and_not_after(tmp_path: Path, world: World) -> None:
    bench, page = run("membership", tmp_path, world)
    assert len(bench.rows) == 4 * (2 * 3 + 1)
    for row in bench.rows:
        if "attack" in row.key:
            assert 0 <= row.figures["low"] <= row.figures["area"] <= row.figures["high"] <= 1
    (before,) = bench.where(model="before", relearned="yes")
    assert before.figures["after 0"] == pytest.approx(1)
    assert before.figures["steps"] == 0
    work = tmp_path / "work/compartments"
    counts = {place: Compartment.load(work / f"seed-0-{place}" / "source").count for place in ("before", "forgotten")}
    assert counts == {"before": 46, "forgotten": 37}  # of 184 images
    assert Compartment.load(work / "seed-0-shadows/shadow-0").count == 46
    assert "| fine-tuned |" in page
    assert (tmp_path / "relearned.png").stat().st_size > 5_000


@pytest.mark.integration
def test_copies_are_told_by_how_often_the_original_was_there(tmp_path: Path, world: World) -> None:
    bench, page = run("memorization", tmp_path, world)
    assert [row.key["method"] for row in bench.rows] == [SINGLE, MONOLITH, MIXTURE, "ancestral", NAIVE, PROTECTED]
    for row in bench.rows:
        assert sum(row.figures[f"copies of x{count}"] for count in (1, *TIMES)) == row.figures["copies"]
    assert Compartment.load(tmp_path / "work/compartments/seed-0/random-0").count == 32 + EACH * sum(
        count - 1 for count in TIMES
    )
    assert Compartment.load(tmp_path / "work/compartments/seed-0/random-1").count == 32
    assert f"0 of {EACH}" in page
    assert (tmp_path / "pairs-protected.png").stat().st_size > 5_000


@pytest.mark.integration
def test_privacy_is_paid_for_and_kept(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intarsia.experiments.reproduce.privacy.CANARIES", 24)
    bench, page = run("privacy", tmp_path, world)
    assert keys_of(bench.rows, "epsilon") == ["real", "backbone alone", "1", "3", "8", "infinity"]
    noise = [bench.where(epsilon=epsilon)[0].figures["noise"] for epsilon in ("1", "3", "8")]
    assert noise == sorted(noise, reverse=True)
    for epsilon in ("1", "3", "8"):
        (row,) = bench.where(audit=epsilon)
        assert row.figures["at least"] <= row.figures["claimed"] <= float(epsilon)
    assert bench.where(audit="no noise")[0].figures["right"] == 1
    assert (tmp_path / "privacy.png").stat().st_size > 5_000
    assert "drawn-backbone-alone.png" in page


def captioned(owned: World) -> World:
    """The owners' world with captions, which are the labels, and an attribute of what they name."""
    told = [Owner(said(owner.kept), said(owner.held)) for owner in owned.owners]
    halves = {"half": {label: "lower" if place < 4 else "upper" for place, label in enumerate(LABELS)}}
    return replace(among("bars", told, owned.package, Blurred()), attributes=halves)


def test_private_sources_of_captions_are_large_and_have_no_labels(owned: World) -> None:
    heed = heed_of(captioned(owned))
    assert sum(len(source) for source in heed.sources) == len(owned.images)
    for source, owner in zip(heed.sources, owned.owners, strict=True):
        assert source.labels == ()
        assert {sample.text for sample in source.manifest} == set(owner.kept.labels)
    assert heed.real()["half"] > 60
    scale = private(EMOJI)
    assert isinstance(scale.training.adapter, TextPrompts)
    assert isinstance(private(DIGITS).training.adapter, Lora)
    assert private(PAPER) == PAPER


@pytest.mark.integration
def test_privacy_of_captions_asks_in_words(tmp_path: Path, owned: World, tiny_text: Path) -> None:
    adapter = text_prompts(load_text_encoder(str(tiny_text)), tokens=2, width=2, length=12)
    scale = replace(QUICK, training=replace(QUICK.training, adapter=adapter))
    bench, page = run("privacy", tmp_path, captioned(owned), scale)
    assert all(0 <= row.figures["half"] <= 100 for row in bench.rows if "epsilon" in row.key)
    assert (tmp_path / "asked.txt").read_text() in page
    told = ("backbone alone", "untrained", "infinity")
    backbone, untrained, trained = (bench.where(epsilon=epsilon)[0].figures for epsilon in told)
    assert backbone != untrained != trained != backbone
    still = Compartment.load(tmp_path / "work/compartments/seed-0-untrained/owners-0")
    begun = adapter.initial(captioned(owned).backbone.network, classes=0, seed=0)
    assert all(torch.allclose(still.params[name], tensor, atol=1e-6) for name, tensor in begun.items())
    kept = Compartment.load(tmp_path / "work/compartments/seed-0-3/owners-0")
    assert kept.classes == {}
    assert kept.training["settings"]["privacy"]["epsilon"] == 3
    for epsilon in ("1", "3", "8"):
        (row,) = bench.where(audit=epsilon)
        assert row.figures["at least"] <= row.figures["claimed"] <= float(epsilon)


def test_credit_of_owners_needs_the_two_renderings_and_two_others(package: Path, owned: World) -> None:
    with pytest.raises(SettingsError, match="the emoji of openmoji, twemoji are missing"):
        credit_domains(owned)
    more = [Owner(bars(name, 12, 30), bars(f"{name}-held", 6, 31)) for name in ("openmoji", "twemoji")]
    (sources,) = credit_domains(among("bars", [*more, *owned.owners], package, Blurred())).values()
    assert [source.name for source in sources] == ["fluent3d", "fluentflat", "openmoji", "twemoji"]
