"""Weight-space averaging, the baseline that composing has to beat: one network, the mean of the members' own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import final

import torch
from torch import Tensor

from intarsia.backbone.precision import PRECISIONS
from intarsia.backbone.text import Prompt
from intarsia.composition.member import CompartmentMember, Conditions, knows
from intarsia.errors import IncompatibleError


# Wortsman et al. 2022 (model soups): W + sum_i lambda_i Delta W_i, which is no mixture of anything
@final
class Soup:
    """A member made of others, whose changes to the backbone's weights are averaged with the prior's shares.

    Costs one network call whatever the number of sources, and cannot say whose share an image is.

    Raises:
        IncompatibleError: a member whose adapter does not change weights (prompts and parallel adapters add to them).
    """

    def __init__(self, members: Sequence[CompartmentMember], prior: Tensor):
        changes = [member.changed_weights() for member in members]
        for member, changed in zip(members, changes, strict=True):
            if changed is None:
                raise IncompatibleError(
                    f"soup averages weights, and '{member.name}' has an adapter of kind "
                    f"'{member.compartment.adapter.name}' beside them; train it as lora or full, or take other weights"
                )
        first = members[0]
        self._backbone, self._precision = first.backbone, first.precision
        self.name = f"soup of {', '.join(member.name for member in members)}"
        self.count = sum(member.count for member in members)
        counted = sum((Counter(member.classes) for member in members), Counter[str]())
        self.classes: Mapping[str, int] = MappingProxyType(dict(counted))
        own = dict(first.backbone.network.named_parameters())
        names = sorted({name for changed in changes if changed is not None for name in changed})
        averages = {
            name: sum(
                share * changed.get(name, own[name])
                for share, changed in zip(prior.tolist(), changes, strict=True)
                if changed is not None
            )
            for name in names
        }
        dtype = PRECISIONS[first.precision]
        soup = {name: torch.as_tensor(average).to(dtype) for name, average in averages.items()}
        self._network = first.backbone.network_with(soup, first.precision)

    def conditions(self, label: str | Prompt) -> bool:
        return knows(self._backbone, label)

    @torch.no_grad()
    def x0_hat(self, x_t: Tensor, t: Tensor, labels: Conditions) -> Tensor:
        return self._backbone.x0_hat(
            x_t,
            t,
            self._backbone.context(labels),
            precision=self._precision,
            network=self._network,
        )
