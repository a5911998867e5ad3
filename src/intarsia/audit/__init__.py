"""Judges: distances in feature networks, legibility, copies, and whose work an image looks like."""

from __future__ import annotations

from intarsia.audit.alignment import (
    Alignment,
    AttributeAlignment,
    AttributeClassifier,
    QuestionAlignment,
    error_reduction,
    fit_attributes,
)
from intarsia.audit.canaries import NoNoise, PrivacyAudit, audit_privacy, epsilon_lower_bound
from intarsia.audit.chance import area_interval, area_under_curve, caught_at, share_interval
from intarsia.audit.digit_images import REJECT_KINDS, Digits, DigitSplit, Rejects, make_rejects, split_digits
from intarsia.audit.digit_network import NETWORK, DigitNetwork, DigitSettings, Judgement, fit_digit_network
from intarsia.audit.efficientnet import EfficientNetLite0, load_efficientnet_lite0
from intarsia.audit.features import FeatureNetwork, Features
from intarsia.audit.frechet import frechet_distance
from intarsia.audit.halves import Estimate, Resampling
from intarsia.audit.inception import Inception, load_inception
from intarsia.audit.kernel import kernel_distance
from intarsia.audit.measure import FEWEST_IMAGES, METRICS, Report, Score, check_count, measure, measure_features
from intarsia.audit.membership import (
    Attack,
    Looks,
    LookSettings,
    attack,
    denoising_scores,
    halves_of,
    lira_scores,
    look,
    loss_scores,
)
from intarsia.audit.nearest import (
    CopyReport,
    CopySettings,
    Neighbours,
    copy_report,
    copy_threshold,
    distinct_rows,
    nearest,
    nearest_distance,
)
from intarsia.audit.neighbourhoods import density_coverage, precision_recall
from intarsia.audit.networks import load_network, network_channels, standard_digit_network, unseen_digits
from intarsia.audit.owner_classifier import OwnerClassifier, OwnerSettings, fit_owner_classifier, style_statistics
from intarsia.audit.questions import Question, questions_of
from intarsia.audit.vision_language import CLIP_SCORE, ClipAlignment, ViltAnswerer, load_answerer, load_clip

__all__ = [
    "CLIP_SCORE",
    "FEWEST_IMAGES",
    "METRICS",
    "NETWORK",
    "REJECT_KINDS",
    "Alignment",
    "Attack",
    "AttributeAlignment",
    "AttributeClassifier",
    "ClipAlignment",
    "CopyReport",
    "CopySettings",
    "DigitNetwork",
    "DigitSettings",
    "DigitSplit",
    "Digits",
    "EfficientNetLite0",
    "Estimate",
    "FeatureNetwork",
    "Features",
    "Inception",
    "Judgement",
    "LookSettings",
    "Looks",
    "Neighbours",
    "NoNoise",
    "OwnerClassifier",
    "OwnerSettings",
    "PrivacyAudit",
    "Question",
    "QuestionAlignment",
    "Rejects",
    "Report",
    "Resampling",
    "Score",
    "ViltAnswerer",
    "area_interval",
    "area_under_curve",
    "attack",
    "audit_privacy",
    "caught_at",
    "check_count",
    "copy_report",
    "copy_threshold",
    "denoising_scores",
    "density_coverage",
    "distinct_rows",
    "epsilon_lower_bound",
    "error_reduction",
    "fit_attributes",
    "fit_digit_network",
    "fit_owner_classifier",
    "frechet_distance",
    "halves_of",
    "kernel_distance",
    "lira_scores",
    "load_answerer",
    "load_clip",
    "load_efficientnet_lite0",
    "load_inception",
    "load_network",
    "look",
    "loss_scores",
    "make_rejects",
    "measure",
    "measure_features",
    "nearest",
    "nearest_distance",
    "network_channels",
    "precision_recall",
    "questions_of",
    "share_interval",
    "split_digits",
    "standard_digit_network",
    "style_statistics",
    "unseen_digits",
]
