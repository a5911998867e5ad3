"""The application: routes, limits and errors around one vault."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI

from intarsia.errors import IncompatibleError
from intarsia.serving import faults
from intarsia.serving.limits import Answers, Limits
from intarsia.serving.metrics import Watch
from intarsia.serving.provenance import version_here
from intarsia.serving.routes import ROUTERS
from intarsia.serving.schemas import Failure
from intarsia.serving.service import Replicas, Service
from intarsia.serving.settings import ServeSettings
from intarsia.serving.static import page_router
from intarsia.vault import Key, Vault

_ABOUT = "Images from the sources that a key may use, and nothing of any other."

_FAILURES: dict[int | str, dict[str, Any]] = {
    422: {"model": Failure, "description": "The request is malformed"},
    "4XX": {"model": Failure, "description": "The request cannot be answered"},
    "5XX": {"model": Failure, "description": "The service cannot answer"},
}


def create_app(
    vault: Vault,
    settings: ServeSettings | None = None,
    *,
    owner: Key | None = None,
    replicas: Replicas | None = None,
) -> FastAPI:
    """An application that serves a vault.

    Args:
        owner: a key that is kept in memory alone, with which whoever started the service may do everything.
        replicas: who draws; None draws in this process.

    Raises:
        IncompatibleError: the vault's backbone draws latents of an autoencoder that it does not have.
    """
    if not vault.backbone.pixels and vault.backbone.autoencoder is None:
        raise IncompatibleError("this vault's backbone draws latents, not pictures; serve one with its own autoencoder")
    chosen = settings or ServeSettings()
    service = Service(vault, chosen, owner=owner, replicas=replicas)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.open()
        try:
            yield
        finally:
            await service.close()

    # The pages that FastAPI makes of the document load scripts from elsewhere. A redirect would name the scheme that a
    # proxy speaks to us, and have the key sent in clear.
    app = FastAPI(
        title="intarsia",
        version=version_here(),
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=_FAILURES,
    )
    app.state.service = service
    for router in ROUTERS:
        app.include_router(router)
    app.include_router(page_router())
    faults.install(app)
    # The one added last is the outermost.
    app.add_middleware(Limits, most=chosen.body_bytes, seconds=chosen.body_seconds)
    app.add_middleware(Answers)
    app.add_middleware(Watch, metrics=service.metrics)
    return app
