"""From compartments to a composition: makes their weights, and checks that they belong together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, TrainData
from intarsia.compartments.training import deterministic
from intarsia.composition import (
    CompartmentMember,
    CompositeDenoiser,
    DiffusionClassifier,
    Gaussian,
    Guard,
    Ito,
    Joint,
    Prior,
    Prototype,
    Reference,
    Routing,
    Soup,
    Uniform,
    Weights,
    default_prior,
    routing_from,
)
from intarsia.composition.member import shares_of
from intarsia.errors import IncompatibleError, SettingsError, UnknownName
from intarsia.routers import (
    GaussianBank,
    GaussianPart,
    JointClassifier,
    JointMember,
    PrototypeBank,
    PrototypePart,
    ReferenceBank,
    ReferencePart,
    RouterPart,
    SampleSet,
)
from intarsia.vault.package import Core
from intarsia.vault.parts import read_part

P = TypeVar("P", bound=RouterPart)


@dataclass(frozen=True)
class Parts:
    """What weights may be made of: members, public things, the prior (n,), and for `joint` the sources themselves."""

    members: Sequence[CompartmentMember]
    backbone: Backbone
    core: Core
    prior: Tensor
    data: Callable[[str], TrainData] | None = None

    def of(self, type_: type[P], kind: str) -> list[P]:
        """Each member's router part of a kind.

        Raises:
            IncompatibleError: a member has none, or one of another basis.
        """
        read = [read_part(member.compartment, kind, self.core) for member in self.members]
        return [part for part in read if isinstance(part, type_)]


def _gaussian(parts: Parts) -> Weights:
    return Gaussian(GaussianBank(parts.of(GaussianPart, "gaussian")), parts.backbone.schedule)


def _reference(parts: Parts) -> Weights:
    bank = ReferenceBank(parts.of(ReferencePart, "reference"), parts.backbone)
    return Reference(bank, shares_of(parts.members))


def _prototype(parts: Parts) -> Weights:
    return Prototype(PrototypeBank(parts.of(PrototypePart, "prototype")), shares_of(parts.members))


def _joint(parts: Parts) -> Weights:
    """Fitted here and now on the sources of the composition, and kept nowhere: so there is nothing of it to forget.

    One source alone needs no classifier.
    """
    if len(parts.members) == 1:
        return Prior(shares_of(parts.members))
    if parts.data is None:
        raise SettingsError("joint weights are fitted on the images of all sources, and these are not at hand")
    private = [each.name for each in parts.members if isinstance(each, CompartmentMember) and each.compartment.privacy]
    if private:
        raise SettingsError(
            f"joint weights are fitted on images, and those of {', '.join(private)} are under a privacy budget; take "
            "the weights 'gaussian', 'ito' or 'prior'"
        )
    with deterministic(1):
        datas = [parts.data(member.name) for member in parts.members]
        members = [JointMember(data.name, SampleSet(data.latents, data.ids, data.labels)) for data in datas]
        classifier = JointClassifier.fit(members, parts.backbone)
    return Joint(classifier, classifier.names, shares_of(parts.members))


WEIGHTS: Mapping[str, Callable[[Parts], Weights]] = MappingProxyType(
    {
        "diffusion_classifier": lambda parts: DiffusionClassifier(parts.members, parts.backbone.schedule),
        "gaussian": _gaussian,
        "ito": lambda parts: Ito(parts.backbone.schedule, shares_of(parts.members)),
        "joint": _joint,
        "prototype": _prototype,
        "reference": _reference,
        "prior": lambda parts: Prior(shares_of(parts.members)),
        "uniform": lambda parts: Uniform(shares_of(parts.members), parts.prior.log()),
    }
)
"""The weights that a vault can make, by name."""

SOUP = "soup"
"""Taken where a name of `WEIGHTS` is: the sources' networks are averaged into one, and nothing is left to weigh."""


def compose(
    compartments: Sequence[Compartment | CompartmentMember],
    backbone: Backbone,
    core: Core,
    *,
    weights: str | Weights = "gaussian",
    routing: str | Routing = "threshold",
    prior: Mapping[str, float] | None = None,
    precision: str = "auto",
    data: Callable[[str], TrainData] | None = None,
    guard: Guard | None = None,
) -> CompositeDenoiser:
    """Join compartments on their backbone.

    Args:
        compartments: as they are stored, or made ready already; `precision` is for the former.
        data: a source's latents and labels, by its name; needed for `joint` weights only, and called for members only.
        weights: a name of `WEIGHTS`, `soup`, or weights made for these members in this order.
        routing: as `routing_from` reads it, or a routing.
        prior: one positive number per member, scaled to sum to 1; None takes the members' sizes.
        guard: asked before every use of the members.

    Raises:
        UnknownName: no such weights or routing, or the prior names a stranger.
        IncompatibleError: members of different backbones or bases, or, where there are several, without the router part
            that the weights need.
        SettingsError: a prior that is none.
    """
    members = [
        each if isinstance(each, CompartmentMember) else CompartmentMember(backbone, each, precision=precision)
        for each in compartments
    ]
    shares = default_prior(members) if prior is None else given_prior(prior, [member.name for member in members])
    parts = Parts(members, backbone, core, shares, data)
    join = partial(
        CompositeDenoiser,
        routing=routing_from(routing) if isinstance(routing, str) else routing,
        schedule=backbone.schedule,
        latent_shape=backbone.latent_shape,
        vocabulary=frozenset(backbone.labels),
        guard=guard,
    )
    if weights == SOUP:
        soup = Soup(members, shares)
        return join([soup], torch.ones(1, dtype=torch.float64), Prior(shares_of([soup])))
    if isinstance(weights, str):
        if weights not in WEIGHTS:
            raise UnknownName("weights", weights, [*WEIGHTS, SOUP])
        try:
            weights = WEIGHTS[weights](parts)
        except IncompatibleError:
            if len(members) > 1:
                raise
            weights = Prior(shares_of(members))  # one source alone is weighed against nobody
    closed_form = weights.bank if isinstance(weights, Gaussian) else _closed_form(parts)
    return join(members, shares, weights, closed_form=closed_form)


def _closed_form(parts: Parts) -> GaussianBank | None:
    """The members' Gaussians for an analytic start, if all have them, in one basis."""
    with contextlib.suppress(IncompatibleError):
        return GaussianBank(parts.of(GaussianPart, "gaussian"))
    return None


def given_prior(prior: Mapping[str, float], names: Sequence[str]) -> Tensor:
    """Shares (n,), float64, in the order of `names`.

    Raises:
        UnknownName: it names a source that is not there.
        SettingsError: a source is left out, or a number is not positive.
    """
    for name in prior:
        if name not in names:
            raise UnknownName("source of the prior", name, names)
    if missing := [name for name in names if name not in prior]:
        raise SettingsError(
            f"the prior leaves out {', '.join(missing)}; give every source of the composition a number above 0"
        )
    shares = torch.tensor([prior[name] for name in names], dtype=torch.float64)
    if not bool((shares > 0).all() and shares.isfinite().all()):
        raise SettingsError(
            f"the prior is {dict(prior)}; every number must be above 0, or leave the source out of the composition"
        )
    return shares / shares.sum()
