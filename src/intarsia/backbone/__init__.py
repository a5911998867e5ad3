"""The shared, frozen part: U-ViT, its latent space, presets, official checkpoints, and pre-training on the core set."""

from intarsia.backbone.augment import Augmentation
from intarsia.backbone.autoencoder import Autoencoder, AutoencoderConfig
from intarsia.backbone.autoencoder_kl import KLAutoencoder, KLConfig, read_autoencoder
from intarsia.backbone.backbone import Backbone
from intarsia.backbone.captions import CaptionReader, caption_reader
from intarsia.backbone.conversion import convert_official
from intarsia.backbone.latent_space import LatentSpace
from intarsia.backbone.network import Network
from intarsia.backbone.official import as_backbone, drop_label, infer_config, load_official, read_official
from intarsia.backbone.optimizer import (
    OPTIMISERS,
    build_optimisers,
    optimiser_tensors,
    restore_optimisers,
    set_lr,
    trapezoid,
)
from intarsia.backbone.pipeline import convert_pipeline, process_in
from intarsia.backbone.precision import PRECISIONS, MasterParams, fastest_precision, resolve_precision
from intarsia.backbone.presets import PRESETS, Preset, build
from intarsia.backbone.pretrain import PretrainSettings, TrainStep, noised, pretrain, pretrain_autoencoder
from intarsia.backbone.prompts import PromptEncoder
from intarsia.backbone.text import MINILM, Prompt, TextEncoder, load_text_encoder
from intarsia.backbone.unet import UNet, UNetConfig
from intarsia.backbone.uvit import PLAIN, Adaptation, Plain, UViT, UViTConfig, attention, timestep_embedding

__all__ = [
    "MINILM",
    "OPTIMISERS",
    "PLAIN",
    "PRECISIONS",
    "PRESETS",
    "Adaptation",
    "Augmentation",
    "Autoencoder",
    "AutoencoderConfig",
    "Backbone",
    "CaptionReader",
    "KLAutoencoder",
    "KLConfig",
    "LatentSpace",
    "MasterParams",
    "Network",
    "Plain",
    "Preset",
    "PretrainSettings",
    "Prompt",
    "PromptEncoder",
    "TextEncoder",
    "TrainStep",
    "UNet",
    "UNetConfig",
    "UViT",
    "UViTConfig",
    "as_backbone",
    "attention",
    "build",
    "build_optimisers",
    "caption_reader",
    "convert_official",
    "convert_pipeline",
    "drop_label",
    "fastest_precision",
    "infer_config",
    "load_official",
    "load_text_encoder",
    "noised",
    "optimiser_tensors",
    "pretrain",
    "pretrain_autoencoder",
    "process_in",
    "read_autoencoder",
    "read_official",
    "resolve_precision",
    "restore_optimisers",
    "set_lr",
    "timestep_embedding",
    "trapezoid",
]
