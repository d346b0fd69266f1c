"""Names become pronouns: *Winifred sighed* is read as *She sighed*.

A story about a stranger's photo knows nobody's name, and half of the plain sentences of a novel
have one. Where it stands for a person and its place in the sentence is clear, a pronoun says the
same. Both are judged by counts over the same text: words next to *he*, *him* and *his* tell a
subject from an object and a possessive, pronouns in the sentences of a name tell a woman from a
man, and articles and prepositions tell both from a town. What is not clear stays a name, and
:func:`.prose.plain_sentences` passes the sentence over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from tqdm import tqdm

HE = 'he', 'him', 'his'  # as a subject, an object, a possessive
SHE = 'she', 'her', 'her'
_TITLES = {
    'he': 'Mr. Mr Sir Lord Captain Colonel Major Doctor Dr. Dr Uncle Count Baron Monsieur M. Duke',
    'she': 'Mrs. Mrs Miss Lady Aunt Madame Mademoiselle Mme. Mlle. Countess Duchess Princess',
}
TITLES = {title: gender for gender, titles in _TITLES.items() for title in titles.split()}
_NOBODY = 'God Lord Heaven Heavens Providence Christ Jesus Nature Fate Time Death Love I O Oh'
NOBODY = frozenset(_NOBODY.split())  # no title of these stands alone, nor is a person of our kind
_MALE = frozenset(['he', 'him', 'his', 'himself'])
_FEMALE = frozenset(['she', 'her', 'hers', 'herself'])
_ARTICLES, _PLACES = frozenset(['the', 'a', 'an']), frozenset(['in', 'on'])

_SAYING = """
    said says asked cried replied answered returned exclaimed repeated whispered murmured muttered
    continued added remarked observed inquired enquired demanded declared suggested retorted
    ventured admitted agreed began explained called shouted went interrupted protested insisted
    announced commented responded rejoined pleaded confessed urged breathed echoed growled
    persisted pursued assented broke put
"""
SAYING = frozenset(_SAYING.split())  # after a speech, *Jim asked* is a part of it

FEWEST = 20  # occurrences beside a pronoun that make a word one that stands there
SURE = 0.7  # share of the sentences with a pronoun of one gender that tell a name's
EVIDENCE = 4  # such sentences
SUBJECT = 0.15  # share of occurrences as a subject that make a person
ASTRAY = 0.1, 0.05  # most after an article; after *in* or *on*
APART = 6  # sentences after which somebody else may be *he*


@dataclass
class Neighbours:
    """How often words stand before and after *he*, *him* and *his*: three counters each."""

    before: tuple[Counter[str], ...]
    after: tuple[Counter[str], ...]

    @classmethod
    def of(cls, sentences: Iterable[list[str]]) -> Neighbours:
        """Count them; the beginning of a sentence is the word ''."""
        before: tuple[Counter[str], ...] = tuple(Counter() for _ in HE)
        after: tuple[Counter[str], ...] = tuple(Counter() for _ in HE)
        place = {word: i for i, word in enumerate(HE)}
        for words in sentences:
            for at, word in enumerate(words):
                if (i := place.get(word.lower() if at == 0 else word)) is not None:
                    before[i][words[at - 1] if at else ''] += 1
                    after[i][words[at + 1] if at + 1 < len(words) else ''] += 1
        return cls(before, after)

    def role(self, previous: str, following: str) -> int | None:
        """The pronoun that stands between two words, 0 to 2 as in `HE`; None if it is not clear."""
        if following == "'s":
            return 2 if self.before[2][previous] >= FEWEST else None
        likely = [0.0, 0.0]
        for i in range(2):
            before, after = self.before[i][previous], self.after[i][following]
            if min(before, after) >= FEWEST and (i or following.isalpha()):
                likely[i] = before * after / self.before[i].total() / self.after[i].total()
        return None if not any(likely) else likely.index(max(likely))


@dataclass
class _Name:
    """What a text says of one name."""

    seen: int = 0
    subject: int = 0
    article: int = 0
    place: int = 0
    he: int = 0
    she: int = 0

    def gender(self) -> str | None:
        """'he' or 'she', or None for what is nobody or not known."""
        told = self.he + self.she
        if told < EVIDENCE or self.subject < SUBJECT * self.seen:
            return None
        if self.article > ASTRAY[0] * self.seen or self.place > ASTRAY[1] * self.seen:
            return None
        return 'he' if self.he >= SURE * told else 'she' if self.she >= SURE * told else None


def find_names(words: list[str], plain: Collection[str]) -> list[tuple[int, int]]:
    """The names of a sentence: (first word, the word after the last) of each run of capitals.

    At the beginning, where every word has one, a word is a name if it is not `plain` (see
    :func:`.prose.plain_words`), or a title.
    """
    names, first = [], None
    for at, word in enumerate([*words, '']):
        named = word[:1].isupper() and word not in NOBODY and (at or _opens(word, plain))
        if named and first is None:
            first = at
        elif not named and first is not None:
            names.append((first, at))
            first = None
    return names


def _opens(word: str, plain: Collection[str]) -> bool:
    return word in TITLES or word.lower() not in plain


def genders(
    sentences: Iterable[list[str]], plain: Collection[str], neighbours: Neighbours
) -> dict[str, str]:
    """Each name, a word of it, that is a person's -> 'he' or 'she'."""
    known: dict[str, _Name] = {}
    for words in sentences:
        names = find_names(words, plain)
        if not names:
            continue
        said = set(map(str.lower, words))
        he, she = not said.isdisjoint(_MALE), not said.isdisjoint(_FEMALE)
        alone = len(names) == 1 and he != she
        for first, last in names:
            previous, following = _around(words, first, last)
            for word in words[first:last]:
                one = known.setdefault(word, _Name())
                one.seen += 1
                one.article += previous in _ARTICLES
                one.place += previous in _PLACES
                one.subject += neighbours.role(previous, following) in (0, 2)
                one.he += alone and he
                one.she += alone and she
    found = {word: one.gender() for word, one in known.items() if word not in TITLES}
    return {word: gender for word, gender in found.items() if gender} | TITLES


