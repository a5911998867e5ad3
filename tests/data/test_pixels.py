"""Pictures without terms: folders, tables and arrays, duplicates and all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from intarsia.data import ReadOptions, encode_png, read_pixels
from intarsia.diffusion import keyed_generator
from intarsia.errors import IngestError, InputError, SettingsError


def pictures(count: int = 3, side: int = 6, channels: int = 3) -> np.ndarray:
    return keyed_generator("pixels", side).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def write(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for k, image in enumerate(images):
        (folder / f"{k}.png").write_bytes(encode_png(image))
    return folder


def test_a_folder_in_the_order_of_its_names_with_duplicates(tmp_path: Path):
    images = pictures()[[2, 0, 2, 1]]
    folder = write(tmp_path / "f", images)
    np.testing.assert_array_equal(read_pixels(folder), images)
    assert read_pixels(folder, channels=1).shape == (4, 6, 6, 1)


def test_what_belongs_to_something_else_is_skipped(tmp_path: Path):
    folder = write(tmp_path / "f", pictures())
    (folder / "report.json").write_text("{}")
    (folder / "grid.png").write_bytes(encode_png(pictures(1, side=9)[0]))
    with pytest.raises(IngestError, match=r"(?s)grid\.png: the picture is 9 x 9 .*report\.json: is not an image"):
        read_pixels(folder, size=6)
    assert len(read_pixels(folder, skip=("report.json", "grid.png"))) == 3


def test_sizes(tmp_path: Path):
    folder = write(tmp_path / "f", pictures())
    with pytest.raises(IngestError, match="3 problems"):
        read_pixels(folder, size=4)
    assert read_pixels(folder, size=4, options=ReadOptions(resize="fit")).shape == (3, 4, 4, 3)
    with pytest.raises(SettingsError):
        read_pixels(folder, size=0)


def test_arrays(tmp_path: Path):
    images, grey = pictures(), pictures(channels=1)
    np.savez(tmp_path / "a.npz", images)
    np.savez(tmp_path / "named.npz", samples=images)
    np.save(tmp_path / "grey.npy", grey)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.npz"), images)
    np.testing.assert_array_equal(read_pixels(tmp_path / "named.npz", size=6), images)
    np.testing.assert_array_equal(read_pixels(tmp_path / "grey.npy"), grey.repeat(3, axis=3))
    with pytest.raises(InputError, match=r"expected uint8 images \(N, S, S, 1\)"):
        read_pixels(tmp_path / "a.npz", channels=1)
    with pytest.raises(InputError, match="with S = 8"):
        read_pixels(tmp_path / "a.npz", size=8)


def test_bad_arrays(tmp_path: Path):
    np.savez(tmp_path / "two.npz", a=pictures(), b=pictures())
    np.save(tmp_path / "float.npy", np.zeros((2, 4, 4, 3)))
    np.save(tmp_path / "flat.npy", np.zeros(5, dtype=np.uint8))
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    (tmp_path / "empty.npy").write_bytes(b"")
    says = {
        "two.npz": "arrays a, b",
        "float.npy": "float64",
        "flat.npy": r"shape \(5,\)",
        "objects.npy": "cannot be read",
    }
    says |= {"torn.npz": "cannot be read", "empty.npy": "cannot be read", "none.npz": "does not exist"}
    for name, message in says.items():
        with pytest.raises(InputError, match=message):
            read_pixels(tmp_path / name)


def test_nothing_there(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        read_pixels(tmp_path / "empty")
    with pytest.raises(InputError, match="does not exist"):
        read_pixels(tmp_path / "none")
