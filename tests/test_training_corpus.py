from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import REFERENCE
from hypothesis import given, settings
from hypothesis import strategies as st

from storyteller.formats import MismatchError, MissingFileError, ModelFileError
from storyteller.training.data.corpus import (
    Corpus,
    batches_of_equal_length,
    narrative_passages,
    padded,
    passages,
    quoted_share,
)
from storyteller.vocabulary import Vocabulary

TOKENS = """\
She sat at the café .
He left .

A dog runs .

"""
WORDS = Vocabulary(('<eos>', 'UNK', '.', 'She', 'sat', 'He', 'café', 'dog'))


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / 'tokens.txt'
    path.write_bytes(TOKENS.encode())
    return path


def corpus_of(documents):
    """A corpus in memory, from the lengths of the sentences of each document."""
    lengths = [length for document in documents for length in document]
    in_documents = [len(document) for document in documents]
    return Corpus(
        np.arange(sum(lengths), dtype=np.int32),
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        np.concatenate([[0], np.cumsum(in_documents, dtype=np.int64)]).astype(np.int64),
    )


# --- token files to indices ----------------------------------------------------------------------


def test_a_corpus_holds_indices_and_borders(tmp_path, token_file):
    corpus = Corpus.build(token_file, WORDS, tmp_path / 'corpus')
    assert len(corpus) == 3
    assert corpus.sentences.tolist() == [0, 6, 9, 13] and corpus.documents.tolist() == [0, 2, 3]
    assert corpus.words(0, 1).tolist() == [3, 4, 1, 1, 6, 2]  # She sat UNK UNK café .
    assert corpus.words(1, 3).tolist() == [5, 1, 2, 1, 7, 1, 2]
    assert isinstance(corpus.tokens, np.memmap) and corpus.tokens.dtype == np.int32
    assert not corpus.tokens.flags.writeable


def test_words_are_counted_and_the_ends_of_sentences(tmp_path, token_file):
    corpus = Corpus.build(token_file, WORDS, tmp_path / 'c')
    counts = corpus.counts(len(WORDS))
    assert counts.sum() == len(corpus.tokens) + len(corpus) and counts[0] == len(corpus)
    for index in range(1, len(WORDS)):
        assert counts[index] == (np.asarray(corpus.tokens) == index).sum()


def test_what_was_built_is_opened(tmp_path, token_file):
    built = Corpus.build(token_file, WORDS, tmp_path / 'corpus')
    elsewhere = tmp_path / 'elsewhere' / token_file.name
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(token_file.read_bytes())
    for opened in (
        Corpus.open(tmp_path / 'corpus'),
        Corpus.open(str(tmp_path / 'corpus')),
        Corpus.cached(elsewhere, WORDS, tmp_path / 'corpus'),
    ):
        for name in ('tokens', 'sentences', 'documents'):
            np.testing.assert_array_equal(getattr(opened, name), getattr(built, name))
            assert getattr(opened, name).dtype == getattr(built, name).dtype


def test_a_corpus_of_another_text_or_vocabulary_is_not_taken_for_it(tmp_path, token_file):
    Corpus.cached(token_file, WORDS, tmp_path / 'corpus')
    fewer = Vocabulary(('<eos>', 'UNK', '.', 'She'))
    other = tmp_path / 'other.txt'
    other.write_bytes(token_file.read_bytes())
    for path, vocabulary, said in (
        (token_file, fewer, 'vocabulary differs'),
        (other, WORDS, 'source differs'),
    ):
        with pytest.raises(MismatchError, match=said):
            Corpus.cached(path, vocabulary, tmp_path / 'corpus')
    token_file.write_text(TOKENS.replace('She', 'He'))
    with pytest.raises(MismatchError, match='text differs; to start afresh, name another folder'):
        Corpus.cached(token_file, WORDS, tmp_path / 'corpus')


def test_a_corpus_with_a_note_of_an_earlier_version_is_taken(tmp_path, token_file):
    Corpus.cached(token_file, WORDS, tmp_path / 'corpus')
    note = tmp_path / 'corpus' / 'corpus.json'
    facts = json.loads(note.read_text())
    del facts['text']
    note.write_text(json.dumps(facts))
    assert len(Corpus.cached(token_file, WORDS, tmp_path / 'corpus')) == 3


def test_a_corpus_is_built_where_there_is_none(tmp_path, token_file):
    assert len(Corpus.cached(token_file, WORDS, tmp_path / 'new' / 'corpus')) == 3


