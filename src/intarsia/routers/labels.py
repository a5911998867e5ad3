"""How often a source had each label: the factor p(y | i) of conditional weights (science.md section 1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from intarsia.errors import CorruptError, UnknownName


@dataclass(frozen=True)
class LabelShares:
    """Counts of the labels of one source among its `samples` samples; those without a label count in `samples` only.

    Raises:
        CorruptError: counts that no labelling has.
    """

    counts: Mapping[str, int]
    samples: int

    def __post_init__(self) -> None:
        if (
            self.samples < 1
            or any(count < 1 for count in self.counts.values())
            or sum(self.counts.values()) > self.samples
        ):
            raise CorruptError(f"label counts {dict(self.counts)} among {self.samples} samples: no labelling has them")

    @classmethod
    def of(cls, labels: Sequence[str | None]) -> LabelShares:
        """Count them."""
        counted = Counter(label for label in labels if label is not None)
        return cls({label: counted[label] for label in sorted(counted)}, len(labels))

    def log_share(self, label: str | None) -> float:
        """log p(y | i); 0 without a label, -inf for one that the source never had."""
        if label is None:
            return 0.0
        count = self.counts.get(label, 0)
        return math.log(count / self.samples) if count else -math.inf


# science.md section 1: w_i ∝ lambda_i p(y | i) p_t^i(x_t | y), zero where source i has never had y
def label_log_shares(shares: Sequence[LabelShares], labels: Sequence[str | None]) -> Tensor:
    """log p(y | i) of each image's label under n sources: (B, n), -inf where a source never had it.

    Raises:
        UnknownName: none of the sources ever had one of the labels.
    """
    check_known(shares, labels)
    return torch.tensor([[share.log_share(label) for share in shares] for label in labels]).reshape(-1, len(shares))


def check_known(shares: Sequence[LabelShares], labels: Sequence[str | None]) -> None:
    """Refuse a label that none of the sources ever had, for which no weights exist.

    Raises:
        UnknownName: there is one.
    """
    known = {label for share in shares for label in share.counts}
    for label in labels:
        if label is not None and label not in known:
            raise UnknownName("label", label, known)
