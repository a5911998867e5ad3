"""Drawing and removing edges of the shard graph."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from intarsia.errors import SettingsError, UnknownName
from intarsia.vault.causes import Cause
from intarsia.vault.edges import learner, learners_of
from intarsia.vault.events import FORBID, forbidden, permitted
from intarsia.vault.forgetting import Forgetting
from intarsia.vault.outcomes import Job, Outcome
from intarsia.vault.permits import learners, stage_permit

_PATIENCE = 60.0  # seconds to wait for another writer


@dataclass(frozen=True)
class Permitting:
    """The permits of one vault; what is forbidden is forgotten as samples are."""

    forgetting: Forgetting

    def permit(self, name: str, to: Sequence[str]) -> tuple[str, ...]:
        """Let the compartments of other sources learn from one.

        Raises:
            As `Vault.permit`.
        """
        shelf = self.forgetting.shelf
        if name in to or not to:
            raise SettingsError(f"'{name}' is to permit {', '.join(to) or 'nobody'}; name one or more other sources")
        with shelf.store.change(patience=_PATIENCE) as change:
            for each in (name, *to):
                shelf.check_known(each)
            all_of_them = tuple(sorted({*learners(shelf.store, name), *to}))
            stage_permit(change, name, all_of_them)
            change.record(permitted(name, to))
        return all_of_them

    def forbid(self, name: str, to: str) -> Job[Outcome]:
        """Withdraw a permit, and what was learned by it.

        Raises:
            As `Vault.forbidding`.
        """
        shelf = self.forgetting.shelf
        with contextlib.ExitStack() as held, shelf.store.change(patience=_PATIENCE) as change:
            shelf.check_known(name)
            permits = learners(shelf.store, name)
            if to not in permits:
                raise UnknownName(f"source that may learn from '{name}'", to, permits)
            stage_permit(change, name, [each for each in permits if each != to])
            found = None
            if to in learners_of(shelf, name):
                found = learner(shelf, self.forgetting.runs, FORBID, to, name, None)
                found.stage(shelf.store, change, held)
                change.renew_salts([to])
            root = shelf.manifest_root(to)
            cause = (found and found.cause) or Cause(FORBID, 0, root, {}, (), 0)
            change.record(forbidden(name, to, cause.before))
        runs = [found.run] if found and found.run else []
        return Job(self.forgetting.carry_on(to, cause, runs, change.receipts), change.receipts)
