"""The page: self-contained, escaped, true to its data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from intarsia.experiments.demo import clearest_change
from intarsia.experiments.pictures import grid, shares, weights_over_time
from intarsia.experiments.report import Number, Picture, Report, Section, Table


def page(**changes: object) -> str:
    fields = {"title": "A title", "lead": "A lead.", "sections": []} | changes
    return Report(**fields).html()


def test_the_page_asks_for_nothing_and_runs_nothing() -> None:
    picture = Picture("Grid", grid(torch.zeros(4, 3, 8, 8), columns=2), "four squares")
    plot = Picture("Plot", weights_over_time(torch.full((5, 2), 0.5), ["a", "b"], title="t"), "areas")
    html = page(sections=[Section("One", pictures=[picture, plot], tables=[Table("T", ("a", "b"), [("x", "1")])])])
    assert "<script" not in html
    assert "default-src 'none'" in html
    attributes = re.findall(r'(?:src|href|xlink:href)="([^"#]*)', html)
    assert attributes
    assert all(value.startswith("data:") for value in attributes if value)
    assert not re.findall(r"url\((?!#)", html)


@pytest.mark.parametrize("where", ["title", "lead", "settings"])
def test_text_from_data_is_escaped(where: str) -> None:
    assert "<b>bold</b>" not in page(**{where: "<b>bold</b>"})
    assert "&lt;b&gt;bold&lt;/b&gt;" in page(**{where: "<b>bold</b>"})


def test_captions_and_cells_are_escaped() -> None:
    attack = '"><script>alert(1)</script>'
    section = Section(
        attack,
        attack,
        numbers=[Number(attack, attack, attack)],
        pictures=[Picture(attack, b"png", attack, attack, attack)],
        tables=[Table(attack, [attack], [[attack]], attack)],
    )
    assert "<script" not in page(sections=[section], sources=[attack])


def test_source_names_in_plots_are_escaped() -> None:
    assert "<script" not in shares([0.5, 0.5], [0.4, 0.6], ["<script>", "b"])


def test_plots_are_the_same_bytes_each_time() -> None:
    weights = torch.rand(6, 3).softmax(dim=1)
    assert weights_over_time(weights, "abc", title="") == weights_over_time(weights, "abc", title="")


def test_the_grid_places_pictures_row_by_row(tmp_path: Path) -> None:
    from PIL import Image

    images = torch.linspace(-1, 1, 4)[:, None, None, None].expand(4, 1, 8, 8)
    (tmp_path / "grid.png").write_bytes(grid(images, columns=2, scale=3, gap=2))
    picture = Image.open(tmp_path / "grid.png")
    assert picture.size == (50, 50)
    assert [picture.getpixel(place)[0] for place in ((12, 12), (37, 12), (12, 37), (37, 37))] == [0, 85, 170, 255]


def test_the_clearest_path_is_decided_late_and_for_good() -> None:
    early = torch.tensor([[0.5, 0.5], *[[0.99, 0.01]] * 9])
    wavering = torch.tensor([[0.5, 0.5]] * 6 + [[0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.99, 0.01]])
    late = torch.tensor([[0.6, 0.4]] * 6 + [[0.9, 0.1]] * 3 + [[0.99, 0.01]])
    assert clearest_change(torch.stack([early, wavering, late], dim=1)) == 2
