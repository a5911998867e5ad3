"""Once a revoke or a forget has returned, no image is drawn with the source any more: not by any run under way either.

Runs in this process are stopped from their own progress; those of another process are real, and wait where they are
told to.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from intarsia.errors import ForbiddenError
from intarsia.files import write_json
from intarsia.vault import Vault

from .helpers import ROUTER, grown, opened_files, quick, toy_source
from .test_grants import NOON, Now

SAMPLER = Path(__file__).with_name("sampler.py")
STEPS = 4
Action = Callable[[Vault], object]


@pytest.fixture
def shared(pair: Vault) -> Vault:
    """With `oak` and `elm` granted to the principal `acme`."""
    pair.add_principal("acme")
    pair.grant(["oak", "elm"], "acme")
    return pair


@torch.enable_grad()
def retrained(vault: Vault, name: str) -> object:
    """Called from within a run, which needs no gradients."""
    return vault.train(name, quick(seed=1), routers=[ROUTER], restart=True)


TAKEN: dict[str, tuple[Action, str | None, str]] = {
    "forgotten": (lambda v: v.forget("elm"), None, "'elm' was forgotten after it was composed"),
    "forgotten, for a principal": (lambda v: v.forget("elm"), "acme", "'elm' was forgotten"),
    "retrained": (lambda v: retrained(v, "elm"), None, "'elm' was replaced"),
    "revoked": (lambda v: v.revoke("elm", "acme"), "acme", "'elm' may not be used: it was not granted to 'acme'"),
    "no longer admitted": (
        lambda v: v.change_rules("acme", owners=["owner of oak"]),
        "acme",
        "'elm' may not be used: its owner owner of elm is not among owner of oak",
    ),
    "removed": (lambda v: v.remove_principal("acme"), "acme", "the principal 'acme' was removed"),
}


def stopped_at(vault: Vault, moment: int, action: Action, principal: str | None) -> None:
    """Draw, and let `action` happen after `moment` steps, by way of another handle of the vault."""
    composition = Vault.open(vault.root).compose(principal=principal, precision="float32", routing="full")

    def progress(done: int, steps: int) -> None:
        if done == moment:
            action(vault)
        assert done <= moment, "a step was taken after the source had gone"

    composition.sample(2, steps=STEPS, on_progress=progress)


MOMENTS = [(case, STEPS) for case in TAKEN] + [("forgotten", 1), ("revoked", 1)]


@pytest.mark.parametrize(("case", "moment"), MOMENTS)
def test_a_run_ends_at_the_next_step(shared: Vault, case: str, moment: int) -> None:
    action, principal, words = TAKEN[case]
    with pytest.raises(ForbiddenError) as caught:
        stopped_at(shared, moment, action, principal)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", TAKEN)
def test_what_was_composed_before_cannot_be_drawn_from_after(shared: Vault, case: str) -> None:
    action, principal, words = TAKEN[case]
    composition = Vault.open(shared.root).compose(principal=principal, precision="float32")
    composition.check()
    action(shared)
    steps: list[int] = []
    with pytest.raises(ForbiddenError, match=words):
        composition.sample(1, steps=1, on_progress=lambda done, of: steps.append(done))
    assert steps == []
    with pytest.raises(ForbiddenError):
        composition.check()


def test_the_network_is_not_asked_behind_the_back_of_the_guard(shared: Vault) -> None:
    """Whoever drives the denoiser without `sample` meets the guard at every call."""
    model = shared.compose(precision="float32").model
    run = model.run([0])
    x_t, t = torch.zeros(1, 1, 4, 4), torch.full((1,), 0.5)
    run(x_t, t)
    shared.forget("elm")
    for call in (run, run.both, model.run([1])):
        with pytest.raises(ForbiddenError):
            call(x_t, t)


UNTOUCHED: dict[str, tuple[Action, str | None]] = {
    "training": (lambda v: retrained(v, "ash"), "acme"),
    "another grant": (lambda v: v.grant("ash", "acme"), "acme"),
    "another source": (lambda v: v.forget("ash"), None),
    "another source, for a principal": (lambda v: v.add_source("fir", toy_source("fir")), "acme"),
    "another principal": (lambda v: v.remove_principal("bee"), "acme"),
    "a grant again": (lambda v: (v.revoke("elm", "acme"), v.grant("elm", "acme", quota="9/day")), "acme"),
    "a grant of no concern to the owner": (lambda v: v.revoke("elm", "acme"), None),
}


def test_a_run_goes_on_where_its_sources_stay(shared: Vault) -> None:
    grown(shared, "ash").add_principal("bee")
    plain = shared.compose(["elm", "oak"], precision="float32").sample(2, steps=STEPS).images
    for case, (action, principal) in UNTOUCHED.items():
        composition = shared.compose(["elm", "oak"], principal=principal, precision="float32")
        done: list[int] = []

        def progress(step: int, of: int, action: Action = action, done: list[int] = done) -> None:
            done.append(step)
            if step == 1:
                action(shared)

        assert composition.sample(2, steps=STEPS, on_progress=progress).images.equal(plain), case
        assert done == [1, 2, 3, 4]


def test_a_grant_that_ends_ends_the_run(shared: Vault) -> None:
    now = Now()
    vault = Vault.open(shared.root, clock=now)
    vault.grant("elm", "acme", until=NOON + timedelta(minutes=1))
    composition = vault.compose(principal="acme", precision="float32")

    def progress(done: int, steps: int) -> None:
        assert done < 3
        now.time += timedelta(seconds=30)

    with pytest.raises(ForbiddenError, match="its grant ended at 2030-06-01T12:01:00Z"):
        composition.sample(1, steps=STEPS, on_progress=progress)


def test_a_forget_that_was_decided_is_finished_before_the_next_run(pair: Vault) -> None:
    """A process that was killed after it had decided has left its work; who composed before draws nothing more."""
    composition = pair.compose(precision="float32")
    work = pair.root / "work/0"
    work.mkdir()
    write_json(work / "plan.json", {"moves": {"sources/elm": None, "compartments/elm": None}})
    with pytest.raises(ForbiddenError, match="'elm' was forgotten"):
        composition.sample(1, steps=1)
    assert not (pair.root / "compartments/elm").exists()


def test_a_step_opens_nothing(shared: Vault) -> None:
    composition = shared.compose(principal="acme", precision="float32", routing="full")
    during: list[str] = []
    with opened_files() as paths:
        composition.sample(
            2, steps=9, on_progress=lambda done, of: during.extend(paths) if done == 8 else paths.clear()
        )
    assert not [path for path in during if path.startswith(str(shared.root))]


@contextmanager
def sampler(root: Path, principal: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Another process that draws from a vault; `tell(**what)` is its answer to what it is told."""
    command = [sys.executable, str(SAMPLER), str(root), principal]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:

        def tell(**what: object) -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        try:
            yield tell
        finally:
            process.stdin.close()  # which ends it


