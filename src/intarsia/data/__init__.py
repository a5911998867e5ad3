"""Sources and their manifests, safe decoding, readers, overlap, sharding, and ready collections."""

from __future__ import annotations

from intarsia.data.images import ImageLimits, decode, encode_png, to_float, to_uint8
from intarsia.data.licence import OBLIGATIONS, check_licence, obliges, share_alike
from intarsia.data.manifest import Manifest, Sample, sample_id
from intarsia.data.overlap import Overlap, exact_duplicates, near_duplicates, overlaps, refuse_core_overlap
from intarsia.data.readers import Columns, ReadOptions, read_pixels, read_source
from intarsia.data.shard import by_attribute, by_hash, by_label
from intarsia.data.source import Source, by_id, by_stem, check_name, is_name

__all__ = [
    "OBLIGATIONS",
    "Columns",
    "ImageLimits",
    "Manifest",
    "Overlap",
    "ReadOptions",
    "Sample",
    "Source",
    "by_attribute",
    "by_hash",
    "by_id",
    "by_label",
    "by_stem",
    "check_licence",
    "check_name",
    "decode",
    "encode_png",
    "exact_duplicates",
    "is_name",
    "near_duplicates",
    "obliges",
    "overlaps",
    "read_pixels",
    "read_source",
    "refuse_core_overlap",
    "sample_id",
    "share_alike",
    "to_float",
    "to_uint8",
]
