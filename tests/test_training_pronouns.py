"""Names that become pronouns: in sentences with one person whose place is clear."""

from __future__ import annotations

import pytest

from storyteller.training.data import pronouns
from storyteller.training.data.pronouns import FEWEST, Neighbours, find_names, without_names

PLAIN = frozenset(['the', 'and', 'then', 'they', 'he', 'she', 'rain', 'when'])
# What *he*, *him* and *his* stand beside, often enough to be known.
BESIDE = [
    'he walked to him .',
    'and he sighed and looked at him , and he met him and she smiled .',
    'then he walked with him , and took his hat and shut his eyes .',
    'when he walked in his hat with his eyes , he sighed at him .',
]
KNOWN = Neighbours.of(line.split() for line in BESIDE for _ in range(FEWEST))
WHO = {'Anna': 'she', 'Peter': 'he', 'Smith': 'he'} | pronouns.TITLES


def told(sentence: str) -> str:
    words, people = pronouns.replace_names(sentence.split(), PLAIN, KNOWN, WHO)
    assert bool(people) == (words != sentence.split())
    return ' '.join(words)


@pytest.mark.parametrize(
    ('sentence', 'expected'),
    [
        ('Anna walked away .', 'She walked away .'),
        ('Peter walked away .', 'He walked away .'),
        ('Mr. Smith sighed .', 'He sighed .'),
        ('Mrs. Smith sighed .', 'She sighed .'),
        ('Aunt Anna sighed .', 'She sighed .'),
        ('Peter Smith sighed .', 'He sighed .'),
        ('and Anna sighed .', 'and she sighed .'),
        ('They looked at Peter .', 'They looked at him .'),
        ('They looked at Anna .', 'They looked at her .'),
        ("They took Anna 's hat .", 'They took her hat .'),
    ],
)
def test_one_person_in_a_clear_place(sentence, expected):
    assert told(sentence) == expected


@pytest.mark.parametrize(
    'sentence',
    [
        'They saw Elsinore .',  # who or what is that?
        'The bewildered Anna sighed .',  # *the bewildered she*
        'Anna looked at Peter .',  # two people
        'he looked at Peter .',  # *he looked at him* is of two men
        'The rain fell .',  # nobody's name
        'Sir sighed .',  # a title alone
        'They walked to God .',
    ],
)
def test_what_is_not_clear_stays(sentence):
    assert told(sentence) == sentence


def test_a_woman_may_look_at_a_man():
    assert told('she looked at Peter .') == 'she looked at him .'


@pytest.mark.parametrize(
    ('sentence', 'names'),
    [
        ('The rain fell on Anna Smith and Peter .', [(4, 6), (7, 8)]),
        ('Anna fell .', [(0, 1)]),
        ('The end', []),
        ('Sir Peter fell', [(0, 2)]),
        ('then I saw Anna', [(3, 4)]),
        ('Anna', [(0, 1)]),
        ('', []),
    ],
)
def test_a_name_is_a_run_of_capitals(sentence, names):
    assert find_names(sentence.split(), PLAIN) == names


def text_of(*sentences: str) -> list[str]:
    """A text in which Anna and Peter are known, and then these sentences."""
    people = ['Anna walked and she sighed .', 'Peter walked and he sighed .', ''] * FEWEST
    return [*BESIDE * FEWEST, '', *people, *sentences, '']


def end_of(*sentences: str) -> list[str]:
    lines = text_of(*sentences)
    found = list(without_names(lambda: iter(lines), PLAIN))
    assert len(found) == len(lines)
    return found[-len(sentences) - 1 : -1]


def test_gender_is_learned_from_the_sentences_of_a_name():
    assert end_of('Anna sighed .') == ['She sighed .']
    assert end_of('Peter sighed .') == ['He sighed .']


def test_a_place_is_no_person():
    places = ['They walked in Rome and she sighed .'] * 10
    assert end_of(*places, 'Rome walked .')[-1] == 'Rome walked .'


def test_he_is_one_man_throughout_a_passage():
    others = ['Uncle Peter sighed .', 'Uncle Smith sighed .']
    assert end_of(*others) == ['He sighed .', 'Uncle Smith sighed .']
    between = ['it rained .'] * pronouns.APART
    assert end_of(others[0], *between, others[1])[-1] == 'He sighed .'
    assert end_of(others[0], '', others[1])[-1] == 'He sighed .'


def test_whoever_has_just_spoken_keeps_the_name():
    assert end_of("`` Rain ! ''", 'Anna asked him .')[-1] == 'Anna asked him .'
    assert end_of("`` Rain ! ''", 'Anna walked .')[-1] == 'She walked .'
