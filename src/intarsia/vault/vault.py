"""The vault: a folder with one backbone, its sources and their compartments."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self, overload

from intarsia.backbone import Backbone
from intarsia.compartments import Compartment, TrainSettings, TrainStep
from intarsia.composition import Routing, Weights
from intarsia.data import Columns, Overlap, ReadOptions, Source, check_name, overlaps, read_source, refuse_core_overlap
from intarsia.data.images import Resize
from intarsia.errors import CorruptError, IngestError, InputError, IntarsiaError, SettingsError, UnknownName, VaultError
from intarsia.vault.composing import Composition, compose
from intarsia.vault.index import Catalogue, check_url
from intarsia.vault.package import Core, copy_package, find_package, read_core, write_package
from intarsia.vault.parts import PartSettings, chosen_parts
from intarsia.vault.records import CompartmentInfo, SourceInfo, compartment_info, read_record, write_record
from intarsia.vault.runs import Runs
from intarsia.vault.selecting import Rules, Selection, decide
from intarsia.vault.sources import check_shape, load_source, read_manifest, source_info, write_source
from intarsia.vault.store import (
    BACKBONE,
    COMPARTMENTS,
    INDEX_FILE,
    LOCK_FILE,
    RECORD_FILE,
    SOURCES,
    TRAINING,
    WORK,
    Store,
    folder_lock,
    new_folder,
)
from intarsia.vault.training import Recipe
from intarsia.vault.verify import VerifyReport, verify
