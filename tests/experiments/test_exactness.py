"""The exactness suite: what it states of every rule of composition, in worlds small enough for seconds."""

from __future__ import annotations

import csv
import functools
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from intarsia.composition import ROUTINGS
from intarsia.errors import SettingsError
from intarsia.experiments.reproduce import Choice, Inputs, reproduce
from intarsia.experiments.reproduce.cast import Cast
from intarsia.experiments.reproduce.exactness import METHODS, PERTURBED, RIGHT, SCORES, Budget
from intarsia.experiments.reproduce.known import SCHEDULE, KnownMember, known_worlds, mean_variance
from intarsia.experiments.reproduce.recipes import RECIPES, Calculation
from intarsia.experiments.reproduce.run import calculate
from intarsia.experiments.reproduce.truth import TIMES, Judge, Method, drawn, path_errors, weight_errors
from intarsia.files import read_json

WORLDS = {world.name: world for world in known_worlds()}
OVERLAPPING, DISJOINT = WORLDS["1-D, overlapping"], WORLDS["2-D, disjoint"]
IMAGES = 600


def nobody(*_: object) -> None:
    """Is told of progress and does nothing."""


@pytest.fixture(scope="module")
def floors() -> dict[str, dict[str, float]]:
    return {world.name: Judge(world).floor(IMAGES, 30) for world in (OVERLAPPING, DISJOINT)}


def judged(name: str, method: Method, error: float = 0.0) -> dict[str, float]:
    cast = Cast(WORLDS[name], error, 0)
    return Judge(cast.world).figures(*drawn(cast, method, steps=30, images=IMAGES))


@functools.cache  # two tests look at it
def path_error(name: str, error: float, *, eta: float) -> float:
    return path_errors(Cast(WORLDS[name], error, 0), eta, steps=300, images=60)["error"]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((OVERLAPPING.name, method) for method in RIGHT),
        (OVERLAPPING.name, Method("exact", "full", "heun")),
        (OVERLAPPING.name, Method("exact", "posterior")),
        *((DISJOINT.name, Method("exact", routing)) for routing in ("full", "threshold", "posterior", "sticky")),
        (DISJOINT.name, Method("diffusion_classifier:8", "full")),
    ],
    ids=str,
)
def test_what_is_right_draws_the_mixture(name: str, method: Method, floors: dict[str, dict[str, float]]) -> None:
    found, floor = judged(name, method), floors[name]
    # A few of exact draws go beyond; what 30 steps add stays within a third.
    assert found["masses"] < 1.33 * floor["masses at most"]
    assert found["shares"] < 1.33 * floor["shares at most"]


@pytest.mark.parametrize("name", [OVERLAPPING.name, DISJOINT.name])
@pytest.mark.parametrize(
    "method", [Method("exact", "top_k:1"), Method("uniform", "full")], ids=lambda method: method.routing
)
def test_top_1_and_naive_averaging_are_seen_to_fail(
    name: str, method: Method, floors: dict[str, dict[str, float]]
) -> None:
    found, floor = judged(name, method), floors[name]
    for figure, times in (("masses", 1.5), ("shares", 1.5), ("distance", 1)):
        assert found[figure] > times * floor[f"{figure} at most"], figure


def test_random_selection_leaves_the_mixture_where_sources_differ(floors: dict[str, dict[str, float]]) -> None:
    found, floor = judged(DISJOINT.name, Method("prior", "random")), floors[DISJOINT.name]
    assert found["shares"] < floor["shares at most"]
    assert found["distance"] > 4 * floor["distance at most"]


def test_weights_stand_in_their_order() -> None:
    cast = Cast(OVERLAPPING, 0.0, 0)
    names = ("diffusion_classifier:8", "gaussian:500", "prior", "uniform")
    errors = [weight_errors(cast, name, 300)["error"] for name in ("exact", *names)]
    assert errors[0] < 1e-12
    assert all(2 * better < worse for better, worse in pairwise(errors))
    assert errors[2] < 0.01


@pytest.mark.parametrize("name", [OVERLAPPING.name, DISJOINT.name])
def test_the_path_filter_is_exact_at_eta_1_only(name: str) -> None:
    assert path_error(name, 0.0, eta=1.0) < 0.01
    assert path_error(name, 0.0, eta=0.5) > 0.04


