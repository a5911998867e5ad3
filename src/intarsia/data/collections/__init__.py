"""Ready collections: data that is at hand without a dataset server."""

from __future__ import annotations

from intarsia.data.collections.digits import DIGIT_OWNERS, digits
from intarsia.data.collections.emoji import EMOJI_SOURCES, EmojiSource, load_emoji
from intarsia.data.collections.emoji_build import EmojiTable, build_emoji
from intarsia.data.collections.letters import letters
from intarsia.data.collections.mnist import mnist

__all__ = [
    "DIGIT_OWNERS",
    "EMOJI_SOURCES",
    "EmojiSource",
    "EmojiTable",
    "build_emoji",
    "digits",
    "letters",
    "load_emoji",
    "mnist",
]
