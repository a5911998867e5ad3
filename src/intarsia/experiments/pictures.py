"""Grids of images and plots of weights, as bytes that a page can embed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from intarsia.data import to_uint8
from intarsia.errors import require

# Okabe and Ito's palette: distinguishable with any kind of colour vision.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#666666")


def grid(images: Tensor, *, columns: int, scale: int = 1, gap: int = 2, background: int = 255) -> bytes:
    """A PNG contact sheet of images (N, C, H, W) in [-1, 1], row by row, each enlarged smoothly `scale` times."""
    pixels = to_uint8(images)
    side = pixels.shape[1] * scale
    rows = -(-len(pixels) // columns)
    sheet = Image.new("RGB", (columns * (side + gap) - gap, rows * (side + gap) - gap), (background,) * 3)
    for k, image in enumerate(pixels):
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        sheet.paste(picture, (k % columns * (side + gap), k // columns * (side + gap)))
    return png(sheet)


def contact_sheet(rows: Sequence[tuple[str, Tensor]], *, scale: int, gap: int = 6, margin: int = 14) -> bytes:
    """A PNG of rows of images (N, C, H, W), each under its title."""
    strips = [Image.open(io.BytesIO(grid(images, columns=len(images), scale=scale, gap=gap))) for _, images in rows]
    font = ImageFont.load_default(size=17)
    line = 26
    width = max(strip.width for strip in strips) + 2 * margin
    height = sum(strip.height + line + gap for strip in strips) + 2 * margin
    sheet = Image.new("RGB", (width, height), (255,) * 3)
    pen, y = ImageDraw.Draw(sheet), margin
    for (title, _), strip in zip(rows, strips, strict=True):
        pen.text((margin, y), title, fill=(29, 27, 24), font=font)
        sheet.paste(strip, (margin, y + line))
        y += line + strip.height + gap
    return png(sheet)


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def weights_over_time(weights: Tensor, names: Sequence[str], *, title: str) -> str:
    """An SVG of stacked areas: weights (steps, n) of one image, from noise on the left to the picture on the right.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    require("matplotlib", "experiments")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4, 1.7), layout="constrained")
    axes = figure.add_subplot()
    steps = np.arange(len(weights))
    axes.stackplot(steps, weights.double().numpy().T, labels=names, colors=COLOURS, linewidth=0.4, edgecolor="white")
    axes.set(xlim=(0, max(1, len(steps) - 1)), ylim=(0, 1))
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel("sampling step", fontsize=8)
    axes.set_ylabel("weight", fontsize=8)
    axes.tick_params(labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return svg(figure)


def shares(prior: Sequence[float], realised: Sequence[float], names: Sequence[str]) -> str:
    """An SVG of bars: each source's share of the images beside its prior."""
    require("matplotlib", "experiments")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 0.5 + 0.34 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    place = np.arange(len(names))
    axes.barh(place, realised, height=0.62, color=[COLOURS[k % len(COLOURS)] for k in range(len(names))])
    axes.scatter(prior, place, marker="|", s=190, color="black", linewidths=2, zorder=3, label="prior")
    for y, value in enumerate(realised):
        axes.text(max(value, prior[y]) + 0.006, y, f"{value:.3f}", va="center", fontsize=8)
    axes.set_yticks(place, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*prior, *realised]) * 1.18)
    axes.set_xlabel("share of the images (bar) and prior (line)", fontsize=8)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return svg(figure)


def svg(figure: Any) -> str:
    """The figure as an `<svg>` element for a page, the same bytes for the same figure."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "intarsia", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
