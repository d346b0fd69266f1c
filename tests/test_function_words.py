"""Words with content, by index."""

from __future__ import annotations

from storyteller.text.function_words import content_words, has_content

WORDS = {'<eos>': 0, 'UNK': 1, 'the': 2, 'Sea': 3, 'sea': 4, '...': 5, "'s": 6, '7': 7, 'The': 8}


def test_equals_a_slow_version():
    slow = {
        i: tuple(j for other, j in WORDS.items() if other.lower() == word.lower())
        for word, i in WORDS.items()
        if has_content(word)
    }
    assert content_words(WORDS) == slow and slow.keys() == {0, 1, 3, 4, 7}


def test_they_are_looked_for_once():
    assert content_words(WORDS) is content_words(dict(WORDS))
    assert content_words(WORDS | {'oak': 9}) != content_words(WORDS)
