"""Whatever is damaged, removed, added or edited is found, and all of it at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from intarsia.data import encode_png
from intarsia.files import write_json
from intarsia.vault import Vault

from .helpers import ROUTER, grown, pictures, quick


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def image_of(vault: Vault, source: str, number: int = 0) -> Path:
    return sorted((vault.root / "sources" / source / "images").iterdir())[number]


def begun(vault: Vault) -> Path:
    """The folder of a training of `oak` with a step saved."""
    run = vault.training("oak", quick(seed=1), routers=[ROUTER], restart=True, save_every=1)
    next(run)
    run.close()
    return vault.root / "training/oak"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_whole_vault_is_well(pair: Vault) -> None:
    pair.add_source("ash", pair.source("oak").select(lambda sample: True, name="ash"))
    next(pair.training("ash", quick(), routers=[ROUTER], save_every=1))
    report = pair.verify()
    assert report.ok
    assert (report.sources, report.samples, report.compartments) == (3, 15, 2)


STORED = [
    "backbone/network.safetensors",
    "backbone/backbone.json",
    "core/core.json",
    "core/basis.safetensors",
    "core/fingerprints.safetensors",
    "core/samples.safetensors",
    "sources/oak/source.json",
    "sources/oak/manifest.json",
    "compartments/oak/adapter_model.safetensors",
    "compartments/oak/router.safetensors",
    "compartments/oak/slices/slice-1.safetensors",
    "compartments/oak/adapter_config.json",
    "compartments/oak/compartment.json",
    "vault.json",
]


@pytest.mark.parametrize("way", [spoil, Path.unlink])
@pytest.mark.parametrize("name", STORED)
def test_every_stored_file_is_checked(pair: Vault, name: str, way: Callable[[Path], None]) -> None:
    way(pair.root / name)
    report = pair.verify()
    assert not report.ok
    assert any(name.rsplit("/", 1)[0] in str(problem) for problem in report.problems), report.problems
    assert all("\n" not in str(problem) for problem in report.problems)


CASES: dict[str, tuple[Callable[[Vault], object], str]] = {
    "a damaged picture": (lambda v: spoil(image_of(v, "oak")), "sources/oak"),
    "a truncated picture": (lambda v: image_of(v, "oak").write_bytes(image_of(v, "oak").read_bytes()[:50]), "damaged"),
    "a missing picture": (lambda v: image_of(v, "oak").unlink(), "missing"),
    "a picture that cannot be read": (
        lambda v: (place := image_of(v, "oak")) and (place.unlink(), place.mkdir()),
        "cannot be read",
    ),
    "another picture": (lambda v: image_of(v, "oak").write_bytes(encode_png(pictures("other", 1)[0])), "not those of"),
    "a picture too many": (
        lambda v: shutil.copy(image_of(v, "oak"), image_of(v, "oak").with_name("x.png")),
        "no sample",
    ),
    "an edited owner": (
        lambda v: edit(v.root / "sources/oak/source.json", "owner of oak", "me"),
        "digest does not fit",
    ),
    "an edited caption": (lambda v: edit(v.root / "sources/oak/manifest.json", "caption of oak 0", "x"), "hashes to"),
    "an edited record": (
        lambda v: edit(v.root / "compartments/oak/compartment.json", '"count": 5', '"count": 6'),
        "index",
    ),
    "a file too many": (lambda v: (v.root / "note.txt").write_text("x"), "does not belong here"),
    "a file too many in a compartment": (lambda v: (v.root / "compartments/oak/x").write_text("x"), "does not belong"),
    "a renamed source": (lambda v: (v.root / "sources/oak").rename(v.root / "sources/ash"), "holds the source 'oak'"),
    "a lost source": (lambda v: shutil.rmtree(v.root / "sources/oak"), "was trained on oak, which is not in the vault"),
    "a file too many in the backbone": (lambda v: (v.root / "backbone/x").write_text("x"), "backbone/x: does not"),
    "a file too many in the core": (lambda v: (v.root / "core/x").write_text("x"), "core/x: does not belong"),
    "a stray copy of a compartment": (
        lambda v: shutil.copytree(v.root / "compartments/oak", v.root / "compartments/ash"),
        "compartments/ash: holds the compartment 'oak'",
    ),
    "a flipped bit in a run": (lambda v: spoil(begun(v) / "state.safetensors"), "the digest in it"),
    "a run of nothing": (lambda v: (v.root / "training/fir").mkdir(), "is of a source that is not in the vault"),
    "a damaged run": (lambda v: write_json(v.root / "training/oak/training.json", {}), "training/oak"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_found(pair: Vault, case: str) -> None:
    damage, words = CASES[case]
    (pair.root / "training/oak").mkdir() if case == "a damaged run" else None
    damage(pair)
    problems = [str(problem) for problem in pair.verify().problems]
    assert any(words in problem for problem in problems), problems


def test_all_problems_are_reported_at_once(pair: Vault) -> None:
    spoil(image_of(pair, "oak", 0))
    image_of(pair, "oak", 1).unlink()
    spoil(pair.root / "compartments/elm/router.safetensors")
    spoil(pair.root / "core/basis.safetensors")
    problems = [problem.where for problem in pair.verify().problems]
    assert problems.count("sources/oak") == 2
    assert {"compartments/elm", "backbone, core"} <= set(problems)


def test_a_stale_index_is_found_and_made_again(pair: Vault, empty: Path) -> None:
    good = (pair.root / "index.db").read_bytes()
    shutil.copy(empty / "index.db", pair.root / "index.db")
    assert [problem.where for problem in pair.verify().problems] == ["index.db"]
    assert len(pair.sources()) == 2
    assert (pair.root / "index.db").read_bytes() == good
    assert pair.verify().ok


def test_a_lost_index_is_made_again(pair: Vault) -> None:
    good = (pair.root / "index.db").read_bytes()
    (pair.root / "index.db").unlink()
    assert pair.verify().ok, "a lost index is no problem: it is derived"
    assert [source.name for source in Vault.open(pair.root).sources()] == ["elm", "oak"]
    assert (pair.root / "index.db").read_bytes() == good


def test_a_vault_that_lost_its_empty_folders_still_works(vault: Vault) -> None:
    for name in ("sources", "compartments", "training", "work"):
        (vault.root / name).rmdir()
    again = Vault.open(vault.root)
    assert again.verify().ok
    grown(again, "oak")
    assert again.verify().ok


def test_a_vault_that_cannot_be_written_is_verified_without_its_lock(
    pair: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in pair.root.rglob("*")}
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert pair.verify().ok
    assert {path: path.stat().st_mtime_ns for path in pair.root.rglob("*")} == before
    spoil(image_of(pair, "oak"))
    assert not pair.verify().ok
