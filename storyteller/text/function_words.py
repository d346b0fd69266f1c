"""English function words.

All others have content, if they have a letter or a digit. The list is English, so for a decoder of
another language all words have content.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

# Articles and pronouns; prepositions; conjunctions and adverbs of the same trade; auxiliaries, and
# what tokenisers make of their short forms; titles, which stand before every other name.
_LISTED = """
a an the i me my mine myself we us our ours ourselves you your yours yourself yourselves thou thee
thy thine he him his himself she her hers herself it its itself they them their theirs themselves
one ones this that these those who whom whose which what whatever whoever some any no none each
every either neither both all few many much more most other others another such own same something
anything nothing everything somebody anybody nobody everybody someone

about above across after against along among around as at before behind below beneath beside
besides between beyond but by down during except for from in inside into like near of off on onto
out outside over past round since through till to toward towards under until unto up upon with
within without

and or nor so yet if then than because although though unless whether while whilst when where why
how not never ever also too very only even just still again once here there now thus

be am is are was were been being have has had having do does did doing done will would shall should
can could may might must ought need dare n't 's 're 've 'll 'd 'm ca wo sha ai 't o

mr mr. mrs mrs. dr dr. st st. sir miss lady lord
"""
FUNCTION_WORDS = frozenset(_LISTED.split())


def has_content(word: str) -> bool:
    """Whether a word is neither punctuation nor a function word.

    Examples
    --------
    >>> [word for word in 'She saw the bright sea , and the'.split() if has_content(word)]
    ['saw', 'bright', 'sea']
    """
    return word.lower() not in FUNCTION_WORDS and any(map(str.isalnum, word))


def content_words(words: Mapping[str, int]) -> Mapping[int, tuple[int, ...]]:
    """For each content word, by index, all words that are equal regardless of case.

    Examples
    --------
    >>> content_words({'the': 2, 'sea': 3, 'Sea': 4, 'dog': 5})
    {3: (3, 4), 4: (3, 4), 5: (5,)}
    """
    return _content_words(tuple(words.items()))


@functools.lru_cache(maxsize=4)  # a decoder's are asked for with each story
def _content_words(words: tuple[tuple[str, int], ...]) -> dict[int, tuple[int, ...]]:
    alike: dict[str, list[int]] = {}
    for word, index in words:
        if has_content(word):
            alike.setdefault(word.lower(), []).append(index)
    return {index: tuple(same) for same in alike.values() for index in same}
