"""Questions about an image that its prompt answers, made by templates, without a language model.

A prompt is cut into the things it names. Each is asked for by name; colours and numbers before a thing are asked for
among others of their kind, as TIFA does (Hu et al. 2023).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey", "golden")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SPELLINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {**{word: (str(number),) for number, word in enumerate(NUMBERS, start=1)}, "grey": ("gray",), "golden": ("gold",)}
)
"""How models that answer questions may write a choice: VQAv2 spells its answers so."""

_YES_NO = ("yes", "no")
_OF_TIME = ("o'clock", "o’clock", "thirty")  # seven o'clock is no seven of anything
_TWO_COLOURS = re.compile(rf"\b({'|'.join(COLOURS)}) and (?=(?:{'|'.join(COLOURS)})\b)")
_ARTICLES = re.compile(r"\b(a|an|the|some)\s+")
# Between the things that a caption names.
_BETWEEN = re.compile(
    r"[,;:.()]|\b(?:and|with|in|on|at|of|under|over|behind|beside|near|by|to|from|into|holding|wearing)\b"
)
# What a caption says is not there; as the name of a sign, "no smoking", it is there all the same. Nothing is asked.
_DENIED = re.compile(rf"\b(?:without|no|not)\b.*?(?={_BETWEEN.pattern}|$)")


@dataclass(frozen=True)
class Question:
    """A question with the answers to choose from, and the one that the prompt gives."""

    text: str
    choices: tuple[str, ...]
    expected: str


def questions_of(prompt: str) -> list[Question]:
    """At least one question, each once, in the order of the prompt.

    >>> [question.text for question in questions_of("two red apples")]
    ['is there red apples in the picture?', 'what color is the apples?', 'how many apples are there?']
    """
    parts = _BETWEEN.split(_TWO_COLOURS.sub(r"\1 ", _DENIED.sub("", prompt.lower())))
    things = [" ".join(_ARTICLES.sub(" ", part).split()) for part in parts]
    asked: list[Question] = []
    for thing in filter(None, things):
        asked += _about(thing.split())
    return list(dict.fromkeys(asked)) or [_is_there(prompt.strip().lower())]


def _about(words: list[str]) -> list[Question]:
    """Questions about one thing, its number and colours in front."""
    number = words[0] if words[0] in NUMBERS and len(words) > 1 and words[1] not in _OF_TIME else None
    rest = words[1:] if number else words
    named = " ".join(word for word in rest if word not in COLOURS) or "picture"
    asked = [_is_there(" ".join(rest))]
    colours = [word for word in rest if word in COLOURS]
    if len(colours) == 1:  # of two, either is right
        asked.append(Question(f"what color is the {named}?", COLOURS, colours[0]))
    if number:
        asked.append(Question(f"how many {named} are there?", NUMBERS, number))
    return asked


def _is_there(thing: str) -> Question:
    return Question(f"is there {thing} in the picture?", _YES_NO, "yes")


IS_THERE = _is_there("anything")
"""A question of the kind that every prompt brings."""
