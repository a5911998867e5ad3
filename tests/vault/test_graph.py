"""The shard graph: who permits whom to learn, what a compartment carries, and forgetting along the edges."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from intarsia.compartments import DeepPrompts, FullCopy
from intarsia.errors import (
    CorruptError,
    ForbiddenError,
    IncompatibleError,
    IntarsiaError,
    SettingsError,
    UnknownName,
    VaultError,
)
from intarsia.files import write_json
from intarsia.vault import Vault

from .helpers import ROUTER, all_bytes, grown, opened_files, pictures, quick, toy_source, traces
from .test_crash import Failing

Fresh = Callable[[Path], Vault]


def together(vault: Vault, *, steps: int | None = None, **changes: object) -> Vault:
    """`oak` learns from `elm` too, which permits it; `elm` has a compartment of its own."""
    grown(vault, "oak", "elm", train=False).permit("elm", to="oak")
    vault.train("elm", quick(**changes), routers=[ROUTER])
    return learning(vault, steps=steps, **changes)


@pytest.fixture(scope="module")
def joined(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`together`, with the settings that tests take."""
    root = tmp_path_factory.mktemp("joined") / "joined.vault"
    return together(Vault.open(shutil.copytree(empty, root))).root


@pytest.fixture(scope="module")
def lonely(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`alone`, with the settings that tests take."""
    root = tmp_path_factory.mktemp("lonely") / "lonely.vault"
    return alone(Vault.open(shutil.copytree(empty, root))).root


def learning(vault: Vault, *, steps: int | None = None, **changes: object) -> Vault:
    run = vault.training("oak", quick(**changes), neighbours="elm", routers=[ROUTER], save_every=1)
    for _ in range(steps) if steps is not None else run:
        if steps is not None:
            next(run)
    run.close()
    return vault


def alone(vault: Vault, **changes: object) -> Vault:
    grown(vault, "oak", train=False).train("oak", quick(**changes), routers=[ROUTER])
    return vault


def same_but_permits(first: Vault, second: Vault) -> bool:
    return all_bytes(first.root, without=["permits"]) == all_bytes(second.root, without=["permits"])


def test_a_compartment_learns_from_who_permits_it_and_carries_both(
    fresh: Fresh, empty: Path, joined: Path, lonely: Path
) -> None:
    vault, other = fresh(joined), fresh(lonely)
    compartment = vault.compartment("oak")
    assert (compartment.sources, compartment.count) == (("elm", "oak"), 10)
    assert set(compartment.classes) == {"label-oak-0", "label-oak-1", "label-elm-0", "label-elm-1"}
    assert compartment.digest != other.compartment("oak").digest
    assert vault.compose("oak", precision="float32").licences == {"elm": "CC-BY-4.0", "oak": "CC-BY-4.0"}
    assert vault.verify().ok
    again = together(fresh(empty))
    assert all_bytes(again.root) == all_bytes(vault.root)


def test_nobody_learns_from_whom_nobody_asked(vault: Vault) -> None:
    grown(vault, "oak", "elm", train=False).permit("oak", to="elm")
    before = all_bytes(vault.root)
    with (
        opened_files() as paths,
        pytest.raises(ForbiddenError, match="'oak' may not learn from 'elm': nobody permitted"),
    ):
        vault.train("oak", quick(), neighbours=["elm"], routers=[ROUTER])
    assert not [path for path in paths if "elm/images" in path]
    assert all_bytes(vault.root) == before


def test_a_permit_that_is_withdrawn_while_it_trains_counts(vault: Vault) -> None:
    """The trainer lives; what it stores at its end is looked at once more."""
    together(vault, steps=2)
    run = vault.training("oak", quick(), neighbours="elm", routers=[ROUTER])
    next(run)
    with pytest.raises(VaultError, match="'oak' is being trained"):
        vault.forbid("elm", "oak")
    (vault.root / "permits/elm/permit.json").unlink()
    (vault.root / "permits/elm").rmdir()
    with pytest.raises(ForbiddenError, match="may not learn from 'elm'"):
        list(run)
    assert "oak" not in [info.name for info in vault.compartments()]


KINDS = {
    "lora": {},
    "prompts per class": {"adapter": DeepPrompts(tokens=2, per_class=True), "slices": 4},
    "a full copy": {"adapter": FullCopy(), "slices": 1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_forgotten_neighbour_was_never_there(fresh: Fresh, empty: Path, kind: str) -> None:
    vault, never = together(fresh(empty), **KINDS[kind]), alone(fresh(empty), **KINDS[kind])
    source = vault.source("elm")
    words = {"elm", source.owner, source.manifest.root, vault.compartments()[0].digest, *source.manifest.ids}
    words |= {text for s in source.manifest for text in (s.file_name, s.text, s.label) if text}
    assert traces(vault.root, words)
    outcome = vault.forget("elm")
    assert outcome.gone == ("elm",)
    assert outcome.after == {"oak": never.compartments()[0].digest}
    assert traces(vault.root, words) == []
    assert all_bytes(vault.root) == all_bytes(never.root)
    assert vault.verify().ok


@pytest.mark.parametrize("number", [0, 3])
def test_a_sample_that_a_neighbour_forgets_was_never_learned(fresh: Fresh, empty: Path, number: int) -> None:
    whole = toy_source("elm")
    gone = whole.manifest.ids[number]
    vault, never = together(fresh(empty), slices=4), fresh(empty)
    never.add_source("oak", toy_source("oak"))
    never.add_source("elm", whole.without([gone]))
    never.permit("elm", to="oak")
    never.train("elm", quick(slices=4), routers=[ROUTER])
    learning(never, slices=4)
    outcome = vault.forget("elm", [gone])
    assert set(outcome.before) == set(outcome.after) == {"elm", "oak"}
    assert traces(vault.root, [gone]) == []
    assert all_bytes(vault.root) == all_bytes(never.root)


def test_a_sample_of_its_own_that_a_learner_forgets(fresh: Fresh, empty: Path) -> None:
    whole = toy_source("oak")
    vault, never = together(fresh(empty), slices=4), fresh(empty)
    never.add_source("oak", whole.without(whole.manifest.ids[:2]))
    never.add_source("elm", toy_source("elm"))
    never.permit("elm", to="oak")
    never.train("elm", quick(slices=4), routers=[ROUTER])
    learning(never, slices=4)
    assert vault.forget("oak", whole.manifest.ids[:2]).before.keys() == {"oak"}, "elm learned nothing from oak"
    assert all_bytes(vault.root) == all_bytes(never.root)


@pytest.mark.parametrize("owner", ["oak", "elm"])
def test_a_picture_that_both_hold_stays_as_the_other_has_it(fresh: Fresh, empty: Path, owner: str) -> None:
    """It counts once, under the label of the source that learns; where that gives it up, under the neighbour's."""
    shared = pictures("elm", 2)
    both = toy_source("oak", images=shared), toy_source("elm")
    gone = both[0].manifest.ids[0]
    assert gone in both[1].manifest.ids

    def made(vault: Vault, *sources: object) -> Vault:
        for source in sources:
            vault.add_source(source.name, source)
        vault.permit("elm", to="oak")
        return learning(vault, slices=4)

    left = [source.without([gone]) if source.name == owner else source for source in both]
    vault, never = made(fresh(empty), *both), made(fresh(empty), *left)
    mine = sum(count for label, count in vault.compartment("oak").classes.items() if "oak" in label)
    assert (vault.compartment("oak").count, mine) == (5, 2), "the label is that of the source that learns"
    vault.forget(owner, [gone])
    assert vault.compartment("oak").count == 5
    assert all_bytes(vault.root) == all_bytes(never.root)


def test_what_is_forbidden_is_forgotten_too(fresh: Fresh, joined: Path, lonely: Path) -> None:
    vault, never = fresh(joined), fresh(lonely)
    never.add_source("elm", toy_source("elm"))
    never.train("elm", quick(), routers=[ROUTER])
    composition = vault.compose("oak", precision="float32")
    outcome = vault.forbid("elm", "oak")
    assert (outcome.action, outcome.source, list(outcome.before)) == ("forbid", "oak", ["oak"])
    assert all_bytes(vault.root) == all_bytes(never.root)
    with pytest.raises(ForbiddenError, match="'oak' was replaced"):
        composition.sample(1, steps=1)
    with pytest.raises(UnknownName, match="source that may learn from 'elm' 'oak'"):
        vault.forbid("elm", "oak")


def test_a_permit_that_was_never_used_leaves_no_work(fresh: Fresh, trained: Path) -> None:
    vault = fresh(trained)
    assert vault.permit("elm", to=["oak"]) == ("oak",)
    outcome = vault.forbid("elm", "oak")
    assert (dict(outcome.before), outcome.steps) == ({}, 0)
    assert all_bytes(vault.root) == all_bytes(trained)


@pytest.mark.parametrize("gone", ["oak", "elm"])
def test_permits_go_with_either_end(fresh: Fresh, trained: Path, gone: str) -> None:
    vault, plain = fresh(trained), fresh(trained)
    grown(vault, "ash").permit("elm", to=["ash", "oak"])
    grown(plain, "ash").permit("elm", to=["ash"]) if gone == "oak" else grown(plain, "ash")
    vault.forget(gone)
    plain.forget(gone)
    assert all_bytes(vault.root) == all_bytes(plain.root)


def test_what_is_owed_along_an_edge_cannot_be_composed_and_is_finished(
    fresh: Fresh, joined: Path, lonely: Path
) -> None:
    vault, never = fresh(joined), fresh(lonely)
    plan = vault.plan_forget("elm")
    assert [(e.name, e.slices, e.steps, e.sample_gradients) for e in plan.others] == [("oak", (1, 2), 4, 8)]
    one = vault.plan_forget("elm", vault.source("elm").manifest.ids[:1])
    assert plan.seconds is not None
    assert one.seconds is not None
    assert 0 < plan.seconds < 10
    assert vault.plan_forget("elm", measure=False).seconds is None
    vault.forgetting("elm")
    assert traces(vault.root, ["elm"]) == []
    with pytest.raises(SettingsError, match="'oak' cannot be used: it is out of use"):
        vault.compose("oak")
    assert [(run.name, run.owed) for run in vault.unfinished()] == [("oak", "forget")]
    (outcome,) = Vault.open(vault.root).resume()
    assert (outcome.source, outcome.steps) == ("oak", 4)
    assert all_bytes(vault.root) == all_bytes(never.root)


def test_an_unfinished_training_loses_its_neighbour_and_stays_unfinished(
    fresh: Fresh, empty: Path, lonely: Path
) -> None:
    vault, never = together(fresh(empty), steps=3), fresh(lonely)
    vault.forget("elm")
    assert traces(vault.root, ["elm"]) == []
    assert [(run.name, run.owed) for run in vault.unfinished()] == [("oak", None)]
    vault.train("oak", quick(), routers=[ROUTER])
    assert all_bytes(vault.root) == all_bytes(never.root)


def test_edges_are_followed_from_each_to_its_learners_alone(fresh: Fresh, joined: Path) -> None:
    """elm -> oak -> ash: what oak learned from elm, ash did not."""
    vault = fresh(joined)
    grown(vault, "ash", train=False).permit("oak", to="ash")
    vault.train("ash", quick(), neighbours="oak", routers=[ROUTER])
    ash = vault.compartment("ash").digest
    outcome = vault.forget("elm")
    assert set(outcome.before) == {"elm", "oak"}
    assert vault.compartment("ash").digest == ash
    assert vault.compartment("ash").sources == ("ash", "oak")


def test_another_set_of_neighbours_is_another_training(fresh: Fresh, joined: Path) -> None:
    vault = fresh(joined)
    with pytest.raises(SettingsError, match=r"neighbours\.elm .* there, None here"):
        vault.train("oak", quick(), routers=[ROUTER])
    vault.train("oak", quick(), neighbours="elm", routers=[ROUTER])
    path = vault.root / "compartments/oak"
    kept = all_bytes(path)
    vault.forget("elm", toy_source("elm").manifest.ids[:1])
    for name, data in kept.items():
        (path / name).write_bytes(data)
    with pytest.raises(IncompatibleError, match=r"learned from other samples .* than source 'elm' holds"):
        vault.compose("oak")
    with pytest.raises(IncompatibleError, match="other samples of its neighbour 'elm'"):
        vault.train("oak", quick(), neighbours="elm", routers=[ROUTER])
    assert [problem.where for problem in vault.verify().problems] == ["compartments/oak", "index.db"]


def test_the_ledger_knows_of_edges_and_names_nobody(fresh: Fresh, joined: Path) -> None:
    vault = fresh(joined)
    vault.forbid("elm", "oak")
    entries = [entry for entry in vault.ledger.entries() if entry.kind in ("permit", "forbid")]
    known = vault._store.salts.all(["oak", "elm"])
    assert [(entry.kind, entry.names(known)) for entry in entries] == [
        ("permit", ["elm", "oak"]),
        ("forbid", ["elm", "oak"]),
    ]
    assert not [entry for entry in entries if b"oak" in entry.line or b"elm" in entry.line]
    assert vault.verify().ok


def test_a_forget_that_fails_half_way_leaves_no_compartment_with_the_source(fresh: Fresh, joined: Path) -> None:
    """Each write fails in turn: nothing was done, or nobody composes what learned from the source."""
    start, outcomes = fresh(joined), set()
    for n in range(1, 80, 9):
        vault = fresh(start.root)
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, n, errno.EIO)
            with contextlib.suppress(VaultError):
                vault.forgetting("elm")
        if failing.left > 0:
            break
        again = Vault.open(vault.root)
        there = "elm" in again.names()
        outcomes.add(there)
        assert ("oak" in [info.name for info in again.compartments()]) == there
        assert again.verify().ok
    assert failing.left > 0
    assert outcomes == {True, False}


