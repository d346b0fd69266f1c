"""Tasks for sentence encoders: the published files, and each protocol where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from storyteller.evaluation import sentence_sets, sentences
from storyteller.evaluation.encoders import MeanWords, TfIdf
from storyteller.evaluation.linear_ranking import Described, linear_ranking
from storyteller.evaluation.sentence_sets import PairsOfSentences, Sentences
from storyteller.formats import MissingFileError, ModelFileError

FEW = {'strengths': (1.0, 256.0), 'folds': 3}


class Toy:
    """The vector of a text is what its words say: 'x=1.5 y=2'."""

    def __init__(self, *names):
        self.names, self.eos = names, []

    def encode(self, X, *, verbose=True, use_eos=False):
        self.eos.append(use_eos)
        said = [dict(word.split('=') for word in text.split() if '=' in word) for text in X]
        return np.array([[float(s.get(n, 0)) for n in self.names] for s in said], np.float32)


class Sparse(Toy):
    def encode(self, X, **options):
        return csr_array(super().encode(X, **options))


# --- the files -----------------------------------------------------------------------------------


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


SICK_HEAD = 'pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n'
MSRP_HEAD = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n'


def test_sick_is_read(tmp_path):
    row = '1\tA dog runs\tA cat runs\t3.5\tNEUTRAL\r\n'
    names = 'SICK_train.txt', 'SICK_trial.txt', 'SICK_test_annotated.txt'
    write(tmp_path, {f'SICK/{name}': SICK_HEAD + row for name in names})
    found = sentence_sets.read_sick(tmp_path)
    assert list(found) == ['train', 'trial', 'test']
    assert found['trial'].a == ['A dog runs'] and found['trial'].b == ['A cat runs']
    assert found['trial'].values == [3.5]


def test_quotes_in_msrp_are_letters(tmp_path):
    row = '1\t7\t8\tHe said "yes.\tHe agreed.\r\n'
    names = 'msr_paraphrase_train.txt', 'msr_paraphrase_test.txt'
    write(tmp_path, {f'MRPC/{name}': MSRP_HEAD + row + row for name in names})
    found = sentence_sets.read_msrp(tmp_path)['train']
    assert found.a == ['He said "yes.'] * 2 and found.values.tolist() == [1, 1]


def test_trec_is_latin_1_and_read_by_coarse_kind(tmp_path):
    row = 'DESC:def What is a caf\xe9 ?\n'.encode('latin-1')
    write(tmp_path, {'train_5500.label': row, 'TREC_10.label': row + b'NUM:dist How far ?\n'})
    found = sentence_sets.read_trec(tmp_path)
    assert found['train'].texts == ['What is a café ?']
    assert found['test'].labels.tolist() == ['DESC', 'NUM']


@pytest.mark.parametrize('task', ['MR', 'CR', 'SUBJ', 'MPQA'])
def test_the_first_file_is_class_one(tmp_path, task):
    first, second = sentence_sets.POLARITY[task]
    write(tmp_path, {first: 'good \nfine\n\n', second: 'bad\n'})
    found = sentence_sets.read_polarity(tmp_path, task)
    assert found.texts == ['good', 'fine', 'bad'] and found.labels.tolist() == [1, 1, 0]


def test_a_missing_file_is_named_with_the_folders(tmp_path):
    with pytest.raises(MissingFileError, match=r'CR: custrev\.pos .*CR'):
        sentence_sets.read_polarity(tmp_path, 'CR')


@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        ('a\tb\n1\t2\n', 'columns sentence_A, sentence_B, relatedness_score missing'),
        (SICK_HEAD, 'no row'),
        ('', 'no sentence'),
        (SICK_HEAD + '1\tA dog\n', 'line 2'),
        (SICK_HEAD + '1\tA dog\tA cat\tmuch\tNEUTRAL\n', 'line 2'),
        (SICK_HEAD + '1\tA dog\tA cat\t7\tNEUTRAL\n', 'not from 1 to 5'),
        (b'\xff\xfe', 'not utf-8'),
    ],
)
def test_bad_tables_are_named(tmp_path, content, problem):
    write(tmp_path, {'SICK_train.txt': content})
    with pytest.raises(ModelFileError, match=rf'SICK_train\.txt: .*{problem}'):
        sentence_sets.read_sick(tmp_path)


def test_a_bad_question_is_named(tmp_path):
    write(tmp_path, {'train_5500.label': 'NUM:dist How far ?\nHow far ?\n'})
    with pytest.raises(ModelFileError, match='line 2'):
        sentence_sets.read_trec(tmp_path)


# --- encoders to measure against -----------------------------------------------------------------


def test_mean_words():
    tables = {'a': np.array([1.0, 0]), 'b': np.array([0, 1.0])}, {'a': np.array([2.0])}
    found = MeanWords(*tables).encode(['a b', 'a zzz', 'zzz'])
    half = 0.5**0.5
    np.testing.assert_allclose(found, [[half, half, 1], [1, 0, 1], [0, 0, 0]], rtol=1e-6)


def test_rare_words_weigh_more():
    found = TfIdf(['a b', 'a c', 'a d']).encode(['a b'])
    assert sorted(found.data)[0] < sorted(found.data)[1]
    assert found.shape == (1, 4) and np.linalg.norm(found.data) == pytest.approx(1)


# --- pairs ---------------------------------------------------------------------------------------


def graded(n, seed, noise=0.0):
    """Pairs whose relatedness is linear in the product of their x."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, n)
    values = np.clip(1 + 4 * x + noise * rng.normal(size=n), 1, 5)
    return PairsOfSentences([f'x={v}' for v in x], ['x=1'] * n, values)


