"""Run as a program: kills children of its own while they change a vault, and says what it found afterwards, as JSON.

    python kills.py killed EMPTY TRAINED SCRATCH MOMENTS [CASE ...]   a child dies at each of so many moments of a case
    python kills.py broken EMPTY TRAINED SCRATCH MOMENTS [CASE ...]   there, one call of the disk fails
    python kills.py full EMPTY TRAINED SCRATCH MOMENTS [CASE ...]     from there on, nothing more can be written
    python kills.py at-random EMPTY SCRATCH KILLS                     children die by SIGKILL at random moments
    python kills.py together EMPTY SCRATCH SECONDS                    two children change one vault, a third draws

The cases are those of `cases.py`. A moment is a single change of the disk. A process of its own, because
it forks: the children need no start-up, and whatever they do dies with them.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from cases import Case, cases
from harm import DISKS, FAILED, REFUSED, Disk, Harm
from helpers import ROUTER, all_bytes, quick, toy_source, traces

from intarsia.errors import ForbiddenError, IntarsiaError, SettingsError, UnknownName, VaultError
from intarsia.vault import Vault

BUSY = "is changing this vault"


def forked(root: Path, case: Case, harm: Harm | None, *, at: int | None) -> tuple[int, int]:
    """Let a child act on a vault, and do harm to its `at`-th change of the disk beside or below it.

    Returns:
        Its exit status, and how many changes it had seen.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with os.fdopen(reader, "rb") as told:
            seen = int.from_bytes(told.read(), "little")
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen
    disk = Disk(root.parent, harm, at)

    def end(status: int) -> None:
        os._exit(os.write(writer, disk.seen.to_bytes(4, "little")) and status)

    status = FAILED
    try:
        vault = Vault.open(root)
        disk.watch(end)
        case.act(vault)
        status = 0
    except VaultError as error:
        disk.harm = None
        one_line = "\n" not in str(error) and ("no space left" in str(error)) == (harm is not None and harm.full)
        status = REFUSED if one_line else FAILED
        if not one_line:
            traceback.print_exc()
    finally:  # a child must not go on with what its parent is doing
        disk.harm = None
        if status == FAILED and sys.exc_info()[0] is not None:
            traceback.print_exc()
        end(status)


def settled(root: Path) -> dict[str, bytes]:
    """The bytes of a vault once it was listed.

    The lock may hold the number of the process that died with it, and a scratch file of images that it was counting
    goes with the next that are counted.
    """
    Vault.open(root).sources()
    found = all_bytes(root, without=["lock"])
    return {name: data for name, data in found.items() if not (name.startswith("principals/") and "/." in name)}


def told(root: Path) -> list[str]:
    """What the ledger says was done; it must be whole, whatever died."""
    ledger = Vault.open(root).ledger
    assert ledger.problems() == []
    return [entry.kind for entry in ledger.entries()]


def is_true(kinds: list[str], *, before: list[str], after: list[str], changed: bool, done: bool) -> bool:
    """Whether the ledger tells of what was done, of that alone, and once; drawing changes nothing but the ledger."""
    if not changed:
        return kinds in [after[:length] for length in range(len(before), len(after) + 1)]
    return kinds == (after if done else before)


