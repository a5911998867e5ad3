"""What a vault tells its ledger: with every change, in the same atomic step, and nothing that was somebody's data."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from intarsia.composition import Operator
from intarsia.credit import CreditSettings
from intarsia.errors import CorruptError, InputError, VaultError
from intarsia.files import read_json, write_json
from intarsia.ledger import (
    Checkpoint,
    Event,
    Ledger,
    Receipt,
    SignerKey,
    check_offline,
    read_receipts,
    write_receipts,
)
from intarsia.ledger.bundle import write_bundle
from intarsia.ledger.entry import Opening
from intarsia.vault import Vault
from intarsia.vault.accounts import account_in
from intarsia.vault.events import images_root

from .helpers import ROUTER, all_bytes, grown, pictures, quick, readable, toy_source, traces

Fresh = Callable[[Path], Vault]


def kinds(vault: Vault) -> list[str]:
    return [entry.kind for entry in vault.ledger.entries()]


def test_what_was_done_stands_in_its_order(vault: Vault) -> None:
    grown(vault, "oak", "elm")
    vault.forget("oak")
    assert kinds(vault) == ["init", "ingest", "train", "ingest", "train", "forget"]
    assert vault.verify().ok
    secrets = vault.ledger.entries()
    assert [entry.names(vault._store.salts.all(["elm"])) for entry in secrets[1:]] == [
        [None],
        [None],
        ["elm"],
        ["elm"],
        [None],
    ]


def test_what_failed_is_not_recorded(vault: Vault) -> None:
    grown(vault, "oak", train=False)
    with pytest.raises(VaultError):
        vault.add_source("oak", toy_source("oak"))
    steps = vault.training("oak", quick(), save_every=1)
    next(steps)
    steps.close()
    assert kinds(vault) == ["init", "ingest"]


def test_the_ledger_holds_nothing_of_the_data(pair: Vault) -> None:
    words = {"oak", "elm"}
    for name in ("oak", "elm"):
        source, info = pair.source(name), pair._shelf.info(name)
        words |= {source.owner, source.manifest.root, info.digest, *source.manifest.ids}
        words |= {text for s in source.manifest for text in (s.file_name, s.text, s.label) if text}
    assert traces(pair.root / "sources", words)
    for path in (pair.root / "ledger").glob("*.*"):
        assert not [word for word in words if word.encode() in readable(path)], path


def test_what_a_killed_append_left_goes_with_the_next(pair: Vault) -> None:
    scratch = pair.root / "ledger" / f".head.json.{'0' * 32}.part"
    scratch.write_text("half")
    assert pair.verify().ok
    pair.compose("oak", precision="float32")
    assert not scratch.exists()


def test_salts_go_with_the_source(pair: Vault) -> None:
    place = pair.root / "ledger/salts/elm.json"
    secrets = [read_json(place)[key] for key in ("name", "data")]
    assert traces(pair.root, secrets)
    pair.forget("elm")
    assert not traces(pair.root, secrets)
    assert [path.name for path in (pair.root / "ledger/salts").iterdir()] == ["oak.json"]


def test_a_damaged_ledger_stops_a_change_before_it_is_decided(pair: Vault) -> None:
    before = all_bytes(pair.root)
    path = pair.root / "ledger/head.json"
    path.write_bytes(path.read_bytes().replace(b'"size":', b'"size": '))
    with pytest.raises(CorruptError, match="head of a ledger"):
        pair.forget("elm")
    assert all_bytes(pair.root) == before
    assert [problem.where for problem in pair.verify().problems] == ["ledger"]


def test_another_ledger_is_not_this_vaults(pair: Vault, tmp_path: Path) -> None:
    other = Ledger.create(tmp_path / "other", f"intarsia/{pair.record.id}")
    for path in other.folder.iterdir():
        (pair.root / "ledger" / path.name).write_bytes(path.read_bytes())
    problems = pair.verify().problems
    assert ["not the ledger with which" in problem.what for problem in problems if problem.where == "ledger"] == [True]
    assert "sources/oak" in {problem.where for problem in problems}


def test_a_change_is_recorded_once_also_if_it_is_carried_out_twice(
    pair: Vault, fresh: Fresh, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each step of the way, from the decision on."""
    from intarsia.vault.store import Store

    move = Store._move
    for step in range(4):
        vault, seen = fresh(trained), []

        def cut_short(*arguments: object, at: int = step, seen: list[object] = seen) -> None:
            seen.append(arguments)
            if len(seen) > at:
                raise KeyboardInterrupt
            move(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "_move", staticmethod(cut_short))
            try:
                vault.forget("elm")
            except KeyboardInterrupt:
                assert len(seen) == step + 1
        again = Vault.open(vault.root)
        assert kinds(again) == ["init", "ingest", "train", "ingest", "train", "forget"]
        assert again.verify().ok


