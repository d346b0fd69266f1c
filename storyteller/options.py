"""Options of a story, checked when they are made; light to import."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

PRECISIONS = ('float32', 'bfloat16', 'int8')
FOR_SEARCH = ('n_best', 'length_penalty', 'groups', 'diversity', 'required')
FOR_DRAWS = ('temperature', 'top_k', 'top_p')


@dataclass(frozen=True)
class Telling:
    """How a story is searched, or drawn where there is a seed.

    Attributes
    ----------
    n_best : int
        How many texts a search gives, the best first.
    length_penalty : float
        The summed cost of a text is divided by its number of words to this power before texts are
        compared: 0 leaves it, as in 2015, which favours short ones; 1 takes the mean.
    min_words : int
        No text ends before it has so many words.
    no_repeat : int
        No run of so many words stands in a text twice; 0 allows all.
    groups : int
        Into how many groups the beam is parted that shall differ from each other; the beam width
        must be a multiple (Vijayakumar et al. 2018, "Diverse Beam Search").
    diversity : float
        What a word costs a group, in nats, for each hypothesis of an earlier group that took it in
        the same step.
    required : tuple of str
        Words that a text must have (by the banks of Post and Vilar 2018, "Fast Lexically
        Constrained Decoding with Dynamic Beam Allocation").
    banned : tuple of str
        Words that no text has.
    temperature : float
        Of a draw: log-probabilities are divided by it; below 1 the likely becomes likelier.
    top_k : int
        Draw among the so many likeliest words; 0: among all.
    top_p : float
        Draw among the likeliest words that have so much of the probability together (Holtzman et
        al. 2020, "The Curious Case of Neural Text Degeneration"); 1: among all.
    """

    n_best: int = 1
    length_penalty: float = 0.0
    min_words: int = 0
    no_repeat: int = 0
    groups: int = 1
    diversity: float = 0.5
    required: tuple[str, ...] = ()
    banned: tuple[str, ...] = ()
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (
            ('n_best', 1), ('min_words', 0), ('no_repeat', 0), ('groups', 1), ('top_k', 0)
        ):  # fmt: skip
            check_count(name, getattr(self, name), least)
        for name, least in (('length_penalty', 0), ('diversity', 0)):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and least <= value < 1e6):
                raise ValueError(f'{name}: expected a number from {least} up, found {value!r}')
        if not (isinstance(self.temperature, (int, float)) and 1e-3 <= self.temperature <= 1e3):
            raise ValueError(f'temperature: expected 0.001 to 1000, found {self.temperature!r}')
        if not (isinstance(self.top_p, (int, float)) and 0 < self.top_p <= 1):
            raise ValueError(f'top_p: expected above 0 and up to 1, found {self.top_p!r}')
        for name in ('required', 'banned'):
            words = getattr(self, name)
            if isinstance(words, str) or not all(isinstance(word, str) for word in words):
                raise ValueError(f'{name}: expected words, found {words!r}')
            object.__setattr__(self, name, tuple(words))
        if both := sorted(set(self.required) & set(self.banned)):
            raise ValueError(f'required, banned: {both[0]!r} is in both')

    def changed(self) -> dict[str, object]:
        """The fields that are not as in 2015, with their values."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if getattr(self, each.name) != each.default
        }

    def check_for(self, drawn: bool, beam_width: int = 1) -> None:
        """Refuse fields that would have no effect: those of a search in a draw, and vice versa."""
        for name in FOR_SEARCH if drawn else FOR_DRAWS:
            if name in self.changed():
                why = 'a seed draws a text' if drawn else 'without a seed a text is searched'
                raise ValueError(f'{name}={getattr(self, name)!r} has no effect: {why}')
        if not drawn and beam_width % self.groups:
            raise ValueError(f'groups: {self.groups} do not part a beam width of {beam_width}')


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse what is no integer from `least` up: a ValueError that names option and value."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f'{name}: expected an integer from {least} up, found {value!r}')