def every_moment(case: Case, scratch: Path, harm: Harm, moments: int) -> dict[str, object]:
    """Harm so many moments, evenly spread: what opens is the old state or the new, or `finish` makes the new one."""
    root = scratch / "yard" / "victim.vault"

    def begin() -> dict[str, bytes]:
        shutil.rmtree(root.parent, ignore_errors=True)
        root.parent.mkdir()
        shutil.copytree(case.start, root)
        return all_bytes(root, without=["lock"])

    old, before = begin(), told(root)
    status, total = forked(root, case, None, at=None)
    assert status == 0
    new, after = settled(root), told(root)
    outcomes = {"old": 0, "new": 0, "other": 0, "moments": 0, "untrue": 0, "left": 0}
    problems = []
    for moment in sorted({1 + (total - 1) * k // max(1, moments - 1) for k in range(moments)}):
        begin()
        status, _ = forked(root, case, harm, at=moment)
        assert status in harm.ends, (status, moment, total)
        found = settled(root)
        problems += [f"moment {moment} of {total}: {problem}" for problem in Vault.open(root).verify().problems]
        outcomes["left"] += bool(case.is_gone(Vault.open(root)) and traces(root.parent, case.gone))
        if case.finish is not None:
            case.finish(Vault.open(root))
            found = all_bytes(root, without=["lock"])
        outcomes["moments"] += 1
        outcomes["new" if found == new else "old" if found == old else "other"] += 1
        changed = old != new and not case.told_later
        true = is_true(told(root), before=before, after=after, changed=changed, done=found == new)
        outcomes["untrue"] += not true or not case.holds(Vault.open(root))
    return {**outcomes, "problems": problems}


@dataclass(frozen=True)
class Deed:
    """What a restless child does to a source, and what the source's number of images is then; None: it is gone."""

    act: Callable[[Vault, str], object]
    images: Callable[[int | None], int | None]


def draw(vault: Vault, name: str) -> object:
    return vault.compose(name, precision="float32").sample(1, steps=1)


def grant(vault: Vault, name: str) -> object:
    if not vault.principals():
        vault.add_principal("acme")
    return vault.grant(name, "acme", quota="9/day")


def ask(vault: Vault, name: str) -> object:
    return vault.open_ticket(name, vault.source(name).manifest.ids[:1])


WHOLE, MORE = 3, 5
DEEDS: Mapping[str, Deed] = {
    "add": Deed(lambda vault, name: vault.add_source(name, toy_source(name, WHOLE)), lambda _: WHOLE),
    "forget": Deed(lambda vault, name: vault.forget(name), lambda _: None),
    "train": Deed(lambda vault, name: vault.train(name, quick(), routers=[ROUTER]), lambda images: images),
    "forget sample": Deed(
        lambda vault, name: vault.forget(name, vault.source(name).manifest.ids[:1]), lambda images: (images or 0) - 1
    ),
    "extend": Deed(
        lambda vault, name: vault.extend(name, toy_source(name, MORE).without(toy_source(name, WHOLE).manifest.ids)),
        lambda images: (images or 0) + MORE - WHOLE,
    ),
    "resume": Deed(lambda vault, name: vault.resume(name), lambda images: images),
    "draw": Deed(draw, lambda images: images),
    "grant": Deed(grant, lambda images: images),
    "ask": Deed(ask, lambda images: images),
}


def chosen(vault: Vault, name: str, draw: random.Random) -> str:
    """A deed that the source is ready for."""
    if name not in {source.name for source in vault.sources()}:
        return "add"
    if name in {run.name for run in vault.unfinished()}:
        return draw.choice(["resume", "resume", "forget"])
    if name not in {compartment.name for compartment in vault.compartments()}:
        return "train"
    ids, first = vault.source(name).manifest.ids, toy_source(name, WHOLE).manifest.ids
    possible = ["forget", "draw", "grant", "ask", *(["forget sample"] * 3 if len(ids) > 1 else [])]
    return draw.choice([*possible, *(["extend"] if set(ids) <= set(first) else [])])


def restless(root: Path, turn: int, say: Callable[[str], object]) -> None:
    """Change a vault for ever, in another order each turn; says what begins, and what is done."""
    draw = random.Random(turn)
    while True:
        vault, name = Vault.open(root), draw.choice(["oak", "elm", "ash"])
        deed = chosen(vault, name, draw)
        say(f"begin {name} {deed}")
        DEEDS[deed].act(vault, name)
        say(f"done {name} {deed}")


def counted(root: Path) -> dict[str, int | None]:
    return {source.name: source.count for source in Vault.open(root).sources()}


def foreseen(lines: list[str], images: dict[str, int | None]) -> list[dict[str, int | None]]:
    """The numbers of images that there may be: what was said to be done is there, and what was begun may be."""
    possible = [{name: count for name, count in images.items() if count is not None}]
    for line in lines:
        word, name, deed = line.split(" ", 2)
        after = {**possible[0], name: DEEDS[deed].images(possible[0].get(name))}
        after = {each: count for each, count in after.items() if count is not None}
        possible = [after] if word == "done" else [possible[0], after]
    return possible


def at_random(start: Path, scratch: Path, kills: int) -> dict[str, object]:
    root, log = scratch / "restless.vault", scratch / "said"
    shutil.copytree(start, root)
    draw, problems, seen = random.Random(0), [], set()
    for turn in range(kills):
        images = counted(root)
        log.write_text("")
        child = os.fork()
        if not child:
            try:
                with log.open("a", buffering=1) as said:
                    restless(root, turn, lambda line: said.write(f"{line}\n"))
            except IntarsiaError:
                traceback.print_exc()
            finally:
                os._exit(1)
        # Deeds are waited for, as they take long on a busy machine; not for ever, as a child may have ended by itself.
        wanted, patience = draw.randrange(3), time.monotonic() + 60
        while log.read_text().count("done") < wanted and time.monotonic() < patience:
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.4))
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        problems += [] if status == -signal.SIGKILL else [f"turn {turn}: the child ended by itself"]
        problems += [f"turn {turn}: {problem}" for problem in Vault.open(root).verify().problems]
        lines = log.read_text().splitlines()
        seen |= {line.split(" ", 2)[2] for line in lines if line.startswith("done")}
        if counted(root) not in foreseen(lines, images):
            problems.append(f"turn {turn}: {counted(root)} after {lines} on {images}")
    problems += [f"an open ticket: {ticket}" for ticket in emptied(root).tickets() if ticket.state == "open"]
    clean = all_bytes(root, without=["lock"]) == all_bytes(start, without=["lock"])
    return {"problems": problems, "seen": sorted(seen), "clean": clean}


