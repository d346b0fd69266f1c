"""Flaws of stories, on texts that have them and texts that have not."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from storyteller.evaluation import flaws
from storyteller.training.data.prose import read_words

WORDS = {'she', 'went', 'the', 'nobody', 'half', 'way', 'will', 'then', 'no', 'lord', 'french'}


# --- words again ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('story', 'twice'),
    [
        ('There were dogs and dogs .', True),
        ('There was a dog and dogs .', True),
        ('He walked where she was walking .', True),
        ('A dog , another dog ; a dog : the dog -- dog . Dog ! Dog ? Dog', False),
        ("`` A dog '' he said of the dog", False),
        ('She said that she had not what she had had .', False),
        ("It 's hers and it 's his , is n't it and is n't it", False),
        ('Mr. Grey saw Mr. Brown', False),
        ('Mary saw Mary', True),
        ('', False),
    ],
)
def test_a_word_twice_in_a_clause(story, twice):
    assert flaws.twice_in_a_clause(story) is twice


def twice_slowly(story):
    for clause in re.split(r"(?:^| )(?:,|;|:|\.|!|\?|--|``|''|\")(?= |$)", story.lower()):
        words = [w for w in clause.split() if w not in flaws.FUNCTION_WORDS]
        if any(flaws.folded(a) == flaws.folded(b) for a, b in itertools.combinations(words, 2)):
            return True
    return False


def test_words_in_clauses_against_the_slow_version():
    rng = np.random.default_rng(0)
    words = [
        'dog',
        'dogs',
        'the',
        'ran',
        'running',
        'run',
        'Sea',
        'sea',
        ',',
        '--',
        '.',
        "''",
        'to',
    ]
    told = [' '.join(rng.choice(words, n)) for n in rng.integers(1, 9, 400)]
    expected = list(map(twice_slowly, told))
    assert list(map(flaws.twice_in_a_clause, told)) == expected
    assert 50 < sum(expected) < 350


def test_endings_are_folded_roughly():
    same = [
        ('dog', 'dogs'), ('horse', 'horses'), ('story', 'stories'), ('carry', 'carried'),
        ('walk', 'walked', 'walking', 'walks'), ('hope', 'hoped', 'hoping'), ('run', 'running'),
        ('dress', 'dresses', 'dressed'),
    ]  # fmt: skip
    for group in same:
        assert len({flaws.folded(word) for word in group}) == 1, group
    for word in ('bed', 'king', 'bus', 'sea', 'us'):  # nothing is left if this were an ending
        assert flaws.folded(word) == word


def test_a_run_of_three_words_again():
    assert flaws.run_again('it seemed to her , that it seemed to him')
    assert flaws.run_again('It seemed , to her . it seemed to')  # marks and capitals do not count
    assert not flaws.run_again('it seemed to her that it seemed so')
    assert not flaws.run_again('one two')

    def slowly(story):
        words = re.sub(r'[^a-z ]', '', story).split()
        text = [f' {" ".join(words[i : i + 3])} ' for i in range(len(words) - 2)]
        return any(text.count(run) > 1 for run in text)

    rng = np.random.default_rng(0)
    told = [' '.join(rng.choice(list('abcd,.'), 14)) for _ in range(200)]
    assert list(map(flaws.run_again, told)) == list(map(slowly, told))


# --- names, ends, words to leave out -------------------------------------------------------------


@pytest.mark.parametrize(
    ('story', 'expected'),
    [
        ('She went . Nobody saw the sea', []),
        ('She saw Harriet', ['Harriet']),
        ('Harriet went', ['Harriet']),
        ("The sea . '' Harriet went", ['Harriet']),
        ("she said , `` No '' and I went", []),  # what is quoted begins anew
        ('she said , `` Harriet', ['Harriet']),
        ('Half-way the Half-way', ['Half-way']),
        ('She spoke English with God and Americans on Sundays', []),
        ('Miss Grey', ['Miss', 'Grey']),
        ('Then Mr. Grey and Lady went . Sir !', ['Mr.', 'Grey', 'Lady', 'Sir']),
        ('the miss , sir', []),
        ('Will went . She saw Will', ['Will']),  # a name that is a word too is not seen at first
        ('the end ... She went', []),
        ('Lord Grey', ['Grey']),
        ('', []),
    ],
)
def test_names(story, expected):
    assert flaws.names(story, WORDS) == expected


def test_stories_that_are_cut_off():
    whole = ['a .', 'a !', "`` a ? ''", "a . ' ''", 'a . )', 'a ...']
    cut = ['a', 'a ,', "`` a , ''", 'a --', 'a . b', 'a ;', 'he saw Mr.', '', "''"]
    assert not any(map(flaws.cut_off, whole)) and all(map(flaws.cut_off, cut))
    assert flaws.cut_off('a b .', maxlen=3) and not flaws.cut_off('a b .', maxlen=4)


def test_words_to_leave_out(tmp_path):
    (tmp_path / 'list.txt').write_text('# a comment\nBad\n\nill word # and why\n  worse  \n')
    words = read_words(tmp_path / 'list.txt')
    assert words == {'bad', 'ill word', 'worse'}
    assert flaws.said('A bad , Worse ill word', words) == ['bad', 'ill word', 'worse']
    assert flaws.said('badly ill words', words) == []


def test_sentences():
    story = "`` Yes ! '' she said . ' No ? ! ' And ... then"
    expected = [['``', 'Yes', '!', "''"], ['she', 'said', '.', "'"], ['No', '?', '!', "'"]]
    assert flaws.sentences_in(story)[:3] == expected
    assert flaws.sentences_in(story)[3:] == [['And', '...', 'then']]
    assert flaws.sentences_in('') == [] and flaws.sentences_in('. a') == [['.'], ['a']]


def test_all_flaws():
    told = ['The sea and the sea .', 'She saw Harriet .', 'she went and', 'the bad .']
    found = flaws.flaws(told, WORDS, frozenset(['bad']))
    assert {name: rows.tolist() for name, rows in found.items()} == {
        'word_twice': [True, False, False, False],
        'run_again': [False] * 4,
        'with_a_name': [False, True, False, False],
        'cut_off': [False, False, True, False],
        'left_out_word': [False, False, False, True],
    }
    assert 'left_out_word' not in flaws.flaws(told, WORDS)
    assert flaws.flaws(told, WORDS, maxlen=3)['cut_off'].all()
