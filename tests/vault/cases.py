"""What is interrupted by `kills.py`: an action on a vault, how it is gone on with, and what must hold afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from helpers import ROUTER, grown, quick, toy_source

from intarsia.credit import CreditSettings
from intarsia.errors import SettingsError
from intarsia.vault import Vault

Action = Callable[[Vault], object]
ELM = toy_source("elm").manifest
GONE = ELM.samples[0]


@dataclass(frozen=True)
class Case:
    """An action on a copy of the vault at `start`.

    Args:
        finish: goes on with what was begun, or begins it; None where there is nothing to go on with.
        gone: words of what the action takes away, which nothing may tell once it `is_gone`.
        holds: what else must be true of the vault at the end.
        told_later: the ledger hears of it in steps of its own: images are counted before they are drawn.
    """

    start: Path
    act: Action
    finish: Action | None = None
    gone: Collection[str] = ()
    is_gone: Callable[[Vault], bool] = lambda _: False
    holds: Callable[[Vault], bool] = lambda _: True
    told_later: bool = False


def forget_sample(vault: Vault) -> object:
    return vault.forget("elm", [GONE.id])


def forget_sample_on(vault: Vault) -> object:
    return vault.resume() or (not sample_is_gone(vault) and forget_sample(vault))


def sample_is_gone(vault: Vault) -> bool:
    return GONE.id not in vault.source("elm").manifest.ids


def source_is_gone(vault: Vault) -> bool:
    return "elm" not in vault.names()


def ticket_tells(vault: Vault) -> bool:
    """The ticket is open as long as the sample is there; then it names the ledger's entry of the forgetting."""
    (ticket,) = vault.tickets()
    if not sample_is_gone(vault):
        return ticket.state == "open"
    entry = vault.entry_with(ticket.evidence or "")
    return ticket.state == "done" and entry is not None and vault.ledger.entries()[entry].kind == "forget"


def ticket_is_whole(vault: Vault) -> bool:
    """It names what was asked for as long as it is open, and why it ended without that."""
    (ticket,) = vault.tickets()
    return (ticket.state, ticket.samples, ticket.reason) in (("open", (GONE.id,), None), ("closed", (), "withdrawn"))


def forbid_on(vault: Vault) -> object:
    return vault.resume() or ("oak" in vault.permits("elm") and vault.forbid("elm", "oak"))


def extend(vault: Vault) -> object:
    return vault.extend("elm", toy_source("elm", 8).without(ELM.ids))


def extend_on(vault: Vault) -> object:
    return vault.resume() or (len(vault.source("elm")) < 8 and extend(vault))


def train(vault: Vault) -> object:
    return vault.train("oak", quick(), routers=[ROUTER])


def retrain(vault: Vault) -> object:
    return vault.train("oak", quick(seed=1), routers=[ROUTER], restart=True)


def retrain_on(vault: Vault) -> object:
    """Go on with what `retrain` began, if it began."""
    try:
        return vault.train("oak", quick(seed=1), routers=[ROUTER])
    except SettingsError:
        return retrain(vault)


def draw(vault: Vault) -> object:
    return vault.compose("oak", precision="float32").sample(1, steps=1)


def draw_jointly(vault: Vault) -> object:
    return vault.compose(["elm", "oak"], weights="joint", routing="full", precision="float32").sample(1, steps=1)


def draw_with_a_quota(vault: Vault) -> object:
    return vault.compose(principal="acme", precision="float32").sample(1, steps=1)


def draw_and_count(vault: Vault) -> object:
    """Draw two sets, one of which is reckoned again: what both earn stands in the vault."""
    result = vault.compose(["elm", "oak"], precision="float32").sample(2, steps=1)
    vault.credit(result, CreditSettings(method="path"), record=True)
    return draw(vault)


def all_is_paid(vault: Vault) -> bool:
    """Three images have earned something, whether the ledger was told of a payout or not."""
    statement = vault.payout("1.00", "2020..2100", record=False)
    return sum(line.amount for line in statement.lines) == 100 and statement.images == 3


def pack(vault: Vault) -> object:
    return vault.pack("elm", vault.root.with_name("elm.pack"))


def pack_is_whole(vault: Vault) -> bool:
    """There is no pack, or one that can be read."""
    path = vault.root.with_name("elm.pack")
    if not path.exists():
        return True
    from intarsia.vault.packs import read_pack

    return read_pack(path, vault.ledger.key).info.name == "elm"


