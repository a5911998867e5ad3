"""One member of a composition: a compartment made ready to run on its backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from intarsia.backbone.backbone import Backbone, label_rows
from intarsia.backbone.precision import PRECISIONS, resolve_precision
from intarsia.backbone.text import Prompt
from intarsia.backbone.uvit import PLAIN, Adaptation
from intarsia.compartments.adapters import DeepPrompts, FullCopy, Lora
from intarsia.compartments.compartment import Compartment
from intarsia.compartments.pieces import Adapted, Pieces
from intarsia.compartments.text import TextPrompts
from intarsia.errors import CorruptError
from intarsia.routers import LabelShares

Labels = Sequence[str | None]
Conditions = Sequence[str | Prompt | None]
"""What each image is asked for: a label, a caption, or nothing."""


def labels_of(asked: Conditions) -> tuple[str | None, ...]:
    """The labels among what images are asked for."""
    return tuple(each if isinstance(each, str) else None for each in asked)


def prompts_of(asked: Conditions) -> tuple[str | None, ...]:
    """The texts of the captions among what images are asked for."""
    return tuple(each.text if isinstance(each, Prompt) else None for each in asked)


class Member(Protocol):
    """What a composition asks of a member; compartments are such, and closed forms in tests."""

    @property
    def name(self) -> str: ...

    @property
    def count(self) -> int:
        """Number of samples; the default prior is proportional to it."""
        ...

    @property
    def classes(self) -> Mapping[str, int]:
        """Samples per label; empty where the source has no labels."""
        ...

    def conditions(self, label: str | Prompt) -> bool:
        """Whether `x0_hat` under this label of its own is E[x0 | x_t, label], and not merely E[x0 | x_t]."""
        ...

    def x0_hat(self, x_t: Tensor, t: Tensor, labels: Conditions) -> Tensor:
        """E[x0 | x_t, label] under this source alone: x_t (B, ...), t (B,), one label or None per image -> (B, ...)."""
        ...


def knows(backbone: Backbone, label: str | Prompt) -> bool:
    """Whether a backbone's network can be told this by itself."""
    if isinstance(label, Prompt):
        return backbone.text is not None and label.encoder == backbone.text.digest
    return label in backbone.labels


def shares_of(members: Sequence[Member]) -> list[LabelShares]:
    """How often each member had each label."""
    return [LabelShares(member.classes, member.count) for member in members]


