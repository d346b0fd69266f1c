"""Options of a story, validated when they are made; cheap to import."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .style import Style

MAX_PIXELS = 2**28  # of a photo's file; decoded, at four bytes each, they take a gigabyte
PRECISIONS = ('float32', 'bfloat16')
FOR_SEARCH = ('n_best', 'length_penalty', 'groups', 'diversity', 'required')
FOR_DRAWS = ('temperature', 'top_k', 'top_p')
# What a field is of, and what is missing where that is as in 2015.
PART_OF = {
    'diversity': ('groups', 'there is one group'),
    'closeness': ('candidates', 'there is one candidate'),
    'contrast_words': ('contrast', 'nothing is contrasted'),
    'plausibility': ('contrast', 'nothing is contrasted'),
}


@dataclass(frozen=True)
class SearchOptions:
    """Search and sampling options; a text is sampled if there is a seed, else searched.

    Attributes
    ----------
    n_best : int
        Number of texts to return, the best first.
    length_penalty : float
        Texts are ranked by their negative log-probability divided by their length to this power: 0
        is the sum, as in 2015, which favours short texts; 1 is the mean.
    min_words : int
        Minimum number of words.
    no_repeat : int
        Size of the n-grams that may occur only once in a text; 0: no limit.
    groups : int
        Number of diverse beam groups; the beam width must be a multiple (Vijayakumar et al. 2018,
        "Diverse Beam Search").
    diversity : float
        Penalty of a word, in nats, for each hypothesis of an earlier group that selected it in the
        same step.
    required : tuple of str
        Words that the text must contain (Post and Vilar 2018, "Fast Lexically Constrained Decoding
        with Dynamic Beam Allocation").
    banned : tuple of str
        Words that the text must not contain.
    temperature : float
        Sampling temperature: below 1 the distribution is sharper, above 1 flatter.
    top_k : int
        Sample from the most probable words, this many of them; 0: from all.
    top_p : float
        Nucleus sampling: sample from the most probable words whose probabilities sum to this
        (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration"); 1: from all.
    no_echo : int
        Minimum distance, in words, between two occurrences of a content word (see
        ``storyteller.text.function_words``), regardless of case; 0: no limit.
    candidates : int
        Number of finished texts, or samples, to rerank by their mean log-probability per word plus
        `closeness` times the cosine between the vector of the text, encoded again, and the vector
        that was decoded, both less the style's b; 1: no reranking.
    closeness : float
        Weight of that cosine, in nats per word.
    keywords : float
        Reward, in nats, for the first occurrence of a content word that all captions of the photo
        share; a word in a part of them earns that part (see ``storyteller.search.keywords``; after
        Pascual et al. 2021, "A Plug-and-Play Method for Controlled Text Generation"). A search
        ranks texts with it; 0: none.
    contrast : float
        Weight of the log-probability that a word has when the decoder is told of the style alone;
        it is subtracted, so that texts of different photos begin differently (see
        ``storyteller.search.contrast``; Li et al. 2016, "A Diversity-Promoting Objective Function
        for Neural Conversation Models"); 0: none.
    contrast_words : int
        Number of first words that are contrasted; 0: all.
    plausibility : float
        Where words are contrasted, those with less than this part of the probability of the
        likeliest one come after all others (Li et al. 2023, "Contrastive Decoding").
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
    keywords: float = 0.0
    contrast: float = 0.0
    contrast_words: int = 3
    plausibility: float = 0.2

    def __post_init__(self) -> None:
        for name, least in (
            ('n_best', 1), ('min_words', 0), ('no_repeat', 0), ('groups', 1), ('top_k', 0),
            ('no_echo', 0), ('candidates', 1), ('contrast_words', 0),
        ):  # fmt: skip
            check_count(name, getattr(self, name), least)
            object.__setattr__(self, name, int(getattr(self, name)))  # NumPy's go into no JSON
        for name in ('length_penalty', 'diversity', 'closeness', 'keywords', 'contrast'):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value < 1e6):
                raise ValueError(f'{name}: expected a number from 0 up, found {value!r}')
            object.__setattr__(self, name, float(value))
        if not (_is_number(self.temperature) and 1e-3 <= self.temperature <= 1e3):
            raise ValueError(f'temperature: expected 0.001 to 1000, found {self.temperature!r}')
        for name in ('top_p', 'plausibility'):
            if not (_is_number(value := getattr(self, name)) and 0 < value <= 1):
                raise ValueError(f'{name}: expected above 0 and up to 1, found {value!r}')
        for name in ('temperature', 'top_p', 'plausibility'):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ('required', 'banned'):
            words = getattr(self, name)
            several = isinstance(words, Collection) and not isinstance(words, (str, Mapping))
            if not several or not all(isinstance(word, str) for word in words):
                hint = f'; did you mean {(words,)!r}?' if isinstance(words, str) else ''
                raise ValueError(f'{name}: expected words, found {words!r}{hint}')
            object.__setattr__(self, name, tuple(map(str, words)))
        if both := sorted(set(self.required) & set(self.banned)):
            raise ValueError(f'required, banned: {both[0]!r} is in both')

    @classmethod
    def of_2015(cls) -> SearchOptions:
        """The search of 2015, regardless of the models' settings; its default beam width is 50."""
        return cls()

    @property
    def wanted(self) -> int:
        """Number of finished texts needed."""
        return max(self.n_best, self.candidates)

    def changed(self) -> dict[str, Any]:
        """The fields that differ from 2015, with their values."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if getattr(self, each.name) != each.default
        }

    def check_for(self, drawn: bool, beam_width: int = 1) -> None:
        """Raise an error for options without effect: of a search when sampling, and vice versa."""
        for name, why in self._idle(drawn).items():
            raise ValueError(f'{name}={getattr(self, name)!r} has no effect: {why}')
        if not drawn and beam_width % self.groups:
            raise ValueError(f'groups: {self.groups} do not part a beam width of {beam_width}')

    def fitting(self, drawn: bool, beam_width: int = 1) -> SearchOptions:
        """The same without options that have no effect; `groups` is a divisor of the beam width.

        Examples
        --------
        >>> SearchOptions(groups=4, top_k=9).fitting(drawn=False, beam_width=10).changed()
        {'groups': 2}
        >>> SearchOptions(groups=4, diversity=2.0).fitting(drawn=False, beam_width=9).changed()
        {}
        """
        parted = replace(self, groups=1 if drawn else math.gcd(self.groups, beam_width))
        idle = parted._idle(drawn)
        return SearchOptions(**{k: v for k, v in parted.changed().items() if k not in idle})

    def _idle(self, drawn: bool) -> dict[str, str]:
        """The fields without effect, and why; `n_best` has one when several samples are ranked."""
        changed = self.changed()
        idle = {name: why for name, (whole, why) in PART_OF.items() if whole not in changed}
        why = 'a seed draws a text' if drawn else 'without a seed a text is searched'
        idle |= dict.fromkeys(FOR_SEARCH if drawn else FOR_DRAWS, why)
        if self.candidates > 1:
            idle.pop('n_best', None)
        return {name: why for name, why in idle.items() if name in changed}


Telling = SearchOptions  # the older name


@dataclass(frozen=True)
class SearchSettings:
    """The default settings of a story; those of 2015 unless the models have their own.

    Attributes
    ----------
    k : int
        Number of captions whose vectors are averaged.
    bw : int
        Beam width.
    maxlen : int
        Maximum number of words.
    strength : float
        s in F(x) = x - s (c - b).
    telling : SearchOptions
    """

    k: int = 100
    bw: int = 50
    maxlen: int = 1000
    strength: float = 1.0
    telling: SearchOptions = field(default_factory=SearchOptions)

    def __post_init__(self) -> None:
        for name in ('k', 'bw', 'maxlen'):
            check_count(name, getattr(self, name))
        strength = self.strength
        if not _is_number(strength):
            raise ValueError(f'strength: expected a number, found {strength!r}')
        if not abs(strength) <= 1e6:  # also NaN; far beyond any story, far within float32
            raise ValueError(f'strength: expected a finite number up to 1e6, found {strength!r}')
        if not isinstance(self.telling, SearchOptions):
            raise ValueError(f'telling: expected SearchOptions, found {self.telling!r}')
        for name, kind in (('k', int), ('bw', int), ('maxlen', int), ('strength', float)):
            object.__setattr__(self, name, kind(getattr(self, name)))  # of uint8, 200 * 2 is 144

    @classmethod
    def read(cls, values: Any) -> SearchSettings:
        """Read plain values, as in the card of a bundle: the fields of both classes in one mapping.

        ``n_best`` is refused: how many texts are returned does not depend on the decoder.

        Raises
        ------
        ValueError
            If a setting is unknown or out of range; the message begins with its name.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f'expected settings by name, found {values!r}')
        own = {each.name for each in fields(cls)} - {'telling'}
        inner = {each.name for each in fields(SearchOptions)} - {'n_best'}
        if unknown := [name for name in values if name not in own | inner]:
            raise ValueError(f'{unknown[0]}: expected one of {", ".join(sorted(own | inner))}')
        telling = SearchOptions(**{name: value for name, value in values.items() if name in inner})
        settings = cls(
            **{name: value for name, value in values.items() if name in own}, telling=telling
        )
        if settings.bw % telling.groups:
            raise ValueError(f'groups: {telling.groups} do not part a beam width of {settings.bw}')
        return settings

    def chosen(self, drawn: bool = False, **said: Any) -> SearchSettings:
        """These settings with the arguments of a caller; None leaves a setting as it is.

        Parameters
        ----------
        drawn : bool
            Whether the text is sampled. Default options without effect are left out then.
        said
            `telling` replaces the default one as a whole. With :meth:`SearchOptions.of_2015`, `bw`
            and `maxlen` are those of 2015 too unless they are given.

        Raises
        ------
        ValueError
            If a field is out of range, or an option of `telling` has no effect.
        """
        said = {name: value for name, value in said.items() if value is not None}
        old, telling = SearchSettings(), said.get('telling')
        start = replace(self, bw=old.bw, maxlen=old.maxlen) if telling == old.telling else self
        found = replace(start, **said)
        if telling is None:
            return replace(found, telling=self.telling.fitting(drawn, found.bw))
        telling.check_for(drawn, found.bw)
        return found


@dataclass(frozen=True, eq=False)
class StoryOptions:
    """All that stories are told with, apart from the models: what `storyteller.generate` takes.

    ``generate.stories(z, photos, **vars(options))`` asks for them.

    Attributes
    ----------
    k, bw, maxlen, strength
        As in :class:`SearchSettings`.
    lyric : bool
        Break the story into lines at commas.
    style : str, path, (D,) array, mapping or None
        See :func:`storyteller.generate.story`.
    seed : int or None
        Of samples; None searches for the most probable story.
    telling : SearchOptions or None
        None is the search of 2015, where nobody asked for any.
    allow_truncated, max_pixels
        As for :func:`storyteller.images.load_image`.
    """

    k: int = 100
    bw: int = 50
    lyric: bool = False
    style: Style | None = None
    strength: float = 1.0
    seed: int | None = None
    maxlen: int = 1000
    telling: SearchOptions | None = None
    allow_truncated: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        SearchSettings(self.k, self.bw, self.maxlen, self.strength, self.search)
        if self.seed is not None:
            check_count('seed', self.seed, least=0)
        self.search.check_for(self.seed is not None, self.bw)
        check_count('max_pixels', self.max_pixels)

    @classmethod
    def of(cls, suiting: SearchSettings, **said: Any) -> StoryOptions:
        """Those of a caller's arguments, of which None leaves a setting to that of the models."""
        searched = {each.name: said.get(each.name) for each in fields(suiting)}
        chosen = suiting.chosen(said.get('seed') is not None, **searched)
        asked = said.get('telling') is not None or chosen.telling.changed()
        return cls(**said | vars(chosen) | {'telling': chosen.telling if asked else None})

    @property
    def search(self) -> SearchOptions:
        """`telling`, also where it is that of 2015."""
        return SearchOptions() if self.telling is None else self.telling

    @property
    def reading(self) -> dict[str, Any]:
        """Those for :func:`storyteller.images.load_image`."""
        return {'allow_truncated': self.allow_truncated, 'max_pixels': self.max_pixels}

    @property
    def settings(self) -> dict[str, Any]:
        """What a `Story` says that it was told with; `style` is as it was given."""
        seed = None if self.seed is None else int(self.seed)
        found: dict[str, Any] = {'k': int(self.k), 'bw': int(self.bw), 'lyric': bool(self.lyric)}
        found |= {'style': self.style, 'strength': float(self.strength)}
        found |= {'seed': seed, 'maxlen': int(self.maxlen)}
        return found if self.telling is None else found | {'telling': self.telling.changed()}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse what is no integer from `least` up: a ValueError that names option and value."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f'{name}: expected an integer from {least} up, found {value!r}')
