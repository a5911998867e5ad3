"""The recipes of `intarsia reproduce`, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Literal, Protocol, TypeVar

from intarsia.experiments.reproduce.alignment import alignment, alignment_scale, report_alignment
from intarsia.experiments.reproduce.bench import Bench
from intarsia.experiments.reproduce.breadth import breadth, breadth_scale, report_breadth
from intarsia.experiments.reproduce.caption_splits import caption_splits, caption_splits_scale, report_caption_splits
from intarsia.experiments.reproduce.credits import credit_scale, credits_table, report_credits
from intarsia.experiments.reproduce.credits_known import KnownBudget, credits_known, report_credits_known
from intarsia.experiments.reproduce.curves import curves, report_curves
from intarsia.experiments.reproduce.domains import domains, report_domains
from intarsia.experiments.reproduce.exactness import Budget, exactness
from intarsia.experiments.reproduce.exactness_report import report_exactness
from intarsia.experiments.reproduce.forgetting import forgetting_cost, report_forgetting_cost
from intarsia.experiments.reproduce.life import life, report_life
from intarsia.experiments.reproduce.limit import limit, report_limit
from intarsia.experiments.reproduce.membership import brief, membership, report_membership
from intarsia.experiments.reproduce.memorization import memorization, report_memorization
from intarsia.experiments.reproduce.owners import owners, owners_scale, report_owners
from intarsia.experiments.reproduce.privacy import privacy, private, report_privacy
from intarsia.experiments.reproduce.prompts import prompts, prompts_scale, report_prompts
from intarsia.experiments.reproduce.protection import protection, report_protection
from intarsia.experiments.reproduce.rules import few
from intarsia.experiments.reproduce.scale import Scale
from intarsia.experiments.reproduce.shares import report_shares, shares
from intarsia.experiments.reproduce.splits import report_splits, splits
from intarsia.experiments.reproduce.start import report_start, start
from intarsia.experiments.reproduce.study import Study


@dataclass(frozen=True)
class Recipe:
    """A table: what it asks, how it is filled and summed up.

    `emoji`: whether it is of emoji at `--scale cpu`; `compares`: whether it is a table of all methods; `methods`: of
    its own, as far as they ask something of router parts or of the sampler; `sampler`: the only one that it can follow;
    `by_label`: whether images are drawn for the classes of a folder at `--scale paper`; `scaled`: what it makes of
    usual budgets;
    `aligned`: whether images are judged against their captions; `pictured`: whether at `--scale paper` it is of
    pictures with captions; `counted`: whether `--counts` says among how many sources; `draws`: whether images are drawn
    at all; `hands_out`: whether an engine may train its compartments; `protects`: whether the protected operator draws.
    """

    asks: str
    fill: Callable[[Study], None]
    report: Callable[[Bench, str], Path]
    emoji: Literal["never", "optional", "always"] = "never"
    compares: bool = False
    methods: tuple[str, ...] = ()
    sampler: str | None = None
    by_label: bool = False
    scaled: Callable[[Scale], Scale] = lambda scale: scale
    aligned: bool = False
    pictured: bool = False
    counted: bool = False
    draws: bool = True
    hands_out: bool = True
    protects: bool = False


class Told(Protocol):
    """A budget that says what figures depend on."""

    def settings(self) -> dict[str, Any]:
        """JSON-able."""
        ...


B = TypeVar("B", bound=Told)


@dataclass(frozen=True)
class Calculation(Generic[B]):
    """A table of what is known in closed form: it takes no data and no backbone, and trains nothing."""

    asks: str
    budget: B
    fill: Callable[[Bench, Sequence[int], B], None]
    report: Callable[[Bench, str], Path]


RECIPES: Mapping[str, Recipe | Calculation[Any]] = MappingProxyType(
    {
        "splits": Recipe(
            "What does it cost to share one data set out among 2, 4, 8 sources?",
            splits,
            report_splits,
            compares=True,
            counted=True,
            by_label=True,
        ),
        "shares": Recipe(
            "A random share of one data set has fewer images and fewer steps: which of the two costs?",
            shares,
            report_shares,
        ),
        "curves": Recipe(
            "What does forgetting sources one by one cost, and what does adding them, beside training anew?",
            curves,
            report_curves,
        ),
        "forgetting-cost": Recipe(
            "What do one and several requests cost where sources are trained in slices, and what do slices cost?",
            forgetting_cost,
            report_forgetting_cost,
        ),
        "life": Recipe(
            "A vault's life: sources come and grow, then a grant, images and a source go. What may still be drawn, and "
            "what did it cost, beside training anew every time?",
            life,
            report_life,
            hands_out=False,
        ),
        "limit": Recipe(
            "How small can sources be? Where do quality and cost break as they become more and smaller?",
            limit,
            report_limit,
            methods=("gaussian", "prototype", "ito"),
        ),
        "domains": Recipe(
            "How soon does it show whose image it will be, and what does naive averaging cost?",
            domains,
            report_domains,
            emoji="optional",
        ),
        "owners": Recipe(
            "Owners with styles of their own: what do the rules of composition give, beside one model of them all?",
            owners,
            report_owners,
            emoji="always",
            compares=True,
            scaled=owners_scale,
        ),
        "alignment": Recipe(
            "Asked in words for what nobody was trained on: who draws it, one owner, all of them, or one model?",
            alignment,
            report_alignment,
            emoji="always",
            compares=True,
            scaled=alignment_scale,
            aligned=True,
            pictured=True,
        ),
        "breadth": Recipe(
            "A generalist who lacks a subject, a specialist who has nothing else: what does neither draw alone?",
            breadth,
            report_breadth,
            emoji="always",
            scaled=breadth_scale,
            aligned=True,
        ),
        "caption-splits": Recipe(
            "What does it cost text-to-image to share one captioned set out among 2 and 4 sources?",
            caption_splits,
            report_caption_splits,
            emoji="always",
            counted=True,
            scaled=caption_splits_scale,
            aligned=True,
        ),
        "prompts": Recipe(
            "Do a source's own captions tell for which prompts it is the one to ask?",
            prompts,
            report_prompts,
            emoji="always",
            scaled=prompts_scale,
            draws=False,
        ),
        "start": Recipe(
            "How many network calls does an analytic start save, and from which budget on does it cost quality?",
            start,
            report_start,
            emoji="optional",
        ),
        "credit": Recipe(
            "Is an image credited to the source without which retrained models like it less?",
            credits_table,
            report_credits,
            methods=("gaussian",),
            sampler="ddpm",
            emoji="optional",
            scaled=credit_scale,
        ),
        "protection": Recipe(
            "A secret in one of two sources: how often does each rule of composition draw it?",
            protection,
            report_protection,
            scaled=few,
            protects=True,
        ),
        "memorization": Recipe(
            "Pictures that one of two sources holds many times over: which rule of composition copies them?",
            memorization,
            report_memorization,
            scaled=few,
            protects=True,
        ),
        "membership": Recipe(
            "Who can tell what was trained on, before and after forgetting? How soon does it come back?",
            membership,
            report_membership,
            scaled=brief,
            draws=False,
        ),
        "privacy": Recipe(
            "What does differential privacy cost, and does training keep it?",
            privacy,
            report_privacy,
            emoji="optional",
            scaled=private,
        ),
        "credit-known": Calculation(
            "Which credit agrees with the model of every subset of the sources where these are known exactly?",
            KnownBudget(),
            credits_known,
            report_credits_known,
        ),
        "exactness": Calculation(
            "Which rules of composition are right where the truth is known, and how wrong are the others?",
            Budget(),
            exactness,
            report_exactness,
        ),
    }
)
