"""The owner at home: what is handed over, what is refused, and what happens when the owner withdraws an image."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from intarsia.compartments import Compartment
from intarsia.errors import (
    CorruptError,
    ForbiddenError,
    IncompatibleError,
    InputError,
    IntarsiaError,
    SettingsError,
    UnknownName,
    VaultError,
)
from intarsia.files import load_tensors, save_tensors
from intarsia.ledger.note import SignerKey
from intarsia.routers import HeadSettings, PrototypeSettings
from intarsia.vault import Vault
from intarsia.vault.packs import Pack, read_pack

from .helpers import ROUTER, all_bytes, grown, quick, tiny_backbone, toy_source, traces

Fresh = Callable[[Path], Vault]
HEAD = HeadSettings(steps=2, batch=4, hidden=4)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An owner's vault, with the public backbone and `ash`, trained."""
    root = tmp_path_factory.mktemp("house") / "home.vault"
    home = Vault.create(root, backbone=(tiny_backbone(), toy_source("core", 24)))
    home.add_source("ash", toy_source("ash"))
    home.train("ash", quick(), routers=[ROUTER, HEAD])
    return root


@pytest.fixture
def home(house: Path, tmp_path: Path) -> Vault:
    return Vault.open(shutil.copytree(house, tmp_path / "home.vault"))


@pytest.fixture
def packed(home: Vault, tmp_path: Path) -> tuple[Path, str]:
    """A pack of `ash`, and the owner's key."""
    return tmp_path / "ash.pack", home.pack("ash", tmp_path / "ash.pack")


def test_what_comes_is_composed_like_any_other(pair: Vault, home: Vault, packed: tuple[Path, str]) -> None:
    path, key = packed
    found = pair.import_pack(path, signer=key)
    assert (found.source.name, found.source.signer, found.source.count) == ("ash", key, 5)
    assert set(found.claims) == {"gaussian", "reference"}
    assert all(0 <= claim <= 2 for claim in found.claims.values())
    composition = pair.compose(precision="float32")
    assert composition.names == ("ash", "elm", "oak")
    assert composition.licences["ash"] == "CC-BY-4.0"
    assert composition.sample(2, steps=2).images.isfinite().all()
    alone = pair.compose("ash", precision="float32").sample(2, steps=2)
    assert alone.images.equal(home.compose("ash", precision="float32").sample(2, steps=2).images)
    assert [(info.name, info.signer) for info in pair.sources()] == [("ash", key), ("elm", None), ("oak", None)]
    assert pair.verify().ok
    assert "import" in [entry.kind for entry in pair.ledger.entries()]


def test_no_image_is_handed_over(pair: Vault, home: Vault, packed: tuple[Path, str]) -> None:
    source = home.source("ash")
    words = {*source.manifest.ids, *(id[:16] for id in source.manifest.ids)}
    words |= {text for s in source.manifest for text in (s.file_name, s.text) if text}
    pair.import_pack(packed[0], signer=packed[1])
    inside = pair.root.parent / "unpacked"
    inside.mkdir()
    shutil.copy(packed[0], inside)
    assert len(traces(home.root, words)) == len(words)
    assert traces(inside, words) == []
    assert traces(pair.root, words) == []
    assert not (pair.root / "compartments/ash/slices").exists(), "checkpoints are the owner's alone"


def test_importing_and_forgetting_leaves_the_vault_as_it_was(
    pair: Vault, trained: Path, packed: tuple[Path, str]
) -> None:
    pair.import_pack(packed[0], signer=packed[1])
    pair.forget("ash")
    assert all_bytes(pair.root) == all_bytes(trained)


