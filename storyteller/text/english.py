"""NLTK's English tokenisers as in 2015, with our Punkt parameters where NLTK's are missing.

NLTK takes a second to import, so :mod:`storyteller.text` imports this when it is needed.
"""

from __future__ import annotations

import functools
import json
import re
from importlib import resources

from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.punkt import (
    PunktLanguageVars,
    PunktParameters,
    PunktSentenceTokenizer,
    PunktTokenizer,
)
from nltk.tokenize.treebank import TreebankWordDetokenizer as TreebankWordDetokenizer

DATA = resources.files('storyteller') / 'data'


def listed_abbreviations() -> tuple[set[str], set[tuple[str, str]]]:
    """Read our abbreviations, and the pairs of words of which the first is one only there."""
    lines = (DATA / 'abbreviations.txt').read_text(encoding='utf-8').splitlines()
    entries = [tuple(line.split()) for line in lines if line and not line.startswith('# ')]
    pairs = {entry for entry in entries if len(entry) == 2}
    return {entry[0] for entry in entries if entry[1:] in ((), ('*',))}, pairs


def _untimed(pattern: re.Pattern[str]) -> re.Pattern[str]:
    # NLTK 3.10 gives every match five seconds, which a long book on a busy machine exceeds, and
    # pays for the clock with a third of its speed. Its patterns are linear without it.
    try:
        return re.compile(pattern.pattern, pattern.flags & (re.IGNORECASE | re.VERBOSE))
    except re.error:  # a possessive quantifier, before Python 3.11
        return pattern


@functools.cache
def word_tokenizer() -> NLTKWordTokenizer:
    """NLTK's, without the clock."""
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
def sentence_tokenizer(punkt: str) -> PunktSentenceTokenizer:
    """Punkt with the parameters that `punkt` names: 'auto', 'shipped' or 'nltk'."""
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
    table = json.loads((DATA / 'punkt_english.json').read_text(encoding='utf-8'))
    listed, pairs = listed_abbreviations()
    quotes = ('', "'", '‘', '“')  # Punkt leaves these on the word: 'Mr. Smith is here.'
    parameters = PunktParameters()
    for quote in quotes:
        parameters.abbrev_types.update(quote + a for a in listed.union(table['abbreviations']))
    parameters.collocations = _Pairs((q + first, second) for q in quotes for first, second in pairs)
    parameters.sent_starters.update(table['sentence_starters'])
    parameters.ortho_context.update(table['orthographic_context'])
    return parameters
