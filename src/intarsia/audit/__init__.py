"""Judges: distances in feature networks, legibility, copies, and whose work an image looks like."""

from __future__ import annotations

from intarsia.audit.digit_images import REJECT_KINDS, Digits, DigitSplit, Rejects, make_rejects, split_digits
from intarsia.audit.digit_network import NETWORK, DigitNetwork, DigitSettings, Judgement, fit_digit_network
from intarsia.audit.frechet import (
    Estimate,
    FeatureReport,
    Moments,
    Resampling,
    feature_report,
    frechet_distance,
    kernel_distance,
)
from intarsia.audit.nearest import CopyReport, CopySettings, Neighbours, copy_report, copy_threshold, nearest
from intarsia.audit.owner_classifier import OwnerClassifier, OwnerSettings, fit_owner_classifier, style_statistics

__all__ = [
    "NETWORK",
    "REJECT_KINDS",
    "CopyReport",
    "CopySettings",
    "DigitNetwork",
    "DigitSettings",
    "DigitSplit",
    "Digits",
    "Estimate",
    "FeatureReport",
    "Judgement",
    "Moments",
    "Neighbours",
    "OwnerClassifier",
    "OwnerSettings",
    "Rejects",
    "Resampling",
    "copy_report",
    "copy_threshold",
    "feature_report",
    "fit_digit_network",
    "fit_owner_classifier",
    "frechet_distance",
    "kernel_distance",
    "make_rejects",
    "nearest",
    "split_digits",
    "style_statistics",
]