def test_perturbed_scores_mislead_those_who_read_them() -> None:
    exact, perturbed = (Cast(OVERLAPPING, error, 0) for error in SCORES.values())
    assert path_error(OVERLAPPING.name, 0.1, eta=1.0) > 3 * path_error(OVERLAPPING.name, 0.0, eta=1.0)
    for name in ("gaussian:500", "diffusion_classifier:8"):
        assert weight_errors(perturbed, name, 300)["error"] > 2 * weight_errors(exact, name, 300)["error"], name
    assert weight_errors(perturbed, "exact", 300)["error"] < 1e-12


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_a_members_error_is_what_it_is_said_to_be(t: float) -> None:
    """Squared, the share of what x_t leaves open of x0 for a Gaussian, here of the member's own variance."""
    member = WORLDS["16-D, overlapping"].members(0.1)[0]
    assert isinstance(member, KnownMember)
    at = torch.full((5,), t, dtype=torch.float64)
    x_t = torch.linspace(-1, 1, 80, dtype=torch.float64).reshape(5, 16)
    wrong = member.x0_hat(x_t, at, ()) - replace(member, error=0.0).x0_hat(x_t, at, ())
    variance = mean_variance(member.mixture)
    left_open = 1 / (1 / variance + SCHEDULE.log_snr(at).exp())
    torch.testing.assert_close(wrong.square().mean(dim=1), 0.01 * left_open)


def test_the_judge_knows_wrong_masses() -> None:
    judge = Judge(DISJOINT)
    one_mode = DISJOINT.truth.mean[:1].repeat(50, 1)
    figures = judge.figures(one_mode, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    assert figures["masses"] == pytest.approx(0.7, abs=1e-6), "the first source, of 0.6, has two modes"
    assert figures["shares"] == pytest.approx(0.4)
    assert figures["distance"] > 1


@pytest.mark.integration
def test_the_table_is_made_kept_and_summed_up(tmp_path: Path) -> None:
    recipe = RECIPES["exactness"]
    assert isinstance(recipe, Calculation)
    small = Budget(images=20, probes=10, steps=2, path=20, redraws=5, worlds=("1-D, overlapping",))
    quick = replace(recipe, budget=small)
    page = calculate("exactness", quick, tmp_path, [0], nobody, nobody)
    text = page.read_text(encoding="utf-8")
    assert "| ito × ddim:1 |" in text
    assert "| exact × top_k:1 × heun |" in text
    head = (tmp_path / "results.csv").read_text().split("\n")[0]
    assert all(f"=t={t:g}" in head for t in TIMES)
    assert {path.name for path in tmp_path.glob("*.png")} == {"weights.png", "draws.png"}
    done: list[str] = []
    assert calculate("exactness", quick, tmp_path, [0], done.append, nobody).read_text(encoding="utf-8") == text
    assert done == []


def test_the_table_in_the_docs_is_this_one() -> None:
    """Its settings are ours, and its cells are found again."""
    kept, budget = Path(__file__).parents[2] / "docs" / "results" / "exactness", Budget()
    assert read_json(kept / "settings.json") == {"recipe": "exactness", **budget.settings()}
    for scores, methods in (("exact", METHODS), ("perturbed", PERTURBED)):
        with (kept / "results.csv").open(encoding="utf-8", newline="") as lines:
            drawn_by = [row for row in csv.DictReader(lines) if (row["table"], row["scores"]) == ("draws", scores)]
        assert {tuple(method.key.values()) for method in methods} == {
            (row["weights"], row["routing"], row["sampler"]) for row in drawn_by
        }
        assert len(drawn_by) == 3 * len(WORLDS) * len(methods)
    assert {method.routing for method in METHODS} == {*ROUTINGS, "top_k:1", "top_k:2"} - {"top_k"}
    cast, method = Cast(OVERLAPPING, 0.1, 2), Method("exact", "full")
    key = {"seed": "2", "world": OVERLAPPING.name, "scores": "perturbed", "table": "draws", **method.key}
    with (kept / "results.csv").open(encoding="utf-8", newline="") as lines:
        row = next(row for row in csv.DictReader(lines) if key.items() <= row.items())
    found = Judge(OVERLAPPING).figures(*drawn(cast, method, steps=budget.steps, images=budget.images))
    assert found == pytest.approx({name: float(row[f"={name}"]) for name in found}, rel=1e-5)


@pytest.mark.parametrize(
    ("scale", "inputs", "said"),
    [
        ("paper", Inputs(), "leave --scale paper out"),
        ("cpu", Inputs(data=Path("emoji")), "leave --data out"),
        ("cpu", Inputs(backbone="uvit-tiny-8"), "leave --backbone out"),
        ("cpu", Inputs(inception=Path("fid.pth")), "leave --inception out"),
        ("cpu", Inputs(clip=Path("clip")), "leave --clip out"),
        ("cpu", Inputs(answerer=Path("vilt")), "leave --answerer out"),
    ],
)
def test_what_it_would_not_use_is_refused(tmp_path: Path, scale: str, inputs: Inputs, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        reproduce("exactness", tmp_path / "out", scale=scale, inputs=inputs, on_phase=nobody, on_step=nobody)
    with pytest.raises(SettingsError, match="has methods of its own; leave ito out"):
        reproduce("exactness", tmp_path / "out", choice=Choice(methods=["ito"]), on_phase=nobody, on_step=nobody)
    assert not (tmp_path / "out").exists()
