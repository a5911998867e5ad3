"""Who may draw from what: nothing unless it was granted, and a reason for every verdict."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from intarsia.errors import (
    CorruptError,
    ForbiddenError,
    InputError,
    IntarsiaError,
    SettingsError,
    UnknownName,
    VaultError,
)
from intarsia.vault import Quota, Vault
from intarsia.vault.clock import end_of, start_of

from .helpers import ROUTER, all_bytes, grown, opened_files, quick, toy_source, traces
from .test_crash import Failing

Fresh = Callable[[Path], Vault]
NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)


class Now:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def shared(pair: Vault, now: Now) -> Vault:
    """With `oak` granted to the principal `acme`, and `elm` not."""
    vault = Vault.open(pair.root, clock=now)
    vault.add_principal("acme")
    vault.grant("oak", "acme")
    return vault


def verdict(vault: Vault, name: str) -> tuple[bool, str]:
    (decision,) = vault.decide("acme", name).decisions
    return decision.allowed, decision.rule


def drawn(vault: Vault, count: int = 1, names: object = None) -> int:
    composition = vault.compose(names, principal="acme", precision="float32", weights="prior")
    return len(composition.sample(count, steps=1).images)


def test_nothing_may_be_used_unless_it_was_granted(pair: Vault) -> None:
    pair.add_principal("acme")
    assert [(each.allowed, each.rule) for each in pair.decide("acme").decisions] == [(False, "grant")] * 2
    with pytest.raises(ForbiddenError, match=r"'acme' may use no source \(none is granted\)"):
        pair.compose(principal="acme")
    pair.grant("oak", "acme")
    assert pair.compose(principal="acme", precision="float32").names == ("oak",)
    assert pair.compose("oak", principal="acme", precision="float32").names == ("oak",)
    with pytest.raises(ForbiddenError, match="'elm' may not be used: it was not granted to 'acme'"):
        pair.compose(["oak", "elm"], principal="acme")
    assert pair.compose(precision="float32").names == ("elm", "oak"), "the vault's owner needs no grant"


def test_whether_a_source_exists_is_told_to_nobody_without_a_grant(shared: Vault) -> None:
    complaints = []
    for name in ("elm", "fir"):
        with pytest.raises(ForbiddenError) as caught:
            shared.compose(name, principal="acme")
        complaints.append(str(caught.value).replace(name, "it"))
    assert complaints[0] == complaints[1]
    shared.revoke("oak", "acme")
    with pytest.raises(ForbiddenError) as caught:
        shared.compose(principal="acme")
    assert "oak" not in str(caught.value)


def test_nothing_outside_the_grants_is_opened(shared: Vault) -> None:
    again = Vault.open(shared.root)
    with opened_files() as paths:
        again.compose(principal="acme", precision="float32").sample(2, steps=2)
        again.decide("acme")
        with pytest.raises(ForbiddenError):
            again.compose(["oak", "elm"], principal="acme")
    inside = {Path(path).relative_to(shared.root).as_posix() for path in paths if path.startswith(str(shared.root))}
    assert {"compartments/oak/adapter_model.safetensors", "principals/acme/principal.json"} <= inside
    assert not [path for path in inside if "elm" in path]
    assert not [path for path in inside if path == "index.db"], "the index tells of all sources"


def test_a_grant_ends_when_it_says(shared: Vault, now: Now) -> None:
    shared.grant("oak", "acme", until=NOON + timedelta(hours=1))
    assert verdict(shared, "oak") == (True, "admitted")
    now.time = NOON + timedelta(minutes=59, seconds=59)
    assert drawn(shared) == 1
    now.time = NOON + timedelta(hours=1)
    assert verdict(shared, "oak") == (False, "expiry")
    with pytest.raises(ForbiddenError, match="its grant ended at 2030-06-01T13:00:00Z"):
        drawn(shared)


def test_moments_are_of_one_zone_and_lie_ahead(shared: Vault) -> None:
    summer = NOON.astimezone(datetime.strptime("+0200", "%z").tzinfo) + timedelta(hours=1)
    (grant,) = shared.grant("oak", "acme", until=summer)
    assert grant.until == datetime(2030, 6, 1, 13, tzinfo=UTC)
    with pytest.raises(SettingsError, match="expected a datetime with a time zone"):
        shared.grant("oak", "acme", until=datetime(2031, 1, 1))
    with pytest.raises(SettingsError, match="has passed"):
        shared.grant("oak", "acme", until=NOON)
    assert shared.principals()[0].grants["oak"] == grant


@pytest.mark.parametrize("day", ["2030-06-01", "20300601", "2030-W22-6"])
def test_a_day_counts_to_its_end_and_from_its_beginning(day: str) -> None:
    assert end_of("until", day) == datetime(2030, 6, 2, tzinfo=UTC)
    assert start_of("received", day) == datetime(2030, 6, 1, tzinfo=UTC)
    assert end_of("until", f"{day}T13:00+02:00") == datetime(2030, 6, 1, 11, tzinfo=UTC)


def test_a_quota_counts_images_by_the_calendar(shared: Vault, now: Now) -> None:
    shared.grant("oak", "acme", quota="3/day")
    assert drawn(shared, 2) == 2
    assert "1 left" in shared.decide("acme").decisions[1].reason
    before = all_bytes(shared.root)
    with pytest.raises(
        ForbiddenError, match=r"may draw 1 more images with 'oak' this day \(quota 3/day\), asked for 2"
    ):
        drawn(shared, 2)
    assert all_bytes(shared.root) == before
    assert drawn(shared, 1) == 1
    assert verdict(shared, "oak") == (False, "quota")
    with pytest.raises(ForbiddenError, match="used up"):
        drawn(shared)
    now.time = datetime(2030, 6, 2, tzinfo=UTC)
    assert drawn(shared, 3) == 3


def test_a_quota_outlives_other_changes_of_the_grants(shared: Vault) -> None:
    shared.grant(["oak", "elm"], "acme", quota=Quota(3))
    drawn(shared, 2, ["oak", "elm"])
    shared.grant("elm", "acme", quota="5/day")
    assert "1 left" in shared.decide("acme", "oak").decisions[0].reason
    assert "3 left" in shared.decide("acme", "elm").decisions[0].reason
    assert shared.verify().ok


def test_images_that_were_not_drawn_are_given_back(shared: Vault) -> None:
    shared.grant("oak", "acme", quota="3/day")
    composition = shared.compose(principal="acme", precision="float32")
    with pytest.raises(UnknownName):
        composition.sample(3, steps=2, labels=[None, None, "nonsense"], batch=1)

    def stop(done: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        composition.sample(3, steps=2, on_progress=stop)
    assert drawn(shared, 3) == 3


def test_images_are_counted_before_they_are_drawn(shared: Vault) -> None:
    """So that many runs at once do not draw more together than one may alone."""
    shared.grant("oak", "acme", quota="3/day")
    refused = []

    def meanwhile(done: int, steps: int) -> None:
        with pytest.raises(ForbiddenError, match="may draw 1 more"):
            shared.compose(principal="acme", precision="float32").sample(2, steps=1)
        refused.append(done)

    shared.compose(principal="acme", precision="float32").sample(2, steps=1, on_progress=meanwhile)
    assert refused == [1]


@pytest.mark.parametrize(
    ("rules", "rule"),
    [
        ({"refuse": ["share-alike"]}, "obligation"),
        ({"refuse": ["non-commercial", "share-alike"]}, "obligation"),
        ({"licences": ["MIT"]}, "licence"),
        ({"owners": ["somebody else"]}, "owner"),
        ({"refuse": ["non-commercial", "no-derivatives"], "licences": ["cc-by-sa-4.0"]}, "admitted"),
    ],
)
def test_what_is_granted_is_still_subject_to_the_rules(pair: Vault, rules: dict[str, list[str]], rule: str) -> None:
    pair.forget("oak")
    pair.add_source("oak", toy_source("oak", licence="CC-BY-SA-4.0"))
    pair.train("oak", quick(), routers=[ROUTER])
    pair.add_principal("acme", **rules)
    pair.grant("oak", "acme")
    assert verdict(pair, "oak") == (rule == "admitted", rule)


def saw_elm_too(vault: Vault) -> None:
    """The compartment of `oak` learned from `elm` too."""
    vault.permit("elm", to="oak")
    vault.train("oak", quick(), neighbours="elm", routers=[ROUTER], restart=True)


def test_a_compartment_needs_the_grants_of_all_that_it_saw(shared: Vault, now: Now) -> None:
    saw_elm_too(shared)
    assert verdict(shared, "oak") == (False, "seen")
    with opened_files() as paths, pytest.raises(ForbiddenError, match="also learned from 'elm': it was not granted"):
        shared.compose("oak", principal="acme")
    assert not [path for path in paths if "elm" in path]
    shared.grant("elm", "acme", until=NOON + timedelta(hours=1), quota="5/day")
    composition = shared.compose("oak", principal="acme", precision="float32")
    composition.sample(2, steps=1)
    assert "3 left" in shared.decide("acme", "elm").decisions[0].reason
    now.time = NOON + timedelta(hours=2)
    with pytest.raises(ForbiddenError, match="its grant ended"):
        composition.sample(1, steps=1)


def test_what_is_granted_and_not_trained_is_said_so(shared: Vault) -> None:
    grown(shared, "fir", train=False)
    shared.grant("fir", "acme")
    assert verdict(shared, "fir") == (False, "trained")
    assert shared.compose(principal="acme", precision="float32").names == ("oak",)


def test_a_key_opens_and_is_stored_nowhere(shared: Vault, now: Now) -> None:
    key = shared.add_principal("studio", until=NOON + timedelta(days=1))
    assert key.startswith("int_")
    assert shared.authenticate(key) == "studio"
    assert traces(shared.root, [key, key.split("_", 2)[2]]) == []
    assert shared.principals()[1].keys[0].digest not in repr(shared.principals())
    with pytest.raises(ForbiddenError, match="opens nothing"):
        shared.authenticate(key[:-1] + ("A" if key[-1] != "A" else "B"))
    with pytest.raises(ForbiddenError, match="opens nothing"):
        shared.authenticate("kéy")
    now.time = NOON + timedelta(days=1)
    with pytest.raises(ForbiddenError, match="ended at 2030-06-02T12:00:00Z"):
        shared.authenticate(key)


def test_keys_are_added_and_replaced(shared: Vault) -> None:
    first, second = shared.new_key("acme"), shared.new_key("acme")
    assert first != second
    assert {shared.authenticate(key) for key in (first, second)} == {"acme"}
    third = shared.new_key("acme", replace=True)
    assert shared.authenticate(third) == "acme"
    for key in (first, second):
        with pytest.raises(ForbiddenError):
            shared.authenticate(key)
    assert verdict(shared, "oak") == (True, "admitted"), "grants are of the principal, not of its key"


def test_a_key_is_for_what_it_was_made_for(shared: Vault) -> None:
    plain, admin = shared.new_key("acme"), shared.new_key("acme", scopes=["admin", "read"])
    assert shared.identify(plain).scopes == ("read", "sample", "credit")
    found = shared.identify(admin)
    assert (found.principal, found.key, found.scopes) == ("acme", admin.split("_")[1], ("read", "admin"))
    with pytest.raises(UnknownName, match="unknown scope 'all'"):
        shared.new_key("acme", scopes=["all"])
    with pytest.raises(SettingsError, match="the key is for nothing"):
        shared.new_key("acme", scopes=[])
    shared.remove_key("acme", found.key)
    assert shared.authenticate(plain) == "acme"
    with pytest.raises(ForbiddenError, match="opens nothing"):
        shared.identify(admin)
    with pytest.raises(UnknownName, match="unknown key of 'acme'"):
        shared.remove_key("acme", found.key)


def test_a_key_gets_another_end_and_other_scopes(shared: Vault, now: Now) -> None:
    key, other = shared.new_key("acme", until=NOON + timedelta(hours=1)), shared.new_key("acme", scopes=["read"])
    id = key.split("_")[1]
    shared.change_key("acme", id, until=NOON + timedelta(days=2))
    now.time = NOON + timedelta(days=1)
    assert shared.identify(key).scopes == ("read", "sample", "credit"), "the key is the same, and so is what it is for"
    changed = shared.change_key("acme", id, scopes=["erase", "read"])
    assert (changed.until, shared.identify(key).scopes) == (NOON + timedelta(days=2), ("read", "erase"))
    shared.change_key("acme", id, until=None)
    now.time = NOON + timedelta(days=900)
    assert shared.authenticate(key) == "acme"
    assert shared.identify(other).scopes == ("read",)


def test_rules_are_changed_one_by_one_and_the_rest_stays(shared: Vault) -> None:
    key = shared.new_key("acme")
    shared.grant("oak", "acme", quota="5/day")
    shared.compose(principal="acme", precision="float32").sample(2, steps=1)
    shared.change_rules("acme", owners=["owner of oak"], refuse=["share-alike"])
    assert verdict(shared, "oak") == (True, "admitted")
    changed = shared.change_rules("acme", refuse=["attribution"])
    assert changed.rules.owners == ("owner of oak",)
    assert (shared.principals()[0].rules, verdict(shared, "oak")) == (changed.rules, (False, "obligation"))
    shared.change_rules("acme", refuse=[], owners=["somebody else"])
    assert verdict(shared, "oak") == (False, "owner")
    shared.change_rules("acme", owners=None)
    assert verdict(shared, "oak") == (True, "admitted")
    assert shared.authenticate(key) == "acme"
    assert [(each.used, each.limit) for each in shared.allowances("acme")] == [(2, 5)], "what was drawn still counts"
    assert shared.verify().ok


def test_a_key_is_withdrawn_at_once_though_records_are_read_once(shared: Vault) -> None:
    key, other = shared.new_key("acme"), Vault.open(shared.root)
    assert shared.authenticate(key) == "acme"
    with opened_files() as paths:
        shared.authenticate(key)
    assert not [path for path in paths if path.endswith(".json")]
    other.new_key("acme", replace=True)
    with pytest.raises(ForbiddenError, match="opens nothing"):
        shared.authenticate(key)


def test_every_key_is_compared_in_constant_time_whichever_fits(shared: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    keys = [shared.add_principal(name) for name in ("bee", "cat")]
    compared: list[tuple[object, object]] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    counts = []
    for key in (*keys, "int_0_wrong"):
        compared.clear()
        with contextlib.suppress(ForbiddenError):
            shared.authenticate(key)
        counts.append(len(compared))
    assert counts == [3, 3, 3]


def test_forgetting_takes_the_grants_as_if_they_had_never_been(fresh: Fresh, empty: Path) -> None:
    vault, never = grown(fresh(empty), "oak", "elm"), grown(fresh(empty), "oak")
    vault.add_principal("acme")
    source = vault.root / "principals/acme/principal.json"
    (never.root / "principals/acme").mkdir(parents=True)
    (never.root / "principals/acme/principal.json").write_bytes(source.read_bytes())
    for each, names in ((vault, ["elm", "oak"]), (never, ["oak"])):
        each.grant(names, "acme", quota="9/day")
        drawn(each, 1, ["oak"])
    drawn(vault, 1, ["elm"])
    vault.forget("elm")
    assert traces(vault.root, ["elm"]) == []
    assert all_bytes(vault.root) == all_bytes(never.root)
    grown(vault, "elm")
    assert verdict(vault, "elm") == (False, "grant"), "another source of the name is not what was granted"


def test_who_was_removed_may_nothing(shared: Vault, trained: Path) -> None:
    key = shared.new_key("acme")
    shared.remove_principal("acme")
    assert shared.principals() == []
    assert all_bytes(shared.root) == all_bytes(trained)
    with pytest.raises(ForbiddenError):
        shared.authenticate(key)
    with pytest.raises(UnknownName, match="unknown principal 'acme'"):
        shared.compose(principal="acme")


def test_a_record_that_was_edited_opens_nothing(shared: Vault) -> None:
    path = shared.root / "principals/acme/principal.json"
    key = shared.new_key("acme")
    record = json.loads(path.read_text())
    record["grants"].append({"source": "elm", "until": None, "quota": None})
    path.write_text(json.dumps(record))
    for action in (lambda: shared.compose("elm", principal="acme"), lambda: shared.decide("acme"), shared.principals):
        with pytest.raises(CorruptError, match="digest does not fit"):
            action()
    with pytest.raises(ForbiddenError):
        shared.authenticate(key)
    with pytest.raises(CorruptError):
        shared.forget("elm")
    assert [problem.where for problem in shared.verify().problems] == ["principals/acme"]
    shared.remove_principal("acme")
    assert shared.verify().ok


def test_verify_knows_what_belongs_to_a_principal(shared: Vault) -> None:
    shared.grant("oak", "acme", quota="3/day")
    drawn(shared)
    assert shared.verify().ok
    (shared.root / "principals/acme/note.txt").write_text("mine")
    used = shared.root / "principals/acme/used.json"
    used.write_text(used.read_text().replace("1", "0"))
    assert {problem.where for problem in shared.verify().problems} == {"principals/acme", "principals/acme/note.txt"}
    with pytest.raises(CorruptError):
        drawn(shared)


def test_the_ledger_is_told_and_keeps_no_name(shared: Vault) -> None:
    shared.grant(["oak", "elm"], "acme", quota="3/day")
    shared.revoke("oak", "acme")
    shared.remove_principal("acme")
    entries = [entry for entry in shared.ledger.entries() if entry.kind in ("grant", "revoke")]
    secrets = shared._store.salts.all(["oak", "elm"])
    assert [(entry.kind, entry.names(secrets)) for entry in entries] == [
        ("grant", ["oak"]),
        ("grant", ["oak", "elm"]),
        ("revoke", ["oak"]),
        ("revoke", ["elm"]),
    ]
    assert not [entry for entry in entries if b"acme" in entry.line or b"elm" in entry.line]
    assert shared.verify().ok


def test_grants_leave_the_index_alone(shared: Vault) -> None:
    before = (shared.root / "index.db").stat().st_ino
    shared.grant("elm", "acme")
    shared.revoke("elm", "acme")
    assert (shared.root / "index.db").stat().st_ino == before
    assert list((shared.root / "work").iterdir()) == []


WRONG = {
    "an unknown source": (lambda v: v.grant(["oak", "oka"], "acme"), UnknownName, "did you mean 'oak'"),
    "an unknown principal": (lambda v: v.grant("oak", "acne"), UnknownName, "did you mean 'acme'"),
    "no source": (lambda v: v.grant([], "acme"), SettingsError, "name at least one"),
    "not granted": (lambda v: v.revoke(["oak", "elm"], "acme"), UnknownName, "source granted to 'acme' 'elm'"),
    "nothing to revoke": (lambda v: v.revoke([], "acme"), SettingsError, "name at least one"),
    "a taken name": (lambda v: v.add_principal("acme"), VaultError, "in the vault already; remove it first"),
    "a bad name": (lambda v: v.add_principal("../acme"), InputError, "principal name '../acme' is not a lower-case"),
    "a bad licence": (lambda v: v.add_principal("bee", licences=["free"]), InputError, "not an SPDX"),
    "a bad obligation": (lambda v: v.add_principal("bee", refuse=["copyleft"]), UnknownName, "known: attribution"),
    "no quota": (lambda v: v.grant("oak", "acme", quota="many"), SettingsError, "expected images per period"),
    "a quota of nothing": (lambda v: v.grant("oak", "acme", quota="0/day"), SettingsError, "quota is 0"),
    "a period of no calendar": (lambda v: v.grant("oak", "acme", quota="3/week"), UnknownName, "day, hour, month"),
    "nobody to remove": (lambda v: v.remove_principal("bee"), UnknownName, "known: acme"),
    "nobody's key": (lambda v: v.new_key("bee"), UnknownName, "known: acme"),
    "a key of the past": (lambda v: v.new_key("acme", until=NOON), SettingsError, "has passed"),
    "nobody's rules": (lambda v: v.change_rules("bee"), UnknownName, "known: acme"),
    "a rule that is none": (lambda v: v.change_rules("acme", licences=["free"]), InputError, "not an SPDX"),
    "nobody's key to change": (lambda v: v.change_key("bee", "0"), UnknownName, "known: acme"),
    "a key that is none": (lambda v: v.change_key("acme", "0"), UnknownName, "unknown key of 'acme'"),
    "an end gone by": (
        lambda v: v.change_key("acme", v.principals()[0].keys[0].id, until=NOON),
        SettingsError,
        "has passed",
    ),
    "a key for nothing": (
        lambda v: v.change_key("acme", v.principals()[0].keys[0].id, scopes=[]),
        SettingsError,
        "for nothing",
    ),
    "nobody's verdict": (lambda v: v.decide("bee"), UnknownName, "known: acme"),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_clear_line_and_nothing_changed(shared: Vault, case: str) -> None:
    action, kind, words = WRONG[case]
    before = all_bytes(shared.root)
    with pytest.raises(kind) as caught:
        action(shared)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, IntarsiaError)
    assert all_bytes(shared.root) == before


def test_a_revoke_that_fails_half_way_is_finished_before_anything_is_drawn(fresh: Fresh, shared: Vault) -> None:
    """Each write fails in turn; afterwards the grant stands, or nothing is drawn."""
    outcomes = set()
    for n in range(1, 40):
        vault = fresh(shared.root)
        with pytest.MonkeyPatch.context() as patch:
            failing = Failing(patch, n, errno.EIO)
            with contextlib.suppress(VaultError):
                vault.revoke("oak", "acme")
        if failing.left > 0:
            break
        stands = vault.decide("acme", "oak").names == ("oak",)
        outcomes.add(stands)
        if not stands:
            with pytest.raises(ForbiddenError):
                vault.compose("oak", principal="acme")
        assert vault.verify().ok
    assert failing.left > 0
    assert outcomes == {True, False}
