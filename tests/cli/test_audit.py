"""`intarsia audit`: every check, what it says when it is right and when it is not, and the page."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from intarsia.experiments.auditing import CHECKS
from intarsia.vault import Vault

from .helpers import write_images

FEW = ("--count", "6", "--steps", "2", "--members", "20")


@pytest.fixture(scope="module")
def large(package: Path, done, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault with two sources of 60 images each, trained in two slices; pictures of `held` and `gone` are no part."""
    root = tmp_path_factory.mktemp("large")
    vault = root / "v"
    done("init", vault, "--backbone", package)
    for name in ("oak", "elm"):
        done("source", "add", vault, name, write_images(root / name, 60), "--owner", "Ada <Ada>", "--licence", "MIT")
    quick = ("--steps", 4, "--rows", 4, "--precision", "float32", "--threads", 1, "--rank", 2, "--slices", 2)
    done("train", vault, "oak", "elm", *quick)
    for name in ("held", "gone"):
        write_images(root / name, 120)
    return root


@pytest.fixture
def copy(large: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(large / "v", tmp_path / "v"))


class Page(HTMLParser):
    """What a page loads, and whether anything in it is a script."""

    def __init__(self, text: str):
        super().__init__()
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]


def test_a_sound_vault_passes_and_says_what_was_not_tested(copy: Path, tmp_path: Path, done):
    page = tmp_path / "page.html"
    found = done("audit", copy, *FEW, "--out", page)
    assert [entry.kind for _, entry, _ in Vault.open(copy).history()][-2:] == ["compose", "compose"]
    verdicts = {name: check["verdict"] for name, check in found["checks"].items()}
    assert verdicts == {
        "integrity": "passed",
        "duplicates": "passed",
        "copies": "passed",
        "membership": "not run",
        "forgetting": "passed",
        "privacy": "noted",
        "protection": "noted",
    }
    assert found["ok"] is True
    assert set(found["checks"]["protection"]["figures"]["k"]) == {"oak", "elm"}
    copies = found["checks"]["copies"]["figures"]
    assert (copies["images"], copies["held_out"], copies["compared_by"]) == (6, 0, "pixels")
    assert all(check["limits"] == CHECKS[name].limits for name, check in found["checks"].items())
    text = page.read_text(encoding="utf-8")
    seen = Page(text)
    assert "script" not in seen.tags
    assert {load.split(",")[0] for load in seen.loads} == {"data:image/png;base64"}
    assert all(check.asks in text for check in CHECKS.values())
    assert str(tmp_path) not in text
    assert re.search(r"7 checks of v at \d{4}-\d\d-\d\d \d\d:\d\d UTC: 4 passed, 2 noted, 1 not run", text)


def test_with_images_to_hold_it_against_everything_is_tested(copy: Path, large: Path, tmp_path: Path, done):
    found = done(
        "audit", copy, *FEW, "--held-out", large / "held", "--removed", large / "gone", "--images", large / "gone",
        "--skip", "protection,integrity", "--out", tmp_path / "page.html",
    )  # fmt: skip
    assert list(found["checks"]) == [name for name in CHECKS if name not in ("protection", "integrity")]
    members = found["checks"]["membership"]["figures"]["oak"]
    assert [(each["name"], each["members"], each["others"]) for each in members] == [
        ("loss", 20, 120),
        ("denoising", 20, 120),
    ]
    assert found["checks"]["forgetting"]["verdict"] == "passed"
    attacked = found["checks"]["forgetting"]["figures"]["attacks"]["elm"]
    assert attacked["area"]["low"] <= 0.5 <= attacked["area"]["high"]
    assert found["checks"]["copies"]["figures"]["held_out"] == 120


def test_shadows_are_attacked_by_each_other(copy: Path, tmp_path: Path, done):
    found = done(
        "audit", copy, *FEW, "--shadows", 3, "--sources", "elm", "--skip", "copies,integrity,duplicates",
        "--out", tmp_path / "page.html",
    )  # fmt: skip
    (lira,) = found["checks"]["membership"]["figures"]["elm"]
    assert (lira["name"], lira["members"], lira["others"]) == ("lira", 30, 30)
    assert found["checks"]["protection"]["verdict"] == "not run"


def test_what_is_wrong_fails_and_the_page_is_written_all_the_same(copy: Path, tmp_path: Path, run):
    damaged = copy / "compartments/oak/adapter_model.safetensors"
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    page = tmp_path / "page.html"
    answer = run("audit", copy, *FEW, "--out", page, "--json")
    assert answer.code == 1
    found = json.loads(answer.out)
    assert found["ok"] is False
    assert found["checks"]["integrity"]["verdict"] == "failed"
    assert found["checks"]["copies"]["verdict"] == "failed"
    assert "Failed." in page.read_text(encoding="utf-8")


