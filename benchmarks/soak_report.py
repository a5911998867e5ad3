"""The figures of `soak_serving.py` as a page of results."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]
_WIDTH = 138


def page(figures: Figures) -> str:
    """In Markdown; of what was not measured nothing is said."""
    blocks = [
        "# The service under load, over time, and when things go wrong",
        _text(
            f"`{figures['command']}`, which took {figures['seconds'] / 60:.0f} minutes, and writes this page with",
            "`--report FILE.md`; all figures of the run are in [serving/figures.json](serving/figures.json).",
            f"Machine: {figures['machine']}, on which",
            "clients and service run together. The sources are noise: what serving costs does not depend on what was",
            "learned.",
        ),
    ]
    for name, part in _PARTS.items():
        if name in figures:
            blocks += part(figures[name])
    return "\n\n".join(blocks) + "\n"


def _load(found: Figures) -> Iterator[str]:
    yield "## Load"
    yield _text(
        f"{found['clients']} clients, each with another subset of six sources ({found['sources']:.1f} on average),",
        f"one image per request, {found['steps']} DDIM steps, {found['images']} images in each way, by turns:",
    )
    ways = ("at once", "one at a time")
    figures = [(way, *(found[way][each] for each in ("images_per_second", "p50", "p95"))) for way in ways]
    yield _table(("", "images/s", "p50 s", "p95 s"), [(way, *(f"{x:.2f}" for x in rest)) for way, *rest in figures])
    yield _text(
        f"Serving them at once draws {found['times']:.2f} times as many images. One at a time is the same service and",
        "sampler, in which every client waits until nobody else is being served.",
    )


def _soak(found: Figures) -> Iterator[str]:
    growth = found["mib_last_third"] - found["mib_second_third"]
    yield "## Soak"
    yield _text(
        f"{found['clients']} clients for {found['minutes']:g} minutes: drawing, streaming, leaving in the",
        "middle, credit,",
        "receipts, proofs, grants made and taken, and requests that are wrong.",
        f"{found['requests']} requests; answers that should not have been: {_counts(found['strange'])}; faults of the",
        f"service itself in its log: {len(found['faults'])}.",
    )
    yield _text(
        f"Memory of the process: {found['mib_second_third']:.0f} MiB in the second third of the time,",
        f"{found['mib_last_third']:.0f} MiB in the last ({growth:+.1f} MiB, the growth of the ledger included);",
        "at most",
        f"{found['handles']} open files and sockets.",
        "What grows are mostly the kernels that oneDNN keeps for every number of images in a pass, up to a limit",
        "([how to set it](../service.md#batching-across-clients)), and the receipts of the newest images.",
    )
    yield _table(("request, status", "answers"), [(kind, str(count)) for kind, count in found["answers"].items()])


def _cycles(found: Figures) -> Iterator[str]:
    yield "## Compartments read and given up"
    yield _text(
        f"{found['cycles']} drawings with `--memory 1e-9`, where nothing may stay; MiB of the process after",
        "each tenth:",
        ", ".join(f"{each:.0f}" for each in found["mib"]) + ".",
    )


def _killed(found: Figures) -> Iterator[str]:
    yield "## Killed"
    yield _text(
        f"`kill -9` {found['kills']} times while eight clients drew and one granted. Of {found['acknowledged']}",
        "answers",
        f"that they had been given (receipts of images, grants) {found['lost']} were lost; `verify` found",
        f"{len(found['problems'])} problems. The next service was ready after {found['seconds_until_ready']:.1f} s.",
    )


def _forgetting(found: Figures) -> Iterator[str]:
    end = f"finished by the next one, {found['seconds']:.0f} s after it began"
    end = end if found["finished"] else f"NOT finished by the next one within {found['seconds']:.0f} s"
    yield _text(
        f"Killed the moment it had answered a forgetting: {end}; receipts beside the vault:",
        f"{', '.join(found['receipts'])}; `verify` found {len(found['problems'])} problems.",
    )


def _disk(found: Figures) -> Iterator[str]:
    yield "## A full disk"
    if "skipped" in found:
        yield f"Not measured: {found['skipped']}."
        return
    kinds = list(found["full"])
    rows = [(when, *(str(found[when].get(kind, "")) for kind in kinds)) for when in ("before", "full", "after")]
    yield _table(("", *kinds), rows)
    yield _text(
        f"What could not be forgotten is {'still there' if found['nothing_forgotten'] else 'GONE'}; `verify` found",
        f"{len(found['problems'])} problems after room was made.",
    )


def _slow(found: Figures) -> Iterator[str]:
    borne, beside, without = found["seconds_borne"], found["beside"], found["without"]
    yield "## Slow clients"
    yield _text(
        f"{found['slow']} clients that send a byte a second, and four that read nothing, beside four that draw: their",
        f"latency is p50 {beside['p50']:.2f} s, p95 {beside['p95']:.2f} s; without the slow ones it is",
        f"{without['p50']:.2f} s and {without['p95']:.2f} s. A head was borne for {borne['head']:.0f} s at",
        "most, a body",
        f"for {borne['body']:.0f} s.",
    )


def _revoked(found: Figures) -> Iterator[str]:
    delay = found["seconds_to_the_end"]
    yield "## Grants taken away while images are drawn"
    yield _text(
        f"{found['times']} times, after the first preview. How the streams ended: {_counts(found['ends'])};",
        "somebody who",
        f"drew beside them and kept the grant was answered {found['others']} times. From the answer to the",
        "revocation to",
        f"the end of the stream: p50 {delay['p50']:.3f} s, p95 {delay['p95']:.3f} s.",
    )


def _text(*lines: str) -> str:
    return textwrap.fill(" ".join(lines), _WIDTH, break_long_words=False, break_on_hyphens=False)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _counts(found: Figures) -> str:
    return ", ".join(f"{count} × {kind}" for kind, count in found.items()) or "none"


_PARTS: Mapping[str, Callable[[Figures], Iterator[str]]] = {
    "load": _load,
    "soak": _soak,
    "cycles": _cycles,
    "killed": _killed,
    "forgetting": _forgetting,
    "disk": _disk,
    "slow": _slow,
    "revoked": _revoked,
}