class CompartmentMember:
    """A compartment on its backbone. Whatever can be computed once per run is: merged weights, prompt keys and values.

    Raises:
        IncompatibleError: it was trained on another backbone.
        CorruptError: its tensors do not fit the backbone.
    """

    def __init__(self, backbone: Backbone, compartment: Compartment, *, precision: str = "auto"):
        compartment.check_backbone(backbone)
        self.backbone, self.compartment = backbone, compartment
        self.precision = resolve_precision(precision)
        self._names = tuple(sorted(compartment.classes))
        adapter, network, dtype = compartment.adapter, backbone.network, PRECISIONS[self.precision]
        found = {name: tuple(p.shape) for name, p in compartment.params.items()}
        if found != adapter.shapes(network, classes=len(self._names)):
            raise CorruptError(f"compartment '{self.name}': its tensors do not fit the backbone; train it again")
        self._pieces: Pieces | None = None
        self._working: dict[str, Tensor] = {}
        with torch.no_grad():
            changed = {name: p.to(dtype) for name, p in (self.changed_weights() or {}).items()}
            self._changed = tuple(changed.values())
            self._network = backbone.network_with(changed, self.precision) if changed else None
            if not isinstance(adapter, FullCopy):
                working = {k: p.to(dtype) for k, p in compartment.params.items()}
                self._pieces = adapter.pieces(backbone.network_in(self.precision), working)
                if isinstance(adapter, TextPrompts):
                    self._working = working

    @property
    def name(self) -> str:
        return self.compartment.name

    @property
    def count(self) -> int:
        return self.compartment.count

    @property
    def classes(self) -> Mapping[str, int]:
        return self.compartment.classes

    @property
    def reads(self) -> bool:
        """Whether it is asked in words."""
        return self.backbone.text is not None or isinstance(self.compartment.adapter, TextPrompts)

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors, as stored and made ready; the backbone is not counted."""
        pieces = self._pieces
        added = () if pieces is None else (pieces.low_rank, pieces.prefix, pieces.aside, pieces.branch)
        stored = self.compartment
        tensors = [
            *stored.params.values(),
            *stored.router.values(),
            *self._changed,
            *self._working.values(),
        ]
        tensors += [tensor for kind in added for some in kind.values() for tensor in some]
        return sum({each.data_ptr(): each.nbytes for each in tensors}.values())

    @torch.no_grad()
    def changed_weights(self) -> dict[str, Tensor] | None:
        """The weights that stand in the place of the backbone's, float32 by name; None if the adapter only adds."""
        adapter, params = self.compartment.adapter, self.compartment.params
        if isinstance(adapter, Lora):
            return adapter.merged(self.backbone.network, params)
        return dict(params) if isinstance(adapter, FullCopy) else None

    def conditions(self, label: str | Prompt) -> bool:
        """By the backbone's label table, by prompts of its own, or because all its images have the label.

        Captions are read by the adapter that was trained on such, of the same encoder.
        """
        adapter = self.compartment.adapter
        if isinstance(label, Prompt):
            reads = isinstance(adapter, TextPrompts) and adapter.digest == label.encoder
            return reads or knows(self.backbone, label)
        if isinstance(adapter, TextPrompts):  # it was trained without labels
            return self.classes.get(label) == self.count
        prompted = isinstance(adapter, DeepPrompts) and adapter.per_class and label in self._names
        return label in self.backbone.labels or prompted or self.classes.get(label) == self.count

    @property
    def shares(self) -> bool:
        """Whether other members may run in the same forward: its adapter can be told from the backbone."""
        return self._pieces is not None

    def pieces(self, labels: Conditions) -> Pieces:
        """What its adapter adds for images of these labels or captions."""
        assert self._pieces is not None
        adapter = self.compartment.adapter
        if not isinstance(adapter, TextPrompts):
            return self._pieces.of_rows(label_rows(self._names, labels))
        captions = [label if isinstance(label, Prompt) else None for label in labels]
        place = {caption: row for row, caption in enumerate(dict.fromkeys(captions))}
        network = self.backbone.network_in(self.precision)
        sets = adapter.captioned(network, self._working, self._pieces, list(place))
        return sets.of_rows(torch.tensor([place[caption] for caption in captions]))

    def context(self, labels: Conditions) -> Tensor | None:
        """What the network is told; the null label for an adapter that was trained under it."""
        blind = isinstance(self.compartment.adapter, TextPrompts)
        return self.backbone.context([None] * len(labels) if blind else labels)

    @torch.no_grad()
    def x0_hat(self, x_t: Tensor, t: Tensor, labels: Conditions) -> Tensor:
        adaptation: Adaptation = Adapted([(self.pieces(labels), len(x_t))]) if self._network is None else PLAIN
        return self.backbone.x0_hat(
            x_t,
            t,
            self.context(labels),
            adaptation=adaptation,
            precision=self.precision,
            network=self._network,
        )


class BackboneMember:
    """The public backbone by itself: what there is when no source takes part."""

    name = "core"
    classes: Mapping[str, int] = MappingProxyType({})

    def __init__(self, backbone: Backbone, count: int, *, precision: str = "auto"):
        self.backbone, self.count, self.precision = backbone, count, resolve_precision(precision)

    def conditions(self, label: str | Prompt) -> bool:
        """By the backbone's label table, or its text encoder."""
        return knows(self.backbone, label)

    @torch.no_grad()
    def x0_hat(self, x_t: Tensor, t: Tensor, labels: Conditions) -> Tensor:
        return self.backbone.x0_hat(x_t, t, self.backbone.context(labels), precision=self.precision)
