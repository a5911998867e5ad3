"""Members' estimates for their own images each: in one forward of the shared backbone where that is cheaper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.compartments.pieces import Adapted
from intarsia.composition.member import CompartmentMember, Conditions, Member

# On one core, 8 members on uvit-tiny-8 and -32: one forward for all takes 0.3 to 0.75 of the time of one each up to
# about as many tokens, and 1.0 to 1.8 of it with four times as many. With LoRA, which is merged into the weights for a
# forward of its own, it takes 0.5 to 0.7 of it (in bfloat16 also with four times as many tokens).
MOST_TOKENS = 2048


@dataclass(frozen=True)
class Asked:
    """What one member is asked: x_t (B, ...), t (B,), one label or None per image."""

    member: Member
    x_t: Tensor
    t: Tensor
    labels: Conditions

    @property
    def tokens(self) -> int:
        """How many tokens its forward has; 0 for a member that cannot share one."""
        if not isinstance(self.member, CompartmentMember) or not self.member.shares:
            return 0
        return len(self.x_t) * self.member.backbone.network.config.tokens


def x0_hats(asked: Sequence[Asked]) -> list[Tensor]:
    """E[x0 | x_t, label] under each member for its own images, (B, ...) each: their `x0_hat`s, up to rounding.

    All but full copies share one forward while it is small.
    """
    sharing = [one for one in asked if one.tokens]
    if len(sharing) < 2 or sum(one.tokens for one in sharing) > MOST_TOKENS:
        return [one.member.x0_hat(one.x_t, one.t, one.labels) for one in asked]
    shared = iter(_in_one_forward(sharing))
    return [next(shared) if one.tokens else one.member.x0_hat(one.x_t, one.t, one.labels) for one in asked]


@torch.no_grad()
def _in_one_forward(asked: Sequence[Asked]) -> list[Tensor]:
    members = [one.member for one in asked if isinstance(one.member, CompartmentMember)]
    backbone, precision = members[0].backbone, members[0].precision
    assert all(member.backbone.digests == backbone.digests and member.precision == precision for member in members)
    sizes = [len(one.x_t) for one in asked]
    contexts = [member.context(one.labels) for member, one in zip(members, asked, strict=True)]
    known = [context for context in contexts if context is not None]
    pieces = [member.pieces(one.labels) for member, one in zip(members, asked, strict=True)]
    together = backbone.x0_hat(
        torch.cat([one.x_t for one in asked]),
        torch.cat([one.t for one in asked]),
        torch.cat(known) if known else None,
        adaptation=Adapted(list(zip(pieces, sizes, strict=True))),
        precision=precision,
    )
    return list(together.split(sizes))