@pytest.mark.parametrize('kind', [Toy, Sparse])
def test_relatedness_that_vectors_tell_is_found(kind):
    encoder = kind('x')
    splits = {name: graded(300, seed) for seed, name in enumerate(('train', 'trial', 'test'))}
    found = sentences.relatedness(encoder, splits)
    assert found['pearson'] > 0.98 and found['spearman'] > 0.98 and found['mse'] < 0.1
    assert all(encoder.eos)  # SICK alone reads an <eos>


def test_relatedness_that_vectors_do_not_tell_is_not():
    splits = {name: graded(300, seed) for seed, name in enumerate(('train', 'trial', 'test'))}
    shuffled = np.random.default_rng(9).permutation(splits['test'].values)
    splits['test'] = PairsOfSentences(splits['test'].a, splits['test'].b, shuffled)
    found = sentences.relatedness(Toy('x'), splits)
    assert abs(found['pearson']) < 0.2 and found['mse'] > 1


def test_without_features_the_mean_is_guessed():
    """The softmax learns the soft target: 3.3 becomes 0.7 of grade 3 and 0.3 of grade 4."""
    targets = sentences.soft_targets(np.full(50, 3.3))
    rows, grades, weights = sentences._weighted_grades(targets)
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6, tol=1e-8).fit(np.zeros((50, 1))[rows], grades, weights)
    np.testing.assert_allclose(sentences._mean_grade(model, np.zeros((2, 1))), 3.3, atol=1e-3)


def test_soft_targets_are_distributions_of_that_mean():
    values = np.linspace(1, 5, 41)
    targets = sentences.soft_targets(values)
    assert (targets >= 0).all() and ((targets > 0).sum(1) <= 2).all()
    np.testing.assert_allclose(targets.sum(1), 1)
    np.testing.assert_allclose(targets @ np.arange(1, 6), values)


def paraphrases(n, seed):
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.6
    x = rng.choice([-1, 1], n)
    other = np.where(same, x, -x)
    return PairsOfSentences([f'x={v}' for v in x], [f'x={v}' for v in other], same.astype(int))


@pytest.mark.parametrize('kind', [Toy, Sparse])
def test_paraphrases_that_vectors_tell_are_found(kind):
    encoder = kind('x')
    splits = {'train': paraphrases(90, 0), 'test': paraphrases(60, 1)}
    found = sentences.paraphrase(encoder, splits, **FEW)
    assert found['accuracy'] == 100 and found['f1'] == 100
    assert not any(encoder.eos)


def test_statistics_tell_what_vectors_do_not():
    def pairs(n, seed):
        same = np.random.default_rng(seed).random(n) < 0.6
        return PairsOfSentences(
            ['costs 5 dollars'] * n,
            [f'it is {5 if yes else 6}' for yes in same],
            same.astype(int),
        )

    splits = {'train': pairs(90, 0), 'test': pairs(60, 1)}
    plain = sentences.paraphrase(Toy('x'), splits, **FEW)
    assert plain['accuracy'] == pytest.approx(100 * splits['test'].values.mean())
    assert sentences.paraphrase(Toy('x'), splits, statistics=True, **FEW)['accuracy'] == 100


def test_pair_statistics():
    pairs = PairsOfSentences(
        ['5 men', 'a man', '5 men and 6', 'one two three four'],
        ['5 women', 'a boy', '5 men', 'one two'],
        np.zeros(4),
    )
    found = sentences.pair_statistics(pairs)
    np.testing.assert_allclose(
        found,
        [
            [1, 1, 0, 0.5, 0.5, 1],
            [1, 0, 0, 0.5, 0.5, 1],
            [0, 0, 1, 0.5, 1, 0.5],
            [1, 0, 0, 0.5, 1, 0.5],
        ],
    )


# --- classes -------------------------------------------------------------------------------------


