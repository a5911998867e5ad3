from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from intarsia.digests import canonical_json, digest_of
from intarsia.errors import CorruptError, VaultError
from intarsia.files import (
    disk_errors,
    load_sealed,
    load_tensors,
    read_json,
    save_sealed,
    save_tensors,
    tensors_to_bytes,
    write_atomic,
    write_json,
)

OLD, NEW = b"old bytes", b"new bytes, and more of them"


def tensors() -> dict[str, torch.Tensor]:
    return {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2]), "c": torch.zeros(0, 3)}


def failing(error: BaseException, *, at: int, real: Callable[..., object]) -> Callable[..., object]:
    """Like `real`, but call number `at` (from 1) raises."""
    calls = 0

    def call(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at:
            raise error
        return real(*arguments, **options)

    return call


class HalfWritten:
    """A file whose disk fills up halfway through a write."""

    def __init__(self, file: object):
        self.file = file

    def __enter__(self) -> HalfWritten:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(OLD)
    return tmp_path / "file"


def alone(path: Path) -> bool:
    return [each.name for each in path.parent.iterdir()] == [path.name]


def test_write_replaces(path: Path) -> None:
    write_atomic(path, NEW)
    assert path.read_bytes() == NEW
    assert alone(path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(call: str, number: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, call, failing(OSError(number, "full"), at=1, real=getattr(os, call)))
    with pytest.raises(VaultError, match=r"file: no space left on the disk \(\d+ MiB free\); free some room") as caught:
        write_atomic(path, NEW)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == OLD
    assert alone(path)


def test_a_half_written_file_is_not_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: HalfWritten(real(self, mode)))
    with pytest.raises(VaultError, match="no space left"):
        write_atomic(path, NEW)
    monkeypatch.undo()
    assert path.read_bytes() == OLD
    assert alone(path)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "bad disk"), PermissionError(errno.EACCES, "no")])
def test_other_failures_say_why(error: OSError, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", failing(error, at=1, real=os.replace))
    with pytest.raises(VaultError, match=f"file: cannot be written \\({os.strerror(error.errno)}\\)"):
        write_atomic(path, NEW)
    assert path.read_bytes() == OLD
    assert alone(path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interrupt_leaves_the_old_file(call: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, call, failing(KeyboardInterrupt(), at=1, real=getattr(os, call)))
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, NEW)
    assert path.read_bytes() == OLD
    assert alone(path)


@pytest.mark.parametrize("at", [1, 2])
def test_whichever_sync_fails_the_file_is_whole(at: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.EIO, "bad disk"), at=at, real=os.fsync))
    with pytest.raises(VaultError):
        write_atomic(path, NEW)
    assert path.read_bytes() in (OLD, NEW)
    assert alone(path)


def test_bytes_reach_the_disk_before_the_name_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    for call in ("fsync", "replace"):
        real = getattr(os, call)
        monkeypatch.setattr(os, call, lambda *a, call=call, real=real: (order.append(call), real(*a)))
    write_atomic(path, NEW)
    assert order == ["fsync", "replace", "fsync"]


def test_what_cannot_be_read_is_not_said_to_be_written(path: Path) -> None:
    elsewhere = path.parent / "elsewhere"
    with pytest.raises(VaultError, match=r"elsewhere: cannot be read \(No such file"), disk_errors(path):
        elsewhere.read_bytes()
    with pytest.raises(VaultError, match=r"file: cannot be written \(No such file"), disk_errors(path):
        (path.parent / ".file.0a.part" / "x").write_bytes(NEW)
    with pytest.raises(VaultError, match=r"file: cannot be written"), disk_errors(path, scratch=elsewhere):
        (elsewhere / "x").write_bytes(NEW)


def test_a_file_that_cannot_be_read(path: Path) -> None:
    path.unlink()
    path.mkdir()
    for read in (read_json, load_tensors, load_sealed):
        with pytest.raises(VaultError, match="file: cannot be read"):
            read(path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="cannot be written"):
        write_atomic(tmp_path / "absent" / "file", NEW)


def test_canonical_json_is_one_string_for_one_value() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "ü"}) == '{"a":"ü","b":[1,2.5]}'.encode()
    assert canonical_json({"a": "ü", "b": [1, 2.5]}) == canonical_json({"b": [1, 2.5], "a": "ü"})
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))