def _around(words: list[str], first: int, last: int) -> tuple[str, str]:
    """The words before and after a run, '' for none."""
    return words[first - 1] if first else '', words[last] if last < len(words) else ''


def replace_names(
    words: list[str], plain: Collection[str], neighbours: Neighbours, known: dict[str, str]
) -> tuple[list[str], set[str]]:
    """A sentence with a pronoun for the one person whom it names.

    Parameters
    ----------
    words : list of str
        The tokens of a sentence, as written.
    plain : collection of str
        Words in lower case that are no names at a beginning.
    known : dict of str to str
        See :func:`genders`.

    Returns
    -------
    words : list of str
        As they were, if a name is nobody's, its role is not clear, or two are named.
    people : set of str
        Who was named, a word for each; empty if all words are as they were.
    """
    told, at, people = [], 0, set()
    for first, last in find_names(words, plain):
        named = [word for word in words[first:last] if word not in TITLES]
        gender = next((known[word] for word in words[first:last] if word in known), None)
        role = neighbours.role(*_around(words, first, last))
        alone = role != 1 or not _subjects(words, gender)  # *he looked at him* is of two men
        if not named or gender is None or role is None or not alone or (role == 1 and not first):
            return words, set()
        pronoun = (HE if gender == 'he' else SHE)[role]
        told += [*words[at:first], pronoun if first else pronoun.capitalize()]
        at = last + (role == 2)  # the 's goes with the name
        people.add(named[-1])
    return (told + words[at:], people) if len(people) == 1 else (words, set())


def _subjects(words: list[str], gender: str | None) -> bool:
    """Whether a sentence says *he*, or *she*."""
    return gender is not None and not {gender, gender.capitalize()}.isdisjoint(words)


def without_names(
    lines: Callable[[], Iterator[str]], plain: Collection[str], desc: str = 'names'
) -> Iterator[str]:
    """The lines of a text with pronouns for names; it is read three times.

    Where another person is named than a few sentences before, the name stays, so that *he* is one
    man throughout a passage. `lines` begins the text anew: an iterator over tokenised sentences,
    '' where a document ends; for `plain` see :func:`.prose.plain_words`, `desc` is that of the
    progress bars.
    """

    def sentences() -> Iterator[list[str]]:
        return (line.split() for line in tqdm(lines(), desc=desc, unit=' lines') if line)

    neighbours = Neighbours.of(sentences())
    known = genders(sentences(), plain, neighbours)
    before: set[str] = set()
    since, spoken = 0, False
    for line in tqdm(lines(), desc=desc, unit=' lines'):
        told, people = replace_names(line.split(), plain, neighbours, known)
        other = people and before and people != before and since < APART
        says = spoken and told[1:2] and told[1] in SAYING
        yield line if other or says else ' '.join(told)
        spoken = line.endswith(("''", '"', "'"))
        before, since = (people, 0) if people else (before, since + 1 if line else APART)
