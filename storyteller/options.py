"""Options of a story, checked when they are made; light to import."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

MAX_PIXELS = 2**28  # of a photo's file; decoded, at four bytes each, they take a gigabyte
PRECISIONS = ('float32', 'bfloat16', 'int8')
FOR_SEARCH = ('n_best', 'length_penalty', 'groups', 'diversity', 'required')
FOR_DRAWS = ('temperature', 'top_k', 'top_p')


@dataclass(frozen=True)
class Telling:
    """How a story is searched, or drawn where there is a seed.

    Attributes
    ----------
    n_best : int
        How many texts a search gives, or several draws, the best first.
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
    no_echo : int
        A word with content (see ``storyteller.function_words``), in large or small letters, does
        not come again among the next so many words; 0 allows it.
    candidates : int
        Of so many finished texts, or draws, the one is told with the highest mean log-probability
        of a word plus `closeness` times the cosine between its own thought, encoded again, and the
        one that was to be told, both less the style's b; 1: the first.
    closeness : float
        What a cosine of 1 is worth there, in nats a word.
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
    no_echo: int = 0
    candidates: int = 1
    closeness: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (
            ('n_best', 1), ('min_words', 0), ('no_repeat', 0), ('groups', 1), ('top_k', 0),
            ('no_echo', 0), ('candidates', 1),
        ):  # fmt: skip
            check_count(name, getattr(self, name), least)
        for name in ('length_penalty', 'diversity', 'closeness'):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value < 1e6):
                raise ValueError(f'{name}: expected a number from 0 up, found {value!r}')
        if not (_is_number(self.temperature) and 1e-3 <= self.temperature <= 1e3):
            raise ValueError(f'temperature: expected 0.001 to 1000, found {self.temperature!r}')
        if not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise ValueError(f'top_p: expected above 0 and up to 1, found {self.top_p!r}')
        for name in ('required', 'banned'):
            words = getattr(self, name)
            several = isinstance(words, Collection) and not isinstance(words, (str, Mapping))
            if not several or not all(isinstance(word, str) for word in words):
                hint = f'; did you mean {(words,)!r}?' if isinstance(words, str) else ''
                raise ValueError(f'{name}: expected words, found {words!r}{hint}')
            object.__setattr__(self, name, tuple(words))
        if both := sorted(set(self.required) & set(self.banned)):
            raise ValueError(f'required, banned: {both[0]!r} is in both')

    @classmethod
    def of_2015(cls) -> Telling:
        """The search of 2015, whatever suits the models; its beam is 50 wide if nobody says."""
        return cls()

    @property
    def wanted(self) -> int:
        """How many finished texts are needed."""
        return max(self.n_best, self.candidates)

    def changed(self) -> dict[str, object]:
        """The fields that are not as in 2015, with their values."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if getattr(self, each.name) != each.default
        }

    def check_for(self, drawn: bool, beam_width: int = 1) -> None:
        """Refuse fields that would have no effect: those of a search in a draw, and vice versa."""
        for name in self._idle(drawn):
            why = 'a seed draws a text' if drawn else 'without a seed a text is searched'
            raise ValueError(f'{name}={getattr(self, name)!r} has no effect: {why}')
        if not drawn and beam_width % self.groups:
            raise ValueError(f'groups: {self.groups} do not part a beam width of {beam_width}')

    def fitting(self, drawn: bool, beam_width: int = 1) -> Telling:
        """Without what :meth:`check_for` would refuse.

        Fields without effect are as in 2015, and of the groups there are as many as can be.

        Examples
        --------
        >>> Telling(groups=4, top_k=9).fitting(drawn=False, beam_width=10).changed()
        {'groups': 2}
        """
        idle = self._idle(drawn)
        kept: dict[str, Any] = {k: value for k, value in self.changed().items() if k not in idle}
        if not drawn:
            kept['groups'] = math.gcd(self.groups, beam_width)
        return Telling(**kept)

    def _idle(self, drawn: bool) -> list[str]:
        """The fields without effect; several draws, unlike one, have a best one and a next."""
        names, changed = FOR_SEARCH if drawn else FOR_DRAWS, self.changed()
        several = self.candidates > 1
        return [name for name in names if name in changed and not (several and name == 'n_best')]


@dataclass(frozen=True)
class SearchSettings:
    """What stories are told with where a caller says nothing; by default, what 2015 had.

    Attributes
    ----------
    k : int
        How many captions the thought is averaged over.
    bw : int
        Beam width.
    maxlen : int
        Most words of a story.
    strength : float
        s in F(x) = x - s (c - b).
    telling : Telling
    """

    k: int = 100
    bw: int = 50
    maxlen: int = 1000
    strength: float = 1.0
    telling: Telling = field(default_factory=Telling)

    def __post_init__(self) -> None:
        for name in ('k', 'bw', 'maxlen'):
            check_count(name, getattr(self, name))
        strength = self.strength
        if isinstance(strength, bool) or not isinstance(strength, numbers.Real):
            raise ValueError(f'strength: expected a number, found {strength!r}')
        if not abs(strength) <= 1e6:  # also NaN; far beyond any story, far within float32
            raise ValueError(f'strength: expected a finite number up to 1e6, found {strength!r}')
        if not isinstance(self.telling, Telling):
            raise ValueError(f'telling: expected a Telling, found {self.telling!r}')

    @classmethod
    def read(cls, values: Any) -> SearchSettings:
        """From plain values, as the card of a bundle has them: fields of both classes in one.

        How many texts a caller wants to see, ``n_best``, is no matter of a decoder, and refused.

        Raises
        ------
        ValueError
            If a setting is unknown or out of range; the message begins with its name.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f'expected settings by name, found {values!r}')
        own = {each.name for each in fields(cls)} - {'telling'}
        inner = {each.name for each in fields(Telling)} - {'n_best'}
        if unknown := [name for name in values if name not in own | inner]:
            raise ValueError(f'{unknown[0]}: expected one of {", ".join(sorted(own | inner))}')
        telling = Telling(**{name: value for name, value in values.items() if name in inner})
        settings = cls(
            **{name: value for name, value in values.items() if name in own}, telling=telling
        )
        if settings.bw % telling.groups:
            raise ValueError(f'groups: {telling.groups} do not part a beam width of {settings.bw}')
        return settings

    def chosen(self, drawn: bool = False, **said: Any) -> SearchSettings:
        """What a story is told with by a caller who says some of the fields; None says nothing.

        Parameters
        ----------
        drawn : bool
            Whether there is a seed. Of the telling that nobody said, what concerns only the other
            of search and draw is left out.
        said
            Of a `Telling` that was said nothing is changed. With :meth:`Telling.of_2015`, `bw` and
            `maxlen` are those of 2015 too unless they are said.

        Raises
        ------
        ValueError
            If a field is out of range, or one of the telling that was said has no effect.
        """
        said = {name: value for name, value in said.items() if value is not None}
        old, telling = SearchSettings(), said.get('telling')
        start = replace(self, bw=old.bw, maxlen=old.maxlen) if telling == old.telling else self
        found = replace(start, **said)
        if telling is None:
            return replace(found, telling=self.telling.fitting(drawn, found.bw))
        telling.check_for(drawn, found.bw)
        return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse what is no integer from `least` up: a ValueError that names option and value."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f'{name}: expected an integer from {least} up, found {value!r}')