def emptied(root: Path) -> Vault:
    """The vault without anything that came."""
    vault = Vault.open(root)
    for name in vault.names():
        vault.forget(name)
    for principal in vault.principals():
        vault.remove_principal(principal.name)
    return vault


def together(start: Path, scratch: Path, seconds: float) -> dict[str, object]:
    """Two children with sources of their own on one vault; who is told that the other is at work tries again.

    A third draws from whatever is there: what it is refused, it is refused in words.
    """
    root, end = scratch / "shared.vault", time.monotonic() + seconds
    shutil.copytree(start, root)

    def busy(name: str) -> None:
        draw, done = random.Random(name), 0
        while time.monotonic() < end or not done:
            vault = Vault.open(root)
            try:
                DEEDS[chosen(vault, name, draw)].act(vault, name)
                done += 1
            except VaultError as error:
                if BUSY not in str(error):
                    raise

    def drawing(name: str) -> None:
        while time.monotonic() < end:
            with contextlib.suppress(ForbiddenError, SettingsError, UnknownName):
                Vault.open(root).compose(precision="float32").sample(1, steps=2)

    children = []
    for act, name in ((busy, "oak"), (busy, "elm"), (drawing, "all")):
        child = os.fork()
        if not child:
            try:
                act(name)
                os._exit(0)
            except IntarsiaError:
                traceback.print_exc()
            finally:
                os._exit(1)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    vault = Vault.open(root)
    problems = [str(problem) for problem in vault.verify().problems]
    emptied(root)
    return {"statuses": statuses, "problems": problems, "clean": all_bytes(root) == all_bytes(start)}


def main(mode: str, *paths: str) -> None:
    # Bytes are compared within one process kind here, and this call would import the compiler in every run.
    torch.use_deterministic_algorithms = lambda *arguments, **settings: None
    torch.set_num_threads(1)
    os.fsync = lambda handle: None  # a killed process leaves the page cache whole
    if mode in DISKS:
        empty, trained, folder, moments, *names = paths
        made, scratch, disk = cases(Path(empty), Path(trained), Path(folder)), Path(folder), DISKS[mode]
        found: object = {name: every_moment(made[name], scratch, disk, int(moments)) for name in names or made}
    elif mode == "at-random":
        empty, folder, kills = paths
        found = at_random(Path(empty), Path(folder), int(kills))
    else:
        empty, folder, seconds = paths
        found = together(Path(empty), Path(folder), float(seconds))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
