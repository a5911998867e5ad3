"""What the ledger is told: one function per kind of event.

What was copied or learned from a source stands under the source's name and is only committed to; the rest is in clear.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from intarsia.compartments import Compartment
from intarsia.composition import UNLIMITED, Operator, Result
from intarsia.credit import Credit
from intarsia.data import sample_id, to_uint8
from intarsia.digests import code_digest
from intarsia.ledger import Event
from intarsia.merkle import merkle_root
from intarsia.vault.clock import to_text
from intarsia.vault.material import NEIGHBOURS, neighbours_in
from intarsia.vault.outcomes import Outcome
from intarsia.vault.principals import Grant
from intarsia.vault.records import CompartmentInfo, SourceInfo
from intarsia.vault.tickets import Ticket
from intarsia.vault.training import EXTENSIONS, MECHANISM

INIT, INGEST, TRAIN, FORGET, GRANT, REVOKE = "init", "ingest", "train", "forget", "grant", "revoke"
COMPOSE, SAMPLE, TICKET = "compose", "sample", "ticket"
PERMIT, FORBID = "permit", "forbid"
EXTEND, IMPORT = "extend", "import"
CREDIT, PAYOUT = "credit", "payout"


def begun(backbone: str, basis: str) -> Event:
    """A vault was made."""
    return Event(INIT, {"backbone": backbone, "basis": basis, "code": code_digest()})


def ingested(info: SourceInfo) -> Event:
    """A source came."""
    values = {
        "manifest_root": info.manifest_root,
        "count": info.count,
        "owner": info.owner,
        "licence": info.licence,
    }
    return Event(INGEST, {}, {info.name: values})


def trained(runs: Sequence[tuple[CompartmentInfo, Mapping[str, Any]]]) -> Event:
    """Compartments were put in place, all trained with the same settings; each with the record of its run."""
    shared = runs[0][1]
    settings = {key: shared[key] for key in ("settings", "routers", "backbone", "basis")}
    about = {"settings": settings, "environment": dict(shared["environment"]), "code": code_digest()}
    sources: dict[str, dict[str, Any]] = {}
    for info, record in runs:
        own = {key: record[key] for key in (NEIGHBOURS, EXTENSIONS, MECHANISM) if key in record}
        sources[info.name] = {"manifest_root": info.manifest_root, "compartment": info.digest, **own}
    for info, record in runs:
        for name in neighbours_in(record):
            seen = sources.setdefault(name, {"manifest_root": record[NEIGHBOURS][name], "compartments": {}})
            seen["compartments"][info.name] = info.digest
    return Event(TRAIN, about, sources)


def forgotten(
    name: str, manifest_root: str | None, compartments: Mapping[str, str | None], account: str | None
) -> Event:
    """A whole source went, and with it compartments; by their names, the digests that they had, None if unreadable.

    The account under which its credit is kept is told with it: nothing else will connect the two.
    """
    sources: dict[str, Mapping[str, Any]] = {
        each: {"compartment_before": digest, "compartment_after": None} for each, digest in compartments.items()
    }
    roots = {"manifest_root_before": manifest_root, "manifest_root_after": None}
    sources[name] = {**sources.get(name, {}), **roots, "account": account}
    return Event(FORGET, {"scope": "source", "code": code_digest()}, sources)


def imported(info: SourceInfo, compartment: CompartmentInfo) -> Event:
    """A compartment came whose owner keeps the images."""
    values = {
        "manifest_root": info.manifest_root,
        "count": info.count,
        "owner": info.owner,
        "licence": info.licence,
        "signer": info.signer,
        "compartment": compartment.digest,
    }
    return Event(IMPORT, {}, {info.name: values})


def granted(principal: str, grants: Iterable[Grant]) -> Event:
    """A principal may draw from sources. Its name is committed to like the rest, and known as long as they are."""
    return Event(GRANT, {}, {each.source: {"principal": principal, **each.terms()} for each in grants})


def revoked(principal: str, sources: Iterable[str]) -> Event:
    """A principal may not draw from sources any more."""
    return Event(REVOKE, {}, {name: {"principal": principal} for name in sources})


def extended(outcome: Outcome) -> Event:
    """Samples came to a source; when they are learned, that is told as a training."""
    roots = {"manifest_root_before": outcome.manifest_before, "manifest_root_after": outcome.manifest_after}
    about = {"slices": list(outcome.slices), "code": code_digest()}
    return Event(EXTEND, about, {outcome.source: {**roots, "samples": outcome.samples}})


def samples_forgotten(outcome: Outcome) -> Event:
    """Samples went, and with them compartments; those that are trained again are told of when they are in place."""
    sources: dict[str, Mapping[str, Any]] = {
        each: {"compartment_before": digest, "compartment_after": None} for each, digest in outcome.before.items()
    }
    roots = {"manifest_root_before": outcome.manifest_before, "manifest_root_after": outcome.manifest_after}
    sources[outcome.source] = {**sources.get(outcome.source, {}), **roots, "samples": outcome.samples}
    return Event(FORGET, {"scope": "samples", "code": code_digest()}, sources)


def ticket_moved(ticket: Ticket) -> Event:
    """An owner's request came, or was closed without forgetting; of one that is done, the forgetting tells."""
    about = {
        "ticket": ticket.id,
        "state": ticket.state,
        "received": to_text(ticket.received),
        "due": to_text(ticket.due),
    }
    samples = None if ticket.samples is None else list(ticket.samples)
    return Event(TICKET, about, {} if ticket.source is None else {ticket.source: {"samples": samples}})


