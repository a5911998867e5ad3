"""Checks of images that are drawn: copies of training images, and how much protected ones may lean on a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from intarsia.audit import CopyReport, CopySettings, copy_report
from intarsia.data import Source
from intarsia.errors import InputError, counted
from intarsia.experiments.auditing.finding import FAILED, NOTED, PASSED, SKIPPED, Finding, first_of
from intarsia.experiments.auditing.subject import Subject
from intarsia.experiments.pictures import contact_sheet
from intarsia.experiments.report import Picture

_PAIRS, _WIDTH = 12, 720  # on the sheet, and its width in pixels
_USUAL = CopySettings()
_UNLIKELY = 0.01  # that real images would be flagged as often
_LEAST, _CALIBRATING = 3, 100  # training images, one and two neighbours; and real ones, of which one may be flagged


def copies(subject: Subject) -> Finding:
    """Images that are much nearer to one training image than to its neighbours."""
    sources = subject.held_trained
    if not sources:
        raise InputError("the owners of all trained sources keep their images; only they can look for copies")
    known = sum(map(len, sources))
    held_out = subject.given.held_out
    if held_out is not None and len(held_out) < known:  # then the training images set a threshold better
        held_out = None
    if known < _LEAST or (known if held_out is None else len(held_out)) < _CALIBRATING:
        said = (
            f"Needs {_CALIBRATING} training images that differ, which set the threshold, or {_LEAST} and as many "
            f"images as {_CALIBRATING} that nothing was trained on (--held-out); found {counted(known, 'image')}."
        )
        return Finding(SKIPPED, said)
    images, network = subject.looked_through, subject.network
    subject.on_phase(f"look for copies of {counted(known, 'image')}")
    found = copy_report(
        images,
        sources,
        held_out,
        features=network.features if network else None,
        settings=CopySettings(neighbours=min(_USUAL.neighbours, max(2, known // 4))),
    )
    hits, share = int(found.flagged.sum()), found.share
    figures = {
        "images": len(found),
        "flagged": hits,
        "share": asdict(share),
        "by_chance": found.by_chance,
        "threshold": found.threshold,
        "real_flagged": found.held_out_flagged,
        "held_out": found.held_out,
        "compared_by": network.name if network else "pixels",
        "nearest": [_pair(found, row) for row in closest(found)],
    }
    said = (
        f"{hits} of {counted(len(found), 'image')} are flagged as copies ({share.low:.1%} to {share.high:.1%}), and "
        f"{found.held_out_flagged:.1%} of real images by the same rule; of real images as many would be with a "
        f"probability of {found.by_chance:.2g}."
    )
    table = first_of("Whose images were nearest", ("source", "flagged", "nearest to"), _by_source(found))
    verdict = FAILED if found.by_chance < _UNLIKELY else PASSED
    return Finding(verdict, said, figures, [table], [_sheet(found, images, sources)])


def closest(found: CopyReport, count: int = _PAIRS) -> list[int]:
    """The rows of the images that are relatively nearest to a training image."""
    return [int(row) for row in found.ratio.argsort()[:count]]


def pairs_sheet(found: CopyReport, images: Tensor, sources: Sequence[Source]) -> bytes:
    """A PNG of the closest images (N, C, H, W), each above its nearest training image."""
    rows = closest(found)
    wanted = {found.ids[row] for row in rows}
    known = {
        id: source.select_pixels(torch.tensor([place]))[0]
        for source in sources
        for place, id in enumerate(source.manifest.ids)
        if id in wanted
    }
    beside = torch.stack([known[found.ids[row]] for row in rows])
    scale = max(1, _WIDTH // (_PAIRS * images.shape[-1]))
    return contact_sheet([("closest first", images[rows]), ("nearest training image", beside)], scale=scale)


def _pair(found: CopyReport, row: int) -> dict[str, object]:
    return {"image": row, "source": found.sources[row], "sample": found.ids[row], "ratio": found.ratio[row].item()}


def _by_source(found: CopyReport) -> list[tuple[str, str, str]]:
    near = Counter(found.sources)
    flagged = Counter(found.sources[row] for row in found.flagged.nonzero()[:, 0].tolist())
    return [(name, str(flagged[name]), str(near[name])) for name in sorted(near)]


def _sheet(found: CopyReport, images: Tensor, sources: Sequence[Source]) -> Picture:
    hits = min(int(found.flagged.sum()), _PAIRS)
    alt = "Pairs of an image and its nearest training image, the closest first"
    note = f"The first {hits} of these are flagged." if hits else "None of these is flagged."
    return Picture("The closest pairs", pairs_sheet(found, images, sources), alt, note=note)


def protection(subject: Subject) -> Finding:
    """The bound on k of protected images of all sources."""
    if len(subject.trained) < 2:
        return Finding(SKIPPED, "Needs two trained sources at least: one alone protects nothing.")
    result = subject.protected
    assert result.protection is not None
    report, bounds = result.protection.report(), result.bounds
    said = (
        f"Protected images are bounded by k = {max(bounds.values()):.1f} nats for the worst source; "
        f"{report['effective_share']['mean']:.0%} of {report['particles']} particles counted on average."
    )
    table = first_of("Bounds", ("source", "k, nats"), [(name, f"{k:.2f}") for name, k in bounds.items()])
    return Finding(NOTED, said, {"k": dict(bounds), **report}, [table])
