"""What was done, for whoever wants to check it: receipts, the ledger's checkpoint, its entries, proofs and tiles."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse, Response

from intarsia.serving.callers import Caller, needs
from intarsia.serving.faults import found
from intarsia.serving.service import service_of
from intarsia.serving.transparency import View

router = APIRouter(tags=["ledger"])
Reader = Annotated[Caller, Depends(needs("read"))]
Number = Annotated[int, Query(ge=0, le=2**53)]


@router.get("/v1/receipts/{id}")
def receipt(request: Request, id: str, caller: Reader) -> dict[str, Any]:
    """The receipt of images that were drawn with a key of the same principal, while all of their sources stand."""
    return service_of(request).receipts.get(id, caller.principal).document()


@router.get("/v1/ledger")
def head(request: Request, caller: Reader) -> dict[str, Any]:
    """Where the ledger stands: its size, its root (base64), the signed checkpoint and the key that verifies it."""
    view, ledger = _view(request), service_of(request).vault.ledger
    root = base64.b64encode(view.head.root).decode()
    return {"size": view.size, "root": root, "checkpoint": view.checkpoint, "key": str(ledger.key)}


@router.get("/v1/ledger/checkpoint", response_model=None, responses={200: {"content": {"text/plain": {}}}})
def checkpoint(request: Request, caller: Reader) -> PlainTextResponse:
    """The signed checkpoint (c2sp.org/tlog-checkpoint)."""
    return PlainTextResponse(_view(request).checkpoint)


@router.get("/v1/ledger/entries")
def entries(request: Request, caller: Reader, start: Number, end: Number) -> dict[str, Any]:
    """Entries from `start` up to but not including `end`; SHA-256 of a zero byte and the line is the leaf."""
    return {"data": _view(request).entries(start, end)}


@router.get("/v1/ledger/proof/inclusion")
def inclusion(request: Request, caller: Reader, index: Number, size: Number) -> dict[str, Any]:
    """The audit path (RFC 6962, section 2.1.1) of an entry in the tree of the first `size`; hashes in base64."""
    return _view(request).inclusion(index, size)


@router.get("/v1/ledger/proof/consistency")
def consistency(request: Request, caller: Reader, first: Number, second: Number) -> dict[str, Any]:
    """That the tree of `first` entries is the beginning of that of `second` (RFC 6962, section 2.1.2)."""
    return _view(request).consistency(first, second)


@router.get("/tile/{path:path}", response_model=None, responses={200: {"content": {"application/octet-stream": {}}}})
def tile(request: Request, path: str, caller: Reader) -> Response:
    """A tile of hashes or entries (c2sp.org/tlog-tiles)."""
    with found():
        data = _view(request).tile(path)
    return Response(data, media_type="application/octet-stream", headers={"Cache-Control": "private, immutable"})


def _view(request: Request) -> View:
    return service_of(request).transparency.view()
