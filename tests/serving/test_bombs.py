"""Uploads that are small on the wire and large in memory: they are refused, and cost next to nothing."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from .conftest import Client

MOST_BYTES = 48 * 2**20
MOST_SECONDS = 20.0  # the machine may be busy; expanding one would take minutes


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(mebibytes: int) -> bytes:
    """So many zeros in a thousandth of their size."""
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(bytes(2**20)) for _ in range(mebibytes)]) + packer.flush()


def png(width: int, height: int, depth: int, *between: bytes, pixels: bytes) -> bytes:
    """A PNG of grey pixels, which come packed."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    body = chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(between) + body


def picture(form: str, size: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (size, size)).save(buffer, form)
    return buffer.getvalue()


def bombs() -> dict[str, bytes]:
    large, small = packed(300), zlib.compress(bytes(20))
    jpeg = bytearray(picture("JPEG", 16))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    return {
        "pixels": png(30_000, 80_000, 1, pixels=large),
        "more pixels than there are": png(2**31 - 1, 2**31 - 1, 8, pixels=small),
        "longer rows than it says": png(4, 4, 8, pixels=large),
        "text": png(4, 4, 8, chunk(b"zTXt", b"a\0\0" + large), pixels=small),
        "text of the world": png(4, 4, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + large), pixels=small),
        "colours": png(4, 4, 8, chunk(b"iCCP", b"a\0\0" + large), pixels=small),
        "a JPEG that lies": bytes(jpeg),
        "a WEBP": picture("WEBP", 2000),
    }


def peak() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


@pytest.mark.integration
def test_an_upload_is_not_expanded_beyond_what_a_picture_may_be(client: Client) -> None:
    owner, cases = client(), bombs()
    owner.post("/v1/credit", json={"image": base64.b64encode(picture("PNG", 4)).decode(), "repeats": 1})
    for name, data in cases.items():
        assert len(data) < 2**20, name
        body = {"image": base64.b64encode(data).decode(), "repeats": 1}
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # begin the peak anew
        before, began = peak(), time.monotonic()
        answer = owner.post("/v1/credit", json=body)
        assert (peak() - before, name) < (MOST_BYTES, name)
        assert time.monotonic() - began < MOST_SECONDS, name
        assert answer.status_code in (200, 400), f"{name}: {answer.text}"
        if answer.status_code == 200:
            assert name in ("text", "text of the world", "colours", "longer rows than it says"), name


def test_a_body_is_not_unpacked(client: Client) -> None:
    body = gzip.compress(json.dumps({"prompt": "x" * 10**7}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = client().post("/v1/images/generations", content=body, headers=headers)
    assert answer.status_code in (400, 422)
