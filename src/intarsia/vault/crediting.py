"""What a vault offers on credit: what is owed for images, what was accumulated, and how an amount is split by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from torch import Tensor

from intarsia.beside import BESIDE
from intarsia.composition import Result
from intarsia.composition.sampling import OnProgress
from intarsia.credit import SHARES, Credit, CreditSettings, path_profile
from intarsia.credit.money import Currency
from intarsia.data import ReadOptions, read_pixels, to_float
from intarsia.errors import ForbiddenError, SettingsError
from intarsia.ledger import Receipt
from intarsia.vault.accounts import keep_credit
from intarsia.vault.composition import Composition
from intarsia.vault.drawn import Drawing
from intarsia.vault.events import images_root
from intarsia.vault.joining import VaultJoiner
from intarsia.vault.payouts import Period, Statement, reckon, told
from intarsia.vault.reading import Names, listed
from intarsia.vault.store import COMPARTMENTS

Images = Tensor | Result | str | Path


class VaultCredits(VaultJoiner):
    """What `Vault` offers to those who ask whose images were."""

    def credit(
        self,
        images: Images,
        settings: CreditSettings | None = None,
        *,
        sources: Names | None = None,
        prior: Mapping[str, float] | None = None,
        record: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Credit:
        """How much each source is owed for images, with intervals; docs/credit.md says what that means.

        Args:
            images: what `sample` gave; the folder that `intarsia sample` wrote; or any others, as a folder, a table or
                (N, C, H, W) in [-1, 1].
            settings: method, estimate of densities, repeats.
            sources: among which credit is shared out; None takes those that the images were drawn from and that are
                still there (`notes` say who is not), and of other images all that are trained.
            prior: one positive number per source; None takes that with which the images were drawn, and of other images
                the numbers of samples.
            record: let these shares, in place of the weights with which the images were drawn, count in payouts. It
                takes the images as they were drawn, and all of their sources.
            on_progress: called with the estimates of images that are done, and those there are in all.

        Raises:
            SettingsError: a method that cannot be had of these images; or what cannot be recorded, and why.
            ForbiddenError: all sources that the images were drawn from are gone.
            InputError, IngestError: images that cannot be read, or of another size.
            CorruptError: what is kept beside the images, or in the vault, is damaged.
        """
        settings = settings or CreditSettings()
        self._store.settle()
        drawing = self._drawing(images)
        if settings.method == "path":
            found = self._along_path(drawing, given=sources is not None or prior is not None)
        else:
            composition = self._asked(settings, drawing, sources, prior)
            given = images if isinstance(images, Result) else self._pixels(images)
            found = composition.credit(given, settings, on_progress=on_progress)
            left_out = tuple(f"left out {name}: {why}" for name, why in composition.left_out.items())
            found = replace(found, notes=left_out)
        found = replace(found, notes=(*self._notes(drawing, found), *found.notes))
        if record:
            self._record(images, drawing, found)
        return found

    def _drawing(self, images: Images) -> Drawing | None:
        if isinstance(images, Result):
            return Drawing.of(images)
        return None if isinstance(images, Tensor) else Drawing.read(Path(images).expanduser())

    def _along_path(self, drawing: Drawing | None, *, given: bool) -> Credit:
        if drawing is None:
            raise SettingsError(
                "the method path tells of the weights with which images were drawn, and of these none are known; give "
                "a folder that `intarsia sample` made, or take another method"
            )
        if given:
            raise SettingsError("the method path knows sources and prior from the drawing; leave these out")
        return path_profile(drawing.trace)

    def _asked(
        self,
        settings: CreditSettings,
        drawing: Drawing | None,
        sources: Names | None,
        prior: Mapping[str, float] | None,
    ) -> Composition:
        """The sources that are there, whose networks are asked."""
        names = None if sources is None else listed(sources)
        if names is None and drawing is not None:
            names = self._there(drawing)
        if prior is None and drawing is not None and drawing.prior is not None and names is not None:
            known = drawing.prior
            prior = {name: known[name] for name in names} if set(names) <= set(known) else None
        # Only the paper's eq. 6 asks for weights; without them no router part is needed.
        weights = "gaussian" if settings.method == "divergence" else "prior"
        return self.compose(names, weights=weights, prior=prior, precision="float32", unrecorded=True)

    def _there(self, drawing: Drawing) -> list[str] | None:
        """The sources of a drawing that can still be asked; None where they were averaged into one."""
        there = [name for name in drawing.names if self._store.holds(COMPARTMENTS, name)]
        if not there and not drawing.averaged:
            raise ForbiddenError(
                f"{', '.join(drawing.names)}, from which these images were drawn, cannot be used any more; the method "
                "path still tells of the weights they were drawn with"
            )
        return there or None

    def _pixels(self, images: Tensor | str | Path) -> Tensor:
        if isinstance(images, Tensor):
            return images
        channels, size, _ = self.image_shape
        return to_float(read_pixels(images, size=size, channels=channels, options=ReadOptions(), skip=BESIDE))

    def _notes(self, drawing: Drawing | None, found: Credit) -> tuple[str, ...]:
        """What has changed since the images were drawn."""
        if drawing is None:
            return ()
        there = self._store.names(COMPARTMENTS)
        gone = [] if drawing.averaged else [name for name in drawing.names if name not in there]
        notes = [f"'{name}' was drawn from and cannot be used any more" for name in gone]
        if gone and found.method != "path":
            notes.append("what follows is shared out among those that are left; what was earned then stays as it was")
        before = _compartments(drawing.receipt)
        changed = [name for name in found.names if name in before and self._shelf.record_digest(name) != before[name]]
        if found.method != "path":
            notes += [f"'{name}' was trained again since, and is asked as it is now" for name in changed]
        return tuple(notes)

    def _record(self, images: Images, drawing: Drawing | None, found: Credit) -> None:
        """Let shares count for a set of images, if they are of that set and of all its sources."""
        if found.method not in SHARES:
            raise SettingsError(f"{found.method} values are in nats, and no shares; record {' or '.join(SHARES)}")
        if drawing is None or drawing.receipt is None:
            raise SettingsError("only images that were drawn from this vault, and recorded, can be credited there")
        if set(found.names) != set(drawing.names):
            raise SettingsError(
                f"the images were drawn from {', '.join(drawing.names)}, and these shares are of "
                f"{', '.join(found.names)}; what was earned when they were drawn stays as it is"
            )
        pixels = images.images if isinstance(images, Result) else self._pixels(images)
        root = images_root(pixels)
        if any(opening.values.get("images") != root for opening in drawing.receipt.openings):
            raise SettingsError("these are not the images that the receipt is of; record the folder as it was drawn")
        keep_credit(self._store, drawing.receipt, found)

    def payout(
        self, amount: str | int | Decimal, period: str, *, currency: str = "EUR", record: bool = True
    ) -> Statement:
        """Split an amount among the sources by the credit that they accumulated in a period.

        Every set of images that is drawn from the vault adds to it. Sources that were forgotten since keep what they
        had, under an account that the receipt of the forgetting names. Amounts are whole minor units and sum exactly.

        Args:
            amount: in decimal digits, such as "1000.00"; no float, which holds no such number exactly.
            period: a year, month or day in UTC such as "2027-01", or two of them with ".." between.
            currency: a code of ISO 4217.
            record: tell the ledger; otherwise nothing is kept of it.

        Raises:
            SettingsError: the amount or the period is none, or nothing was drawn then.
            UnknownName: no such currency.
            CorruptError: the ledger is damaged, or a record of credit.
            VaultError: the vault cannot be written.
        """
        money, time = Currency(currency.upper()), Period(period)
        minor = money.parse(amount)
        self._store.settle()
        statement = reckon(self._store, time, money, minor, self._clock())
        return told(self._store, statement) if record else statement


def _compartments(receipt: Receipt | None) -> dict[str, str]:
    """The digests of the compartments that a receipt tells of, by name."""
    found: dict[str, str] = {}
    for opening in receipt.openings if receipt is not None else ():
        found |= opening.values.get("compartments", {})
    return found
