"""Credit for one image, of a client's file or of what was drawn for it."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from torch import Tensor

from intarsia.credit import CreditSettings
from intarsia.data import ImageLimits, decode, to_float
from intarsia.errors import InputError
from intarsia.serving.callers import Caller
from intarsia.serving.choices import composed
from intarsia.serving.schemas import CreditRequest
from intarsia.serving.service import Service

_LIMITS = ImageLimits(max_bytes=4 * 2**20, max_pixels=1024 * 1024)
_NOTES = {
    "responsibility": "The probability that the image came from each source, given that it came from one of them. It "
    "does not say that this image was copied, nor that any image was.",
    "leave-one-out": "Nats of log-density that the image loses without each source; negative where it gains.",
    "shapley": "Nats of log-density that each source brings on average over all orders of arrival.",
    "log-ratio": "Nats by which the image is more likely under each source than under the public core.",
    "divergence": "The paper's equation 6, in nats.",
}


def claimed(service: Service, caller: Caller, request: CreditRequest) -> dict[str, Any]:
    """Reckon it; it takes many passes.

    Raises:
        InputError: no image or two, or a file that is none.
        ForbiddenError: the caller may not use a source that was named, or that drew the image.
        Fault: the receipt is not kept.
    """
    images, drawn_from = _image(service, caller, request)
    settings = CreditSettings(method=request.method, repeats=request.repeats)
    names = request.sources or drawn_from
    weights = "gaussian" if request.method == "divergence" else "prior"  # the one method that asks for weights
    composition = composed(service, caller, names, weights=weights, routing="full", precision="float32")
    found = composition.credit(images, settings)
    rows = zip(found.names, found.values[0].tolist(), found.low[0].tolist(), found.high[0].tolist(), strict=True)
    shares = [{"source": name, "share": share, "low": low, "high": high} for name, share, low, high in rows]
    told = {"method": found.method, "unit": found.unit, "shares": shares, "note": _NOTES[found.method]}
    return told | {"left_out": dict(composition.left_out)}


def _image(service: Service, caller: Caller, request: CreditRequest) -> tuple[Tensor, list[str] | None]:
    """The image (1, C, H, W), and the sources that drew it if that is known."""
    if (request.image is None) == (request.receipt is None):
        raise InputError("give either 'image', a file in base64, or 'receipt' with 'index'")
    if request.receipt is not None:
        drawn = service.receipts.drawn(request.receipt, caller.principal)
        if request.index >= len(drawn.images):
            raise InputError(f"index is {request.index}, the receipt is of {len(drawn.images)} images")
        return to_float(drawn.images[request.index : request.index + 1]), list(drawn.names)
    channels, size, _ = service.vault.image_shape
    try:
        data = base64.b64decode(request.image or "", validate=True)
    except (binascii.Error, ValueError):
        raise InputError("'image' is no base64; send the bytes of a PNG, JPEG or WEBP file in it") from None
    return to_float(decode(data, size=size, channels=channels, limits=_LIMITS)[None]), None
