"""Forgotten samples: the bytes of a vault that never had them, at the price of the slices they had a part in."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from intarsia.compartments import DeepPrompts, FullCopy, Lora, Trainee, TrainStep
from intarsia.compartments.adapters import Kind
from intarsia.compartments.slices import slice_of
from intarsia.data import Manifest, Source, encode_png
from intarsia.errors import IntarsiaError, LeftOut, SettingsError, UnknownName, VaultError
from intarsia.files import read_json
from intarsia.vault import Unfinished, Vault

from .helpers import ROUTER, all_bytes, grown, quick, toy_source, traces

Fresh = Callable[[Path], Vault]
WHOLE = toy_source("oak", 14)
SLICES = 4
LORA = Lora(rank=1, targets=("attn.qkv",))


def of_slice(number: int, slices: int = SLICES, source: Source = WHOLE) -> list[str]:
    """The ids of a source's samples that fall into a slice (from 0)."""
    return [sample for sample in source.manifest.ids if slice_of(sample, slices) == number]


def given(vault: Vault, source: Source = WHOLE, **settings: object) -> Vault:
    """The vault with this source, trained."""
    vault.add_source(source.name, source)
    vault.train(source.name, quick(**{"steps": 8, "slices": SLICES, "rows": 16} | settings), routers=[ROUTER])
    return vault


@pytest.fixture
def whole(fresh: Fresh, empty: Path) -> Vault:
    return given(fresh(empty))


@pytest.mark.parametrize(
    ("adapter", "slices", "gone"),
    [
        (LORA, 4, of_slice(1)[:1] + of_slice(2)[:1] + of_slice(3)[:1]),
        (LORA, 4, of_slice(0)),
        (LORA, 1, WHOLE.manifest.ids[2:3]),
        (DeepPrompts(tokens=2), 4, of_slice(2)[:1]),
        (DeepPrompts(tokens=2, per_class=True), 4, of_slice(3)[:1]),
        (DeepPrompts(tokens=2, per_class=True), 4, [s.id for s in WHOLE.manifest if s.label == "label-oak-1"]),
        (FullCopy(), 4, of_slice(3)[:1]),
    ],
)
def test_forgotten_equals_never_there(fresh: Fresh, empty: Path, adapter: Kind, slices: int, gone: list[str]) -> None:
    never = given(fresh(empty), WHOLE.without(gone), adapter=adapter, slices=slices)
    vault = given(fresh(empty), adapter=adapter, slices=slices)
    before, digest = vault.source("oak").manifest.root, vault.compartments()[0].digest
    outcome = vault.forget("oak", samples=gone)
    assert all_bytes(vault.root) == all_bytes(never.root)
    assert (outcome.manifest_before, outcome.manifest_after) == (before, never.source("oak").manifest.root)
    assert (outcome.before, outcome.after) == ({"oak": digest}, {"oak": never.compartments()[0].digest})
    assert outcome.samples == len(gone)
    assert [entry.kind for entry in vault.ledger.entries()][-2:] == ["forget", "train"]


def test_trained_in_company_and_requested_again_and_again(fresh: Fresh, empty: Path) -> None:
    gone = [of_slice(3)[0], of_slice(1)[0], of_slice(2)[0]]
    never, vault = fresh(empty), fresh(empty)
    for each, source in ((never, WHOLE.without(gone)), (vault, WHOLE)):
        each.add_source("oak", source)
        grown(each, "elm", train=False)
        each.train(["elm", "oak"], quick(steps=8, slices=4), routers=[ROUTER])
    elm = all_bytes(vault.root / "compartments/elm")
    for sample in gone:
        vault.forget("oak", sample[:12])
        assert all_bytes(vault.root / "compartments/elm") == elm
    assert all_bytes(vault.root) == all_bytes(never.root)
    assert vault.verify().ok


def test_only_the_slices_from_the_samples_on_are_trained_again(whole: Vault) -> None:
    gone = [of_slice(2)[0], of_slice(3)[0]]
    before, compartment = all_bytes(whole.root), whole.compartment("oak")
    plan = whole.plan_forget("oak", gone)
    assert all_bytes(whole.root) == before
    assert (plan.slices, plan.steps, plan.rows, plan.sample_gradients, plan.whole) == ((3, 4), 4, 16, 64, 128)
    assert (plan.samples, plan.left, plan.compartments, plan.because) == (tuple(sorted(gone)), 12, ("oak",), "")
    assert plan.seconds is not None
    assert 0 < plan.seconds < 10
    job = whole.forgetting("oak", gone)
    assert [step.step for step in job] == [5, 6, 7, 8]
    assert (job.outcome.slices, job.outcome.steps) == (plan.slices, plan.steps)
    slices, again = compartment.training["slices"], whole.compartment("oak").training["slices"]
    assert [slices[name] == again[name] for name in sorted(slices)] == [True, True, False, False]