def test_a_corpus_of_all_words_gives_the_text_back(tmp_path, token_file):
    corpus, vocabulary = Corpus.with_all_words(token_file, tmp_path / 'corpus')
    lines = [' '.join(vocabulary.decode(corpus.words(i, i + 1))) for i in range(len(corpus))]
    assert lines == [line for line in TOKENS.split('\n') if line]


def test_the_words_eos_and_unk_of_a_text_come_back(tmp_path):
    (tmp_path / 'a.txt').write_text('<eos> UNK a\n\n')
    corpus, vocabulary = Corpus.with_all_words(tmp_path / 'a.txt', tmp_path / 'corpus')
    assert vocabulary.decode(corpus.words(0, 1)) == ['<eos>', 'UNK', 'a']


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.lists(st.lists(st.sampled_from('ab'), min_size=1, max_size=4), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_every_sentence_and_document_is_kept(tmp_path_factory, documents):
    folder = tmp_path_factory.getbasetemp()
    text = '\n'.join(''.join(' '.join(s) + '\n' for s in document) for document in documents)
    (folder / 'a.txt').write_text(text)
    corpus = Corpus.build(folder / 'a.txt', Vocabulary(('<eos>', 'UNK', 'a', 'b')), folder / 'c')
    found = [[['', '', 'a', 'b'][w] for w in corpus.words(i, i + 1)] for i in range(len(corpus))]
    assert found == [sentence for document in documents for sentence in document]
    assert np.diff(corpus.documents).tolist() == [len(document) for document in documents]


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=3),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_corpora_are_joined_end_to_end(parts):
    joined = Corpus.joined([corpus_of(documents) for documents in parts])
    whole = corpus_of([document for documents in parts for document in documents])
    words = np.concatenate([np.arange(sum(map(sum, documents))) for documents in parts])
    np.testing.assert_array_equal(joined.tokens, words)
    np.testing.assert_array_equal(joined.sentences, whole.sentences)
    np.testing.assert_array_equal(joined.documents, whole.documents)
    assert joined.tokens.dtype == np.int32
    assert joined.sentences.dtype == joined.documents.dtype == np.int64


def test_a_joined_corpus_is_the_text_of_its_parts(tmp_path, token_file):
    one = Corpus.build(token_file, WORDS, tmp_path / 'one')
    (tmp_path / 'two.txt').write_text('He sat .\n\n')
    two = Corpus.build(tmp_path / 'two.txt', WORDS, tmp_path / 'two')
    both = Corpus.joined([one, two, one])
    assert len(both) == 7
    assert both.words(0, 3).tolist() == both.words(4, 7).tolist() == one.words(0, 3).tolist()
    assert both.words(3, 4).tolist() == two.words(0, 1).tolist()
    assert both.documents.tolist() == [0, 2, 3, 4, 6, 7]
    np.testing.assert_array_equal(both.counts(8), 2 * one.counts(8) + two.counts(8))


def test_no_corpus_no_text_and_an_empty_text_are_named(tmp_path, token_file):
    with pytest.raises(MissingFileError, match='no corpus here'):
        Corpus.open(tmp_path / 'none')
    with pytest.raises(MissingFileError, match=r'missing\.txt'):
        Corpus.build(tmp_path / 'missing.txt', WORDS, tmp_path / 'corpus')
    token_file.write_text('\n\n')
    with pytest.raises(ModelFileError, match=r'tokens\.txt: expected sentences'):
        Corpus.build(token_file, WORDS, tmp_path / 'corpus')
    with pytest.raises(MissingFileError, match='no corpus here'):  # nothing half built is left
        Corpus.open(tmp_path / 'corpus')
    assert list((tmp_path / 'corpus').iterdir()) == []


@pytest.mark.parametrize('name', ['tokens.npy', 'sentences.npy', 'documents.npy'])
@pytest.mark.parametrize('damage', ['gone', 'empty', 'cut'])
def test_a_damaged_corpus_is_named(tmp_path, token_file, name, damage):
    folder = tmp_path / 'corpus'
    Corpus.build(token_file, WORDS, folder)
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage != 'gone':
        (folder / name).write_bytes(b'' if damage == 'empty' else data[:-8])
    with pytest.raises(ModelFileError, match='corpus'):
        Corpus.open(folder)


# --- passages ------------------------------------------------------------------------------------

