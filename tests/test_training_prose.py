"""Plain sentences and the passages cut from them, against slow versions written with strings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storyteller.formats import MissingFileError, ModelFileError
from storyteller.training.data.corpus import Corpus
from storyteller.training.data.prose import (
    LEANING,
    Prose,
    plain_passages,
    plain_sentences,
    plain_verses,
    plain_words,
    read_words,
)
from storyteller.vocabulary import Vocabulary

KNOWN = frozenset(['she', 'the', 'walked', 'to', 'sea', 'a', 'sun', 'slur', 'oh', 'you', 'blow'])
LEFT_OUT = frozenset(['slur'])

# Written out here, not taken from the module: the property is the reader's, not the writer's.
_SPEAKS = """
    " ' `` '' ` i me my mine myself we us our ours ourselves you your yours yourself yourselves 'm
    thee thou thy thine thyself ye hath doth hast dost art wert shalt wilt oft ere nay yea
"""
_SIGNS = '-- : ( ) [ ] { } * _ ... # & / \\ < > = + | @ % $'
_SUPPOSES = """
    but however though although yet nevertheless whereas if unless seem seems seemed seeming perhaps
    not n't never no nor none nobody nothing neither cannot would should might must may can will
    shall ought 'd
"""
SPEAKS, SIGNS = frozenset(_SPEAKS.split()), frozenset(_SIGNS.split())
SUPPOSES = frozenset(_SUPPOSES.split())


def corpus_of(documents: list[list[str]]) -> tuple[Corpus, Vocabulary]:
    """A corpus in memory with all its words, from the sentences of each document."""
    sentences = [sentence.split() for document in documents for sentence in document]
    vocabulary = Vocabulary(('<eos>', 'UNK', *sorted({w for s in sentences for w in s})))
    lengths, counts = list(map(len, sentences)), list(map(len, documents))
    corpus = Corpus(
        np.array(vocabulary.encode([w for s in sentences for w in s]), np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )
    return corpus, vocabulary


def found(*sentences: str, plain=KNOWN, **changes) -> list[bool]:
    corpus, vocabulary = corpus_of([list(sentences)])
    prose = Prose(**{'left_out': LEFT_OUT} | changes)
    return plain_sentences(corpus, vocabulary, plain, prose).tolist()


def odd(word: str, left_out) -> bool:
    signs = any(ord(letter) > 127 or letter in '0123456789' for letter in word)
    return signs or word.lower() in left_out


def slowly_plain(sentence: str, plain, prose: Prose) -> bool:
    """Whether one sentence is plain, word by word."""
    first, *rest = words = sentence.split()
    if not prose.fewest <= len(words) <= prose.most or words[-1] not in ('.', '!', '?'):
        return False
    if any(odd(word, prose.left_out) for word in words):
        return False
    if not prose.speech and any(word.lower() in SPEAKS for word in words):
        return False
    if not prose.loose and any(word in SIGNS for word in words):
        return False
    if not prose.unreal and any(word.lower() in SUPPOSES for word in words):
        return False
    if not first[0].isupper() or first == 'O':
        return False
    if first.lower() not in plain and first != 'I':
        return False
    return not any(word[0].isupper() and word not in ('I', 'O') for word in rest)


# --- words ---------------------------------------------------------------------------------------


def test_ordinary_words_are_those_that_mostly_are_written_small():
    counts = {
        'the': 900, 'The': 300, 'suddenly': 40, 'Suddenly': 380, 'rose': 50, 'Rose': 501,
        'seldom': 5, 'rarely': 4, 'Rarely': 1, 'Paris': 70, 'A': 10, '.': 99, "'s": 30, '3rd': 9,
    }  # fmt: skip
    assert plain_words(counts) == {'the', 'suddenly', 'seldom'}
    assert plain_words(counts, least=4) == {'the', 'suddenly', 'seldom', 'rarely'}
    assert plain_words(counts, least=100) == {'the'}
    assert plain_words(counts | {'Rose': 500}) == {'the', 'suddenly', 'seldom', 'rose'}


# --- sentences -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('sentence', 'expected'),
    [
        ('She walked to the sea .', True),
        ('A sun !', True),
        ('The SEA walked ?', False),
        ('She walked to Paris .', False),  # a name inside
        ('Paris walked to the sea .', False),  # and at the beginning
        ('She walked to the Sea .', False),
        ('she walked to the sea .', False),  # no capital: the rest of something
        ('`` She walked to the sea .', False),
        ("She walked to the sea . ''", False),
        ('She walked " to the sea .', False),
        ('I walked to the sea .', False),
        ('The sea and I walked .', False),
        ('She walked to you .', False),
        ('You walked .', False),
        ("She 'm walked .", False),
        ('She hath walked to the sea .', False),
        ('Thou walked to thy sea .', False),
        ('O she walked .', False),
        ('She walked to the 3 sea .', False),
        ('She walked to the 2nd sea .', False),
        ('She walked to the café .', False),
        ('She walked ( to ) the sea .', False),
        ('She walked -- the sea .', False),
        ('She walked ; the sea .', True),
        ('She walked : the sea .', False),
        ('She walked but the sea .', False),
        ('She would walked .', False),
        ("She n't walked .", False),
        ('She walked to the sea', False),  # no end
        ('She walked to the sea ,', False),
        ('She walked to the sea ...', False),
        ('She walked the slur .', False),
        ('She walked the SLUR .', False),
        ('Slur walked the sea .', False),
        ('She .', False),  # too short
        ('She walked .', True),
        ('She ' + 'walked ' * 38 + '.', True),
        ('She ' + 'walked ' * 39 + '.', False),  # too long
    ],
)
def test_what_is_plain(sentence, expected):
    assert found(sentence) == [expected] == [slowly_plain(sentence, KNOWN, Prose(LEFT_OUT))]


@pytest.mark.parametrize(
    ('sentence', 'speech', 'loose'),
    [
        ('I walked to the sea .', True, False),
        ('You walked to the sea .', True, False),
        ('She and I walked `` to the sea .', True, False),
        ('She walked -- to ( the ) sea .', False, True),
        ('She walked : `` I walked .', True, True),
    ],
)
def test_speech_and_loose_signs_may_be_allowed(sentence, speech, loose):
    for s in (False, True):
        for free in (False, True):
            allowed = (s or not speech) and (free or not loose)
            assert found(sentence, speech=s, loose=free) == [allowed]


def test_what_is_not_may_be_allowed():
    sentences = 'She never walked .', 'She walked to the sea but walked .', 'She would walked .'
    assert found(*sentences) == [False] * 3
    assert found(*sentences, unreal=True) == [True] * 3


def test_a_capital_at_a_beginning_is_no_name_where_the_word_is_plain():
    sentences = 'Sun walked .', 'Blow walked .', 'Rose walked .'
    assert found(*sentences) == [True, True, False]
    assert found(*sentences, plain=KNOWN | {'rose'}) == [True, True, True]
    assert found(*sentences, plain=frozenset()) == [False] * 3


def test_each_sentence_is_judged_alone():
    good, bad = 'She walked to the sea .', 'She walked to Paris .'
    assert found(good, bad, good, good, bad) == [True, False, True, True, False]


_WORDS = """
    She she the The walked walked to sea A a Paris slur Slur I O Oh oh you You '' ` -- : ( . . .
    ! ? , 3 1st café thou Thou hath ... % Walked SEA blow Blow but Never would ;
"""
WORDS = _WORDS.split()


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(st.sampled_from(['She', 'The', 'A', *WORDS]),
                  st.lists(st.sampled_from([*['walked', 'the', 'sea'] * 8, *WORDS]), max_size=6),
                  st.sampled_from(['.', '.', '.', *WORDS])),
        min_size=1, max_size=12,
    ),
    st.booleans(), st.booleans(), st.booleans(), st.integers(1, 4), st.integers(0, 5),
)  # fmt: skip
def test_equals_a_slow_version(parts, speech, loose, unreal, fewest, more):
    sentences = [' '.join([first, *middle, last]) for first, middle, last in parts]
    prose = Prose(LEFT_OUT, speech, loose, unreal, fewest, fewest + more)
    corpus, vocabulary = corpus_of([sentences[:3], sentences[3:]])
    assert plain_sentences(corpus, vocabulary, KNOWN, prose).tolist() == [
        slowly_plain(sentence, KNOWN, prose) for sentence in sentences
    ]


@pytest.mark.parametrize('wrong', [(0, 3), (4, 3), (-1, 5)])
def test_lengths_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match=f'1 <= fewest <= most, found {wrong[0]}, {wrong[1]}'):
        Prose(fewest=wrong[0], most=wrong[1])


# --- verses --------------------------------------------------------------------------------------


def slowly_plain_verse(verse: str, every: set[str], left_out) -> bool:
    words = verse.split()
    if any(odd(word, left_out) for word in words):
        return False
    named = [word for word in words if word[0].isupper() and word.lower() not in every]
    inside = [word for word in words[1:] if word[0].isupper() and word not in ('I', 'O', 'Oh')]
    return not inside and not any(len(word) > 1 for word in named)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(' '.join),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_verses_equal_a_slow_version(verses):
    corpus, vocabulary = corpus_of([verses])
    every = {word for verse in verses for word in verse.split()}
    assert plain_verses(corpus, vocabulary, LEFT_OUT).tolist() == [
        slowly_plain_verse(verse, every, LEFT_OUT) for verse in verses
    ]


def test_a_verse_may_speak_and_needs_no_end():
    verses = [
        'Come with me , oh my love', 'and Oh , I am yours -- thou', 'come', 'Where Mary is',
        'Mary is', 'the slur', 'in 1790', 'au café',
    ]  # fmt: skip
    corpus, vocabulary = corpus_of([verses])
    assert plain_verses(corpus, vocabulary, LEFT_OUT).tolist() == [True] * 3 + [False] * 5


# --- passages ------------------------------------------------------------------------------------


def leaning_corpus(documents: list[list[tuple[int, bool]]]) -> Corpus:
    """Sentences of given lengths; those that lean begin with word 3, the others with 2."""
    corpus, _ = corpus_of([['x ' * length for length, _ in document] for document in documents])
    leans = [leans for document in documents for _, leans in document]
    corpus.tokens[corpus.sentences[:-1]] = np.where(leans, 3, 2)
    return corpus


def slow_passages(documents, plain, wanted, shortest, longest):
    """Sentence by sentence: stretches of plain ones, then passages from each."""
    stretches, number = [], 0
    for document in documents:
        stretch = []
        for length, leans in document:
            if plain[number] and (stretch or not leans):
                stretch.append((number, length, leans))
            elif not plain[number]:
                stretches.append(stretch)
                stretch = []
            number += 1
        stretches.append(stretch)
    cut = []
    for stretch in stretches:
        while stretch:
            taken, words = 0, 0
            while taken < len(stretch) and words < wanted[stretch[0][0]]:
                if words + stretch[taken][1] > longest:
                    break
                words += stretch[taken][1]
                taken += 1
            if words >= shortest and taken > 1 and not stretch[0][2]:
                cut.append((stretch[0][0], stretch[0][0] + taken))
            stretch = stretch[max(taken, 1) :]
    return cut


DOCUMENTS = st.lists(
    st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from([True, False, False, False]),
                  st.sampled_from([False, True, True, True, True])),
        min_size=1, max_size=12,
    ),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(DOCUMENTS, st.integers(0, 9), st.integers(1, 12), st.integers(0, 15))
def test_passages_equal_a_slow_version(drawn, seed, shortest, more):
    documents = [[(length, leans) for length, leans, _ in document] for document in drawn]
    plain = np.array([good for document in drawn for *_, good in document])
    corpus, longest = leaning_corpus(documents), shortest + more
    cut = plain_passages(corpus, plain, np.random.default_rng(seed), shortest, longest, (3,))
    wanted = np.random.default_rng(seed).integers(shortest, longest + 1, len(corpus))
    expected = slow_passages(documents, plain, wanted, shortest, longest)
    assert cut.dtype == np.int64 and cut.tolist() == [list(span) for span in expected]


@settings(deadline=None, max_examples=200)
@given(DOCUMENTS, st.integers(0, 9), st.integers(1, 12), st.integers(0, 15))
def test_what_a_passage_is(drawn, seed, shortest, more):
    """Property by property, however it was found."""
    documents = [[(length, leans) for length, leans, _ in document] for document in drawn]
    lengths = [length for document in documents for length, _ in document]
    leans = [leans for document in documents for _, leans in document]
    plain = [good for document in drawn for *_, good in document]
    home = [number for number, document in enumerate(documents) for _ in document]
    cut = plain_passages(
        leaning_corpus(documents), np.array(plain), np.random.default_rng(seed),
        shortest, shortest + more, [3],
    )  # fmt: skip
    before = 0
    for first, end in cut.tolist():
        assert before <= first and end - first > 1
        assert all(plain[first:end]) and not leans[first]
        assert len(set(home[first:end])) == 1
        assert shortest <= sum(lengths[first:end]) <= shortest + more
        before = end


def speaking_corpus(documents: list[list[str]]) -> tuple[Corpus, list[list[int]]]:
    """Sentences of four words with *he*, *she*, both or neither; and the sets that are apart."""
    words = {'': 'x x x .', 'he': 'x he x .', 'she': 'x x she .', 'both': 'she x he .'}
    corpus, known = corpus_of([[words[name] for name in document] for document in documents])
    return corpus, [known.encode(['he']), known.encode(['she'])]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.lists(st.sampled_from(['', 'he', 'she', 'both']), min_size=1, max_size=9),
        min_size=1, max_size=3,
    ),
    st.integers(0, 9),
)  # fmt: skip
def test_a_passage_speaks_of_one(documents, seed):
    corpus, apart = speaking_corpus(documents)
    every = [name for document in documents for name in document]
    rng = np.random.default_rng(seed)
    cut = plain_passages(corpus, np.ones(len(every), bool), rng, 4, 20, (), apart)
    for first, end in cut.tolist():
        assert {*every[first:end]} in ({''}, {'he'}, {'', 'he'}, {'she'}, {'', 'she'})


def test_another_begins_a_passage_of_their_own():
    documents = [['he', '', 'he', 'she', 'she', 'both', '', 'she'], ['she', 'he', '']]
    corpus, apart = speaking_corpus(documents)
    rng = np.random.default_rng(0)
    cut = plain_passages(corpus, np.ones(11, bool), rng, 8, 400, (), apart)
    assert all(end - first > 1 for first, end in cut.tolist())
    long = plain_passages(corpus, np.ones(11, bool), np.random.default_rng(0), 8, 12, (), apart)
    assert {tuple(span) for span in long.tolist()} <= {
        (0, 2), (0, 3), (1, 3), (3, 5), (6, 8), (9, 11),
    }  # fmt: skip
    assert (3, 5) in map(tuple, long.tolist()) and (9, 11) in map(tuple, long.tolist())


def test_without_leaning_words_any_plain_sentence_begins_a_passage():
    corpus = leaning_corpus([[(5, True), (5, False), (5, True), (5, True)]])
    plain, rng = np.ones(4, bool), np.random.default_rng(0)
    assert plain_passages(corpus, plain, rng, 10, 10).tolist() == [[0, 2], [2, 4]]
    assert plain_passages(corpus, plain, rng, 10, 10, [3]).tolist() == [[1, 3]]
    assert plain_passages(corpus, ~plain, rng, 10, 10).shape == (0, 2)


def test_words_that_go_on_with_something_are_written_as_at_a_beginning():
    assert {'And', 'But', 'This', 'Then', 'However'} <= LEANING
    assert all(word.istitle() and word.isalpha() for word in LEANING)


# --- lists of words ------------------------------------------------------------------------------


def test_a_list_of_words(tmp_path):
    path = tmp_path / 'words.txt'
    path.write_text('# Not these.\nSlur\n\n  half-word  # rude\nTWO  words\r\nslur\n#end', 'utf-8')
    assert read_words(path) == {'slur', 'half-word', 'two words'}
    path.write_text('')
    assert read_words(path) == frozenset()


def test_a_list_that_is_none_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r'gone\.txt'):
        read_words(tmp_path / 'gone.txt')
    (tmp_path / 'a.txt').write_bytes(b'caf\xe9\n')
    with pytest.raises(ModelFileError, match=r'a\.txt'):
        read_words(tmp_path / 'a.txt')
