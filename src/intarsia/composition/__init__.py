"""Composition: weights, routing and the composed denoiser, and sampling from it."""

from intarsia.composition.analytic import Switch, find_switch
from intarsia.composition.composite import CompositeDenoiser, CompositeRun
from intarsia.composition.denoising_weights import DiffusionClassifier
from intarsia.composition.guard import Guard
from intarsia.composition.learned_weights import Joint, Prototype, Reference
from intarsia.composition.member import BackboneMember, CompartmentMember, Member
from intarsia.composition.operator import OPERATORS, UNLIMITED, Access, Operator, Protection, operator_from
from intarsia.composition.path_weights import Ito
from intarsia.composition.prior import default_prior
from intarsia.composition.protected import protect
from intarsia.composition.result import Result, SampleSettings
from intarsia.composition.routing import (
    ROUTINGS,
    Ancestral,
    Full,
    Posterior,
    Random,
    Routing,
    Sticky,
    Threshold,
    TopK,
    routing_from,
)
from intarsia.composition.sampling import sample
from intarsia.composition.soup import Soup
from intarsia.composition.weights import Evidence, Exact, Gaussian, Moved, Prior, Uniform, Weights

__all__ = [
    "OPERATORS",
    "ROUTINGS",
    "UNLIMITED",
    "Access",
    "Ancestral",
    "BackboneMember",
    "CompartmentMember",
    "CompositeDenoiser",
    "CompositeRun",
    "DiffusionClassifier",
    "Evidence",
    "Exact",
    "Full",
    "Gaussian",
    "Guard",
    "Ito",
    "Joint",
    "Member",
    "Moved",
    "Operator",
    "Posterior",
    "Prior",
    "Protection",
    "Prototype",
    "Random",
    "Reference",
    "Result",
    "Routing",
    "SampleSettings",
    "Soup",
    "Sticky",
    "Switch",
    "Threshold",
    "TopK",
    "Uniform",
    "Weights",
    "default_prior",
    "find_switch",
    "operator_from",
    "protect",
    "routing_from",
    "sample",
]
