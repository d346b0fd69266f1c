from __future__ import annotations

import numpy as np
import pytest
import torch

from storyteller.training.embedding import EmbeddingOptions, JointEmbedding, Pairs, initial_params
from storyteller.training.matching import Distractors, Matches

pytest.importorskip('sklearn')

OWN = [
    ['a dog runs on grass', 'a brown dog runs'],
    ['a boy swims', 'a wet boy in a pool'],
    ['an old church'],
]
POOL = [
    'a brown dog runs on grass',
    'a brown cow',
    'a boy in a pool',
    'a conductor leads an orchestra',
    'a dog swims in a pool',
]
CPU = torch.device('cpu')


def words(caption):
    return [word for word in caption.split() if len(word) > 2]


@pytest.fixture
def matches():
    return Matches.of(OWN, POOL, words)


def test_similarity_is_the_cosine_of_tf_idf(matches):
    similarity = matches.similarity.toarray()
    assert similarity.shape == (3, 5)
    assert similarity[0].argmax() == 0 and similarity[1].argmax() == 2
    assert (similarity >= 0).all() and similarity.max() <= 1 + 1e-6
    assert not similarity[:, 3].any() and not similarity[2].any()  # not a word in common


def test_covered_is_the_share_of_words_in_common(matches):
    expected = [[1, 1 / 2, 0, 0, 1 / 3], [0, 0, 1, 0, 2 / 3], [0, 0, 0, 0, 0]]
    np.testing.assert_allclose(matches.covered.toarray(), expected, rtol=1e-6)


def test_the_best_reach_both_limits_the_most_similar_first(matches):
    similarity, covered = matches.similarity.toarray(), matches.covered.toarray()
    for limits in ((0.0, 0.6), (0.3, 0.0), (0.2, 0.5)):
        photos, captions = matches.best(5, *limits)
        good = (similarity >= limits[0]) & (covered >= limits[1]) & (similarity > 0)
        assert set(zip(photos.tolist(), captions.tolist(), strict=True)) == set(
            zip(*(axis.tolist() for axis in np.nonzero(good)), strict=True)
        )
    photos, captions = matches.best(1, 0.0, 0.0)
    assert dict(zip(photos.tolist(), captions.tolist(), strict=True)) == {0: 0, 1: 2}


def test_distractors_share_hardly_a_word_with_the_photos_they_stand_against(matches):
    captions = [np.full(i + 1, i + 2) for i in range(5)]
    distractors = Distractors(captions, matches, count=40, below=0.05)
    torch.manual_seed(0)
    x, mask, wrong = distractors.draw(np.array([2, 0]), CPU)
    assert x.shape == mask.shape == (6, 40) and wrong.shape == (2, 40)
    drawn = x[0].numpy() - 2
    assert set(drawn.tolist()) == set(range(5))
    assert (mask.sum(0).numpy() == drawn + 2).all()  # the words and one <eos>
    assert wrong[0].all()  # nothing describes the church
    np.testing.assert_array_equal(wrong[1], matches.similarity.toarray()[0, drawn] < 0.05)
    torch.manual_seed(0)
    assert torch.equal(distractors.draw(np.array([2, 0]), CPU)[0], x)


def test_the_cost_against_distractors_is_a_hinge_on_each(matches):
    options = EmbeddingOptions(dim_image=7, dim_word=6, dim=8, unit_images=True)
    model = JointEmbedding(initial_params(options, 20, 0), options).eval()
    captions = [np.array([3, 4, 5]), np.array([6, 7, 8]), np.array([9, 10, 11])]
    features = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    pool = [np.full(i + 1, i + 12) for i in range(5)]
    distractors = Distractors(pool, matches, count=9)
    pairs = Pairs(captions, np.arange(3), features, options, distractors=distractors)
    batch = np.array([0, 1, 2])
    tensors, others = pairs.tensors(batch, CPU), pairs.others(batch, CPU)
    images, own = model.images(tensors[2]), model.sentences(*tensors[:2])
    strange, expected = model.sentences(*others[:2]), float(model(*tensors).detach())
    for i in range(3):
        for j in range(9):
            hinge = 0.2 - images[i] @ own[i] + images[i] @ strange[j]
            expected += max(0.0, float(hinge.detach())) * float(others[2][i, j])
    assert float(model(*tensors, others).detach()) == pytest.approx(expected, rel=1e-5)
    assert Pairs(captions, np.arange(3), features, options).others(batch, CPU) is None
