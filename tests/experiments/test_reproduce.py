"""Tables that keep what is done, and small versions of the recipes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from intarsia.compartments import DeepPrompts, FullCopy, Lora, TrainSettings
from intarsia.errors import CorruptError, InputError, SettingsError, UnknownName, VaultError
from intarsia.experiments.reproduce import RECIPES, Choice, Inputs, reproduce
from intarsia.experiments.reproduce.alignment import alignment_scale
from intarsia.experiments.reproduce.bench import Bench
from intarsia.experiments.reproduce.credits import partner
from intarsia.experiments.reproduce.figures import ratio, spread
from intarsia.experiments.reproduce.owners import owners_scale
from intarsia.experiments.reproduce.recipes import Recipe
from intarsia.experiments.reproduce.scale import DIGITS, EMOJI, METHODS, PAPER, PAPER_CLASSES, PAPER_TEXT, larger


@pytest.fixture(autouse=True)
def no_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before anything is read or trained."""
    for name in ("digits_world", "mnist_world", "emoji_world", "folder_world"):
        monkeypatch.setattr(f"intarsia.experiments.reproduce.run.{name}", lambda *_: pytest.fail("not refused"))


def nobody(*_: object) -> None:
    """Is told of progress and does nothing."""


def bench(out: Path, **settings: object) -> Bench:
    return Bench(out, settings, nobody, nobody)


def test_a_cell_is_computed_once_and_survives(tmp_path: Path) -> None:
    first = bench(tmp_path, steps=3)
    figures = first.cell({"seed": 0, "method": "a, b"}, lambda: {"FD": 0.1 + 0.2, "calls": 3})
    again = bench(tmp_path, steps=3)
    assert again.cell({"seed": 0, "method": "a, b"}, lambda: pytest.fail("computed again")) == figures
    assert again.cell({"seed": 1, "method": "a, b"}, lambda: {"FD": 2.0}) == {"FD": 2.0}
    assert [row.figures for row in bench(tmp_path, steps=3).rows] == [{"FD": 0.1 + 0.2, "calls": 3.0}, {"FD": 2.0}]


def test_other_settings_are_refused_and_damage_is_named(tmp_path: Path) -> None:
    bench(tmp_path, steps=3).cell({"seed": 0}, lambda: {"FD": 1.0})
    with pytest.raises(SettingsError, match="steps 3 there, 4 here"):
        bench(tmp_path, steps=4)
    (tmp_path / "results.csv").write_text("seed,=FD\n0,many\n")
    with pytest.raises(CorruptError, match=r"results\.csv"):
        bench(tmp_path, steps=3)


def test_a_folder_is_filled_by_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "tables" / "splits"

    def meanwhile(*_: object) -> None:
        with pytest.raises(VaultError, match="another run of reproduce is filling this table"):
            reproduce("splits", out, on_phase=nobody, on_step=nobody)
        raise InputError("no digits today")

    monkeypatch.setattr("intarsia.experiments.reproduce.run.digits_world", meanwhile)
    with pytest.raises(InputError, match="today"):
        reproduce("splits", out, on_phase=nobody, on_step=nobody)
    assert not out.exists()


class Reached(Exception):
    """Everything that can be refused beforehand was let through."""


@pytest.mark.parametrize("name", sorted(name for name, recipe in RECIPES.items() if isinstance(recipe, Recipe)))
def test_every_table_can_be_asked_for_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*_: object) -> None:
        raise Reached

    for world in ("digits_world", "emoji_world"):
        monkeypatch.setattr(f"intarsia.experiments.reproduce.run.{world}", reached)
    inputs = Inputs(data=tmp_path) if RECIPES[name].emoji == "always" else Inputs()
    with pytest.raises(Reached):
        reproduce(name, tmp_path / "out", inputs=inputs, on_phase=nobody, on_step=nobody)


@pytest.mark.parametrize(
    ("name", "sampler", "said"),
    [
        ("limit", "heun", "the method 'ito' reads the fresh noise of every step, and 'heun' adds none; give another"),
        ("credit", "dpmpp_2m_sde", "follows images along the path of 'ddpm'; leave --sampler dpmpp_2m_sde out"),
        ("splits", "ddim", "and 'ddim' adds none; leave it out: --methods"),
    ],
)
def test_samplers_that_a_table_cannot_follow_are_refused_first(
    name: str, sampler: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=said):
        reproduce(name, tmp_path / "out", choice=Choice(sampler=sampler), on_phase=nobody, on_step=nobody)


def test_truths_are_compared_in_the_same_pairs_however_many_seeds_there_are() -> None:
    assert [partner(seed) for seed in range(6)] == [1, 2, 0, 4, 5, 3]


