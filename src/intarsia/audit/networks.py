"""The feature networks by name, and the digit network that is the same for everybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from intarsia.audit.digit_images import Digits, make_rejects, split_digits
from intarsia.audit.digit_network import NETWORK as DIGITNET
from intarsia.audit.digit_network import DigitNetwork, fit_digit_network
from intarsia.audit.efficientnet import load_efficientnet_lite0
from intarsia.audit.features import FeatureNetwork
from intarsia.audit.inception import load_inception
from intarsia.data import sample_id
from intarsia.data.collections.digits import digits
from intarsia.data.collections.letters import letters
from intarsia.data.images import Pixels
from intarsia.errors import SettingsError, UnknownName

_LETTERS, _REJECTS = 6000, 20_000


@dataclass(frozen=True)
class _Choice:
    channels: int
    takes_weights: bool
    load: Callable[[Path], FeatureNetwork]


_NETWORKS: Mapping[str, _Choice] = MappingProxyType(
    {
        "efflite0": _Choice(3, False, lambda _: load_efficientnet_lite0()),
        "inception": _Choice(3, True, load_inception),
        DIGITNET: _Choice(1, False, lambda _: standard_digit_network()),
    }
)


def network_channels(name: str) -> int:
    """Channels of the images that a network reads.

    Raises:
        UnknownName: no such network.
    """
    return _choice(name).channels


def load_network(name: str, *, weights: Path | None = None) -> FeatureNetwork:
    """A feature network by name.

    Args:
        name: efflite0, inception or digitnet.
        weights: the file of a network whose weights the user must have.

    Raises:
        UnknownName: no such network.
        SettingsError: a file is missing, or was given to a network that takes none.
        CorruptError, InputError, MissingExtra: as the network's own loader.
    """
    choice = _choice(name)
    if choice.takes_weights != (weights is not None):
        what = "needs the file of its weights" if choice.takes_weights else "takes no file of weights"
        raise SettingsError(f"the network '{name}' {what}; {'pass' if choice.takes_weights else 'leave out'} weights")
    return choice.load(weights or Path())


def standard_digit_network() -> DigitNetwork:
    """The network that learned from a fixed quarter of scikit-learn's digits; a quarter of a minute to train.

    Compare it with images that it has not seen: `unseen_digits`.

    Raises:
        MissingExtra: scikit-learn or matplotlib is not installed.
    """
    seen = Digits.of(split_digits(digits()).judge)
    shapes = letters(_LETTERS, size=seen.images.shape[-1], seed=1000).pixels()
    return fit_digit_network(seen, make_rejects(seen, shapes, count=_REJECTS, seed=1))


def unseen_digits(images: Pixels) -> Pixels:
    """The images (N, S, S, 1) that `standard_digit_network` did not learn from.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    seen = {id for source in split_digits(digits()).judge for id in source.manifest.ids}
    return images[np.array([sample_id(image) not in seen for image in images], dtype=bool)]


def _choice(name: str) -> _Choice:
    if name not in _NETWORKS:
        raise UnknownName("feature network", name, _NETWORKS)
    return _NETWORKS[name]
