"""The demos: whole jobs on real images, from sources to a page, with every phase timed."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from intarsia.checks import check_seed
from intarsia.compartments import TrainSettings
from intarsia.composition import Result, SampleSettings, sample
from intarsia.errors import SettingsError, UnknownName, VaultError
from intarsia.experiments.report import Report, Table
from intarsia.vault import Vault

DEMOS = ("digits", "emoji", "captions")
OnPhase = Callable[[str], None]
OnStep = Callable[[str, int, int], None]


@dataclass
class Stage:
    """Where a demo plays: its folder, its seed, who is told of progress, and how long each phase took."""

    out: Path
    seed: int
    on_phase: OnPhase
    on_step: OnStep
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, title: str) -> Iterator[None]:
        self.on_phase(title)
        begin = time.perf_counter()
        yield
        self.seconds[title] = self.seconds.get(title, 0.0) + time.perf_counter() - begin

    def timetable(self, note: str = "") -> Table:
        rows = [(title, f"{seconds:.1f} s") for title, seconds in self.seconds.items()]
        total = ("together", f"{sum(self.seconds.values()):.1f} s")
        threads = torch.get_num_threads()
        told = f"{threads} {'thread' if threads == 1 else 'threads'}. {note}".rstrip()
        return Table("Seconds of each phase", ("phase", "time"), [*rows, total], told)


def run_demo(
    data: str, out: Path, *, seed: int = 0, emoji: Path | None = None, on_phase: OnPhase, on_step: OnStep
) -> Path:
    """Run a demo into a folder of its own; returns the page.

    Args:
        data: one of `DEMOS`.
        out: a new folder, or one that an earlier demo made, which is replaced.
        emoji: the folder that `intarsia data emoji` wrote, for the demos of emoji.
        on_phase, on_step: told of phases, and of (what, done, in all) within them.

    Raises:
        UnknownName: no such demo.
        SettingsError: a demo of emoji without its data.
        VaultError: `out` holds something that no demo made.
    """
    from intarsia.experiments.captions_demo import captions_demo
    from intarsia.experiments.digits_demo import digits_demo
    from intarsia.experiments.emoji_demo import emoji_demo

    if data not in DEMOS:
        raise UnknownName("demo", data, DEMOS)
    check_seed(seed)
    if data != "digits" and emoji is None:
        raise SettingsError(
            f"the demo '{data}' needs the emoji: run 'intarsia data emoji FOLDER', then pass --emoji FOLDER"
        )
    if data == "digits" and emoji is not None:
        raise SettingsError("the demo 'digits' has no emoji; leave --emoji out, or say --data emoji or captions")
    clear(out)
    stage = Stage(out, seed, on_phase, on_step)
    if emoji is None or data == "digits":
        report: Report = digits_demo(stage)
    else:
        report = emoji_demo(stage, emoji) if data == "emoji" else captions_demo(stage, emoji)
    return report.write(out / "index.html")


def clear(out: Path) -> None:
    """Make `out` an empty folder that is marked as a demo's; anything else that lies there is left alone."""
    mark = out / ".intarsia-demo"
    if out.exists() and any(out.iterdir()) and not mark.exists():
        raise VaultError(f"{out} is not empty and no demo made it; name another folder with --out, or empty it")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    mark.touch()


def train_all(stage: Stage, vault: Vault, names: Sequence[str], settings: TrainSettings) -> None:
    """Train the compartments side by side, each on its own source."""
    done = dict.fromkeys(names, 0)
    for step in vault.training(names, settings):
        done[step.name] = step.step
        stage.on_step("compartments", sum(done.values()), settings.steps * len(names))


def draw(
    stage: Stage,
    vault: Vault,
    names: Sequence[str],
    count: int,
    settings: SampleSettings,
    *,
    weights: str = "gaussian",
    routing: str = "threshold",
    labels: Sequence[str | None] | None = None,
) -> Result:
    """Sample from a composition with progress."""
    composed = vault.compose(names, weights=weights, routing=routing)
    return sample(
        composed.model,
        count,
        settings,
        decode=vault.backbone.decode,
        labels=labels,
        on_progress=lambda done, total: stage.on_step(f"{weights}/{routing}", done, total),
    )


def clearest_change(weights: Tensor) -> int:
    """The image, of weights (steps, N, n), with the most telling path: open for longest, then decided for good."""
    largest, owner = weights.max(dim=2)
    settled = (owner == owner[-1]).flip(0).cumprod(dim=0).sum(dim=0)  # steps since the leader last changed
    decided = (largest[-1] > 0.95) & (settled >= len(weights) // 2)
    return int(((largest < 0.8).sum(dim=0) * decided).argmax())
