"""Reading what an owner hands in: a folder of images, a Parquet table or a WebDataset tar, all or nothing."""

from __future__ import annotations

from intarsia.data.readers.entries import Columns, ReadOptions
from intarsia.data.readers.ingest import read_source
from intarsia.data.readers.pixels import read_pixels

__all__ = ["Columns", "ReadOptions", "read_pixels", "read_source"]
