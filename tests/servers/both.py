"""An S3 server and a PostgreSQL at once, as a shared vault needs them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .postgres import PASSWORD, Postgres, postgres
from .swift import SECRET, Swift, swift

PASSWORDS = (PASSWORD, SECRET)


@contextmanager
def both() -> Iterator[tuple[Swift, Postgres]]:
    """Both servers, with the environment in which their clients find and enter them."""
    with swift() as objects, postgres() as database, pytest.MonkeyPatch.context() as patch:
        for name, value in {"PGPASSWORD": PASSWORD, **objects.environment}.items():
            patch.setenv(name, value)
        yield objects, database
