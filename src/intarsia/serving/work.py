"""Long work of a service in a process of its own, which trains without touching what the engine computes with.

    python -m intarsia.serving.work VAULT resume NAME...
    python -m intarsia.serving.work VAULT plan NAME [SAMPLE...]

Says what it does in lines of JSON: `{"step", "steps", "name"}` after each step, and at the end `{"result"}` or
`{"error"}`. Whatever is interrupted is finished by `resume` later.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from intarsia.errors import IntarsiaError, VaultError
from intarsia.vault import Vault

_MEEK = 10  # requests come first


class Work:
    """Such a process; iterate over it for what it says, up to its result."""

    def __init__(self, root: Path, *words: str):
        command = [sys.executable, "-m", __name__, str(root), *words]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises VaultError if it does not get to its end; the message says why."""
        with self._process as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    said = json.loads(line)
                    if "error" in said:
                        raise VaultError(said["error"])
                    yield said
                    if "result" in said:
                        return
                raise VaultError("the work was ended before it was done; what is owed is finished later")
            finally:
                self.stop()

    def stop(self) -> None:
        """End it; whoever iterates is told so."""
        self._process.terminate()


def result_of(root: Path, *words: str) -> Any:
    """Run such a process to its end; returns its result.

    Raises:
        VaultError: it did not get there.
    """
    return next(said["result"] for said in Work(root, *words) if "result" in said)


def main(root: str, action: str, *names: str) -> None:
    """Do it, and say so."""
    os.nice(_MEEK)
    try:
        result = _ACTIONS[action](Vault.open(root), names)
    except IntarsiaError as error:
        _say(error=str(error))
    else:
        _say(result=result)


def _resume(vault: Vault, names: Sequence[str]) -> Any:
    begun = {each.name for each in vault.unfinished()}  # a job that waited may find that another has done its work
    job = vault.resuming([name for name in names if name in begun])
    for step in job:
        _say(name=step.name, step=step.step, steps=step.steps)
    return [outcome.document() for outcome in job.outcome]


def _plan(vault: Vault, names: Sequence[str]) -> Any:
    return asdict(vault.plan_forget(names[0], names[1:] or None))


_ACTIONS: dict[str, Callable[[Vault, Sequence[str]], Any]] = {"resume": _resume, "plan": _plan}


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