def test_questions_that_vectors_tell_apart():
    def questions(n, seed):
        labels = np.random.default_rng(seed).integers(0, 3, n)
        return Sentences([f'{"xyz"[k]}=1' for k in labels], np.array(['HUM', 'LOC', 'NUM'])[labels])

    splits = {'train': questions(60, 0), 'test': questions(30, 1)}
    assert sentences.question_type(Toy('x', 'y', 'z'), splits, **FEW)['accuracy'] == 100
    blind = sentences.question_type(Toy('w'), splits, **FEW)['accuracy']
    assert blind < 60


def opinions(n, words=('good', 'bad'), seed=0):
    labels = np.random.default_rng(seed).integers(0, 2, n)
    texts = [f'x={2 * k - 1} it was {words[1 - k]}' for k in labels]
    return Sentences(texts, labels)


def test_classes_that_vectors_tell_apart():
    found = sentences.polarity(Toy('x'), opinions(60), **FEW)
    assert found == {'accuracy': 100, 'deviation': 0}


def test_classes_that_nothing_tells_apart():
    labels = np.random.default_rng(3).permutation(np.repeat([0, 1], 60))
    texts = [f'x={v}' for v in np.random.default_rng(4).normal(size=120)]
    found = sentences.polarity(Toy('x'), Sentences(texts, labels), **FEW)
    assert 30 < found['accuracy'] < 70 and found['deviation'] > 0


@pytest.mark.parametrize('kind', [Toy, Sparse])
def test_ngrams_tell_what_vectors_do_not(kind):
    blind = sentences.polarity(kind('w'), opinions(60), **FEW)['accuracy']
    seen = sentences.polarity(kind('w'), opinions(60), ngrams=True, **FEW)['accuracy']
    assert blind < 70 and seen == 100


def test_ngrams_of_what_is_told_apart_do_not_count_in_training():
    """Every text has its own words: counted over all texts they would tell the classes."""
    labels = np.random.default_rng(3).permutation(np.repeat([0, 1], 40))
    own = Sentences([f'word{i}' for i in range(80)], labels)
    assert sentences.polarity(Toy('w'), own, ngrams=True, **FEW)['accuracy'] < 60


def test_log_count_ratio_equals_its_definition():
    present = csr_array(np.array([[1, 0, 1], [1, 1, 0], [0, 1, 0]], np.float32))
    one, other = np.array([2, 1, 2]) / 5, np.array([2, 3, 1]) / 6
    found = sentences.log_count_ratio(present, np.array([1, 0, 0]))
    np.testing.assert_allclose(found, np.log(one / other), rtol=1e-6)


def test_the_weakest_strength_among_equals_is_chosen():
    X, labels = np.array([[-1.0], [1.0]] * 30), np.array([0, 1] * 30)
    features = sentences._fixed(X)
    assert sentences.choose_strength(features, labels, sentences._accuracy, (1.0, 4.0), 5) == 1.0


def test_the_strength_with_the_best_score_is_chosen():
    """Scored by how sure the classifier is allowed to be: here the largest C wins."""
    X, labels = np.array([[-0.01, 1.0], [0.01, 1.0]] * 30), np.array([0, 1] * 30)
    labels[:8] = 1

    def right(true, guess):
        return float((guess == 0).sum())

    found = sentences.choose_strength(sentences._fixed(X), labels, right, (1e-6, 1e9), 5)
    assert found == 1e9


# --- images --------------------------------------------------------------------------------------


def described(images, noise, seed):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(images)), 2)
    turn = np.random.default_rng(0).normal(size=(images.shape[1], 12))
    return Described(
        images, images[owner] @ turn + noise * rng.normal(size=(len(owner), 12)), owner
    )


def test_a_linear_map_finds_what_is_linear():
    images = np.random.default_rng(1).normal(size=(120, 6)).astype(np.float32)
    parts = [
        described(images[rows], 0.05, seed)
        for seed, rows in enumerate((slice(0, 80), slice(80, 100), slice(100, 120)))
    ]
    found = linear_ranking(*parts, dim=16, lr=1e-2, epochs=30, batch_size=20, verbose=False)
    assert found['i2t'].r1 > 80 and found['t2i'].r1 > 80
    again = linear_ranking(*parts, dim=16, lr=1e-2, epochs=30, batch_size=20, verbose=False)
    assert again == found


def test_a_linear_map_finds_nothing_where_nothing_is():
    rng = np.random.default_rng(1)
    parts = [
        Described(rng.normal(size=(n, 6)), rng.normal(size=(2 * n, 5)), np.repeat(np.arange(n), 2))
        for n in (60, 40, 40)
    ]
    found = linear_ranking(*parts, dim=8, epochs=5, batch_size=20, verbose=False)
    assert found['t2i'].r1 < 25
