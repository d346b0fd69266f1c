"""Measures of stories, on texts built to score high and low."""

from __future__ import annotations

import numpy as np
import pytest

from storyteller.evaluation import stories
from storyteller.evaluation.stories import FluencyJudge, StyleJudge

# --- intervals -----------------------------------------------------------------------------------


def test_intervals_repeat_and_narrow():
    values = np.random.default_rng(0).normal(3, 1, 400)
    found = stories.interval(values)
    assert found == stories.interval(values) and found.mean == pytest.approx(values.mean())
    few = stories.interval(values[:25])
    assert found.low < 3.0 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / 20, rel=0.2)
    assert few.high - few.low > 2 * (found.high - found.low)


def test_nothing_has_no_interval():
    with pytest.raises(ValueError, match='values'):
        stories.interval([])


# --- content -------------------------------------------------------------------------------------


def test_stories_about_their_photos_find_them():
    rng = np.random.default_rng(0)
    captions, own = rng.normal(size=(100, 16)), rng.permutation(100)[:30]
    style = 50 * rng.normal(size=16)  # all stories share it
    told = captions[own] + 0.1 * rng.normal(size=(30, 16)) + style
    assert (stories.own_rank(told, captions, own) == 1).all()
    shuffled = stories.own_rank(told, captions, np.roll(own, 1))
    assert 30 < shuffled.mean() < 75


def test_stories_that_are_all_the_same_find_nothing():
    captions = np.random.default_rng(0).normal(size=(20, 4))
    assert (stories.own_rank(np.ones((5, 4)), captions, np.arange(5)) == 20).all()


def test_words_of_the_captions_that_stories_say():
    captions = [['A dog runs .', 'The brown dog'], ['A cat sleeps .', 'a cat']]
    told = ['Once a dog runs and runs , brown', 'Once a dog sat']
    found = stories.overlap(told, captions, frozenset(['a', 'the']))
    np.testing.assert_allclose(found, [1.0, 0.0])
    assert stories.overlap(['x'], [['a .']], frozenset('a')) == [0.0]  # nothing to say


def test_common_words():
    assert stories.common_words(['The the a', 'A b'], 2) == {'the', 'a'}


# --- style and fluency ---------------------------------------------------------------------------


def styled(n, words, seed):
    rng = np.random.default_rng(seed)
    return [' '.join(rng.choice(words, 30)) for _ in range(n)]


NOVEL, CAPTION = ['she', 'had', ',', 'and', 'said'], ['a', 'is', 'on', 'the', '.']


def test_styles_are_told_apart_whatever_the_text_is_about():
    def about(words, seed):
        rng = np.random.default_rng(seed)
        return [f'{text} thing{rng.integers(10**6)}' for text in styled(40, words, seed)]

    judge = StyleJudge({'novel': about(NOVEL, 1), 'caption': about(CAPTION, 2)})
    assert judge.accuracy == 1.0
    novel, caption, mixed = (
        styled(5, NOVEL, 3),
        styled(5, CAPTION, 4),
        styled(5, NOVEL + CAPTION, 5),
    )
    assert judge.names(novel) == ['novel'] * 5 and judge.names(caption) == ['caption'] * 5
    odds = [judge.log_odds(texts, 'novel', 'caption').mean() for texts in (novel, mixed, caption)]
    assert odds[0] > odds[1] > odds[2] and odds[0] > 0 > odds[2]


def test_styles_that_are_the_same_are_not_told_apart():
    judge = StyleJudge({'one': styled(40, NOVEL, 1), 'other': styled(60, NOVEL, 2)})
    assert 0.2 < judge.accuracy < 0.8


def test_of_three_styles_the_likeliest_is_named():
    words = {'novel': NOVEL, 'caption': CAPTION, 'adventure': ['aye', 'ship', 'sword', '!']}
    judge = StyleJudge({name: styled(20, each, 1) for name, each in words.items()})
    for name, each in words.items():
        assert judge.names(styled(5, each, 2)) == [name] * 5