LENGTHS = st.lists(st.lists(st.integers(1, 90) | st.integers(1, 300), max_size=30), max_size=4)


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(0, 3), st.integers(1, 60), st.integers(0, 100))
def test_passages_keep_their_limits(documents, seed, shortest, more):
    corpus, longest = corpus_of(documents), shortest + more
    spans = passages(corpus, np.random.default_rng(seed), shortest, longest)
    assert spans.dtype == np.int64 and spans.shape[1] == 2
    words = corpus.sentences[spans[:, 1]] - corpus.sentences[spans[:, 0]]
    assert np.all((shortest <= words) & (words <= longest))
    assert np.all(spans[:, 0] < spans[:, 1])
    assert np.all(spans[1:, 0] >= spans[:-1, 1])  # in order, and no sentence twice
    first = np.searchsorted(corpus.documents, spans[:, 0], 'right')
    last = np.searchsorted(corpus.documents, spans[:, 1] - 1, 'right')
    assert np.array_equal(first, last)  # inside one document


def test_the_limits_of_the_published_decoder_are_the_default():
    rng = np.random.default_rng(0)
    corpus = corpus_of([rng.integers(3, 40, 2000).tolist() for _ in range(3)])
    spans = passages(corpus, rng)
    words = corpus.sentences[spans[:, 1]] - corpus.sentences[spans[:, 0]]
    assert words.min() >= 40 and words.max() <= 140
    assert np.all(np.histogram(words, 5, (40, 140))[0] > 0.07 * len(words))  # of all lengths
    assert words.sum() > 0.9 * len(corpus.tokens)  # and little is left out


