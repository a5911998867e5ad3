"""From a user's words to a plan: weights, routing and shares, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from intarsia.audit.clip import KIND as CLIP
from intarsia.audit.clip import Clip
from intarsia.checks import check_number
from intarsia.composition import Gaussian, Ito, Prior, Prototype, Routing, Uniform, Weights
from intarsia.errors import SettingsError, UnknownName
from intarsia.integrations.diffusers.parts import RouterParts, clip_bank, default_prior, gaussian_bank, prototype_bank
from intarsia.integrations.diffusers.process import Process
from intarsia.integrations.diffusers.run import Plan
from intarsia.routers import LabelShares, PrototypeBank

LOOKING = ("clip", "gaussian", "prototype")  # those that need router parts
WEIGHTS = (*LOOKING, "ito", "prior", "uniform")
BLIND = ("prior", "uniform")  # those that need not know the scheduler


def plan_of(
    names: Sequence[str],
    *,
    weights: str | Mapping[str, float],
    routing: Routing,
    prior: Mapping[str, float] | None,
    parts: Mapping[str, RouterParts],
    sight: Sight | None = None,
) -> Plan:
    """What `compose` was asked for; `parts` are those of all members, or none, and `sight` what "clip" sees by.

    Raises:
        SettingsError, UnknownName: words or shares that make no sense.
        CorruptError, IncompatibleError: router parts that cannot be used.
    """
    ordered = [parts[name] for name in names if name in parts]
    if not isinstance(weights, str | Mapping):
        raise SettingsError(f"weights are {weights!r}, expected one of {', '.join(WEIGHTS)}, or a share by member")
    if isinstance(weights, str):
        kind, shares = weights, _prior(prior, names, ordered)
    elif prior is not None:
        raise SettingsError("weights are fixed by shares, so prior says nothing; leave it out")
    else:
        kind, shares = "prior", shares_from("weights", weights, names)
    if kind not in WEIGHTS:
        raise UnknownName("kind of weights", kind, WEIGHTS)
    return Plan(
        tuple(names),
        shares,
        kind,
        _clip(parts, shares, sight) if kind == CLIP and parts else weights_from(kind, shares, ordered),
        kind not in BLIND,
        routing,
        ordered[0].shape if ordered else None,
    )


@dataclass(frozen=True, eq=False)
class Sight:
    """CLIP, and what makes pictures of latents for it to look at."""

    clip: Clip
    decode: Callable[[Tensor], Tensor]


def _clip(parts: Mapping[str, RouterParts], shares: Tensor, sight: Sight | None) -> Making:
    if sight is None:
        raise SettingsError('weights "clip" need the model to look with: give clip=, a folder or hub id')
    return Making(CLIP, shares, _Seen(sight, clip_bank(parts, sight.clip)))


@dataclass(frozen=True, eq=False)
class _Seen:
    """The evidence of prototypes for what CLIP sees in decoded latents."""

    sight: Sight
    bank: PrototypeBank

    def __call__(self, x0_hat: Tensor) -> Tensor:
        return self.bank(self.sight.clip(self.sight.decode(x0_hat)))


@dataclass(frozen=True, eq=False)
class Making:
    """Makes weights once the scheduler is known. No closure: compositions are pickled to be sent elsewhere."""

    kind: str
    prior: Tensor
    bank: Any = None  # of gaussian and prototype weights, of either's own kind

    def __call__(self, process: Process | None) -> Weights:
        shares = [LabelShares({}, 1)] * len(self.prior)
        match self.kind:
            case "gaussian":
                return Gaussian(self.bank, _known(process).schedule)
            case "prototype" | "clip":
                return Prototype(self.bank, shares)
            case "ito":
                return Ito(_known(process).schedule, shares)
            case "uniform":
                return Uniform(shares, self.prior.log())
        return Prior(shares)


def weights_from(kind: str, prior: Tensor, parts: Sequence[RouterParts]) -> Making:
    """What makes the weights, once the scheduler is known; router parts are checked at once."""
    if kind in LOOKING and not parts:  # without parts nobody will ask: see `Plan.weighs`
        return Making("prior", prior)
    banks = {"gaussian": gaussian_bank, "prototype": prototype_bank}
    return Making(kind, prior, banks[kind](parts) if kind in banks else None)


def shares_from(what: str, given: Mapping[str, float], names: Sequence[str], *, positive: bool = False) -> Tensor:
    """(n,) float64 in the order of the names.

    Raises:
        SettingsError: other names, shares that are negative (or 0, if they must be positive) or do not sum to 1.
    """
    if not isinstance(given, Mapping):
        raise SettingsError(f"{what} is {given!r}, expected a share for each of {', '.join(names)}")
    if set(given) != set(names):
        found, expected = ", ".join(map(str, given)) or "nobody", ", ".join(names)
        raise SettingsError(f"{what} for {found}: expected one share for each of {expected}")
    told = {name: _plain(share) for name, share in given.items()}
    for name in names:
        check_number(f"{what} of '{name}'", told[name], least=0, above=0 if positive else None, most=1)
    shares = torch.tensor([told[name] for name in names], dtype=torch.float64)
    if abs(shares.sum().item() - 1) > 1e-6:
        raise SettingsError(f"{what} sum to {shares.sum().item():g}, expected 1; divide them by their sum")
    return shares / shares.sum()


def _plain(share: Any) -> Any:
    """A number of numpy's or a tensor's as one of Python's."""
    return share.item() if getattr(share, "ndim", None) == 0 else share


def _prior(given: Mapping[str, float] | None, names: Sequence[str], parts: Sequence[RouterParts]) -> Tensor:
    if given is not None:
        return shares_from("prior", given, names, positive=True)
    return default_prior(parts) if parts else torch.full((len(names),), 1 / len(names), dtype=torch.float64)


def _known(process: Process | None) -> Process:
    assert process is not None, "weights that look at the image were asked for without a process"
    return process