def test_steps_for_which_no_sample_is_left_are_not_counted(whole: Vault) -> None:
    plan = whole.plan_forget("oak", [*of_slice(0), *of_slice(1)], measure=False)
    assert (plan.slices, plan.steps, plan.sample_gradients, plan.whole) == ((1, 2, 3, 4), 8, 64, 64)
    assert plan.seconds is None


def words_of(vault: Vault, gone: list[str]) -> set[str]:
    samples = [sample for sample in vault.source("oak").manifest if sample.id in gone]
    words = {text for s in samples for text in (s.id, s.id[:16], s.file_name, s.text) if text}
    return words | {vault.source("oak").manifest.root, vault.compartments()[0].digest}


def test_no_trace_is_left(whole: Vault) -> None:
    gone = [of_slice(1)[0], of_slice(3)[0]]
    salt = str(read_json(whole.root / "ledger/salts/oak.json")["data"])
    assert traces(whole.root, [salt]) == [salt], "with it, commitments of the ledger could be opened"
    words = {salt, *words_of(whole, gone)}
    slices = whole.compartment("oak").training["slices"]
    words |= {slices["slice-2"], slices["slice-4"]}
    raw = [image.tobytes() for s, image in zip(WHOLE.manifest, WHOLE.images, strict=True) if s.id in gone]
    raw += [encode_png(image) for s, image in zip(WHOLE.manifest, WHOLE.images, strict=True) if s.id in gone]
    assert len(traces(whole.root, words)) == len(words), "the scan sees nothing even where everything is there"
    whole.forget("oak", gone)
    assert traces(whole.root, words) == []
    found = [path.read_bytes() for path in whole.root.rglob("*") if path.is_file()]
    assert not [data for data in raw for straw in found if data in straw]


def test_no_trace_is_left_in_a_database_elsewhere(tmp_path: Path) -> None:
    from .helpers import tiny_backbone

    place = tmp_path / "db"
    place.mkdir()
    core = (tiny_backbone(), toy_source("core", 24))
    vault = given(Vault.create(tmp_path / "a.vault", backbone=core, url=f"sqlite:///{place / 'shared.db'}"))
    words = words_of(vault, of_slice(3))
    assert len(traces(place, words)) > 4
    vault.forget("oak", of_slice(3))
    assert traces(place, words) == []


def test_the_samples_are_gone_before_training_begins_and_nothing_is_composed_until_it_ends(
    whole: Vault, fresh: Fresh, empty: Path
) -> None:
    gone = of_slice(1)[:1]
    words = {*gone, next(s.text for s in WHOLE.manifest if s.id in gone) or ""}
    steps = iter(whole.forgetting("oak", gone, save_every=1))
    assert traces(whole.root, words) == []
    assert not (whole.root / "compartments/oak").exists()
    for _ in range(3):
        next(steps)
    steps.close()
    again = Vault.open(whole.root)
    assert again.unfinished() == [Unfinished("oak", 5, 8, "forget")]
    assert again.verify().ok
    with pytest.raises(SettingsError, match=r"'oak' cannot be used: it is out of use.* --resume"):
        again.compose("oak", precision="float32")
    with (
        pytest.warns(LeftOut, match="'oak' is left out"),
        pytest.raises(SettingsError, match=r"at least one source that is trained.*'oak': it is out of use"),
    ):
        again.compose(precision="float32")
    (outcome,) = again.resume()
    assert (outcome.action, outcome.samples, outcome.slices, outcome.steps) == ("forget", 1, (2, 3, 4), 6)
    assert outcome.manifest_before == WHOLE.manifest.root
    assert list(outcome.before) == list(outcome.after) == ["oak"]
    assert all_bytes(again.root) == all_bytes(given(fresh(empty), WHOLE.without(gone)).root)
    assert again.resume() == ()


def test_what_is_owed_is_not_begun_anew_with_other_settings(whole: Vault) -> None:
    """Not even where no step of it is saved."""
    iter(whole.forgetting("oak", of_slice(0)[0]))
    assert whole.unfinished() == [Unfinished("oak", 0, 8, "forget")]
    with pytest.raises(SettingsError, match=r"an unfinished training of 'oak' \(0 of 8 steps\) is of other settings"):
        whole.training("oak", quick(steps=8, slices=4, rows=8), routers=[ROUTER])


