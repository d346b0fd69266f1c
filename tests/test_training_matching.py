from __future__ import annotations

import numpy as np
import pytest
import torch

from storyteller.training.data.matching import Candidates, Matches, choice_cost
from storyteller.training.embedding import EmbeddingOptions, JointEmbedding, Pairs, initial_params

pytest.importorskip('sklearn')
pytest.importorskip('scipy')

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


def test_shares_are_those_of_the_similarities_among_what_is_asked_for(matches):
    similarity = torch.from_numpy(matches.similarity.toarray()).double()
    photos, some = np.array([2, 0]), np.array([4, 0, 1])
    for captions, columns in ((slice(None), range(5)), (some, some)):
        fits = (similarity[photos][:, list(columns)] / 0.05).exp()
        shares = matches.shares(photos, captions).double()
        torch.testing.assert_close(shares, fits / fits.sum(1, keepdim=True), rtol=1e-5, atol=1e-7)


def test_candidates_are_some_that_fit_and_some_at_random(matches):
    captions = [np.full(i + 1, i + 2) for i in range(5)]
    candidates, photos = Candidates(captions, matches, count=2), np.array([2, 0, 1])
    torch.manual_seed(0)
    seen = []
    for _ in range(50):
        x, mask, shares = candidates.draw(photos, CPU)
        drawn = x[0].numpy() - 2
        assert len(set(drawn.tolist())) == len(drawn) <= 4
        assert (mask.sum(0).numpy() == drawn + 2).all()  # the words and one <eos>
        torch.testing.assert_close(shares, matches.shares(photos, drawn))
        seen += drawn.tolist()
    assert set(seen) == set(range(5))
    torch.manual_seed(0)
    first = candidates.draw(photos, CPU)[0]
    torch.manual_seed(0)
    assert torch.equal(candidates.draw(photos, CPU)[0], first)


def test_what_fits_better_is_drawn_more_often(matches):
    candidates = Candidates([np.array([2])] * 5, matches)
    torch.manual_seed(0)
    found = candidates.fitting(np.full(4000, 0))
    similarity = matches.similarity.toarray()[0].astype(np.float64)
    fits = np.where(similarity > 0, np.exp(similarity / 0.05), 0)
    often = np.bincount(found, minlength=5) / 4000
    np.testing.assert_allclose(often, fits / fits.sum(), atol=0.03)
    assert len(candidates.fitting(np.array([2, 2]))) == 0  # nothing fits the church


def test_the_cost_of_a_choice_is_its_divergence_from_the_right_one():
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    assert float(choice_cost(scores, torch.softmax(scores, 1))) == pytest.approx(0, abs=1e-6)
    sure = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor([2, 0]), reduction='sum')
    torch.testing.assert_close(choice_cost(scores, sure), expected)


def test_photos_choose_among_candidates_by_their_cosines(matches):
    options = EmbeddingOptions(
        dim_image=7, dim_word=6, dim=8, unit_images=True, temperature=0.1, candidates_weight=3.0
    )
    model = JointEmbedding(initial_params(options, 20, 0), options).eval()
    captions = [np.array([3, 4, 5]), np.array([6, 7, 8]), np.array([9, 10, 11])]
    features = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    candidates = Candidates([np.full(i + 1, i + 12) for i in range(5)], matches, count=9)
    pairs = Pairs(captions, np.arange(3), features, options, candidates=candidates)
    batch = np.array([0, 1, 2])
    tensors, among = pairs.tensors(batch, CPU), pairs.choices(batch, CPU)
    scores = model.images(tensors[2]) @ model.sentences(*among[:2]).T / 0.1
    expected = model(*tensors) + 3 * choice_cost(scores, among[2])
    torch.testing.assert_close(model(*tensors, among), expected)
    assert Pairs(captions, np.arange(3), features, options).choices(batch, CPU) is None
    with pytest.raises(ValueError, match='temperature'):
        Pairs(captions, np.arange(3), features, EmbeddingOptions(), candidates=candidates)