def test_copies_and_images_that_are_still_there_fail(copy: Path, large: Path, tmp_path: Path, run):
    words = ("--images", large / "oak", "--removed", large / "oak", "--skip", "integrity,protection,membership")
    answer = run("audit", copy, *FEW, *words, "--out", tmp_path / "page.html", "--json")
    assert answer.code == 1
    found = json.loads(answer.out)["checks"]
    assert found["copies"]["verdict"] == "failed"
    assert found["copies"]["figures"]["flagged"] == 60
    assert found["forgetting"]["verdict"] == "failed"
    assert found["forgetting"]["figures"]["still_in"] == ["oak"]


def test_a_forgetting_that_owes_a_training_fails(copy: Path, large: Path, tmp_path: Path, run):
    vault = Vault.open(copy)
    sample = vault.source("oak").manifest.ids[0]
    vault.forgetting("oak", [sample])  # and no step of it is taken
    answer = run("audit", copy, *FEW, "--skip", "copies,protection,integrity", "--out", tmp_path / "p.html", "--json")
    assert answer.code == 1
    forgetting = json.loads(answer.out)["checks"]["forgetting"]
    assert forgetting["verdict"] == "failed"
    assert forgetting["figures"] == {"forgettings": 1, "owed": ["oak"]}


def test_pictures_in_two_sources_are_noted(package: Path, tmp_path: Path, done):
    vault = tmp_path / "v"
    done("init", vault, "--backbone", package)
    folder = write_images(tmp_path / "oak")
    (folder / "a/0.png").rename(folder / "a/<img src=x onerror=alert(1)>.png")
    for name in ("oak", "elm"):
        done("source", "add", vault, name, folder, "--owner", "Ada", "--licence", "MIT")
    found = done("audit", vault, *FEW, "--out", tmp_path / "page.html")
    assert "img" not in Page((tmp_path / "page.html").read_text(encoding="utf-8")).tags
    assert found["checks"]["duplicates"]["verdict"] == "noted"
    assert found["checks"]["duplicates"]["figures"]["same"] == 6
    assert found["checks"]["copies"]["verdict"] == "not run"  # nothing is trained


def test_a_source_of_one_image_stops_no_other_check(package: Path, large: Path, tmp_path: Path, done):
    vault, page = tmp_path / "v", tmp_path / "page.html"
    done("init", vault, "--backbone", package)
    for name, count in (("yew", 1), ("oak", 8)):
        folder = write_images(tmp_path / name, count)
        done("source", "add", vault, name, folder, "--owner", "Ada", "--licence", "MIT")
    done("train", vault, "--steps", 2, "--rows", 2, "--rank", 2)
    found = done("audit", vault, *FEW, "--held-out", large / "held", "--shadows", 3, "--out", page)["checks"]
    attacks = {name: [each["name"] for each in tried] for name, tried in found["membership"]["figures"].items()}
    assert attacks == {"yew": ["loss", "denoising"], "oak": ["loss", "denoising", "lira"]}
    assert found["copies"]["verdict"] == "passed"
    alone = done("audit", vault, *FEW, "--sources", "yew", "--shadows", 3, "--out", tmp_path / "alone.html")["checks"]
    assert [alone[name]["verdict"] for name in ("copies", "membership", "protection")] == ["not run"] * 3
    assert "Needs 100 training images that differ" in alone["copies"]["said"]
    assert "two images at least" in alone["membership"]["said"]


def test_bad_calls_are_refused_before_anything_is_drawn(copy: Path, tmp_path: Path, run):
    there = tmp_path / "there.html"
    there.write_text("mine")
    entries = len(Vault.open(copy).history())
    for words, said in (
        (("--skip", "copis"), "unknown check 'copis': did you mean 'copies'?"),
        (("--sources", "yew"), "unknown source 'yew'"),
        (("--shadows", "2"), "give at least 3, or 0"),
        (("--network", "vgg"), "unknown way to compare images 'vgg'"),
        (("--held-out", tmp_path / "none"), "does not exist"),
        (("--out", there), "exists already"),
        (("--out", tmp_path / "no/page.html"), "its folder does not"),
    ):
        answer = run("audit", copy, *(words if "--out" in words else (*words, "--out", tmp_path / "page.html")))
        assert answer.code == 1, words
        assert said in answer.err, answer.err
    assert there.read_text() == "mine"
    assert len(Vault.open(copy).history()) == entries