@pytest.mark.parametrize("second", [0, 3])
def test_a_request_that_comes_while_another_is_unfinished(whole: Vault, fresh: Fresh, empty: Path, second: int) -> None:
    gone = [of_slice(1)[0], of_slice(second)[-1]]
    steps = iter(whole.forgetting("oak", gone[:1], save_every=1))
    for _ in range(3):
        next(steps)
    steps.close()
    job = whole.forgetting("oak", gone[1:])
    assert [step.step for step in job] == list(range({0: 1, 3: 6}[second], 9))
    assert job.outcome.samples == 2
    assert job.outcome.manifest_before == WHOLE.manifest.root
    assert all_bytes(whole.root) == all_bytes(given(fresh(empty), WHOLE.without(gone)).root)


@pytest.mark.parametrize(("number", "done"), [(0, 0), (2, 4), (3, 5)])
def test_an_unfinished_training_goes_back_and_stays_unfinished(
    fresh: Fresh, empty: Path, number: int, done: int
) -> None:
    gone = of_slice(number)[:1]
    vaults = []
    for source, steps in ((WHOLE, 5), (WHOLE.without(gone), done)):
        vault = fresh(empty)
        vault.add_source("oak", source)
        run = vault.training("oak", quick(steps=8, slices=4), routers=[ROUTER], save_every=1)
        for _ in range(steps):
            next(run)
        run.close()
        vaults.append(vault)
    vault, never = vaults
    assert vault.plan_forget("oak", gone).steps == 0
    assert vault.forget("oak", gone).steps == 0
    assert all_bytes(vault.root) == all_bytes(never.root)
    steps = [step.step for step in vault.training("oak", quick(steps=8, slices=4), routers=[ROUTER])]
    assert steps == list(range(done + 1, 9))
    never.resume()
    assert all_bytes(vault.root) == all_bytes(never.root)


def test_a_successor_under_way_is_finished_in_place_of_the_compartment(whole: Vault, fresh: Fresh, empty: Path) -> None:
    run = whole.training("oak", quick(seed=1, slices=2, steps=8, rows=16), routers=[ROUTER], restart=True)
    for _ in range(5):
        next(run)
    run.close()
    whole.forget("oak", of_slice(3)[0])
    never = given(fresh(empty), WHOLE.without(of_slice(3)[:1]), seed=1, slices=2)
    assert all_bytes(whole.root) == all_bytes(never.root)


def test_a_source_that_is_not_trained(fresh: Fresh, empty: Path) -> None:
    vault, never = fresh(empty), fresh(empty)
    vault.add_source("oak", WHOLE)
    never.add_source("oak", WHOLE.without(of_slice(2)))
    outcome = vault.forget("oak", of_slice(2))
    assert (outcome.before, outcome.after, outcome.steps) == ({}, {}, 0)
    assert all_bytes(vault.root) == all_bytes(never.root)


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        ("compartments/oak/slices/slice-2.safetensors", 3),
        ("compartments/oak/slices/slice-1.safetensors", 1),
        ("compartments/oak/slices/slice-4.safetensors", 7),
    ],
)
def test_a_damaged_checkpoint_only_costs_more(whole: Vault, fresh: Fresh, empty: Path, damage: str, first: int) -> None:
    (whole.root / damage).write_bytes(b"?")
    plan = whole.plan_forget("oak", of_slice(3)[:1], measure=False)
    assert bool(plan.because) == (first < 7)
    assert [step.step for step in whole.forgetting("oak", of_slice(3)[:1])] == list(range(first, 9))
    assert all_bytes(whole.root) == all_bytes(given(fresh(empty), WHOLE.without(of_slice(3)[:1])).root)


def test_damage_does_not_keep_a_sample_from_being_forgotten(whole: Vault) -> None:
    """Neither that of the compartment's record nor that of another picture."""
    (whole.root / "compartments/oak/compartment.json").write_text("{")
    (whole.root / f"sources/oak/images/{of_slice(1)[0]}.png").write_bytes(b"?")
    gone = of_slice(3)[0]
    outcome = whole.forget("oak", gone)
    assert (outcome.before, outcome.after, outcome.steps) == ({"oak": None}, {}, 0)
    assert traces(whole.root, [gone]) == []
    assert whole.names() == ["oak"]
    assert whole.compartments() == []