@pytest.mark.integration
def test_a_run_in_another_process_ends_without_images(shared: Vault, tmp_path: Path) -> None:
    """It is stopped where it stands, the revoke or forget is acknowledged, and only then it goes on."""
    root, whole = shared.root, tmp_path / "whole.vault"
    shutil.copytree(root, whole)
    with sampler(root, "acme") as tell:
        assert tell(pause=1) == {"at": 1}
        assert tell() == {"images": 2}, "nothing was taken, so that the run ends with images"
        for name, moment in (("revoked", 1), ("forgotten", STEPS)):
            assert tell(pause=moment) == {"at": moment}
            TAKEN[name][0](Vault.open(root))
            answer = tell()
            assert answer.keys() == {"refused", "steps"}, name
            assert "'elm'" in answer["refused"]
            assert answer["steps"] == moment, "a step was taken after the source had gone"
            shutil.rmtree(root)
            shutil.copytree(whole, root)
        # Whatever the moment: no run ends with images that took a step after the revoke had returned.
        assert tell(forever=True) == {"drawing": True}
        time.sleep(0.1)
        Vault.open(root).revoke("elm", "acme")
        acknowledged = time.monotonic()
        answer = tell()
        assert "'elm' may not be used" in answer["refused"]
        assert answer["last"] < acknowledged