def secrets_of(vault: Vault, name: str) -> list[str]:
    """What the salts of a source's seals are made of: it goes when a sample does."""
    secrets = vault._store.salts.of(name)
    assert secrets is not None
    return [secrets.data.hex()]


def cases(empty: Path, trained: Path, scratch: Path) -> Mapping[str, Case]:
    """All of them, on vaults that are made for them in a scratch folder."""
    words = [GONE.id, GONE.file_name, GONE.text or ""]
    everything = ["/elm", "owner of elm", *ELM.ids, *(each.file_name for each in ELM)]

    def made(name: str, start: Path, *actions: Action) -> Path:
        root = scratch / f"{name}.vault"
        shutil.copytree(start, root)
        for action in actions:
            action(Vault.open(root))
        return root

    ready = made("ready", empty, lambda vault: grown(vault, "oak", train=False))
    joined = made(
        "joined",
        trained,
        lambda vault: vault.permit("elm", to="oak"),
        lambda vault: vault.train("oak", quick(), neighbours="elm", routers=[ROUTER], restart=True),
    )
    granted = made(
        "granted",
        trained,
        lambda vault: vault.add_principal("acme"),
        lambda vault: vault.grant(["elm", "oak"], "acme", quota="9/day"),
    )
    paid = made("paid", trained, draw_and_count)
    asked = made("asked", trained, lambda vault: vault.open_ticket("elm", [GONE.id]))
    home = made("home", empty, lambda vault: grown(vault, "ash"))
    key = Vault.open(home).pack("ash", scratch / "ash.pack")
    away = made("away", trained, lambda vault: vault.import_pack(scratch / "ash.pack", signer=key))
    ashes = toy_source("ash").manifest.ids
    withdrawn = made("withdrawn", away, lambda vault: vault.forget("ash", ashes[:1]))
    Vault.open(home).forget("ash", ashes[:1])
    Vault.open(home).pack("ash", scratch / "without.pack")
    sample = Case(asked, forget_sample, forget_sample_on, words, sample_is_gone, ticket_tells)
    return {
        "add": Case(empty, lambda vault: vault.add_source("ash", toy_source("ash", 3))),
        "train": Case(ready, train, train),
        "retrain": Case(trained, retrain, retrain_on),
        "extend": Case(trained, extend, extend_on),
        "draw": Case(trained, draw),
        "draw jointly": Case(trained, draw_jointly),
        "draw with a quota": Case(granted, draw_with_a_quota, told_later=True),
        "grant": Case(granted, lambda vault: vault.grant("elm", "acme", quota="5/hour")),
        "revoke": Case(granted, lambda vault: vault.revoke("elm", "acme")),
        "remove a principal": Case(
            granted, lambda vault: vault.remove_principal("acme"), gone=["acme"], is_gone=lambda v: not v.principals()
        ),
        "permit": Case(trained, lambda vault: vault.permit("elm", to="oak")),
        "forbid": Case(joined, lambda vault: vault.forbid("elm", "oak"), forbid_on),
        "close a ticket": Case(
            asked, lambda vault: vault.close_ticket(vault.tickets()[0].id, "withdrawn"), holds=ticket_is_whole
        ),
        "ticket": Case(trained, lambda vault: vault.open_ticket("elm", [GONE.id])),
        "payout": Case(paid, lambda vault: vault.payout("1.00", "2020..2100"), holds=all_is_paid),
        "pack": Case(trained, pack, holds=pack_is_whole),
        "import": Case(trained, lambda vault: vault.import_pack(scratch / "ash.pack", signer=key)),
        "replace": Case(withdrawn, lambda vault: vault.import_pack(scratch / "without.pack", signer=key)),
        "withdraw": Case(away, lambda vault: vault.forget("ash", ashes[:1])),
        "forget": Case(
            trained,
            lambda vault: vault.forget("elm"),
            gone=[*everything, *secrets_of(Vault.open(trained), "elm")],
            is_gone=source_is_gone,
        ),
        "forget a neighbour": Case(
            joined,
            lambda vault: vault.forget("elm"),
            lambda vault: vault.resume() or (not source_is_gone(vault) and vault.forget("elm")),
            [*everything, *secrets_of(Vault.open(joined), "elm"), *secrets_of(Vault.open(joined), "oak")],
            source_is_gone,
        ),
        "forget a sample": replace(sample, gone=[*words, *secrets_of(Vault.open(asked), "elm")]),
    }