def test_training_in_company_is_one_entry_of_two_sources(vault: Vault) -> None:
    grown(vault, "oak", "elm", train=False).train(["elm", "oak"], quick(), routers=[ROUTER])
    last = vault.ledger.entries()[-1]
    assert last.names(vault._store.salts.all(["oak", "elm"])) == ["elm", "oak"]
    assert last.about["settings"]["settings"]["steps"] == 4


def test_what_is_drawn_is_recorded_with_a_receipt(pair: Vault) -> None:
    composition = pair.compose(["oak", "elm"], precision="float32")
    result = composition.sample(2, seed=3, steps=2)
    assert kinds(pair)[-2:] == ["compose", "sample"]
    assert result.receipt is not None
    receipt = Receipt.of(json.loads(json.dumps(result.receipt)))
    assert receipt.check().size == len(pair.ledger.entries())
    assert receipt.entry.about["settings"]["seed"] == 3
    shares = dict(zip(result.names, result.shares.tolist(), strict=True))
    assert {each.source: each.values for each in receipt.openings} == {
        name: {
            "principal": None,
            "compartments": {name: pair._shelf.info(name).digest},
            "share": shares[name],
            "images": images_root(result.images),
        }
        for name in ("elm", "oak")
    }
    assert result.receipt["receipt"] == "sample"
    assert {entry.about["weights"] for entry in pair.ledger.entries()[-2:]} == {"gaussian"}


@pytest.mark.integration
def test_what_stands_in_clear_is_the_same_whatever_the_pictures_were(fresh: Fresh, empty: Path) -> None:
    """Or a number in it would tell of somebody's data, and confirm guesses of it when it is forgotten."""
    told = []
    for which in ("these", "those"):
        vault = fresh(empty)
        for name in ("oak", "elm"):
            vault.add_source(name, toy_source(name, images=pictures(f"{which} {name}", 4)))
        vault.train(["oak", "elm"], quick(), routers=[ROUTER])
        for operator in (Operator(), Operator(cp_k=1000.0), Operator(name="protected", particles=2, cp_k=1000.0)):
            result = vault.compose(operator=operator, precision="float32").sample(2, steps=2)
        vault.credit(vault.compose(precision="float32").sample(2, steps=2), CreditSettings(method="path"), record=True)
        vault.payout("1.00", "2020..2100")
        vault.open_ticket("elm")
        vault.extend("elm", toy_source("elm", images=pictures(f"more {which}", 2)))
        vault.forget("elm", vault.source("elm").manifest.ids[:1])
        vault.forget("elm")
        clear = [(entry.kind, entry.about) for entry in vault.ledger.entries()]
        told.append([(kind, {k: v for k, v in about.items() if k not in RANDOM}) for kind, about in clear])
        assert result.receipt is not None
        assert {"protection", "access"} <= set(result.receipt["sources"][0]["values"])
    assert told[0] == told[1]


RANDOM = {"credit", "ticket", "received", "due"}


def test_a_soup_names_what_is_in_it(pair: Vault) -> None:
    result = pair.compose(weights="soup", precision="float32").sample(1, steps=1)
    assert result.receipt is not None
    assert [source["source"] for source in result.receipt["sources"]] == ["elm", "oak"]


