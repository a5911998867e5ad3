"""Means over seeds with their intervals, paired ratios, and Markdown tables of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from intarsia.errors import require


@dataclass(frozen=True)
class Spread:
    """A mean over seeds with the ends of its 95 % interval (Student's t); one seed has none."""

    mean: float
    low: float
    high: float
    count: int

    def text(self, digits: int = 3) -> str:
        if self.count < 2 or self.low == self.high:  # of what no seed changes there is no interval
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def spread(values: Sequence[float]) -> Spread:
    """The mean of one value per seed, and its interval."""
    mean, count = fmean(values), len(values)
    if count < 2:
        return Spread(mean, -math.inf, math.inf, count)
    quantile = require("scipy.stats", "experiments").t.ppf(0.975, count - 1)
    reach = float(quantile) * stdev(values) / math.sqrt(count)
    return Spread(mean, mean - reach, mean + reach, count)


def ratio(values: Sequence[float], base: Sequence[float]) -> Spread:
    """The geometric mean of value / base over paired seeds, with the interval of the mean log ratio."""
    logs = spread([math.log(a / b) for a, b in zip(values, base, strict=True)])
    return Spread(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high), logs.count)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column names the row."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
