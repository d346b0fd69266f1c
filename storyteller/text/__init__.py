"""Tokenisation as in 2015."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..vocabulary import Vocabulary, build_dictionary

__all__ = ['Vocabulary', 'build_dictionary', 'detokenise', 'preprocess', 'sentences', 'words']

_CLOSED_UP = [
    (re.compile(r'\s*--\s*'), '--'),
    (re.compile(r'\s+(\.{2,})'), r'\1'),
    (re.compile(r"(^|[\s\"(])' (?=\w)"), r"\1'"),
]
# What any tokeniser leaves as it is: words and commas between single blanks, one stop at the end.
_TOKENS = re.compile(r'[A-Za-z]+(?:-[A-Za-z]+)*(?: (?:,|[A-Za-z]+(?:-[A-Za-z]+)*))*(?: \.)?')
_PARTED = re.compile(r'\b(?:cannot|gimme|gonna|gotta|lemme|wanna)\b', re.IGNORECASE)


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
    from . import english

    return english.sentence_tokenizer(_known(punkt)).tokenize(_checked(text, 'text'))


def words(sentence: str) -> list[str]:
    """Split one sentence into words and punctuation marks with NLTK's word tokenizer.

    The same as ``nltk.word_tokenize(sentence, preserve_line=True)``, only faster.

    Examples
    --------
    >>> words('"I can\\'t," he said.')
    ['``', 'I', 'ca', "n't", ',', "''", 'he', 'said', '.']
    """
    if _are_tokens(_checked(sentence, 'sentence')):
        return sentence.split(' ')
    from . import english

    return english.word_tokenizer().tokenize(sentence)


def preprocess(X: Iterable[str] | str, *, punkt: str = 'auto') -> list[str]:
    """Tokenise texts exactly as the skip-thoughts code of 2015 did.

    Parameters
    ----------
    X : iterable of N str, or one str
        The texts; one str is a list of one text.
    punkt : {'auto', 'shipped', 'nltk'}
        See `sentences`. A text that is one sentence of tokens already needs no parameters.

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
    punkt, result = _known(punkt), []
    for i, text in enumerate([X] if isinstance(X, str) else X):
        if _are_tokens(_checked(text, f'X[{i}]')):
            result.append(f' {text}')
        else:
            result.append(_tokenised(text, punkt))
    return result


def _tokenised(text: str, punkt: str) -> str:
    tokenised = ''
    for sentence in sentences(text, punkt=punkt):
        # NLTK's word_tokenize splits once more, which matters for a few: '! ! !' at the end.
        parts = [' '.join(words(part)) for part in sentences(sentence, punkt=punkt)]
        tokenised += ' ' + ' '.join(parts)
    return tokenised


def _are_tokens(text: str) -> bool:
    """Whether a text is one sentence of tokens already, as captions often are."""
    short = len(text) < 10_000  # `re` keeps a hundred bytes for each word that it has matched
    return short and bool(_TOKENS.fullmatch(text)) and not _PARTED.search(text)


def detokenise(tokens: Iterable[str] | str) -> str:
    """Join tokens with the usual spacing: the inverse of `words`.

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
    from . import english

    tokens = tokens.split() if isinstance(tokens, str) else list(tokens)
    prose = english.TreebankWordDetokenizer().detokenize(tokens)
    for pattern, replacement in _CLOSED_UP:
        prose = pattern.sub(replacement, prose)
    return prose


def _checked(text: str, name: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f'{name}: expected str, found {type(text).__name__}')
    return text


def _known(punkt: str) -> str:
    if punkt not in ('auto', 'shipped', 'nltk'):
        raise ValueError(f"punkt: expected 'auto', 'shipped' or 'nltk', found {punkt!r}")
    return punkt
