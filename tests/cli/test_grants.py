"""`principal`, `grant`, `revoke`, `why`, and drawing as a principal."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from .helpers import contents

DRAW = ("--count", "2", "--steps", "2", "--precision", "float32", "--weights", "prior")


@pytest.fixture
def shared(vault: Path, tmp_path: Path, done) -> Path:
    """With `oak` granted to the principal `acme`, whose key is in `acme.key`."""
    done("principal", "add", vault, "acme", "--key-file", tmp_path / "acme.key")
    done("grant", vault, "oak", "--to", "acme")
    return vault


def test_a_key_is_shown_once(vault: Path, run, done):
    answer = done("principal", "add", vault, "acme", "--refuse", "share-alike,non-commercial", "--until", "2999-01-31")
    assert answer["key"].startswith("int_")
    (listed,) = done("principal", "list", vault)["principals"]
    assert (listed["name"], listed["refuse"]) == ("acme", ["share-alike", "non-commercial"])
    id, usual = answer["key"].split("_")[1], ["read", "sample", "credit"]
    assert listed["keys"] == [{"id": id, "until": "2999-02-01T00:00:00Z", "scopes": usual}]
    assert answer["key"] not in run("principal", "list", vault, "--json").out
    assert answer["key"].encode() not in b"".join(contents(vault).values())
    text = run("principal", "list", vault).out
    assert "no share-alike; no non-commercial" in text
    second = done("principal", "key", vault, "acme", "--replace", "--scope", "erase,read")["key"]
    assert second != answer["key"]
    assert done("principal", "list", vault)["principals"][0]["keys"][0]["scopes"] == ["read", "erase"]
    assert "unknown scope 'all': known: admin" in run("principal", "key", vault, "acme", "--scope", "all").err
    assert [key["id"] for key in done("principal", "list", vault)["principals"][0]["keys"]] == [second.split("_")[1]]


def test_a_key_goes_into_a_file_that_others_cannot_read(vault: Path, tmp_path: Path, run, done):
    file = tmp_path / "acme.key"
    answer = done("principal", "add", vault, "acme", "--key-file", file)
    assert "key" not in answer
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("int_")
    before = contents(vault)
    assert "exists already" in run("principal", "add", vault, "bee", "--key-file", file).err
    assert run("principal", "add", vault, "acme", "--key-file", tmp_path / "other.key").code == 1
    assert not (tmp_path / "other.key").exists(), "no file without a key"
    assert contents(vault) == before


@pytest.mark.parametrize("who", ["--as", "--key-file"])
def test_drawing_as_a_principal_uses_what_was_granted(shared: Path, tmp_path: Path, run, done, who: str):
    as_acme = (who, "acme" if who == "--as" else tmp_path / "acme.key")
    answer = done("sample", shared, *DRAW, *as_acme, "--out", tmp_path / "out")
    assert (answer["principal"], list(answer["sources"])) == ("acme", ["oak"])
    refused = run("sample", shared, *DRAW, *as_acme, "--sources", "oak,elm", "--out", tmp_path / "more")
    assert refused.code == 1
    assert "'elm' may not be used: it was not granted to 'acme'" in refused.err
    assert not (tmp_path / "more").exists()


def test_rules_of_a_call_and_grants_must_both_admit(shared: Path, tmp_path: Path, run, done):
    done("grant", shared, "elm", "--to", "acme")
    out = tmp_path / "out"
    answer = run("sample", shared, *DRAW, "--as", "acme", "--refuse", "share-alike", "--out", out, "--json")
    assert list(answer.json["sources"]) == ["oak"]
    assert "left out elm" in answer.err
    done("revoke", shared, "oak", "--from", "acme")
    answer = run("sample", shared, *DRAW, "--as", "acme", "--refuse", "share-alike", "--out", tmp_path / "none")
    assert "no source may be used" in answer.err


def test_why_gives_the_rule_and_the_reason(shared: Path, run, done):
    done("grant", shared, "elm", "fir", "--to", "acme", "--until", "2999-12-31", "--quota", "5/month")
    answer = done("why", shared, "acme")
    assert answer["allowed"] == ["elm", "oak"]
    assert {each["name"]: each["rule"] for each in answer["decisions"]} == {
        "elm": "admitted",
        "fir": "trained",
        "oak": "admitted",
    }
    assert "granted to 'acme', until 3000-01-01T00:00:00Z, 5/month, 5 left" in run("why", shared, "acme").out
    assert [each["name"] for each in done("why", shared, "acme", "oak")["decisions"]] == ["oak"]
    assert "did you mean 'oak'" in run("why", shared, "acme", "oka").err


def test_a_quota_is_kept_over_calls(shared: Path, tmp_path: Path, run, done):
    done("grant", shared, "oak", "--to", "acme", "--quota", "3/month")
    done("sample", shared, *DRAW, "--as", "acme", "--out", tmp_path / "one")
    answer = run("sample", shared, *DRAW, "--as", "acme", "--out", tmp_path / "two")
    assert "may draw 1 more images with 'oak' this month" in answer.err
    assert not (tmp_path / "two").exists()


def test_rules_and_keys_are_changed(shared: Path, tmp_path: Path, run, done):
    done("grant", shared, "elm", "--to", "acme")
    answer = done("principal", "change", shared, "acme", "--refuse", "share-alike", "--owner", "Ada", "--owner", "Bob")
    assert (answer["refuse"], answer["owners"], answer["licences"]) == (["share-alike"], ["Ada", "Bob"], None)
    assert done("why", shared, "acme")["allowed"] == ["oak"]
    said = run("principal", "change", shared, "acme", "--refuse-nothing", "--licence", "CC-BY-SA-4.0").out
    assert "The rules of 'acme': under CC-BY-SA-4.0; of Ada or Bob." in said
    assert done("why", shared, "acme")["allowed"] == ["elm"]
    said = run("principal", "change", shared, "acme", "--any-licence", "--any-owner").out
    assert "none, it may draw from all that was granted" in said
    id = (tmp_path / "acme.key").read_text().split("_")[1]
    terms = {"id": id, "until": "3000-01-01T00:00:00Z", "scopes": ["read"]}
    assert done("principal", "renew", shared, "acme", id, "--until", "2999-12-31", "--scope", "read")["key"] == terms
    assert f"{id} (read; until 3000-01-01T00:00:00Z)" in run("principal", "list", shared).out.replace("\n", " ")
    assert done("principal", "renew", shared, "acme", id, "--no-end")["key"]["until"] is None
    other = done("principal", "key", shared, "acme")["key"].split("_")[1]
    done("principal", "withdraw", shared, "acme", id)
    assert [key["id"] for key in done("principal", "list", shared)["principals"][0]["keys"]] == [other]


def test_revoked_and_removed(shared: Path, tmp_path: Path, run, done):
    assert done("revoke", shared, "oak", "--from", "acme")["revoked"] == ["oak"]
    answer = run("sample", shared, *DRAW, "--key-file", tmp_path / "acme.key", "--out", tmp_path / "out")
    assert "'acme' may use no source (none is granted)" in answer.err
    done("principal", "remove", shared, "acme")
    assert done("principal", "list", shared)["principals"] == []
    answer = run("sample", shared, *DRAW, "--key-file", tmp_path / "acme.key", "--out", tmp_path / "out")
    assert "this API key opens nothing" in answer.err
    assert done("verify", shared)["ok"] is True


MISTAKES = {
    "a bad day": (("grant", "V", "oak", "--to", "acme", "--until", "tomorrow"), 1, "expected a day such as"),
    "a day gone by": (("grant", "V", "oak", "--to", "acme", "--until", "2020-01-01"), 1, "has passed"),
    "a bad quota": (("grant", "V", "oak", "--to", "acme", "--quota", "5"), 1, "expected images per period"),
    "twice": (("grant", "V", "oak", "oak", "--to", "acme"), 2, "more than once"),
    "nobody": (("grant", "V", "oak", "--to", "acne"), 1, "did you mean 'acme'"),
    "not granted": (("revoke", "V", "elm", "--from", "acme"), 1, "source granted to 'acme' 'elm'"),
    "as nobody": (("sample", "V", "--as", "acne", "--out", "X"), 1, "did you mean 'acme'"),
    "no key": (("sample", "V", "--key-file", "X", "--out", "X"), 1, "no API key can be read"),
    "two names": (("sample", "V", "--as", "acme", "--key-file", "X", "--out", "X"), 2, "give one of the two"),
    "no such obligation": (
        ("principal", "add", "V", "bee", "--refuse", "copyleft"),
        1,
        "unknown obligation 'copyleft'",
    ),
    "no rule": (("principal", "change", "V", "acme"), 2, "nothing is to change"),
    "a rule and none": (
        ("principal", "change", "V", "acme", "--owner", "Ada", "--any-owner"),
        2,
        "it is given and taken away at once",
    ),
    "no key to withdraw": (("principal", "withdraw", "V", "acme", "0"), 1, "unknown key of 'acme' '0'"),
    "no terms": (("principal", "renew", "V", "acme", "0"), 2, "nothing is to change"),
    "two ends": (
        ("principal", "renew", "V", "acme", "0", "--no-end", "--until", "2999-01-01"),
        2,
        "it cannot go with --until",
    ),
    "an empty name": (("principal", "add", "V", "bee", "--refuse", ""), 2, "a name is empty"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_one_clear_line_and_nothing_changed(shared: Path, tmp_path: Path, run, case: str):
    words, code, complaint = MISTAKES[case]
    before = contents(shared)
    answer = run(*[{"V": shared, "X": tmp_path / "x"}.get(word, word) for word in words])
    assert (answer.code, answer.out) == (code, "")
    assert complaint in answer.err.splitlines()[0]
    assert contents(shared) == before
    assert not (tmp_path / "x").exists()
