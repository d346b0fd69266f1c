"""Obvious flaws of stories: repeated words and n-grams, names, missing ends.

A text that says nothing does well by perplexity and by its words; it does not by these. Texts are
tokens between blanks, as stories are printed, with NLTK's quotation marks. Real passages have some
of these flaws too, so a share means something beside theirs.

Dimension letter: S stories.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from ..text import function_words

MAXLEN = 1000  # words of a story, as `storyteller.decoder.run_samplers` has it
TITLES = frozenset(('Mr.', 'Mrs.', 'Mr', 'Mrs', 'Miss', 'Sir', 'Lady'))

_NO_NAMES = """
I O God Christmas Easter Sunday Monday Tuesday Wednesday Thursday Friday Saturday January February
March April May June July August September October November December African American Arab Austrian
British Chinese Christian Dutch Egyptian English Englishman Englishmen Englishwoman European French
Frenchman Frenchmen Frenchwoman German Greek Hebrew Indian Irish Irishman Italian Japanese Jewish
Latin Norman Persian Polish Roman Russian Saxon Scotch Scotchman Scottish Spaniard Spanish Swiss
Turkish Welsh
"""
# Beside the English function words: adverbs and pronouns that say little more.
_MORE = """
ago almost alone already always amid anyone anywhere away back else enough everyone everywhere
further hence however indeed instead least less nearly nowhere often oh perhaps quite rather somehow
sometimes somewhere soon therefore together well whence whenever wherever whole
"""
_CONTENT = 'ai dare dr dr. lord need past sha st st. unless whilst'  # of those, what counts here
NO_NAMES = frozenset(_NO_NAMES.split())  # words with a capital: the language writes them so
FUNCTION_WORDS = function_words.FUNCTION_WORDS.union(_MORE.split()).difference(_CONTENT.split())

_ENDS = frozenset('.!?')
_CLOSING = frozenset(("''", "'", '"', '”', '’', ')'))
_OPENING = frozenset(('``', "'", '"', '`', '“', '‘'))
_SUFFIXES = ('ies', 'y'), ('ied', 'y'), ('ing', ''), ('ed', ''), ('es', ''), ('s', '')


def flaws(
    told: Sequence[str],
    vocabulary: Container[str],
    leave_out: frozenset[str] = frozenset(),
    maxlen: int = MAXLEN,
) -> dict[str, np.ndarray]:
    """Which stories have which flaw.

    Parameters
    ----------
    told : sequence of S str
    vocabulary : container of str
        The decoder's words; see :func:`names`.
    leave_out : frozenset of str
        Words in lower case that no story should say; see
        :func:`storyteller.training.data.prose.read_words`.
    maxlen : int
        The most words that a story could have.

    Returns
    -------
    dict of str to (S,) bool array
        By :func:`twice_in_a_clause` (``word_twice``), :func:`run_again`, :func:`names`
        (``with_a_name``) and :func:`cut_off`; ``left_out_word`` if there are words in `leave_out`.
    """
    found = {
        'word_twice': [twice_in_a_clause(story) for story in told],
        'run_again': [run_again(story) for story in told],
        'with_a_name': [bool(names(story, vocabulary)) for story in told],
        'cut_off': [cut_off(story, maxlen) for story in told],
    }
    if leave_out:
        found['left_out_word'] = [bool(said(story, leave_out)) for story in told]
    return {name: np.array(each, bool) for name, each in found.items()}


# --- words again ---------------------------------------------------------------------------------


def twice_in_a_clause(story: str) -> bool:
    """Whether a content word occurs twice between two punctuation marks, endings aside.

    Examples
    --------
    >>> twice_in_a_clause('There was nothing but dogs and a dog .')
    True
    >>> twice_in_a_clause('There was a dog , and then a dog .')
    False
    """
    seen: set[str] = set()
    for word in story.lower().split():
        if not is_word(word):
            seen = set()
        elif word not in FUNCTION_WORDS:
            if (stem := folded(word)) in seen:
                return True
            seen.add(stem)
    return False


def run_again(story: str, n: int = 3) -> bool:
    """Whether an n-gram occurs twice in a story, ignoring punctuation."""
    words = [word for word in story.lower().split() if is_word(word)]
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(runs)) < len(runs)


def is_word(token: str) -> bool:
    """Whether a token is a word, not punctuation."""
    return any(letter.isalnum() for letter in token)


def folded(word: str) -> str:
    """A word without the endings -s, -ed and -ing, roughly; three letters stay at least.

    Examples
    --------
    >>> [folded(word) for word in ('stories', 'running', 'hoped', 'hope', 'dresses', 'dress')]
    ['story', 'run', 'hop', 'hop', 'dres', 'dres']
    """
    for suffix, by in _SUFFIXES:
        stem = word.removesuffix(suffix)
        if stem != word and len(stem) >= 3 and not (suffix == 's' and stem[-1] in 'su'):
            word = stem + by
            break
    if len(word) > 3 and (word[-1] == 'e' or word[-1] == word[-2]):
        word = word[:-1]
    return word


# --- names, ends, words to leave out -------------------------------------------------------------


def names(story: str, vocabulary: Container[str]) -> list[str]:
    """The names and titles in a story.

    A word with a capital inside a sentence is one, but :data:`NO_NAMES` and their plurals. So is a
    word that begins a sentence, or what is quoted, if the vocabulary lacks it (and the parts
    between its hyphens) in lower case. Each of :data:`TITLES` is one anywhere.

    Examples
    --------
    >>> names('Then Miss Grey and I saw him .', {'then'})
    ['Miss', 'Grey']
    >>> names('Harriet slept . Nobody saw it .', {'nobody'})
    ['Harriet']
    """
    found, begins = [], True
    for token in story.split():
        if not is_word(token):
            begins = begins or token[-1] in _ENDS or token in _OPENING
            continue
        if token in TITLES:
            found.append(token)
        elif token[0].isupper() and not {token, token.removesuffix('s')} & NO_NAMES:
            small = token.lower()
            known = small in vocabulary or all(part in vocabulary for part in small.split('-'))
            if not (begins and known):
                found.append(token)
        begins = False
    return found


def cut_off(story: str, maxlen: int = MAXLEN) -> bool:
    """Whether a story does not end with ``.``, ``!`` or ``?``, perhaps in quotes.

    Examples
    --------
    >>> cut_off("`` Yes , '' she said"), cut_off("`` Yes . ''")
    (True, False)
    """
    words = story.split()
    if len(words) >= maxlen:
        return True
    while words and words[-1] in _CLOSING:
        words.pop()
    return not words or words[-1][-1] not in _ENDS or words[-1] in TITLES


def said(story: str, words: frozenset[str]) -> list[str]:
    """Which of the words (or runs of words, in lower case) a story says, sorted."""
    text = f' {" ".join(story.lower().split())} '
    return sorted(word for word in words if f' {word} ' in text)


def sentences_in(story: str) -> list[list[str]]:
    """The tokens of each sentence: they end with ``.``, ``!`` or ``?`` and what closes a quotation.

    Examples
    --------
    >>> sentences_in("`` Yes ! '' she said . He")
    [['``', 'Yes', '!', "''"], ['she', 'said', '.'], ['He']]
    """
    found: list[list[str]] = []
    ended = True
    for token in story.split():
        if ended and not (found and (token in _CLOSING or token in _ENDS)):
            found.append([])
            ended = False
        found[-1].append(token)
        ended = ended or token in _ENDS
    return found