@dataclass(frozen=True)
class Parts:
    """What a composition is made of, and for whom (None is the vault's owner).

    `sources` holds, by each source that was seen, the digests of the compartments that saw it. What the `operator` says
    is told only where it says something: a mixture without limits is what has always been drawn.
    """

    weights: str
    routing: str
    isolated: bool
    principal: str | None
    sources: Mapping[str, Mapping[str, str]]
    operator: Operator = UNLIMITED

    def composed(self) -> Event:
        """Compartments were joined."""
        sources = {
            name: {"principal": self.principal, "compartments": dict(seen)} for name, seen in self.sources.items()
        }
        return Event(COMPOSE, self._about(), sources)

    def sampled(self, result: Result, *, credit: str | None = None) -> Event:
        """Images were drawn: how, and of each source its compartments, its share, the images and what was measured.

        Args:
            credit: the digest of what the sources earned by them.
        """
        about = {**self._about(), "count": len(result.images), "settings": asdict(result.settings)}
        # Numbers that hang on everybody's data: in clear they would confirm a guess of what was forgotten.
        kinds = (("protection", result.protection), ("access", result.access))
        measured = {kind: found.report() for kind, found in kinds if found is not None}
        about |= {"credit": credit} if credit is not None else {}
        about |= {"prompt_weights": True} if result.by_prompt else {}
        shares = dict(zip(result.names, result.shares.tolist(), strict=True))
        images = images_root(result.images)
        sources = {
            name: {
                "principal": self.principal,
                "compartments": dict(seen),
                "share": shares.get(name),
                "images": images,
                **({"k": result.bounds[name]} if name in result.bounds else {}),
                **measured,
            }
            for name, seen in self.sources.items()
        }
        return Event(SAMPLE, about, sources)

    def _about(self) -> dict[str, Any]:
        how = {"weights": self.weights, "routing": self.routing, "isolated": self.isolated}
        told = {"operator": self.operator.settings()} if self.operator != UNLIMITED else {}
        return {**how, **told, "code": code_digest()}


def compartments_by_source(
    compartments: Iterable[Compartment], digests: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """By each source that was seen, the digests of the compartments that saw it."""
    found: dict[str, dict[str, str]] = {}
    for each in compartments:
        for source in each.sources:
            found.setdefault(source, {})[each.name] = digests[each.name]
    return dict(sorted(found.items()))


def images_root(images: Tensor) -> str:
    """The Merkle root over the ids of images (N, C, H, W): an id is that of a sample with the same pixels."""
    return merkle_root(sample_id(image).encode() for image in to_uint8(images)).hex()


def credited(entry: int, digest: str, found: Credit) -> Event:
    """Images of an earlier entry were credited anew; `digest` is that of what their sources earned by it."""
    shares = dict(zip(found.names, found.total[0].tolist(), strict=True))
    about = {"set": entry, "by": found.method, "credit": digest, "code": code_digest()}
    return Event(CREDIT, about, {name: {"share": share} for name, share in shares.items()})


def permitted(source: str, learners: Iterable[str]) -> Event:
    """The compartments of other sources may learn from one."""
    return Event(PERMIT, {}, {source: {"role": "source"}, **{name: {"role": "learner"} for name in learners}})


def forbidden(source: str, learner: str, compartments: Mapping[str, str | None]) -> Event:
    """The compartment of a source may not learn from another any more; what it had learned so far went."""
    before = {"compartment_before": compartments[learner]} if learner in compartments else {}
    return Event(FORBID, {}, {source: {"role": "source"}, learner: {"role": "learner", **before}})
