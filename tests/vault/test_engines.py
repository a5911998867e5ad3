"""Engines: whoever trains, the vault asks, keeps and tells; and each training is given its own source."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, TrainStep
from intarsia.errors import VaultError
from intarsia.vault import Core, Vault
from intarsia.vault.engines import Here, Work

from .helpers import ROUTER, all_bytes, grown, opened_files, pictures, quick, toy_source


@dataclass
class Elsewhere:
    """Trains backwards, one after the other, and notes what it was given; `lost` is the step at which it fails."""

    given: list[list[str]] = field(default_factory=list)
    lost: int | None = None
    together: ClassVar[bool] = True

    def train(
        self, works: Sequence[Work], backbone: Backbone, core: Core, *, save_every: int
    ) -> Generator[TrainStep, None, list[Compartment]]:
        self.given.append([work.name for work in works])
        finished = {}
        for work in reversed(works):
            steps = Here().train([work], backbone, core, save_every=save_every)
            while work.name not in finished:
                try:
                    step = next(steps)
                except StopIteration as end:
                    (finished[work.name],) = end.value
                else:
                    if step.step == self.lost:
                        raise VaultError("the machine is gone")
                    yield step
        return [finished[work.name] for work in works]


@pytest.fixture
def grove(vault: Vault) -> Vault:
    """With `oak` and `elm`, untrained; `elm` may learn from `oak`."""
    grown(vault, "oak", "elm", train=False)
    vault.permit("oak", ["elm"])
    return vault


def both(vault: Vault) -> None:
    vault.train(["oak"], quick(), routers=[ROUTER])
    vault.train(["elm"], quick(), routers=[ROUTER], neighbours=["oak"])


def test_wherever_it_is_trained_the_vault_holds_the_same_bytes(
    grove: Vault, fresh: Callable[[Path], Vault], empty: Path
) -> None:
    engine = Elsewhere()
    other = Vault.open(fresh(grove.root).root, engine=engine)
    for vault in (grove, other):
        both(vault)
        gone = vault.source("oak").manifest.ids[:2]
        outcome = vault.forget("oak", gone)
        assert [receipt.entry.kind for receipt in outcome.receipts] == ["forget", "train", "train"]
        vault.extend("elm", toy_source("elm", images=pictures("more", 3)))
    # What is trained again after a forgetting is handed over at once: own compartment and learner.
    assert engine.given == [["oak"], ["elm"], ["oak", "elm"], ["elm"]]
    assert all_bytes(other.root) == all_bytes(grove.root)
    kinds = [[entry.kind for _, entry, _ in vault.history()] for vault in (grove, other)]
    assert kinds[0] == kinds[1]


def test_what_was_lost_is_resumed_all_at_once_with_an_outcome_for_each(
    grove: Vault, fresh: Callable[[Path], Vault]
) -> None:
    expected = fresh(grove.root)
    expected.train(["oak", "elm"], quick(), routers=[ROUTER])
    engine = Elsewhere(lost=3)
    vault = Vault.open(grove.root, engine=engine)
    with pytest.raises(VaultError, match="the machine is gone"):
        for _ in vault.training(["oak", "elm"], quick(), routers=[ROUTER], save_every=1):
            pass
    assert {each.name: each.done for each in vault.unfinished()} == {"elm": 3, "oak": 0}
    engine.lost = None
    outcomes = vault.resume()
    assert [(outcome.source, outcome.steps) for outcome in outcomes] == [("elm", 1), ("oak", 4)]
    assert engine.given == [["oak", "elm"], ["elm", "oak"]]
    assert [[each.source for each in outcome.receipts[0].openings] for outcome in outcomes] == [["elm"], ["oak"]]
    assert all_bytes(vault.root) == all_bytes(expected.root)


def test_a_work_opens_its_own_source_and_permitted_neighbours_alone(grove: Vault) -> None:
    opened: dict[str, list[str]] = {}

    class Looking:
        together: ClassVar[bool] = True

        def train(
            self, works: Sequence[Work], backbone: Backbone, core: Core, *, save_every: int
        ) -> Generator[TrainStep, None, list[Compartment]]:
            for work in works:
                with opened_files() as paths:
                    work.load()
                opened[work.name] = paths
            return (yield from Here().train(works, backbone, core, save_every=save_every))

    vault = Vault.open(grove.root, engine=Looking())
    vault.add_source("ash", toy_source("ash"))
    both(vault)
    vault.train(["ash"], quick(), routers=[ROUTER])
    seen = {
        name: {path.split("/sources/")[1].split("/")[0] for path in paths if "/sources/" in path}
        for name, paths in opened.items()
    }
    assert seen == {"oak": {"oak"}, "elm": {"elm", "oak"}, "ash": {"ash"}}
