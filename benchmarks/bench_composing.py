"""What composing costs: N compartments against one plain model and against a loop over peft adapters, each with its FD.

Eight sources of digits of different kinds (by class) or of one kind (at random), or the owners of emoji, drawn for
captions under guidance. Every row has the same number of images, steps and batch, and the precision of its block. The
peft loop is what one writes without intarsia: at every step each adapter is switched on in turn; the predictions are
mixed with the same weights. It is timed in smaller batches too, as large ones do it no good, and has the better time.

    python benchmarks/bench_composing.py [--emoji FOLDER] [--count 512] [--batch 512] [--steps 20] [--train-steps 400]
                                         [--nats 0.1] [--growth] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from stand_in import StandIn
from torch import Tensor

from intarsia.audit import measure
from intarsia.backbone.backbone import label_rows
from intarsia.backbone.precision import PRECISIONS
from intarsia.composition import CompartmentMember, CompositeDenoiser, Full, Result, SampleSettings, sample
from intarsia.composition.member import Conditions
from intarsia.data import Source
from intarsia.diffusion import expand, to_x0
from intarsia.experiments.reproduce.limit import router_cost
from intarsia.experiments.reproduce.scale import DIGITS, EMOJI
from intarsia.experiments.reproduce.workshop import KEPT, Team, Workshop
from intarsia.experiments.reproduce.world import World, at_random, by_class
from intarsia.experiments.reproduce.worlds import digits_world, emoji_world
from intarsia.vault.composing import compose

SOURCES = 8
GROWTH = (1, 2, 4, 8, 16, 32)
SMALLER = 128  # images in a batch of the loop
ALONE, LOOP, FULL = "one plain model", "peft loop", "ours, full"


@dataclass
class PeftMember(StandIn):
    """One adapter of a peft model that holds all of them; it is switched on before each call."""

    network: Any

    @torch.no_grad()
    def x0_hat(self, x_t: Tensor, t: Tensor, labels: Conditions) -> Tensor:
        backbone = self.member.backbone
        self.network.set_adapter(self.name)
        context = label_rows(backbone.labels, labels)
        arguments = (x_t.to(PRECISIONS[self.member.precision]), t * backbone.time_scale, context)
        predicted = self.network(*arguments).float()
        alpha, sigma = expand(backbone.schedule.alpha(t), x_t), expand(backbone.schedule.sigma(t), x_t)
        return to_x0(backbone.prediction, predicted, x_t, alpha, sigma)


@dataclass(frozen=True)
class Bench:
    """Trained compartments of one kind of sources, and how images are drawn from them."""

    world: World
    team: Team
    folder: Path
    options: argparse.Namespace

    @property
    def guidance(self) -> float:
        return EMOJI.sampling.guidance_scale if self.world.captioned else 1.0

    def settings(self, nats: float | None = None) -> SampleSettings:
        """The same for every row, but for the analytic start."""
        o = self.options
        return SampleSettings(steps=o.steps, batch=o.batch, guidance_scale=self.guidance, analytic_start=nats)

    def model(self, names: Sequence[str], routing: str, precision: str) -> CompositeDenoiser:
        chosen = [self.team.compartments[name] for name in names]
        return compose(chosen, self.team.backbone, self.team.core, routing=routing, precision=precision)

    def draw(self, model: CompositeDenoiser, count: int, settings: SampleSettings) -> Result:
        labels = self.world.asked(count, model.labels | model.vocabulary)
        return sample(model, count, settings, decode=self.team.backbone.decode, labels=labels)

    def timed(self, model: CompositeDenoiser, settings: SampleSettings) -> tuple[float, Result]:
        self.draw(model, 16, settings)  # warm up
        begin = time.perf_counter()
        result = self.draw(model, self.options.count, settings)
        return time.perf_counter() - begin, result

    def peft_members(self, members: Sequence[CompartmentMember]) -> list[PeftMember]:
        """Plain peft reads the compartments' folders; a name for each adapter."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of its own dependencies, on import
            from peft import PeftModel
        first, *others = members
        network = copy.deepcopy(self.team.backbone.network_in(first.precision))
        model = PeftModel.from_pretrained(network, str(self.folder / first.name), adapter_name=first.name)
        for member in others:
            model.load_adapter(str(self.folder / member.name), adapter_name=member.name)
        model = model.to(PRECISIONS[first.precision]).eval()
        return [PeftMember(member, model) for member in members]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("count", 512), ("batch", 512), ("steps", 20), ("train-steps", 400)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--nats", type=float, default=0.1, help="budget of the analytic start")
    parser.add_argument("--emoji", type=Path, help="folder of the emoji tables, in place of digits")
    parser.add_argument("--growth", action="store_true", help="seconds for N = 1, 2, 4, … 32, in place of the rest")
    parser.add_argument("--work", type=Path, help="folder that keeps the compartments; by default they go")
    options = parser.parse_args()
    world = digits_world() if options.emoji is None else emoji_world(options.emoji)
    print(
        f"{options.count} images in batches of {options.batch}, {options.steps} DDPM steps, {options.train_steps} "
        f"training steps, {torch.get_num_threads()} threads"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.work or Path(scratch)
        if options.growth:
            return growth(world, folder, options)
        for kind, sources in kinds(world).items():
            bench = trained(world, kind, sources, folder, options)
            for precision in ("float32", "auto"):
                compare(kind, bench, precision)


def kinds(world: World) -> dict[str, Sequence[Source]]:
    if world.owners:
        return {"owners": [owner.kept for owner in world.owners]}
    return {"by class": by_class(world.images, SOURCES), "at random": at_random(world.images, SOURCES, seed=0)}


def trained(world: World, kind: str, sources: Sequence[Source], folder: Path, options: argparse.Namespace) -> Bench:
    settings = replace((EMOJI if world.captioned else DIGITS).training, steps=options.train_steps)
    place = kind.replace(" ", "-")
    shop = Workshop(folder, world.backbone, world.core, on_encoded=silent)
    team = shop.team(place, sources, settings, ["gaussian"], silent)
    return Bench(world, team, folder / KEPT / place, options)


def silent(done: int, total: int) -> None:
    """Is told of progress and says nothing."""


def compare(kind: str, bench: Bench, precision: str) -> None:
    names = list(bench.team.compartments)
    model, posterior = (bench.model(names, routing, precision) for routing in ("threshold", "posterior"))
    members = [member for member in model.members if isinstance(member, CompartmentMember)]
    loop = replace(model, members=bench.peft_members(members), routing=Full())
    plain, quick = bench.settings(), bench.settings(bench.options.nats)
    rows: list[tuple[str, CompositeDenoiser, SampleSettings]] = [
        (ALONE, bench.model(names[:1], "threshold", precision), plain),
        (LOOP, loop, plain),
        (FULL, replace(model, routing=Full()), plain),
        ("ours, threshold", model, plain),
        ("ours, threshold, analytic start", model, quick),
        ("ours, posterior draw", posterior, plain),
        ("ours, posterior draw, analytic start", posterior, quick),
    ]
    cost = router_cost(model, bench.options.batch)
    print(f"\n{len(names)} sources, {kind}, {members[0].precision}; the router takes {cost:.1%} of a network call")
    seconds: dict[str, float] = {}
    real, network = bench.world.reference.pixels(), bench.world.network
    for name, denoiser, settings in rows:
        seconds[name], result = bench.timed(denoiser, settings)
        if name == LOOP:
            seconds[name] = min(seconds[name], bench.timed(denoiser, replace(settings, batch=SMALLER))[0])
        report = measure(result.images, real, network=network, metrics=("fd",), small=True)
        at = f", networks below t = {result.switch.below:.2f}" if result.switch else ""
        print(
            f"  {name:38} {seconds[name]:7.2f} s  {seconds[name] / seconds[ALONE]:5.2f} x one model  "
            f"{seconds.get(LOOP, 0.0) / seconds[name]:5.2f} x as fast as peft  "
            f"{result.calls.double().mean().item():6.1f} calls  {report.fd_name} {report['fd'].value}{at}",
            flush=True,
        )


def growth(world: World, folder: Path, options: argparse.Namespace) -> None:
    """Seconds against the number of sources, on random shares, as multiples of one source's."""
    base = 0.0
    for count in GROWTH:
        bench = trained(world, f"growth {count}", at_random(world.images, count, seed=0), folder, options)
        for routing in ("threshold", "posterior"):
            model, cells = bench.model(list(bench.team.compartments), routing, "auto"), []
            for nats in (None, options.nats) if count > 1 else (None,):
                took, result = bench.timed(model, bench.settings(nats))
                base = base or took
                cells.append(f"{took:7.2f} s {took / base:6.2f} x {result.calls.double().mean().item():6.1f} calls")
            print(f"  N = {count:2}  {routing:10} {', with analytic start '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
