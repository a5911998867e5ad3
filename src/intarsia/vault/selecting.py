"""Which sources may go into a composition, and why: nothing is allowed unless every rule says yes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from intarsia.data import check_licence, share_alike
from intarsia.vault.records import SourceInfo


@dataclass(frozen=True)
class Decision:
    """The verdict on one source, with its reason in words."""

    name: str
    allowed: bool
    reason: str


@dataclass(frozen=True)
class Rules:
    """What a source must be to be allowed.

    Args:
        licences: SPDX expressions; the source's own must be one of them. None admits any.
        owners: the source's owner must be one of them. None admits any.
        share_alike: whether licences that oblige derived works to keep them are admitted.

    Raises:
        InputError: a licence is no SPDX expression.
    """

    licences: Collection[str] | None = None
    owners: Collection[str] | None = None
    share_alike: bool = True

    def __post_init__(self) -> None:
        if self.licences is not None:
            object.__setattr__(self, "licences", tuple(check_licence(licence) for licence in self.licences))

    def decide(self, source: SourceInfo, *, trained: bool) -> Decision:
        """Allowed only if no rule objects; the reason names the first that does, or what spoke for it."""
        if not trained:
            return Decision(source.name, False, "it has no compartment yet; train it")
        if self.licences is not None and source.licence not in self.licences:
            return Decision(source.name, False, f"its licence {source.licence} is not among {', '.join(self.licences)}")
        if not self.share_alike and share_alike(source.licence):
            return Decision(
                source.name, False, f"its licence {source.licence} is share-alike, or its terms cannot be read"
            )
        if self.owners is not None and source.owner not in self.owners:
            return Decision(source.name, False, f"its owner {source.owner} is not among {', '.join(self.owners)}")
        return Decision(source.name, True, f"{source.owner}, {source.licence}: meets every rule that was given")


@dataclass(frozen=True)
class Selection:
    """The decisions on all sources, by name."""

    decisions: tuple[Decision, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The allowed ones, ready for `Vault.compose`."""
        return tuple(decision.name for decision in self.decisions if decision.allowed)


def decide(sources: Iterable[SourceInfo], trained: Collection[str], rules: Rules) -> Selection:
    """Apply the rules to every source."""
    return Selection(tuple(rules.decide(source, trained=source.name in trained) for source in sources))