WRONG = {
    "to itself": (lambda v: v.permit("oak", to="oak"), SettingsError, "name one or more other sources"),
    "to nobody": (lambda v: v.permit("oak", to=[]), SettingsError, "name one or more other sources"),
    "to a stranger": (lambda v: v.permit("oak", to=["oka"]), UnknownName, "did you mean 'oak'"),
    "of a stranger": (lambda v: v.permit("oka", to=["elm"]), UnknownName, "did you mean 'oak'"),
    "nothing to forbid": (lambda v: v.forbid("oak", "elm"), UnknownName, "may learn from 'oak' 'elm': known: none"),
    "a stranger to forbid": (lambda v: v.forbid("oka", "elm"), UnknownName, "did you mean 'oak'"),
    "its own neighbour": (lambda v: v.train("oak", quick(), neighbours="oak"), SettingsError, "named twice"),
    "a strange neighbour": (lambda v: v.train("oak", quick(), neighbours="fir"), UnknownName, "unknown source 'fir'"),
    "a damaged permit": (lambda v: spoiled(v).train("oak", quick(), neighbours="elm"), CorruptError, "digest does not"),
    "a damaged permit, forgotten": (lambda v: spoiled(v).forget("oak"), CorruptError, "digest does not"),
}


def spoiled(vault: Vault) -> Vault:
    (vault.root / "permits/elm").mkdir(exist_ok=True)
    write_json(vault.root / "permits/elm/permit.json", {"format": 1, "source": "elm", "to": ["oak"], "digest": "0"})
    assert [problem.where for problem in vault.verify().problems] == ["permits/elm"]
    return vault


@pytest.mark.parametrize("case", WRONG)
def test_one_clear_line_and_nothing_changed(pair: Vault, case: str) -> None:
    action, kind, words = WRONG[case]
    before = all_bytes(pair.root, without=["permits"])
    with pytest.raises(kind) as caught:
        action(pair)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, IntarsiaError)
    assert all_bytes(pair.root, without=["permits"]) == before