def test_a_withdrawn_sample_ends_use_until_the_owner_hands_in_a_replacement(
    pair: Vault, home: Vault, packed: tuple[Path, str], tmp_path: Path
) -> None:
    path, key = packed
    pair.import_pack(path, signer=key)
    gone = home.source("ash").manifest.ids[0]
    composition = pair.compose("ash", precision="float32")
    ticket = pair.open_ticket("ash", [gone])
    plan = pair.plan_forget("ash", [gone])
    assert (plan.left, plan.compartments, plan.steps) == (4, ("ash",), 0)
    with pytest.raises(InputError, match="64 digits"):
        pair.open_ticket("ash", gone[:12])
    ticket = pair.open_ticket("ash", gone)
    outcome = pair.forget("ash", [gone])
    assert (outcome.gone, outcome.samples) == (("ash",), 1)
    assert pair.ticket(ticket.id).state == "done"
    with pytest.raises(ForbiddenError, match="'ash' was forgotten"):
        composition.sample(1, steps=1)
    with pytest.raises(SettingsError, match="its owner has not handed in a pack"):
        pair.compose("ash")
    with pytest.raises(ForbiddenError, match="learned from the samples of which some were forgotten"):
        pair.import_pack(path, signer=key)
    assert pair.verify().ok
    home.forget("ash", [gone])
    assert home.pack("ash", tmp_path / "again.pack") == key
    assert pair.import_pack(tmp_path / "again.pack", signer=key).source.count == 4
    assert pair.compose("ash", precision="float32").names == ("ash",)
    assert pair.verify().ok


def test_what_was_withdrawn_does_not_come_back_with_an_earlier_pack(
    pair: Vault, home: Vault, packed: tuple[Path, str], tmp_path: Path
) -> None:
    """Neither after the replacement is there, nor where the earlier pack learned from other samples than the last."""
    first, key = packed
    home.extend("ash", toy_source("ash", 7).without(toy_source("ash").manifest.ids))
    second, third = tmp_path / "second.pack", tmp_path / "third.pack"
    home.pack("ash", second)
    for path in (first, second, second):
        pair.import_pack(path, signer=key)
    gone = toy_source("ash").manifest.ids[0]
    pair.forget("ash", [gone])
    with pytest.raises(ForbiddenError, match=r"'ash' is older than the one that came last .* ask the owner"):
        pair.import_pack(first, signer=key)
    home.forget("ash", [gone])
    home.pack("ash", third)
    assert pair.import_pack(third, signer=key).source.count == 6
    before = all_bytes(pair.root)
    for path, words in ((first, "older than the one"), (second, "of which some were forgotten")):
        with pytest.raises(ForbiddenError, match=words):
            pair.import_pack(path, signer=key)
    assert all_bytes(pair.root) == before
    assert pair.verify().ok
    pair.forget("ash")
    assert pair.import_pack(first, signer=key).source.count == 5, "a source that went as a whole comes as any other"