def test_json_round_trip(path: Path) -> None:
    value = {"b": [1, None], "a": {"ü": 0.1}}
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not valid JSON"),
        (b'{"a": ', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b"[1]", "holds a JSON list, expected an object"),
        (b"null", "holds a JSON NoneType, expected an object"),
    ],
)
def test_json_that_is_none(content: bytes, complaint: str, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=f"file: {complaint}"):
        read_json(path)


@pytest.mark.parametrize("read", [read_json, load_tensors])
def test_a_missing_file(read: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="absent: missing"):
        read(tmp_path / "absent")


def test_the_same_tensors_give_the_same_bytes() -> None:
    backwards = dict(reversed(tensors().items()))
    backwards["b"] = backwards["b"].T.contiguous().T  # other strides, same values
    assert tensors_to_bytes(backwards) == tensors_to_bytes(tensors())
    parameter = {**tensors(), "b": torch.nn.Parameter(tensors()["b"])}
    assert tensors_to_bytes(parameter) == tensors_to_bytes(tensors())


def test_tensors_round_trip(path: Path) -> None:
    digest = save_tensors(path, tensors())
    assert digest == digest_of(path.read_bytes())
    for found in (load_tensors(path), load_tensors(path, digest=digest)):
        assert set(found) == set(tensors())
        torch.testing.assert_close(found, tensors(), rtol=0, atol=0)


def test_loaded_tensors_can_be_written_to(path: Path) -> None:
    save_tensors(path, tensors())
    load_tensors(path)["b"].zero_()
    assert load_tensors(path)["b"].sum() == 15


def test_another_digest_is_refused(path: Path) -> None:
    digest = save_tensors(path, tensors())
    other = save_tensors(path, {"a": torch.zeros(1)})
    with pytest.raises(CorruptError, match=rf"sha256 is {other[:16]}…, its record says {digest[:16]}…; restore it"):
        load_tensors(path, digest=digest)


def test_the_digest_is_checked_before_parsing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(data: bytes) -> dict[str, torch.Tensor]:
        pytest.fail("bytes of the wrong digest were parsed")

    monkeypatch.setattr("safetensors.torch.load", parse)
    with pytest.raises(CorruptError, match="sha256"):
        load_tensors(path, digest=digest_of(NEW))


def test_every_cut_is_noticed(path: Path) -> None:
    whole = tensors_to_bytes(tensors())
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptError, match="not a whole safetensors file"):
            load_tensors(path)


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        b"\x00" * 8,
        (2**40).to_bytes(8, "little") + b"{}",
        *(
            len(text).to_bytes(8, "little") + text
            for text in (
                b"[]",
                b"{]",
                b"\xff\xfe",
                json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode(),
                json.dumps({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}).encode(),
                json.dumps({"a": {"dtype": "X9", "shape": [0], "data_offsets": [0, 0]}}).encode(),
                json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}).encode(),
                json.dumps({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}).encode(),
            )
        ),
    ],
)
def test_corrupt_headers(header: bytes, path: Path) -> None:
    path.write_bytes(header)
    with pytest.raises(CorruptError, match="not a whole safetensors file"):
        load_tensors(path)


def test_sealed_tensors_round_trip_to_the_same_bytes(path: Path) -> None:
    save_sealed(path, tensors())
    torch.testing.assert_close(load_sealed(path), tensors(), rtol=0, atol=0)
    torch.testing.assert_close(load_tensors(path), tensors(), rtol=0, atol=0)  # safetensors like any other
    sealed = path.read_bytes()
    save_sealed(path, dict(reversed(tensors().items())))
    assert path.read_bytes() == sealed


def test_a_seal_covers_every_bit(path: Path) -> None:
    save_sealed(path, tensors())
    sealed = path.read_bytes()
    for k in range(len(sealed)):
        path.write_bytes(sealed[:k] + bytes([sealed[k] ^ 1]) + sealed[k + 1 :])
        with pytest.raises(CorruptError, match=r"file: the digest in it .* remove it"):
            load_sealed(path)
    for other in (sealed[:-1], sealed + b"0", sealed[:50], b"", tensors_to_bytes(tensors())):
        path.write_bytes(other)
        with pytest.raises(CorruptError, match="file: the digest in it"):
            load_sealed(path)
