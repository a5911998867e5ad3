"""Compartments as members: what they can be asked for, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from intarsia.backbone import Backbone, UViT, UViTConfig
from intarsia.compartments import Compartment
from intarsia.compartments.adapters import DeepPrompts, FullCopy, Kind, Lora, Parallel
from intarsia.composition import CompartmentMember
from intarsia.diffusion import Cosine, keyed_normal
from intarsia.errors import CorruptError


def tiny(*labels: str) -> Backbone:
    rows = len(labels) + 1 if labels else 0
    torch.manual_seed(0)
    network = UViT(UViTConfig(image_size=4, patch_size=2, channels=1, dim=8, depth=3, heads=2, num_classes=rows))
    return Backbone(network, Cosine(), labels=labels)


def member(kind: Kind, classes: Mapping[str, int], count: int, backbone: Backbone) -> CompartmentMember:
    shapes = kind.shapes(backbone.network, classes=len(classes))
    params = {name: 0.3 * keyed_normal(shape, "member", name) for name, shape in shapes.items()}
    compartment = Compartment("oak", ("oak",), kind, params, {}, {}, classes, count, "f" * 64, backbone.digests)
    return CompartmentMember(backbone, compartment, precision="float32")


def estimate(one: CompartmentMember, label: str | None) -> Tensor:
    return one.x0_hat(keyed_normal((2, 1, 4, 4), "x_t"), torch.tensor([0.2, 0.7]), [label] * 2)


@pytest.mark.parametrize(
    ("kind", "labels", "able"),
    [
        (Lora(rank=2), (), {"a": False, "b": False, "c": False}),
        (Parallel(width=2), (), {"a": False, "b": False, "c": False}),
        (FullCopy(), ("a", "c"), {"a": True, "b": False, "c": True}),
        (DeepPrompts(tokens=2), ("c",), {"a": False, "b": False, "c": True}),
        (DeepPrompts(tokens=2, per_class=True), (), {"a": True, "b": True, "c": False}),
        (DeepPrompts(tokens=2, per_class=True), ("c",), {"a": True, "b": True, "c": True}),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else "",
)
def test_a_member_conditions_on_a_label_when_it_changes_what_is_drawn(
    kind: Kind, labels: tuple[str, ...], able: dict[str, bool]
) -> None:
    one = member(kind, {"a": 3, "b": 4}, 7, tiny(*labels))
    assert {label: one.conditions(label) for label in able} == able
    plain = estimate(one, None)
    assert {label: not torch.equal(estimate(one, label), plain) for label in able} == able


def test_a_source_of_one_label_is_what_the_label_asks_for() -> None:
    assert member(Lora(rank=2), {"a": 7}, 7, tiny()).conditions("a")
    assert not member(Lora(rank=2), {"a": 6}, 7, tiny()).conditions("a"), "one image has no label"


def test_tensors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CorruptError, match="do not fit the backbone"):
        CompartmentMember(
            tiny(),
            Compartment(
                "oak",
                ("oak",),
                Parallel(width=2),
                {"mid_block.up": torch.zeros(3)},
                {},
                {},
                {},
                1,
                "f" * 64,
                tiny().digests,
            ),
        )