def test_in_another_environment_all_of_it_is_trained_again(
    whole: Vault, fresh: Fresh, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", "9.9")
    gone = of_slice(3)[:1]
    plan = whole.plan_forget("oak", gone, measure=False)
    assert plan.slices == (1, 2, 3, 4)
    assert "the environment is another (torch '" in plan.because
    steps = iter(whole.forgetting("oak", gone, save_every=1))
    next(steps)
    steps.close()
    monkeypatch.setattr(torch, "__version__", "9.9.1")
    whole.resume("oak")
    assert all_bytes(whole.root) == all_bytes(given(fresh(empty), WHOLE.without(gone)).root)


def test_an_unfinished_training_of_another_environment_is_not_gone_on_with(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.add_source("oak", WHOLE)
    run = vault.training("oak", quick(), routers=[ROUTER], save_every=1)
    next(run)
    run.close()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9")
        with pytest.raises(
            SettingsError, match=r"unfinished training of 'oak' cannot go on: the environment .*restart"
        ):
            vault.resume("oak")
    (outcome,) = vault.resume("oak")
    assert (outcome.action, outcome.slices, outcome.steps, outcome.before) == ("train", (1, 2), 3, {})


def test_as_many_threads_are_used_as_before(fresh: Fresh, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, step, used = torch.get_num_threads(), Trainee.step, []

    def spy(trainee: Trainee) -> TrainStep:
        used.append(torch.get_num_threads())
        return step(trainee)

    monkeypatch.setattr(Trainee, "step", spy)
    try:
        torch.set_num_threads(2)
        vault, never = given(fresh(empty), threads=None), given(fresh(empty), WHOLE.without(of_slice(3)), threads=None)
        torch.set_num_threads(1)
        assert vault.plan_forget("oak", of_slice(3), measure=False).slices == (4,)
        vault.forget("oak", of_slice(3))
    finally:
        torch.set_num_threads(threads)
    assert set(used) == {2}
    assert all_bytes(vault.root) == all_bytes(never.root)


@pytest.mark.parametrize(
    ("name", "samples", "kind", "words"),
    [
        ("fir", ["abcd"], UnknownName, "unknown source 'fir'"),
        ("oak", ["zzzz"], UnknownName, "unknown sample 'zzzz'"),
        ("oak", [WHOLE.manifest.ids[0], "0" * 64], UnknownName, "unknown sample '0000"),
        ("oak", ["abc"], IntarsiaError, "too short"),
        ("oak", [], IntarsiaError, "no sample of 'oak' is named"),
        ("oak", WHOLE.manifest.ids, IntarsiaError, "these are all samples of 'oak' .* forget the source itself"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_done(
    whole: Vault, name: str, samples: list[str], kind: type[Exception], words: str
) -> None:
    before = all_bytes(whole.root)
    for ask in (whole.plan_forget, whole.forgetting, whole.forget):
        with pytest.raises(kind, match=words) as caught:
            ask(name, samples)
        assert "\n" not in str(caught.value)
    assert all_bytes(whole.root) == before


def test_a_source_that_is_being_trained_is_left_alone(whole: Vault) -> None:
    run = whole.training("oak", quick(seed=1), routers=[ROUTER], restart=True)
    next(run)
    before = all_bytes(whole.root)
    with pytest.raises(VaultError, match="'oak' is being trained"):
        whole.forget("oak", of_slice(3))
    assert all_bytes(whole.root) == before


def test_samples_are_found_by_file_name_picture_caption_and_label(whole: Vault, tmp_path: Path) -> None:
    sample, image = WHOLE.manifest.samples[4], WHOLE.images[4]
    (tmp_path / "any.png").write_bytes(encode_png(image))
    assert whole.find_samples("oak", files=sample.file_name) == (sample,)
    assert whole.find_samples("oak", files=str(tmp_path / "any.png")) == (sample,)
    framed = np.pad(image, ((0, 0), (2, 2), (0, 0)))
    (tmp_path / "wide.png").write_bytes(encode_png(framed))  # added with --crop, it is this sample
    assert whole.find_samples("oak", files=str(tmp_path / "wide.png")) == (sample,)
    assert whole.find_samples("oak", ids=sample.id[:10].upper(), files=sample.file_name) == (sample,)
    assert whole.find_samples("oak", patterns=f"caption:{(sample.text or '').upper()}") == (sample,)
    assert {s.label for s in whole.find_samples("oak", patterns="label:label-oak-1")} == {"label-oak-1"}
    assert len(whole.find_samples("oak", patterns=["label:label-oak-1", "caption:caption of oak"])) == 14
    (tmp_path / "other.png").write_bytes(encode_png(255 - image))
    (tmp_path / "no.png").write_bytes(b"?")
    for question, words in (
        ({"files": "nowhere.png"}, "unknown file 'nowhere.png'"),
        ({"files": str(tmp_path / "other.png")}, "unknown file"),
        ({"files": str(tmp_path / "no.png")}, r"no\.png: .*name the sample by its id"),
        ({"patterns": "label:none"}, "unknown label 'none'"),
        ({"patterns": "caption:none"}, "no caption contains 'none'"),
        ({"patterns": "owner:me"}, "'owner:me' is no pattern; expected caption:TEXT or label:NAME"),
        ({"patterns": "label:"}, "is no pattern"),
    ):
        with pytest.raises(IntarsiaError, match=words):
            whole.find_samples("oak", **question)


def test_what_looks_the_same_is_the_same_however_it_is_spelt(fresh: Fresh, empty: Path) -> None:
    """An accent as a character of its own, as file names of macOS have it, or one with its letter."""
    ways = [unicodedata.normalize(form, "Café Ö") for form in ("NFC", "NFD")]
    assert ways[0] != ways[1]
    spelt = [
        replace(s, text=f"the {ways[k]} at night", label=ways[k], file_name=f"{ways[k]}-{k}.png")
        for k, s in enumerate(WHOLE.manifest.samples[:2])
    ]
    vault = fresh(empty)
    vault.add_source("oak", replace(WHOLE, manifest=Manifest((*spelt, *WHOLE.manifest.samples[2:]))))
    for way in ways:
        assert len(vault.find_samples("oak", patterns=f"caption:{way.upper()}")) == 2
        assert len(vault.find_samples("oak", patterns=f"label:{way}")) == 2
        assert [s.file_name for s in vault.find_samples("oak", files=f"{way}-1.png")] == [f"{ways[1]}-1.png"]


def test_a_class_that_goes_with_its_last_sample_takes_the_table_of_prompts_with_it(fresh: Fresh, empty: Path) -> None:
    late = of_slice(3)
    rare = [replace(s, label="rare") if s.id in late else s for s in WHOLE.manifest]
    source = replace(WHOLE, manifest=Manifest(tuple(rare)))
    for adapter, slices in ((DeepPrompts(tokens=1, per_class=True), (1, 2, 3, 4)), (DeepPrompts(tokens=1), (4,))):
        vault = given(fresh(empty), source, adapter=adapter)
        plan = vault.plan_forget("oak", late, measure=False)
        assert plan.slices == slices
        assert ("no sample is left of 'rare'" in plan.because) == (len(slices) == 4)
        vault.forget("oak", late)
        assert all_bytes(vault.root) == all_bytes(given(fresh(empty), source.without(late), adapter=adapter).root)


def test_risky_samples_join_last_and_move_no_others(fresh: Fresh, empty: Path) -> None:
    risky = of_slice(0)[:2]
    source = replace(
        WHOLE, manifest=Manifest(tuple(replace(s, risk="high") if s.id in risky else s for s in WHOLE.manifest))
    )
    vault = given(fresh(empty), source)
    assert vault.plan_forget("oak", risky[0], measure=False).slices == (4,)
    for other in (of_slice(0)[2], of_slice(1)[0]):
        assert vault.plan_forget("oak", other, measure=False).slices[0] == slice_of(other, 4) + 1
    without = given(fresh(empty), WHOLE.without(risky))
    mine, theirs = (each.root / "compartments/oak/slices" for each in (vault, without))
    same = [
        (mine / f"slice-{n}.safetensors").read_bytes() == (theirs / f"slice-{n}.safetensors").read_bytes()
        for n in (1, 2, 3, 4)
    ]
    assert same == [True, True, True, False]
    vault.forget("oak", risky)
    assert all_bytes(vault.root) == all_bytes(without.root)


def test_a_risk_is_declared_for_all_of_which_nothing_is_said(vault: Vault) -> None:
    said = [replace(s, risk="normal") if k == 0 else s for k, s in enumerate(WHOLE.manifest)]
    vault.add_source("oak", replace(WHOLE, manifest=Manifest(tuple(said))), risk="high")
    assert [sample.risk for sample in vault.source("oak").manifest] == ["normal"] + ["high"] * 13
    with pytest.raises(IntarsiaError, match="risk is 'low'; expected high or normal, or nothing"):
        vault.add_source("elm", toy_source("elm"), risk="low")
    assert vault.verify().ok
