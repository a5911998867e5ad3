"""The errors intarsia raises on purpose.

    IntarsiaError                 anything a user can cause and mend; the command line prints it as one line
    ├── InputError                data handed in is not what was expected (images, captions, tables, licences)
    │   └── IngestError           one or more files of a source were refused; carries every problem found
    ├── SettingsError             a setting or a combination of settings makes no sense
    │   └── UnknownName           a name (source, preset, sampler, sample id, ...) that is unknown; lists the known ones
    ├── IncompatibleError         parts that cannot work together (backbone, latent space, forward process differ)
    ├── CorruptError              stored bytes are not what their record says
    ├── ForbiddenError            the caller may not use this source
    ├── VaultError                the vault folder is missing, locked, half-made or out of disk space
    └── MissingExtra              an optional dependency is not installed; says which line installs it

    LeftOut                       a warning: a source that was not named is not in a composition, as it is out of use

Every message says what was found, what was expected and what to do. `assert` is kept for intarsia's own invariants.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence
from types import ModuleType


class IntarsiaError(Exception):
    """Base of every error that intarsia raises on purpose."""


class InputError(IntarsiaError):
    """Data handed in is not what was expected."""


class EncoderError(InputError):
    """The text encoder that something was trained with cannot be had on this machine."""


class IngestError(InputError):
    """One or more files of a source were refused; nothing was ingested.

    `problems` holds one line per file, all of them, in file order; `summary` is one line that counts them. The text of
    the error is the summary and the first `shown` problems.
    """

    shown = 20

    def __init__(self, where: str, problems: Sequence[str]):
        self.problems = list(problems)
        self.summary = f"{where}: {counted(len(self.problems), 'problem')}, nothing was ingested"
        more = len(self.problems) - self.shown
        lines = [f"  {line}" for line in self.problems[: self.shown]]
        super().__init__(
            "\n".join([self.summary, *lines] + ([f"  … and {more} more; `problems` holds all"] if more > 0 else []))
        )


class SettingsError(IntarsiaError):
    """A setting or a combination of settings makes no sense."""


class UnknownName(SettingsError):
    """A name that does not exist, with those that do.

    >>> print(UnknownName("sampler", "dimm", ["ddim", "ddpm"]))
    unknown sampler 'dimm': did you mean 'ddim'? known: ddim, ddpm
    """

    def __init__(self, what: str, name: str, known: Iterable[str]):
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" did you mean '{near[0]}'?" if near else ""
        shown = ", ".join(known[:20]) + (f" … ({len(known)} in all)" if len(known) > 20 else "")
        super().__init__(f"unknown {what} '{name}':{hint} known: {shown or 'none'}")


class IncompatibleError(IntarsiaError):
    """Parts that cannot work together; the message names the field that differs."""


class CorruptError(IntarsiaError):
    """Stored bytes are not what their record says."""


class ForbiddenError(IntarsiaError):
    """The caller may not use this source."""


class VaultError(IntarsiaError):
    """The vault folder is missing, locked, half-made or out of disk space."""


class MissingExtra(IntarsiaError):
    """An optional dependency is not installed."""


class LeftOut(UserWarning):
    """A source that was not named is not in a composition, as a forgetting has taken it out of use."""


def counted(count: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "image"), counted(12_000, "image")
    ('1 image', '12000 images')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which line installs it.

    Raises:
        MissingExtra: `module` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"this needs the package '{module.split('.')[0]}', which is not installed; "
            f"install it with: pip install 'intarsia[{extra}]'"
        ) from error