def test_every_changed_byte_of_a_receipt_is_found(pair: Vault, tmp_path: Path) -> None:
    result = pair.compose("oak", precision="float32").sample(1, steps=1)
    path = tmp_path / "receipt.json"
    write_json(path, result.receipt)
    whole = path.read_bytes()
    assert check_offline(path, key=pair.ledger.key).says["sources"].keys() == {"oak"}
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(CorruptError):
            check_offline(path)


def test_what_cannot_be_written_is_drawn_from_unrecorded_only(pair: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a medium that cannot be written."""
    before = kinds(pair)
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode, **_: not mode & os.W_OK)
        with pytest.raises(VaultError, match="--unrecorded"):
            pair.compose("oak", precision="float32")
        result = pair.compose("oak", precision="float32", unrecorded=True).sample(1, steps=1)
    assert result.receipt is None
    assert kinds(pair) == before
    recorded = pair.compose("oak", precision="float32", unrecorded=True).sample(1, steps=1)
    assert recorded.receipt is not None


def test_no_images_without_a_record(pair: Vault) -> None:
    composition = pair.compose("oak", precision="float32")
    (pair.root / "ledger/head.json").unlink()
    with pytest.raises(CorruptError):
        composition.sample(1, steps=1)


@pytest.fixture
def bundle(pair: Vault, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_bundle(pair.ledger, folder)
    return folder


def test_a_bundle_is_checked_without_the_vault(pair: Vault, bundle: Path) -> None:
    key, size = pair.ledger.key, len(pair.ledger.entries())
    shutil.rmtree(pair.root)
    found = check_offline(bundle, key=key)
    assert (found.kind, found.head.size, found.says["events"]["train"]) == ("bundle", size, 2)
    assert not any("PRIVATE" in path.read_text() for path in bundle.iterdir())
    with pytest.raises(CorruptError, match="of another log"):
        check_offline(bundle, key=SignerKey.generate("intarsia/other").verifier)


def test_every_changed_byte_of_a_bundle_is_found(bundle: Path) -> None:
    for path in bundle.iterdir():
        whole = path.read_bytes()
        for place in range(0, len(whole), 7):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
            with pytest.raises(CorruptError):
                check_offline(bundle)
        path.write_bytes(whole)
    assert check_offline(bundle).kind == "bundle"


def test_a_log_that_was_rewritten_does_not_go_on_from_the_earlier_one(pair: Vault, trained: Path, fresh: Fresh) -> None:
    """Both are signed by the key of the vault, so only the earlier checkpoint can tell."""
    pair.forget("elm")
    note = pair.ledger.checkpoint()
    other = fresh(trained)
    other.forget("oak")
    grown(other, "ash")
    assert check_offline(other.root, key=pair.ledger.key).head.size > Checkpoint.open(note, pair.ledger.key).size
    with pytest.raises(CorruptError, match="the log was rewritten, or cut short"):
        check_offline(other.root, key=pair.ledger.key, earlier=note)
    with pytest.raises(CorruptError, match="rewritten"):
        other.ledger.growth(note)
    grown(pair, "ash")
    assert check_offline(pair.root, earlier=note).kind == "vault"
    assert pair.ledger.growth(note).check(note, pair.ledger.key).size == len(pair.ledger.entries())


def test_forgetting_a_source_gives_a_receipt(pair: Vault, tmp_path: Path) -> None:
    root, digest = pair.source("elm").manifest.root, pair._shelf.info("elm").digest
    account = account_in(pair._store, "elm")
    (receipt,) = pair.forget("elm").receipts
    write_receipts(tmp_path / "receipt.json", [receipt])
    (says,) = [check_offline(tmp_path / "receipt.json", key=pair.ledger.key).says]
    assert says["sources"]["elm"] == {
        "compartment_before": digest,
        "compartment_after": None,
        "manifest_root_before": root,
        "manifest_root_after": None,
        "account": account,
    }
    assert not traces(pair.root, [root, digest, "elm"])
    (replay,) = pair.replay(read_receipts(tmp_path / "receipt.json"))
    assert (replay.source, replay.verdict, replay.ok) == ("elm", "gone", True)
    grown(pair, "elm", train=False)
    (replay,) = pair.replay([receipt])
    assert (replay.verdict, replay.ok) == ("back", False)


def test_a_forgotten_samples_training_is_done_again(pair: Vault, tmp_path: Path) -> None:
    before = pair.source("elm").manifest
    gone = before.ids[0]
    outcome = pair.forget("elm", samples=[gone])
    after, digest = pair.source("elm").manifest, pair._shelf.info("elm").digest
    write_receipts(tmp_path / "receipt.json", outcome.receipts)
    says = check_offline(tmp_path / "receipt.json").says["entries"]
    assert [each["event"] for each in says] == ["forget", "train"]
    assert says[0]["sources"]["elm"]["manifest_root_before"] == before.root
    assert says[0]["sources"]["elm"]["manifest_root_after"] == after.root
    assert says[1]["sources"]["elm"] == {"manifest_root": after.root, "compartment": digest}
    assert {"seed", "slices"} < says[1]["about"]["settings"]["settings"].keys()
    assert {"torch", "threads"} < says[1]["about"]["environment"].keys()
    assert not traces(pair.root, [before.root, gone])

    receipts, stored = read_receipts(tmp_path / "receipt.json"), all_bytes(pair.root)
    (replay,) = pair.replay(receipts)
    assert (replay.verdict, replay.found, replay.environment) == ("same", digest, {})
    assert all_bytes(pair.root) == stored
    (replay,) = pair.replay(receipts[:1])  # all that an interrupted forgetting has written
    assert (replay.verdict, replay.ok) == ("apart", True)
    pair.forget("elm", samples=[after.ids[0]])
    assert [each.verdict for each in pair.replay(receipts)] == ["changed"]


def test_other_bytes_are_a_fault_only_in_the_same_environment(
    pair: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vault's owner signs that he trained, and did not."""
    receipts = pair.forget("elm", samples=pair.source("elm").manifest.ids[:1]).receipts
    (opening,) = receipts[1].openings
    about = receipts[1].entry.about

    def claimed(about: dict[str, object]) -> Receipt:
        values = {**opening.values, "compartment": "0" * 64}
        told = pair._store.tell(Event("train", about, {"elm": values}))
        assert told is not None
        return told

    (replay,) = pair.replay([claimed(about)])
    assert (replay.verdict, replay.ok, replay.environment) == ("other", False, {})
    elsewhere = {**about, "environment": {**about["environment"], "torch": "1.0"}, "code": "0" * 64}
    (replay,) = pair.replay([claimed(elsewhere)])
    assert (replay.verdict, replay.ok) == ("elsewhere", True)
    assert set(replay.environment or {}) == {"torch", "code"}
    assert "torch '1.0' then" in str(replay)


def test_only_this_vaults_receipts_of_trainings_are_replayed(pair: Vault, vault: Vault, trained: Path) -> None:
    (receipt,) = pair.forget("elm").receipts
    with pytest.raises(CorruptError, match="of another vault"):
        vault.replay([receipt])
    with pytest.raises(InputError, match="by which nothing was trained"):
        pair.replay([pair.ledger.prove(0)])


def test_what_learned_from_a_neighbour_is_recorded_and_replayed(vault: Vault) -> None:
    grown(vault, "oak", "elm", train=False)
    vault.permit("oak", ["elm"])
    vault.train("elm", quick(), routers=[ROUTER], neighbours=["oak"])
    assert vault.history()[-1][2] == ["elm", "oak"]
    receipts = vault.forget("oak", samples=vault.source("oak").manifest.ids[:1]).receipts
    assert [receipt.entry.kind for receipt in receipts] == ["forget", "train"]
    assert receipts[1].openings[1].values["compartments"] == {"elm": vault._shelf.info("elm").digest}
    assert [(each.source, each.verdict) for each in vault.replay(receipts)] == [("elm", "same")]


def test_salts_change_with_the_samples(pair: Vault) -> None:
    """Or a guess of what was forgotten could be tested against the older commitments."""
    place = pair.root / "ledger/salts/elm.json"
    before = read_json(place)
    pair.forget("elm", samples=pair.source("elm").manifest.ids[:1])
    assert not traces(pair.root, [before["data"]])
    assert read_json(place)["name"] == before["name"]
    assert [entry.kind for _, entry, names in pair.history() if "elm" in names] == [
        "ingest",
        "train",
        "forget",
        "train",
    ]


@pytest.mark.parametrize("way", ["own sample", "whole", "neighbour's sample", "forbid", "withdrawn"])
def test_what_others_entries_say_of_it_cannot_be_guessed_either(vault: Vault, tmp_path: Path, way: str) -> None:
    """Entries tell under each source of a composition with what it was composed, and what learned from it."""
    grown(vault, "oak", "elm", "fir", train=False).permit("elm", to="oak")
    vault.train(["elm", "fir"], quick(), routers=[ROUTER])
    vault.train("oak", quick(), neighbours="elm", routers=[ROUTER])
    if way == "withdrawn":
        key = vault.pack("fir", tmp_path / "fir.pack")
        vault.forget("fir")
        vault.import_pack(tmp_path / "fir.pack", signer=key)
    composed = {"oak": vault._shelf.info("oak").digest, "elm": vault._shelf.info("elm").digest}
    vault.compose(["oak", "elm"], precision="float32")
    guess = {"principal": None, "compartments": composed}
    assert "elm" in told_of(vault, guess), "with the salts the guess is confirmed"
    secrets = [read_json(path)["data"] for path in (vault.root / "ledger/salts").iterdir()]
    ids = {name: toy_source(name).manifest.ids[:1] for name in ("oak", "elm", "fir")}
    {
        "own sample": lambda: vault.forget("oak", ids["oak"]),
        "whole": lambda: vault.forget("oak"),
        "neighbour's sample": lambda: vault.forget("elm", ids["elm"]),
        "forbid": lambda: vault.forbid("elm", "oak"),
        "withdrawn": lambda: vault.forget("fir", ids["fir"]),
    }[way]()
    assert told_of(vault, guess) == []
    assert traces(vault.root, secrets) == []
    assert vault.verify().ok


def told_of(vault: Vault, values: dict[str, object]) -> list[str]:
    """The sources of which some entry says this, as far as the salts that are there show."""
    known = vault._store.salts.all(vault._store.salts.names())
    found = []
    for entry in vault.ledger.entries():
        seals = {each["seal"] for each in entry.record["sources"]}
        openings = [Opening(name, values, *each.salts(entry.record["nonce"])) for name, each in known.items()]
        found += [opening.source for opening in openings if opening.seal in seals]
    return found


def test_what_was_extended_is_recorded_and_replayed(pair: Vault) -> None:
    more = toy_source("elm", images=pictures("more elm", 3))
    receipts = pair.extend("elm", more).receipts
    assert [receipt.entry.kind for receipt in receipts] == ["extend", "train"]
    assert "extensions" in receipts[1].openings[0].values
    assert [(each.source, each.verdict) for each in pair.replay(receipts)] == [("elm", "same")]


def test_what_the_ledger_does_not_tell_of_is_found(pair: Vault, vault: Vault) -> None:
    """An older copy of the ledger in place of the newer one, each of which is whole."""
    older = vault.root / "ledger"
    grown(pair, "ash", train=False)
    assert pair.verify().ok
    shutil.rmtree(pair.root / "ledger")
    shutil.copytree(older, pair.root / "ledger")
    found = {problem.where for problem in pair.verify().problems if "does not tell" in problem.what}
    assert found == {"sources/ash", "sources/elm", "sources/oak", "compartments/elm", "compartments/oak"}
