"""A source that nobody named and that cannot be used is left out with a reason, never silently."""

from __future__ import annotations

import warnings

import pytest

from intarsia.errors import ForbiddenError, LeftOut
from intarsia.vault import Composition, Vault
from intarsia.vault.shelf import Shelf

from .helpers import grown, toy_source


@pytest.fixture
def owing(pair: Vault) -> Vault:
    """A vault with `oak`, with `elm`, which was interrupted while it forgot an image, and with `ash`, never trained."""
    grown(pair, "ash", train=False)
    iter(pair.forgetting("elm", toy_source("elm").manifest.ids[:1])).close()
    return pair


def quiet(vault: Vault, principal: str | None = None) -> Composition:
    """Composed; a warning would be an error."""
    with warnings.catch_warnings(action="error"):
        return vault.compose(principal=principal, precision="float32")


def test_all_there_is_says_what_it_is_not(owing: Vault) -> None:
    with pytest.warns(LeftOut, match=r"'elm' is left out: it is out of use.*vault\.resume\('elm'\)") as told:
        composition = owing.compose(precision="float32")
    assert [str(each.filename) for each in told] == [__file__], "the warning is to point at who composed"
    assert composition.names == ("oak",)
    assert list(composition.left_out) == ["ash", "elm"]
    assert composition.left_out["ash"] == "it has no compartment yet; train it with `intarsia train`"
    owing.resume()
    assert quiet(owing).names == ("elm", "oak")


@pytest.mark.parametrize("principal", [None, "acme"])
def test_a_source_that_goes_while_all_are_joined_is_left_out(
    pair: Vault, principal: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.add_principal("acme")
    pair.grant(["oak", "elm"], "acme")
    other, digest = Vault.open(pair.root), Shelf.record_digest

    def late(self: Shelf, name: str) -> str | None:
        monkeypatch.setattr(Shelf, "record_digest", digest)
        other.forget("elm")
        return digest(self, name)

    monkeypatch.setattr(Shelf, "record_digest", late)
    assert quiet(pair, principal).names == ("oak",)
    monkeypatch.setattr(Shelf, "record_digest", lambda self, name: None)
    with pytest.raises(ForbiddenError, match="'oak' was"):
        pair.compose(principal=principal, precision="float32")


def test_who_names_sources_is_told_nothing_of_others(owing: Vault) -> None:
    with warnings.catch_warnings(action="error"):
        assert owing.compose("oak", precision="float32").left_out == {}


def test_a_principal_is_told_of_what_it_was_granted_alone(owing: Vault) -> None:
    owing.add_principal("acme")
    owing.grant("oak", "acme")
    assert quiet(owing, "acme").left_out == {}
    owing.grant(["elm", "ash"], "acme")
    with pytest.warns(LeftOut, match="'elm' is left out"):
        composition = owing.compose(principal="acme", precision="float32")
    assert list(composition.left_out) == ["ash", "elm"]
    assert "--resume" in composition.left_out["elm"]
    why = {each.name: each.reason for each in owing.decide("acme").decisions}
    assert {name: why[name] for name in composition.left_out} == composition.left_out


def test_records_that_cannot_be_read_are_no_reason_for_silence(owing: Vault) -> None:
    (owing.root / "training/elm/cause.json").write_text("{")
    with pytest.warns(LeftOut, match=r"cause\.json: not valid JSON"):
        assert owing.compose(precision="float32").names == ("oak",)
