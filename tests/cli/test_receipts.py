"""Nothing is forgotten without a receipt: not on a full disk, nor by a process that is killed before it writes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from intarsia.errors import VaultError
from intarsia.ledger import Promise, check_offline
from intarsia.vault import Vault
from intarsia.vault.receipts import ReceiptFolder

from .helpers import contents


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first receipt is not written: to the vault that is a kill between the forgetting and its receipt."""
    written = ReceiptFolder.write

    def write(place: ReceiptFolder, receipts: object) -> Path:
        monkeypatch.setattr(ReceiptFolder, "write", written)
        raise VaultError("killed")

    monkeypatch.setattr(ReceiptFolder, "write", write)


def hidden(vault: Path) -> list[Path]:
    return sorted(vault.parent.glob("**/.*.promised"))


@pytest.mark.usefixtures("killed")
@pytest.mark.parametrize("own", [True, False])
def test_the_receipt_of_a_killed_forgetting_is_made_by_the_next(vault: Path, tmp_path: Path, run, own: bool):
    place = tmp_path / "own.json" if own else vault.with_name("v.receipts") / "000005-forget.json"
    words = ("forget", vault, "elm", "--yes", *(("--receipt", place) if own else ()))
    assert run(*words).code == 1
    assert "elm" not in Vault.open(vault).names()
    assert len(hidden(vault)) == 1
    answer = run(*words)
    assert f"interrupted before it wrote its receipt: {place}" in answer.err
    assert "unknown source 'elm'" in answer.err
    assert hidden(vault) == []
    says = check_offline(place).says
    assert (says["event"], list(says["sources"])) == ("forget", ["elm"])


@pytest.mark.parametrize("way", ["train", "sample"])
def test_whoever_finishes_a_forgetting_keeps_its_receipt(vault: Path, tmp_path: Path, run, way: str):
    opened = Vault.open(vault)
    gone = opened.source("elm").manifest.ids[0]
    iter(opened.forgetting("elm", gone)).close()
    drawn = ("--count", "1", "--steps", "1", "--precision", "float32", "--out", tmp_path / "out")
    answer = run("train", vault, "--resume") if way == "train" else run("sample", vault, *drawn)
    place = vault.with_name("v.receipts") / "000006-train.json"
    assert f"receipt of training 'elm' without what was forgotten: {place}" in answer.err
    says = check_offline(place).says
    assert says["event"] == "train"
    assert says["sources"]["elm"]["compartment"] == Vault.open(vault).compartments()[0].digest
    assert run("verify", vault, "--replay", place).code == 0


def test_a_full_disk_stops_the_forgetting(vault: Path, run, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise VaultError("no space left on the disk")

    before = contents(vault)
    with monkeypatch.context() as patch:
        patch.setattr("intarsia.vault.receipts.write_promises", full)
        answer = run("forget", vault, "elm", "--yes")
    assert (answer.code, answer.err) == (1, "error: no space left on the disk\n")
    assert contents(vault) == before


def test_what_was_promised_and_not_done_goes_with_the_next(vault: Path, run, done, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr("intarsia.vault.store.write_json", _killed)
        assert run("forget", vault, "elm", "--yes").code == 1
    assert len(hidden(vault)) == 1
    assert "oak" in Vault.open(vault).names()
    assert "interrupted" not in run("forget", vault, "oak", "--dry-run").err
    assert len(hidden(vault)) == 1, "it may be that of a process that is at work"
    done("forget", vault, "oak", "--yes")
    assert hidden(vault) == []
    assert sorted(path.name for path in vault.with_name("v.receipts").iterdir()) == ["000005-forget.json"]


def test_every_forgetting_is_announced_before_it_is_decided(vault: Path, tmp_path: Path, done):
    opened, told = Vault.open(vault), []

    def announce(promises: list[Promise]) -> None:
        told.extend(promises)
        assert promises[0].kept(opened.ledger) is None

    shutil.copytree(vault, tmp_path / "home.vault")
    key = Vault.open(tmp_path / "home.vault").pack("oak", tmp_path / "oak.pack")
    opened.forgetting("oak", announce=announce).finish()
    opened.import_pack(tmp_path / "oak.pack", signer=key)
    opened.forgetting("oak", "0" * 64, announce=announce).finish()
    opened.forgetting("elm", opened.source("elm").manifest.ids[0], announce=announce).finish()
    assert len(told) == 3
    receipts = [each.kept(opened.ledger) for each in told]
    assert [receipt.check().size for receipt in receipts if receipt] == [len(opened.ledger.entries())] * 3


def _killed(*_: object) -> None:
    raise VaultError("killed")
