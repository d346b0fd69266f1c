"""Which words captions share, and what they are worth to a decoder."""

from __future__ import annotations

import pytest

from storyteller.search.keywords import by_letters, shares, worth


def test_a_word_counts_once_a_caption_whatever_its_letters():
    captions = ['Dog and dog in the Sea .', 'a dog', 'the sea !', "it 's 3 o'clock"]
    assert shares(captions) == {'dog': 0.5, 'sea': 0.5, '3': 0.25, "o'clock": 0.25}


def test_no_captions_share_nothing():
    assert shares([]) == {}


def test_all_letters_of_a_word_are_worth_the_same():
    words = {'<eos>': 0, 'UNK': 1, 'dog': 2, 'Dog': 3, 'the': 4, 'sea': 5, 'cat': 6}
    found = worth(['the dog', 'a Dog by the sea'], 3.0, by_letters(words))
    assert found == {2: 3.0, 3: 3.0, 5: pytest.approx(1.5)}