def test_no_pack_is_kept_of_what_is_forgotten_while_it_is_made(
    home: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Pack.write

    def meanwhile(pack: Pack, path: Path, note: str) -> str:
        Vault.open(home.root).forget("ash", toy_source("ash").manifest.ids[:1])
        return write(pack, path, note)

    monkeypatch.setattr(Pack, "write", meanwhile)
    with pytest.raises(ForbiddenError, match="'ash' was forgotten or trained again while it was packed"):
        home.pack("ash", tmp_path / "late.pack")
    assert not (tmp_path / "late.pack").exists()


def test_what_needs_images_is_refused_in_one_line(pair: Vault, packed: tuple[Path, str]) -> None:
    pair.import_pack(packed[0], signer=packed[1])
    needs = {
        "source": lambda: pair.source("ash"),
        "train": lambda: pair.train("ash", quick(), routers=[ROUTER], restart=True),
        "joint": lambda: pair.compose(["ash", "oak"], weights="joint"),
        "a part of an id": lambda: pair.forget("ash", ["3f2a"]),
    }
    before = all_bytes(pair.root)
    for action in needs.values():
        with pytest.raises(InputError, match=r"images of (source )?'ash' are with"):
            action()
    assert all_bytes(pair.root) == before
    grown(pair, "fir")
    assert pair.compose(["ash", "fir"], precision="float32").names == ("ash", "fir")


def rewritten(path: Path, signer: SignerKey, change: Callable[[Compartment], Compartment], tmp_path: Path) -> str:
    """The pack as somebody else would sign it, with another compartment; returns the key."""
    pack = read_pack(path, key_of(path))
    folder = tmp_path / "rewritten"
    folder.mkdir()
    compartment = change(pack.unpack(folder))
    shutil.rmtree(folder)
    compartment.save(folder)
    files = {name: (folder / name).read_bytes() for name in pack.files}
    info = replace(pack.info, manifest_root=compartment.manifest_root, labels=tuple(sorted(compartment.classes)))
    made = Pack(info, pack.image_shape, pack.number, files)
    made.write(path, signer.sign(made.text))
    return str(signer.verifier)


def key_of(path: Path):
    return Vault.open(path.with_name("home.vault")).ledger.key


def scaled(name: str, factor: float) -> Callable[[Compartment], Compartment]:
    return lambda c: replace(c, router={k: t * factor if k == name else t for k, t in c.router.items()})


def shifted(name: str, by: float) -> Callable[[Compartment], Compartment]:
    return lambda c: replace(c, router={k: t + by if k == name else t for k, t in c.router.items()})


def wide(c: Compartment) -> Compartment:
    """Axes that are too short: a density everywhere greater than it may be."""
    return scaled("gaussian.eigenvectors", 0.1)(c)


def first_param(value: float) -> Callable[[Compartment], Compartment]:
    def change(c: Compartment) -> Compartment:
        params = {name: tensor.clone() for name, tensor in c.params.items()}
        next(iter(params.values())).view(-1)[0] = value
        return replace(c, params=params)

    return change


def at_times(lower: float, upper: float, by: float) -> Callable[[Compartment], Compartment]:
    """A head that draws all weights to itself at these times, and none elsewhere."""

    def change(c: Compartment) -> Compartment:
        calibration = c.router["reference.calibration"].clone()
        middles = (torch.arange(len(calibration)) + 0.5) / len(calibration)
        calibration[:, 1] = torch.where((middles > lower) & (middles < upper), by, -by)
        return replace(c, router={**c.router, "reference.calibration": calibration})

    return change


def finely(c: Compartment) -> Compartment:
    """A head that could claim another thing at every single step of a sampler."""
    bins = c.router["reference.calibration"].repeat_interleave(1000, dim=0)
    return replace(c, router={**c.router, "reference.calibration": bins})


HOSTILE: dict[str, tuple[Callable[[Compartment], Compartment], str]] = {
    "a head that claims all": (
        shifted("reference.calibration", 9.0),
        "'reference' of 'ash' claims the core .* times over",
    ),
    "a head that claims all at some times": (at_times(0.5, 0.6, 9.0), "'reference' of 'ash' claims the core"),
    "a head that may claim anything at any time": (finely, "calibrated in 8000 bins of time, 32 at most"),
    "a mixture that is no density": (wide, "no density"),
    "shares above one": (shifted("gaussian.log_pi", 3.0), "shares"),
    "no number": (first_param(float("nan")), "not finite"),
    "another name": (lambda c: replace(c, name="oak"), "not what was signed"),
    "another source": (lambda c: replace(c, sources=("ash", "oak")), "not what was signed"),
    "more images": (lambda c: replace(c, count=5_000_000), "not what was signed"),
    "labels of nothing": (lambda c: replace(c, classes=dict.fromkeys(c.classes, 10**6)), "counts its labels"),
    "labels below nothing": (
        lambda c: replace(c, classes=dict(zip(c.classes, (8, -5), strict=True))),
        "counts its labels",
    ),
    "another backbone": (lambda c: replace(c, backbone={**c.backbone, "network": "0" * 64}), "another network"),
    "tensors that do not fit": (
        lambda c: replace(c, params={k: t[:1].contiguous() for k, t in c.params.items()}),
        "do not fit the backbone",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_signature_alone_opens_nothing(pair: Vault, packed: tuple[Path, str], tmp_path: Path, case: str) -> None:
    change, words = HOSTILE[case]
    key = rewritten(packed[0], SignerKey.generate("mallory"), change, tmp_path)
    before = all_bytes(pair.root)
    with pytest.raises(IntarsiaError, match=words) as caught:
        pair.import_pack(packed[0], signer=key)
    assert "\n" not in str(caught.value)
    assert all_bytes(pair.root) == before


def test_other_files_under_a_note_that_was_signed_are_noticed(
    pair: Vault, packed: tuple[Path, str], tmp_path: Path
) -> None:
    """They are whole, and of a compartment that would do by itself."""
    path, key = packed
    note = load_tensors(path)["note"]
    rewritten(path, SignerKey.generate("mallory"), first_param(0.5), tmp_path)
    save_tensors(path, {**load_tensors(path), "note": note})
    with pytest.raises(CorruptError, match=r"not those that .* signed"):
        pair.import_pack(path, signer=key)


def test_a_part_whose_claims_cannot_be_checked_is_refused(
    pair: Vault, home: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [ROUTER, PrototypeSettings(prototypes=2, rounds=1)]
    home.train("ash", quick(), routers=parts, restart=True)
    with pytest.raises(SettingsError, match="'prototype', whose claims nobody could check"):
        home.pack("ash", tmp_path / "ash.pack")
    assert not (tmp_path / "ash.pack").exists()
    with monkeypatch.context() as patch:  # as an earlier version, which packed it
        patch.setattr("intarsia.vault.packs.BOUNDED", ("gaussian", "reference", "prototype"))
        key = home.pack("ash", tmp_path / "ash.pack")
    with pytest.raises(IncompatibleError, match="'prototype', whose claims cannot be checked"):
        pair.import_pack(tmp_path / "ash.pack", signer=key)


def test_a_byte_that_changes_or_a_file_that_goes_or_comes_is_noticed(pair: Vault, packed: tuple[Path, str]) -> None:
    path, key = packed
    whole, before = path.read_bytes(), all_bytes(pair.root)
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1
        path.write_bytes(spoilt)
        with pytest.raises(CorruptError):
            pair.import_pack(path, signer=key)
    assert all_bytes(pair.root) == before
    path.write_bytes(whole)
    tensors = load_tensors(path)
    for gone in ("router.safetensors", "note"):
        save_tensors(path, {name: tensor for name, tensor in tensors.items() if name != gone})
        with pytest.raises(CorruptError):
            pair.import_pack(path, signer=key)
    save_tensors(path, {**tensors, "../../evil": torch.zeros(1, dtype=torch.uint8)})
    with pytest.raises(CorruptError, match="it holds"):
        pair.import_pack(path, signer=key)
    assert all_bytes(pair.root) == before


def test_a_name_is_its_owners(pair: Vault, home: Vault, packed: tuple[Path, str], tmp_path: Path) -> None:
    path, key = packed
    mallory = SignerKey.generate("mallory")
    with pytest.raises(CorruptError, match="not signed by mallory"):
        pair.import_pack(path, signer=str(mallory.verifier))
    pair.import_pack(path, signer=key)
    theirs = rewritten(path, mallory, lambda c: c, tmp_path)
    with pytest.raises(ForbiddenError, match="has it of another owner"):
        pair.import_pack(path, signer=theirs)
    pair.forget("ash")
    grown(pair, "ash", train=False)
    with pytest.raises(ForbiddenError, match="holds its images itself"):
        pair.import_pack(path, signer=theirs)


def test_what_is_signed_as_a_checkpoint_is_no_pack(home: Vault) -> None:
    with pytest.raises(InputError, match="begins as a checkpoint"):
        home.ledger.sign(f"{home.ledger.key.name}\n1\nAAAA\n")


WRONG = {
    "an unknown source": (lambda v, p: v.pack("fir", p.with_name("x")), UnknownName, "unknown source 'fir'"),
    "a file that is there": (lambda v, p: v.pack("oak", p), VaultError, "exists already"),
    "not trained": (
        lambda v, p: grown(v, "fir", train=False).pack("fir", p.with_name("x")),
        SettingsError,
        "no compartment",
    ),
    "no key": (lambda v, p: v.import_pack(p, signer="me"), InputError, "no Ed25519 verifier key"),
    "no file": (lambda v, p: v.import_pack(p.with_name("x"), signer=str(key_of(p))), CorruptError, "missing"),
    "no pack": (
        lambda v, p: v.import_pack(Path(__file__), signer=str(key_of(p))),
        CorruptError,
        "not a whole safetensors",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_clear_line(pair: Vault, packed: tuple[Path, str], case: str) -> None:
    action, kind, words = WRONG[case]
    with pytest.raises(kind) as caught:
        action(pair, packed[0])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not packed[0].with_name("x").exists()


def test_what_others_own_is_not_handed_over(pair: Vault, tmp_path: Path) -> None:
    pair.permit("elm", to="oak")
    pair.train("oak", quick(), neighbours="elm", routers=[ROUTER], restart=True)
    with pytest.raises(SettingsError, match="learned from elm too, and what others own is not handed over"):
        pair.pack("oak", tmp_path / "oak.pack")
