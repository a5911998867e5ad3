"""A compartment on disk: what is loaded is what was saved, damage is named, and plain peft reads the LoRA kind."""

from __future__ import annotations

import copy
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from intarsia.backbone import Autoencoder, AutoencoderConfig, Backbone
from intarsia.compartments import Adapted, Compartment, environment
from intarsia.compartments.adapters import DeepPrompts, Kind, Lora
from intarsia.compartments.compartment import ADAPTER_FILE, PEFT_FILE, RECORD_FILE, ROUTER_FILE
from intarsia.diffusion import Cosine, VPLinear, keyed_normal
from intarsia.digests import digest_of
from intarsia.errors import CorruptError, IncompatibleError, SettingsError
from intarsia.files import read_json, write_json

from .helpers import KINDS, random_params, tiny_backbone

FILES = (ADAPTER_FILE, PEFT_FILE, ROUTER_FILE, RECORD_FILE)


def compartment(kind: Kind, backbone: Backbone) -> Compartment:
    """One with something in every field."""
    return Compartment(
        name="oak",
        sources=("oak", "core"),
        adapter=kind,
        params=random_params(kind, backbone.network),
        router={"gaussian.mean": keyed_normal((2, 16), "router"), "gaussian.count": torch.tensor([7, 5])},
        router_settings={"gaussian": {"components": 2, "shrinkage": 0.1}},
        classes={"b": 5, "a": 7},
        count=12,
        manifest_root="f" * 64,
        backbone=backbone.digests,
        training={"steps": 6, "slices": {"slice-1": "e" * 64}, "lr": None},
        environment=environment(precision="float32", threads=1),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved compartment of the LoRA kind, the one with all files."""
    compartment(Lora(rank=2), tiny_backbone()).save(tmp_path / "oak")
    assert set(contents(tmp_path / "oak")) == set(FILES)
    return tmp_path / "oak"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_loaded_is_what_was_saved(kind: Kind, tmp_path: Path) -> None:
    saved = compartment(kind, tiny_backbone())
    saved.save(tmp_path / "first")
    loaded = Compartment.load(tmp_path / "first")
    assert replace(loaded, params={}, router={}) == replace(saved, params={}, router={})
    for mine, theirs in ((loaded.params, saved.params), (loaded.router, saved.router)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
        assert all(tensor.dtype == theirs[name].dtype for name, tensor in mine.items())
    assert loaded.digest == saved.digest
    loaded.save(tmp_path / "second")
    assert contents(tmp_path / "second") == contents(tmp_path / "first")
    assert (PEFT_FILE in contents(tmp_path / "first")) == isinstance(kind, Lora)


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("name", [ADAPTER_FILE, PEFT_FILE, ROUTER_FILE])
def test_a_flipped_byte_is_noticed(folder: Path, name: str, place: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[{"first": 0, "middle": len(data) // 2, "last": -1}[place]] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(CorruptError, match=rf"^{re.escape(str(folder / name))}: sha256 is .* its record says"):
        Compartment.load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CorruptError, match=rf"^{re.escape(str(folder / name))}: missing"):
        Compartment.load(folder)


# The digest in the record fits the cut file, so that it is the file's own form that gives the cut away.
@pytest.mark.parametrize("left", [0, 7, 0.5, -1])
@pytest.mark.parametrize("name", [ADAPTER_FILE, ROUTER_FILE])
def test_a_truncated_file_is_noticed(folder: Path, name: str, left: float) -> None:
    data = (folder / name).read_bytes()
    cut = data[: int(len(data) * left) if isinstance(left, float) else left]
    (folder / name).write_bytes(cut)
    with pytest.raises(CorruptError, match=rf"^{re.escape(str(folder / name))}: sha256"):
        Compartment.load(folder)
    record = read_json(folder / RECORD_FILE)
    write_json(folder / RECORD_FILE, record | {"files": record["files"] | {name: digest_of(cut)}})
    with pytest.raises(CorruptError, match=rf"^{re.escape(str(folder / name))}: not a whole safetensors file"):
        Compartment.load(folder)


def without(path: Path, *keys: str) -> None:
    """Take an entry, found by its keys from the outside in, out of a record."""
    record = read_json(path)
    inner = record
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    write_json(path, record)


def backbones_record(path: Path) -> None:
    tiny_backbone().save(path.parent.parent / "backbone")
    shutil.copy(path.parent.parent / "backbone" / "backbone.json", path)


OTHER_RECORDS: dict[str, Callable[[Path], object]] = {
    "a backbone's": backbones_record,
    "an empty object": lambda path: path.write_bytes(b"{}"),
    "a list": lambda path: path.write_bytes(b"[]"),
    "no JSON": lambda path: path.write_bytes(path.read_bytes()[1:]),
    "no digests": lambda path: without(path, "files"),
    "one digest too few": lambda path: without(path, "files", ROUTER_FILE),
    "no digest for peft's file": lambda path: without(path, "files", PEFT_FILE),
    "no backbone": lambda path: without(path, "backbone"),
}


@pytest.mark.parametrize("change", OTHER_RECORDS.values(), ids=OTHER_RECORDS.keys())
def test_a_record_of_something_else_is_refused(folder: Path, change: Callable[[Path], object]) -> None:
    change(folder / RECORD_FILE)
    with pytest.raises(CorruptError, match=rf"^{re.escape(str(folder / RECORD_FILE))}: "):
        Compartment.load(folder)


def with_latent_space(seed: int) -> Backbone:
    """The tiny backbone on latents of 8x8 pictures."""
    torch.manual_seed(seed)
    autoencoder = Autoencoder(AutoencoderConfig(image_size=8, channels=1, latent_channels=1, widths=(8,), finish=8))
    return Backbone(tiny_backbone().network, Cosine(), autoencoder=autoencoder)


@pytest.mark.parametrize(
    ("part", "here"),
    [
        ("network", lambda: tiny_backbone(seed=1)),
        ("forward process", lambda: Backbone(tiny_backbone().network, VPLinear())),
        ("convention", lambda: Backbone(tiny_backbone().network, Cosine(), prediction="eps")),
        ("convention", lambda: Backbone(tiny_backbone().network, Cosine(), time_scale=999.0)),
        ("latent space", lambda: with_latent_space(0)),
    ],
)
def test_another_backbone_is_refused_by_the_part_that_differs(part: str, here: Callable[[], Backbone]) -> None:
    mine = compartment(DeepPrompts(tokens=3), tiny_backbone())
    mine.check_backbone(tiny_backbone())
    with pytest.raises(IncompatibleError, match=f"'oak' was trained on another {part} "):
        mine.check_backbone(here())


def test_other_labels_of_the_same_rows_are_refused() -> None:
    mine = compartment(DeepPrompts(tokens=3), tiny_backbone(labels=("a", "b")))
    with pytest.raises(IncompatibleError, match="another convention"):
        mine.check_backbone(tiny_backbone(labels=("b", "a")))


def test_another_latent_space_is_refused() -> None:
    mine = compartment(DeepPrompts(tokens=3), with_latent_space(0))
    mine.check_backbone(with_latent_space(0))
    with pytest.raises(IncompatibleError, match="another latent space"):
        mine.check_backbone(with_latent_space(1))


def test_the_digest_covers_record_and_tensors_and_no_order() -> None:
    mine = compartment(Lora(rank=2), tiny_backbone())
    name = "mid_block.attn.qkv.lora_B"
    turned = replace(mine, params=dict(reversed(list(mine.params.items()))), classes={"a": 7, "b": 5})
    others = [
        replace(mine, count=13),
        replace(mine, params=dict(mine.params) | {name: mine.params[name] + 1e-6}),
        replace(mine, router=dict(mine.router) | {"gaussian.count": torch.tensor([7, 6])}),
    ]
    assert turned.digest == mine.digest
    assert len({mine.digest, *(other.digest for other in others)}) == 4


@pytest.fixture(scope="module")
def peft() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of its own dependencies, on import
        return pytest.importorskip("peft")


# Warnings are errors here, so peft finds every tensor that it wants and no other.
@pytest.mark.parametrize(
    "kind",
    [Lora(rank=2), Lora(rank=2, targets=("attn.qkv", "skip_linear"), scale=0.5), Lora(rank=3, targets=("mlp.fc1",))],
    ids=["all", "skips", "one"],
)
@torch.no_grad()
def test_plain_peft_loads_the_lora_kind(peft: Any, kind: Lora, tmp_path: Path) -> None:
    network = tiny_backbone().network
    mine = compartment(kind, tiny_backbone())
    mine.save(tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(network), tmp_path)
    x, t = keyed_normal((5, 1, 4, 4), "x"), torch.linspace(20, 900, 5)
    shown = theirs(x, t)
    adapted = network(x, t, adaptation=Adapted([(kind.pieces(network, mine.params), 5)]))
    merged = torch.func.functional_call(network, kind.merged(network, mine.params), (x, t))
    assert (shown - network(x, t)).abs().max() > 0.1
    for ours in (adapted, merged):
        torch.testing.assert_close(shown, ours, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs.merge_and_unload()(x, t), merged, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("adapter", "lora"),
        ("adapter", None),
        ("adapter", {"kind": "lorra"}),
        ("classes", 3),
        ("count", 7),
        ("backbone", []),
    ],
)
def test_an_edited_record_is_refused(key: str, value: object, folder: Path) -> None:
    write_json(folder / RECORD_FILE, read_json(folder / RECORD_FILE) | {key: value})
    with pytest.raises(CorruptError, match=re.escape(RECORD_FILE)):
        Compartment.load(folder)


def test_a_newer_format_is_refused(folder: Path) -> None:
    write_json(folder / RECORD_FILE, read_json(folder / RECORD_FILE) | {"format": 2})
    with pytest.raises(SettingsError, match=r"format 2 is newer than 1, the newest known here; update intarsia"):
        Compartment.load(folder)
