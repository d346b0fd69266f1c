"""Tokenising as in 2015, and vocabularies."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from importlib import resources

from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.punkt import (
    PunktLanguageVars,
    PunktParameters,
    PunktSentenceTokenizer,
    PunktTokenizer,
)
from nltk.tokenize.treebank import TreebankWordDetokenizer

from .vocabulary import Vocabulary, build_dictionary

__all__ = ['Vocabulary', 'build_dictionary', 'detokenise', 'preprocess', 'sentences', 'words']

_CLOSED_UP = [
    (re.compile(r'\s*--\s*'), '--'),
    (re.compile(r'\s+(\.{2,})'), r'\1'),
    (re.compile(r"(^|[\s\"(])' (?=\w)"), r"\1'"),
]
_DATA = resources.files('storyteller') / 'data'


# ---- sentences and words


def sentences(text: str, *, punkt: str = 'auto') -> list[str]:
    """Split a text into sentences with Punkt (Kiss and Strunk 2006).

    Parameters
    ----------
    text : str
        One text, of any length. Its white space between sentences is dropped.
    punkt : {'auto', 'shipped', 'nltk'}
        Whose parameters: ours, NLTK's own (the downloaded ``punkt_tab``), or NLTK's where they are
        installed and ours elsewhere. What is found first is kept until the program ends.

    Returns
    -------
    list of str
        The sentences, in order; none if there is nothing but white space.

    Raises
    ------
    TypeError, ValueError
        If `text` is no str, or `punkt` none of the three.
    LookupError
        If NLTK's parameters are asked for and not installed.

    Examples
    --------
    >>> sentences('Mr. Smith went to the U.S. yesterday. He liked it.')
    ['Mr. Smith went to the U.S. yesterday.', 'He liked it.']
    """
    return _sentence_tokenizer(punkt).tokenize(_checked(text, 'text'))


def words(sentence: str) -> list[str]:
    """Split one sentence into words and punctuation marks with NLTK's word tokenizer.

    The same as ``nltk.word_tokenize(sentence, preserve_line=True)``, only faster.

    Examples
    --------
    >>> words('"I can\\'t," he said.')
    ['``', 'I', 'ca', "n't", ',', "''", 'he', 'said', '.']
    """
    return _word_tokenizer().tokenize(_checked(sentence, 'sentence'))


def preprocess(X: Iterable[str] | str, *, punkt: str = 'auto') -> list[str]:
    """Tokenise texts exactly as the skip-thoughts code of 2015 did.

    Parameters
    ----------
    X : iterable of N str, or one str
        The texts; one str is a list of one text.
    punkt : {'auto', 'shipped', 'nltk'}
        See `sentences`.

    Returns
    -------
    list of N str
        The words of each text with blanks between them and one more before *every* sentence, so
        that a text which is not empty starts with a blank. Nothing is lower-cased.

    Raises
    ------
    TypeError
        If a text is no str; the message names its index.

    Examples
    --------
    >>> preprocess(['A dog barks. It is late.', ''])
    [' A dog barks . It is late .', '']
    """
    split = _sentence_tokenizer(punkt).tokenize
    result = []
    for i, text in enumerate([X] if isinstance(X, str) else X):
        tokenised = ''
        for sentence in split(_checked(text, f'X[{i}]')):
            # NLTK's word_tokenize splits once more, which matters for a few: '! ! !' at the end.
            parts = [' '.join(words(part)) for part in split(sentence)]
            tokenised += ' ' + ' '.join(parts)
        result.append(tokenised)
    return result


def detokenise(tokens: Iterable[str] | str) -> str:
    """Set tokens as a person would write them: the opposite of `words`.

    NLTK's detokeniser does it; what it leaves between blanks and should not (dashes, an ellipsis,
    an opening single quote) is closed up afterwards.

    Parameters
    ----------
    tokens : iterable of str, or str
        Tokens of one or more sentences, or a text in which blanks part them. Quotes need not be in
        pairs: a story may be cut.

    Returns
    -------
    str
        One paragraph.

    Examples
    --------
    >>> detokenise("`` I ca n't , '' she said -- but she did .")
    '"I can\\'t," she said--but she did.'
    """
    tokens = tokens.split() if isinstance(tokens, str) else list(tokens)
    prose = TreebankWordDetokenizer().detokenize(tokens)
    for pattern, replacement in _CLOSED_UP:
        prose = pattern.sub(replacement, prose)
    return prose


def listed_abbreviations() -> tuple[set[str], set[tuple[str, str]]]:
    """Read our abbreviations, and the pairs of words of which the first is one only there."""
    lines = (_DATA / 'abbreviations.txt').read_text(encoding='utf-8').splitlines()
    entries = [tuple(line.split()) for line in lines if line and not line.startswith('# ')]
    pairs = {entry for entry in entries if len(entry) == 2}
    return {entry[0] for entry in entries if entry[1:] in ((), ('*',))}, pairs


def _checked(text: str, name: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f'{name}: expected str, found {type(text).__name__}')
    return text


def _untimed(pattern: re.Pattern[str]) -> re.Pattern[str]:
    # NLTK 3.10 gives every match five seconds, which a long book on a busy machine exceeds, and
    # pays for the clock with a third of its speed. Its patterns are linear without it.
    try:
        return re.compile(pattern.pattern, pattern.flags & (re.IGNORECASE | re.VERBOSE))
    except re.error:  # a possessive quantifier, before Python 3.11
        return pattern


@functools.cache
def _word_tokenizer() -> NLTKWordTokenizer:
    tokenizer = NLTKWordTokenizer()
    for name in ('STARTING_QUOTES', 'PUNCTUATION', 'ENDING_QUOTES'):
        rules = [(_untimed(pattern), by) for pattern, by in getattr(tokenizer, name)]
        setattr(tokenizer, name, rules)
    for name in ('PARENS_BRACKETS', 'DOUBLE_DASHES'):
        pattern, by = getattr(tokenizer, name)
        setattr(tokenizer, name, (_untimed(pattern), by))
    return tokenizer


class _LanguageVars(PunktLanguageVars):
    @functools.cache  # noqa: B019 (it lives as long as the tokenizers, to the end)
    def period_context_re(self) -> re.Pattern[str]:
        return _untimed(super().period_context_re())


@functools.cache
def _sentence_tokenizer(punkt: str) -> PunktSentenceTokenizer:
    if punkt not in ('auto', 'shipped', 'nltk'):
        raise ValueError(f"punkt: expected 'auto', 'shipped' or 'nltk', found {punkt!r}")
    tokenizer = PunktSentenceTokenizer(lang_vars=_LanguageVars())
    tokenizer._params = _shipped_parameters() if punkt == 'shipped' else _nltk_parameters(punkt)
    return tokenizer


def _nltk_parameters(punkt: str) -> PunktParameters:
    try:
        return PunktTokenizer('english')._params
    except LookupError:
        if punkt == 'nltk':
            raise
        return _shipped_parameters()


class _Pairs(frozenset):
    """Pairs of words of which the first is an abbreviation; a second word ``*`` is any word."""

    def __contains__(self, pair: tuple[str, str]) -> bool:  # type: ignore[override]
        first, _ = pair
        return super().__contains__(pair) or super().__contains__((first, '*'))


@functools.cache
def _shipped_parameters() -> PunktParameters:
    table = json.loads((_DATA / 'punkt_english.json').read_text(encoding='utf-8'))
    listed, pairs = listed_abbreviations()
    quotes = ('', "'", '‘', '“')  # Punkt leaves these on the word: 'Mr. Smith is here.'
    parameters = PunktParameters()
    for quote in quotes:
        parameters.abbrev_types.update(quote + a for a in listed.union(table['abbreviations']))
    parameters.collocations = _Pairs((q + first, second) for q in quotes for first, second in pairs)
    parameters.sent_starters.update(table['sentence_starters'])
    parameters.ortho_context.update(table['orthographic_context'])
    return parameters
