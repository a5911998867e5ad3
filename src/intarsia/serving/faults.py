"""Every failure as one JSON shape, that of OpenAI: `{"error": {"message", "type", "param", "code"}}`.

Messages of user errors are intarsia's own. Of what is wrong with the vault itself, whose messages name files of this
machine, a client learns only that it is; the log of the service says what.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from intarsia.errors import (
    CorruptError,
    EncoderError,
    ForbiddenError,
    IncompatibleError,
    InputError,
    IntarsiaError,
    MissingExtra,
    SettingsError,
    UnknownName,
    VaultError,
)
from intarsia.serving.engine import Abandoned, Busy

log = logging.getLogger("intarsia.serving")

_INVALID, _DENIED, _SERVER = "invalid_request_error", "permission_error", "server_error"
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: _DENIED,
    404: "not_found_error",
    429: "rate_limit_error",
    500: _SERVER,
    503: _SERVER,
}


class Fault(IntarsiaError):
    """An answer other than success, from the service itself."""

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None, retry: int | None = None):
        self.status, self.code, self.param, self.retry = status, code, param, retry
        super().__init__(message)

    @property
    def headers(self) -> dict[str, str]:
        found = {} if self.retry is None else {"Retry-After": str(self.retry)}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})

    def document(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, _INVALID)
        param = None if self.param is None else one_line(self.param)
        return {"error": {"message": one_line(str(self)), "type": kind, "param": param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.document(), self.status, headers=self.headers)


def one_line(text: str) -> str:
    """The text without anything but printable characters; others, of which a client may have sent some, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def fault_of(error: BaseException) -> Fault:
    """What a client is told of an error."""
    match error:
        case Fault():
            return error
        case Busy():
            return Fault(429, str(error), code="busy", retry=error.retry_after)
        case Abandoned():
            return Fault(503, str(error), code="ending", retry=5)
        case ForbiddenError():
            return Fault(403, str(error), code="forbidden")
        case EncoderError() | VaultError() | CorruptError():
            return _logged(error)
        case SettingsError() | InputError():
            return Fault(400, str(error), code="invalid_value")
        case IncompatibleError():
            return Fault(409, str(error), code="incompatible")
        case MissingExtra():
            return Fault(501, str(error), code="not_installed")
    log.error("a fault in intarsia itself", exc_info=error)
    return Fault(500, "something went wrong here; the keeper of this service finds what in the log", code="internal")


def _logged(error: EncoderError | VaultError | CorruptError) -> Fault:
    """Of errors that name files of this machine."""
    if isinstance(error, EncoderError):
        log.error("a prompt cannot be read: %s", error)
        said = "the text encoder of these sources cannot be had here; the keeper of this service finds why in the log"
        return Fault(503, said, code="no_encoder")
    if isinstance(error, VaultError):
        log.error("the vault cannot be used: %s", error)
        return Fault(503, "the vault is being changed or cannot be used; try again", code="vault_busy", retry=5)
    log.error("the vault is damaged: %s", error)
    return Fault(500, "something in the vault is damaged; its keeper finds what in the log", code="damaged")


@contextlib.contextmanager
def found() -> Iterator[None]:
    """Around what looks up the thing that an address names: where there is none the answer is 404."""
    try:
        yield
    except UnknownName as error:
        raise Fault(404, str(error), code="not_found") from error


def install(app: FastAPI) -> None:
    """Make all errors of an application answers of that shape."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return fault_of(error).response()

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        known = {404: ("nothing is here", "not_found"), 405: (f"{request.method} is not allowed here", "not_allowed")}
        message, code = known.get(error.status_code, (str(error.detail), "http_error"))
        response = Fault(error.status_code, message, code=code).response()
        response.headers.update(error.headers or {})
        return response

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or None
        found = len(error.errors())
        more = f" (and {found - 1} more)" if found > 1 else ""
        message = f"{place or 'the request'}: {first['msg']}{more}"
        return Fault(422, message, code="invalid_request", param=place).response()

    app.add_exception_handler(IntarsiaError, answer)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