def test_one_text_is_no_style():
    with pytest.raises(ValueError, match='4 of novel, 1 of caption'):
        StyleJudge({'novel': styled(4, NOVEL, 1), 'caption': styled(1, CAPTION, 2)})


def test_pieces():
    assert stories.pieces('abcdefg', 3) == ['a b c', 'd e f']


def test_fluent_text_is_likelier_than_the_same_words_shuffled():
    rng = np.random.default_rng(0)
    nouns, verbs = ['dog', 'cat', 'man'], ['sees', 'hears']

    def sentence():
        return ['the', rng.choice(nouns), rng.choice(verbs), 'the', rng.choice(nouns), '.']

    judge = FluencyJudge(sentence() for _ in range(200))
    fluent = judge.perplexity('The dog sees the cat .')
    assert fluent < 3
    assert judge.perplexity('cat the . dog the sees') > 5 * fluent
    assert judge.perplexity('the zebra sees the cat .') > fluent
    with pytest.raises(ValueError, match='text'):
        judge.perplexity(' ')


def test_fluency_by_sentence():
    rng = np.random.default_rng(0)
    told = [[*rng.choice(list('abc!'), 5).tolist(), '.'] for _ in range(200)]
    judge = FluencyJudge([*told, ['rare']])
    text = 'a b c a b c a b c . A c z z ! b'
    words, known = ['<s>', '<s>', *text.lower().split()], judge._model
    looked_up = known.vocab.lookup(words)
    logs = [np.log(known.score(looked_up[i], looked_up[i - 2 : i])) for i in range(2, len(words))]
    assert np.log(judge.perplexity(text)) == pytest.approx(-np.mean(logs))
    slowly = [np.mean(logs[:10]), np.mean(logs[10:15]), logs[15]]
    assert judge.by_sentence(text) == pytest.approx(-np.mean(slowly))
    one = 'a b c .'
    assert judge.by_sentence(one) == pytest.approx(np.log(judge.perplexity(one)))
    with pytest.raises(ValueError, match='text'):
        judge.by_sentence('')


# --- variety and copying -------------------------------------------------------------------------


def test_repeated_runs():
    assert stories.repeated('one two three four five six') == 0
    assert stories.repeated('one two three four one two three four') == pytest.approx(1 / 5)
    assert stories.repeated('a ' * 50) > 0.9
    assert stories.repeated('too short') == 0


def test_variety():
    same = stories.variety(['he went to the sea and back'] * 4)
    assert same['distinct'] == 0.25 and same['alike'] == 1 and same['distinct_1'] == 0.25
    different = stories.variety(['a b c d e f', 'g h i j k l'])
    assert different == {'distinct': 1, 'alike': 0, 'distinct_1': 1, 'distinct_2': 1}
    some = stories.variety(['a b c d e f', 'a b c d e z', 'g h i j k l'])
    assert some['distinct'] == 1 and some['alike'] == pytest.approx(2 / 3)


def slowly(story, text):
    words, joined = story.split(), f' {" ".join(text)} '
    spans = [(i, j) for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
    return max((j - i for i, j in spans if f' {" ".join(words[i:j])} ' in joined), default=0)


@pytest.mark.parametrize('at_once', [7, 1 << 21])
def test_longest_copied_run(monkeypatch, at_once):
    monkeypatch.setattr(stories, 'TEXT_AT_ONCE', at_once)
    rng = np.random.default_rng(0)
    text = rng.choice(list('abcde'), 300).tolist()
    told = [' '.join(rng.choice(list('abcdefg'), 20)) for _ in range(20)]
    told += [' '.join(text[90:110]), 'new words only', '']
    found = stories.longest_copied(told, [text[:100], text[100:]])
    assert found.tolist() == [slowly(story, text) for story in told]
    assert found[-3:].tolist() == [20, 0, 0]
