"""Every rule of composition where the truth is known: is it right, and if not, by how much?

Two tables in one. How far each kind of weights is from w(x_t, t), per noise level; and how far what each weights,
routing and sampler draw is from what was to be drawn. Beside them the floor: draws of the mixture itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

from intarsia.experiments.reproduce.bench import Bench, Cell
from intarsia.experiments.reproduce.cast import GAUSSIANS, LEVELS, Cast
from intarsia.experiments.reproduce.exactness_report import DRAWS, FLOOR, WEIGHTS
from intarsia.experiments.reproduce.known import known_worlds
from intarsia.experiments.reproduce.truth import Judge, Method, drawn, path_errors, weight_errors

FITTED = "gaussian:500"
ASKING = (*GAUSSIANS, "prototype", *LEVELS)
MEMORYLESS = ("uniform", "prior", *ASKING)
ETAS = (1.0, 0.7, 0.5)
SCORES = {"exact": 0.0, "perturbed": 0.1}
"""Errors of the members, by what tables call them."""

HARD = ("threshold", "top_k:1", "top_k:2", "posterior")
RIGHT = (Method("exact", "full"), Method(FITTED, "full"), Method("ito", "full"), Method("prior", "ancestral"))
METHODS = (
    *RIGHT,
    *(Method("exact", routing) for routing in (*HARD, "sticky")),
    *(Method(FITTED, routing) for routing in HARD),
    *(Method("prototype", routing) for routing in ("full", "threshold", "top_k:1", "posterior")),
    Method("diffusion_classifier:4", "full"),
    Method("ito", "full", "ddim", 0.5),
    Method("uniform", "full"),
    Method("prior", "full"),
    Method("prior", "random"),
    *(Method("exact", routing, "dpmpp_2m_sde") for routing in ("full", "posterior", "sticky")),
    Method("ito", "full", "dpmpp_2m_sde"),
    Method("prior", "ancestral", "dpmpp_2m_sde"),
    *(Method("exact", routing, "ddim") for routing in ("full", "top_k:1", "posterior", "sticky")),
    Method("prior", "ancestral", "ddim"),
    *(Method("exact", routing, "heun") for routing in ("full", "top_k:1")),
)
"""Routings of the true weights say what a routing does; the other weights are compared where they differ from it."""

PERTURBED = (
    *RIGHT,
    Method("prototype", "full"),
    Method("exact", "top_k:1"),
    Method("exact", "posterior"),
    Method(FITTED, "threshold"),
    Method(FITTED, "posterior"),
    Method("uniform", "full"),
)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is drawn.

    Args:
        images: drawn by each method.
        probes: images that weights are judged on.
        steps: of a sampler.
        path: steps of the paths that `ito` is judged on.
        redraws: of the mixture, for the floor.
        worlds: names; all by default.
    """

    images: int = 1000
    probes: int = 400
    steps: int = 50
    path: int = 400
    redraws: int = 100
    worlds: tuple[str, ...] = tuple(world.name for world in known_worlds())

    def settings(self) -> dict[str, Any]:
        """JSON-able."""
        worlds = {
            world.name: {"modes": [len(source.log_pi) for source in world.sources], "shares": list(world.shares)}
            for world in known_worlds()
            if world.name in self.worlds
        }
        return {**asdict(self), "worlds": worlds, "errors": SCORES}


def exactness(bench: Bench, seeds: Sequence[int], budget: Budget) -> None:
    """Fill the table."""
    worlds = [world for world in known_worlds() if world.name in budget.worlds]
    judges = {world.name: Judge(world) for world in worlds}
    for name, judge in judges.items():
        compute = partial(judge.floor, budget.images, budget.redraws)
        bench.cell({"seed": "-", "table": FLOOR, "world": name}, compute)
    for seed, world in product(seeds, worlds):
        for scores, error in SCORES.items():
            cast = Cast(world, error, seed)
            key: Cell = {"seed": seed, "world": world.name, "scores": scores}
            _weigh(bench, {**key, "table": WEIGHTS}, cast, budget)
            _draw(bench, {**key, "table": DRAWS}, cast, judges[world.name], budget)


def _weigh(bench: Bench, key: Cell, cast: Cast, budget: Budget) -> None:
    """The errors of all weights; wrong members concern those alone that ask them."""
    for name in MEMORYLESS if cast.error == 0 else ASKING:
        bench.cell({**key, "weights": name}, partial(weight_errors, cast, name, budget.probes))
    for eta in ETAS:
        compute = partial(path_errors, cast, eta, steps=budget.path, images=budget.probes)
        bench.cell({**key, "weights": "ito", "sampler": f"ddim:{eta:g}"}, compute)


def _draw(bench: Bench, key: Cell, cast: Cast, judge: Judge, budget: Budget) -> None:
    """What every method draws, judged."""

    def compute(method: Method) -> Mapping[str, float]:
        return judge.figures(*drawn(cast, method, steps=budget.steps, images=budget.images))

    for method in METHODS if cast.error == 0 else PERTURBED:
        bench.cell({**key, **method.key}, partial(compute, method))