def test_another_state_cuts_elsewhere_and_the_same_state_there():
    corpus = corpus_of([[7] * 500])
    cuts = [passages(corpus, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(cuts[0], cuts[1])
    assert cuts[0].shape != cuts[2].shape or not np.array_equal(cuts[0], cuts[2])


@pytest.mark.parametrize(
    ('lengths', 'expected'),
    [
        ([200, 20, 20, 6], [(1, 3)]),  # a sentence that is too long is no passage
        ([20, 20, 200, 20, 20], [(0, 2), (3, 5)]),
        ([20, 200, 20], []),
        ([40], [(0, 1)]),
        ([39], []),
        ([], []),
    ],
)
def test_what_cannot_fit_is_left_out(lengths, expected):
    spans = passages(corpus_of([lengths]), np.random.default_rng(0), 40, 45)
    assert [tuple(span) for span in spans.tolist()] == expected


@pytest.mark.parametrize(('shortest', 'longest'), [(0, 5), (-1, 5), (6, 5)])
def test_limits_that_are_none(shortest, longest):
    with pytest.raises(ValueError, match='expected 1 <= min <= max'):
        passages(corpus_of([[5]]), np.random.default_rng(0), shortest, longest)


# --- what a style is averaged over ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('tokens', 'share'),
    [
        ('', 0.0),
        ('He left .', 0.0),
        ("`` Go , '' he said", 0.5),
        ("`` Go . ''", 1.0),
        ("he went . '' She stayed", 0.6),  # the speech began before the passage
        ('She stayed . `` I will', 0.4),  # and goes on after it
        ("`` a '' b `` c ''", 2 / 3),
        ("a '' b `` c", 2 / 3),
    ],
)
def test_quoted_share(tokens, share):
    assert quoted_share(tokens.split()) == pytest.approx(share)


@pytest.fixture
def stories(tmp_path):
    """Nine documents: six narrate, three are speech."""
    told = 'the sun went down over the sea .\n' * 6
    spoken = "`` the sun went down over the sea , '' she said .\n" * 6
    texts = [told, told, spoken] * 3
    (tmp_path / 'a.txt').write_text('\n'.join(texts))
    return Corpus.with_all_words(tmp_path / 'a.txt', tmp_path / 'corpus')


def test_passages_in_which_little_is_spoken(stories):
    found = narrative_passages(*stories, 10, 20)
    assert found and all('said' not in passage for passage in found)
    assert all(10 <= len(passage.split()) <= 20 and passage.endswith('.') for passage in found)
    everything = narrative_passages(*stories, 10, 20, most_quoted=1.0)
    assert any('said' in passage for passage in everything)
    assert sum('said' not in passage for passage in everything) == len(found)


def test_a_wanted_number_of_passages_drawn_by_a_seed(stories):
    found = narrative_passages(*stories, 10, 20, wanted=3)
    assert len(found) == 3
    assert found == narrative_passages(*stories, 10, 20, wanted=3)
    everything = narrative_passages(*stories, 10, 20, wanted=10**6)
    assert found == everything[:3]


# --- batches -------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 9), max_size=60),
    st.integers(0, 3),
    st.integers(1, 8),
    st.integers(1, 40),
)
def test_batches_hold_each_item_once_and_one_length(lengths, seed, batch_size, max_tokens):
    lengths = np.array(lengths, np.int64)
    rng = np.random.default_rng(seed)
    batches = batches_of_equal_length(lengths, rng, batch_size, max_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert len(set(lengths[batch])) == 1
        assert len(batch) == 1 or lengths[batch].sum() <= max_tokens


def test_batches_are_as_large_as_they_may_be():
    lengths = np.array([5] * 10 + [8] * 3)
    batches = batches_of_equal_length(lengths, np.random.default_rng(0), 4, 16)
    assert sorted((int(lengths[b[0]]), len(b)) for b in batches) == [
        (5, 1), (5, 3), (5, 3), (5, 3), (8, 1), (8, 2),
    ]  # fmt: skip


def test_batches_come_in_shuffled_order():
    lengths = np.repeat(np.arange(1, 40), 8)
    order, members = [], []
    for seed in (0, 0, 1):
        batches = batches_of_equal_length(lengths, np.random.default_rng(seed), 4, 1000)
        order.append([int(lengths[batch[0]]) for batch in batches])
        members.append({tuple(sorted(batch)) for batch in batches})
    assert order[0] == order[1] != order[2] and order[0] != sorted(order[0])
    assert members[0] != members[2]  # who stands together changes too


# --- what a trainer of 2015 was fed --------------------------------------------------------------


def test_padding_counts_one_eos_after_each_sequence():
    x, mask = padded([np.array([5, 6, 7]), np.array([8])])
    assert x.dtype == np.int64 and mask.dtype == np.float32
    assert x.T.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert mask.T.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def reference(name):
    folder = REFERENCE / 'training'
    if name.endswith('.json'):
        return json.loads((folder / name).read_text(encoding='utf-8'))
    return dict(np.load(folder / name))


def indices(texts, prefix, n_words):
    """Word indices as in 2015: what is among the rarest is UNK."""
    dictionary = {word: index for word, index, _ in reference(f'{prefix}_dictionary.json')}
    found = [[dictionary[word] for word in text.split()] for text in texts]
    return [np.array([i if i < n_words else 1 for i in text], np.int64) for text in found]


N_WORDS = {'skipthoughts': 60, 'decoder': 70, 'vse': 237, 'vse_bow': 237}


@pytest.mark.parametrize(
    ('prefix', 'texts', 'x', 'mask'),
    [
        ('skipthoughts', 'x', 'x', 'x_mask'),
        ('skipthoughts', 'y', 'y', 'y_mask'),
        ('skipthoughts', 'z', 'z', 'z_mask'),
        ('decoder', 'X', 'x', 'mask'),
        ('vse', 'captions', 'x', 'mask'),
        ('vse_bow', 'captions', 'x', 'mask'),
    ],
)
def test_batches_are_prepared_as_in_2015(prefix, texts, x, mask):
    expected = reference(f'{prefix}_batch.npz')
    found = padded(indices(reference(f'{prefix}_texts.json')[texts], prefix, N_WORDS[prefix]))
    np.testing.assert_array_equal(found[0], expected[x])
    np.testing.assert_array_equal(found[1], expected[mask])


def shorter(texts, maxlen):
    """In 2015 a text of `maxlen` words or more was dropped from its batch."""
    return [text for text in texts if len(text.split()) < maxlen]


def test_batches_with_a_limit_are_those_of_2015_once_texts_are_chosen():
    chosen = {
        'decoder': shorter(reference('book.json'), 13),
        'vse': shorter(reference('vse_iterator.json')['captions'], 11),
        'vse_bow': shorter(reference('vse_iterator.json')['captions'], 11),
    }
    for prefix, texts in chosen.items():
        expected = reference(f'{prefix}_batch_maxlen.npz')
        x, mask = padded(indices(texts, prefix, N_WORDS[prefix]))
        np.testing.assert_array_equal(x, expected['x'])
        np.testing.assert_array_equal(mask, expected['mask'])


def test_triples_with_a_limit_are_those_of_2015_once_texts_are_chosen():
    grouped = reference('skipthoughts_texts.json')['grouper']
    expected = reference('skipthoughts_batch_maxlen.npz')
    columns = (grouped[name] for name in ('source', 'forward', 'backward'))
    triples = [t for t in zip(*columns, strict=True) if all(len(s.split()) < 13 for s in t)]
    for name, texts in zip('xyz', zip(*triples, strict=True), strict=True):
        x, mask = padded(indices(texts, 'skipthoughts', 60))
        np.testing.assert_array_equal(x, expected[name])
        np.testing.assert_array_equal(mask, expected[f'{name}_mask'])