def test_intervals_are_students(tmp_path: Path) -> None:
    found = spread([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert math.isclose(found.high - 2, 4.302652729911275 / math.sqrt(3))
    assert spread([1.0]).text() == spread([1.0, 1.0]).text() == "1.000", "no interval where nothing varies"
    both = ratio([2.0, 8.0], [1.0, 4.0])
    assert (both.mean, both.low, both.high) == pytest.approx((2, 2, 2))


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'splits'"):
        reproduce("split", tmp_path, on_phase=nobody, on_step=nobody)
    with pytest.raises(UnknownName, match="did you mean 'ito'"):
        reproduce("splits", tmp_path, choice=Choice(methods=["ita"]), on_phase=nobody, on_step=nobody)
    with pytest.raises(SettingsError, match="has methods of its own; leave naive out"):
        reproduce("curves", tmp_path, choice=Choice(methods=["naive"]), on_phase=nobody, on_step=nobody)
    with pytest.raises(SettingsError, match="numbers of sources of its own; leave 8 out"):
        reproduce("curves", tmp_path, choice=Choice(counts=[8]), on_phase=nobody, on_step=nobody)
    drawing = Choice(images=40, steps=9, sampler="ddim")
    with pytest.raises(SettingsError, match="of its own; leave --images 40, --steps 9, --sampler ddim out"):
        reproduce("exactness", tmp_path, choice=drawing, on_phase=nobody, on_step=nobody)
    for name in ("prompts", "membership"):
        with pytest.raises(SettingsError, match=f"'{name}' draws no images; leave --images 40 out"):
            reproduce(name, tmp_path, choice=Choice(images=40), on_phase=nobody, on_step=nobody)
    with pytest.raises(UnknownName, match="sampler"):
        reproduce("splits", tmp_path, choice=Choice(sampler="dimm"), on_phase=nobody, on_step=nobody)
    for wrong in (Choice(images=0), Choice(counts=[1]), Choice(steps=0)):
        with pytest.raises(SettingsError, match="expected"):
            reproduce("splits", tmp_path, choice=wrong, on_phase=nobody, on_step=nobody)
    with pytest.raises(SettingsError, match="images is 3, expected a whole number, at least 4"):
        reproduce("curves", tmp_path, choice=Choice(images=3), on_phase=nobody, on_step=nobody)
    with pytest.raises(SettingsError, match="0 seeds"):
        reproduce("splits", tmp_path, seeds=0, on_phase=nobody, on_step=nobody)


@pytest.mark.parametrize(
    ("name", "scale", "inputs", "said"),
    [
        ("splits", "cpu", Inputs(data=Path("cats")), "leave --data out"),
        ("curves", "cpu", Inputs(inception=Path("fid.pth")), "leave --inception out"),
        ("splits", "paper", Inputs(backbone="uvit-tiny-8"), "needs --data"),
        ("splits", "paper", Inputs(data=Path("cats")), "--backbone"),
        ("owners", "paper", Inputs(data=Path("cats")), "leave --scale paper out"),
        ("owners", "cpu", Inputs(), "needs --data"),
        ("breadth", "paper", Inputs(data=Path("cats")), "leave --scale paper out"),
        ("caption-splits", "cpu", Inputs(), "needs --data"),
        ("splits", "cpu", Inputs(mnist=0), "--mnist is 0, expected a whole number, at least 1"),
        ("splits", "paper", Inputs(mnist=900), "leave --mnist out"),
        ("owners", "cpu", Inputs(mnist=900), "leave --mnist out"),
        ("credit", "cpu", Inputs(mnist=900, data=Path("emoji")), "leave --mnist out"),
        ("exactness", "cpu", Inputs(mnist=900), "leave --mnist out"),
    ],
)
def test_inputs_that_are_missing_or_not_used_are_said(
    tmp_path: Path, name: str, scale: str, inputs: Inputs, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        reproduce(name, tmp_path / "out", scale=scale, inputs=inputs, on_phase=nobody, on_step=nobody)
    assert not (tmp_path / "out").exists()


def test_methods_without_their_part_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    emoji = Inputs(data=tmp_path)
    with pytest.raises(SettingsError, match="'alignment' fits no router part for the method 'reference'"):
        reproduce(
            "alignment",
            tmp_path / "out",
            inputs=emoji,
            choice=Choice(methods=["gaussian", "reference"]),
            on_phase=nobody,
            on_step=nobody,
        )
    assert not (tmp_path / "out").exists()
    scale = replace(DIGITS, methods=("joint", "reference", "naive"), routers=())
    assert scale.lacking == ("reference",)


@pytest.mark.parametrize(
    ("name", "choice", "said"),
    [
        (
            "splits",
            Choice(sampler="heun"),
            "'ito' reads the fresh noise .* 'heun' adds none.* --methods 'gaussian,refer",
        ),
        ("splits", Choice(methods=["ito"], sampler="ddim"), "'ddim' adds none; leave it out$"),
        ("owners", Choice(methods=["gaussian", "ito"]), "'ito' takes no guidance, which is 2 here"),
        ("protection", Choice(sampler="dpmpp_2m_sde"), "protected"),
        ("alignment", Choice(methods=["gaussian", "best single"]), "shows every source alone; leave 'best single' out"),
    ],
)
def test_methods_that_could_not_draw_are_refused_before_anything_is_trained(
    tmp_path: Path, name: str, choice: Choice, said: str
) -> None:
    inputs = Inputs(data=tmp_path) if name in ("owners", "alignment") else None
    with pytest.raises(SettingsError, match=said):
        reproduce(name, tmp_path / "out", inputs=inputs, choice=choice, on_phase=nobody, on_step=nobody)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingsError, match="'soup' averages weights, which 'prompts' adapters leave alone"):
        replace(PAPER, methods=("soup", "naive")).check_methods()
    for usual in (DIGITS, PAPER, PAPER_CLASSES, PAPER_TEXT, owners_scale(EMOJI), alignment_scale(EMOJI)):
        usual.check_methods()


def test_what_reads_a_u_vit_is_refused_on_stable_diffusion(tmp_path: Path) -> None:
    inputs = Inputs(data=tmp_path, backbone="sd", clip=tmp_path)
    with pytest.raises(SettingsError, match="'joint' reads features of a U-ViT"):
        reproduce(
            "alignment",
            tmp_path / "out",
            scale="paper",
            inputs=inputs,
            choice=Choice(methods=["naive", "joint"]),
            on_phase=nobody,
            on_step=nobody,
        )
    assert not (tmp_path / "out").exists()


def test_folders_of_other_things_are_left_as_they_are(tmp_path: Path) -> None:
    """A table ends in a README.md, which must be nobody else's."""
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(SettingsError, match=r"1 other thing such as README\.md; name a new folder"):
        reproduce("exactness", tmp_path, on_phase=nobody, on_step=nobody)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    bench(tmp_path / "run", recipe="curves", sampling={"steps": 3, "sampler": "ddpm"})
    (tmp_path / "left/work/compartments").mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"keeps no settings\.json of a run, but 1 other thing such as work"):
        bench(tmp_path / "left", recipe="curves", sampling={"steps": 3, "sampler": "ddpm"})
    (tmp_path / "left/work/compartments").rmdir()
    bench(tmp_path / "left", recipe="curves", sampling={"steps": 3, "sampler": "ddpm"})
    with pytest.raises(SettingsError, match="keeps a run of 'curves', not of 'splits'"):
        reproduce("splits", tmp_path / "run", on_phase=nobody, on_step=nobody)
    with pytest.raises(SettingsError, match=r"other settings \(sampling.steps 3 there, 4 here\)"):
        bench(tmp_path / "run", recipe="curves", sampling={"steps": 4, "sampler": "ddpm"})


@pytest.mark.parametrize("images", [5_994, 8_144, 3_680, 3])  # those of CUB-200, Cars and Pets to train on
def test_the_papers_epochs_are_of_the_data_given(images: int) -> None:
    scale = PAPER.over(images)
    assert 0 <= scale.steps * 256 - 800 * images < 8 * 256
    assert {parts * scale.trained(1, parts, seed=0).steps for parts in (1, 2, 4, 8)} == {scale.steps}
    assert DIGITS.over(images) == DIGITS


def test_how_images_are_drawn_can_be_chosen() -> None:
    chosen = Choice(images=7, steps=9, sampler="dpmpp_2m_sde").of(DIGITS)
    assert (chosen.images, chosen.sampling.steps, chosen.sampling.sampler) == (7, 9, "dpmpp_2m_sde")
    assert chosen.settings() != DIGITS.settings()
    assert Choice().of(DIGITS) == DIGITS


def test_the_papers_hyper_parameters() -> None:
    """Appendix, unconditional and class-conditional generation; the rest is ours."""
    settings = PAPER.trained(1, 1, seed=0)
    assert settings.adapter == DeepPrompts(tokens=256, per_class=False)
    assert (settings.first_lr, settings.rows, PAPER.epochs) == (0.1, 256, 800)
    assert PAPER.steps == PAPER.over(5_994).steps
    classes = PAPER_CLASSES.trained(1, 1, seed=0)
    assert classes.adapter == DeepPrompts(tokens=8, per_class=True)
    assert (classes.first_lr, classes.rows) == (settings.first_lr, settings.rows)


def test_every_recipe_and_method_is_documented() -> None:
    docs = Path(__file__).parents[2] / "docs"
    page, reference = ((docs / name).read_text(encoding="utf-8") for name in ("reproduce.md", "cli.md"))
    for name in (*RECIPES, *METHODS):
        assert f"`{name}`" in page or f"{name} averaging" in page
    named = ", ".join([*RECIPES][:-1]) + f" or {[*RECIPES][-1]}"
    assert named in reference


def test_an_adapter_grows_without_its_step_growing_alike() -> None:
    """The update that a step of Adam makes of B A rises with the rank; the scale takes that back."""
    small = TrainSettings(adapter=Lora(rank=4, scale=2.0), steps=3)
    assert larger(small, 1) == small
    assert larger(small, 4) == replace(small, adapter=Lora(rank=16, scale=0.5))
    assert larger(replace(small, adapter=DeepPrompts(tokens=3)), 8).adapter == DeepPrompts(tokens=24)
    with pytest.raises(SettingsError, match="cannot be made 2 times as large"):
        larger(replace(small, adapter=FullCopy()), 2)
