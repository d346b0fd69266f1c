from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storyteller import search

# --- a slow, obvious beam search, and small random models ----------------------------------------


def slow_beam_search(step, state, k, maxlen, use_unk):
    """The search of 2015 for one context, on plain lists; ties by hypothesis, then word."""
    finished, live = [], [([], np.float32(0), state)]  # (words, score, state)
    for _ in range(maxlen):
        candidates = []
        for place, (words, score, state) in enumerate(live):
            logp, _ = step(words[-1] if words else -1, state)
            for word, value in enumerate(logp):
                cost = score - value
                if word == 1 and not use_unk:
                    cost = np.float32(1e20)
                candidates.append((cost, place, word))
        candidates.sort()
        chosen, old, live = candidates[: k - len(finished)], live, []
        for cost, place, word in chosen:
            words, _, state = old[place]
            if word == 0:
                finished.append(([*words, 0], cost))
            else:
                _, new = step(words[-1] if words else -1, state)
                live.append(([*words, word], cost, new))
        if not live or len(finished) >= k:
            break
    return finished + [(words, score) for words, score, _ in live]


class Tables:
    """A language model with S states: tables of log-probabilities and of transitions."""

    def __init__(self, seed, words, states, levels, zeros):
        rng = np.random.RandomState(seed)
        # Few levels make many equal costs; some words are impossible.
        scores = rng.randint(levels, size=(states, words + 1, words)).astype(np.float32)
        scores[..., 0] -= rng.randint(3)  # texts of different lengths
        scores[rng.rand(*scores.shape) < zeros] = -np.inf
        scores[..., rng.randint(words)] = 0  # but not all of them
        self.logp = torch.from_numpy(scores).log_softmax(dim=2)
        self.next = torch.from_numpy(rng.randint(states, size=(states, words + 1)))

    def step(self, words, state):
        return self.logp[state, words], self.next[state, words]

    def slow_step(self, word, state):
        return self.logp[state, word].numpy(), int(self.next[state, word])


models = st.builds(
    Tables,
    seed=st.integers(0, 10**6),
    words=st.integers(2, 9),
    states=st.integers(1, 4),
    levels=st.sampled_from([2, 4, 1000]),
    zeros=st.sampled_from([0, 0, 0.4]),
)
searches = st.fixed_dictionaries(
    {'k': st.integers(1, 12), 'maxlen': st.integers(1, 12), 'use_unk': st.booleans()}
)


def plain(hypotheses):
    return [(hypothesis.words, np.float32(hypothesis.score)) for hypothesis in hypotheses]


# --- beam search ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(models, searches)
def test_equals_the_slow_search(model, options):
    (fast,) = search.beam_search(model.step, torch.tensor([0]), **options)
    assert plain(fast) == slow_beam_search(model.slow_step, 0, **options)


WIDE = {'k': 10, 'maxlen': 12, 'use_unk': True}  # few blocks of words for many places


@settings(deadline=None, max_examples=100)
@given(models, searches, st.sampled_from([None, 1, 2]))
@example(Tables(16, words=4, states=3, levels=1000, zeros=0), WIDE, None)
def test_a_batch_gives_what_each_context_gives_alone(model, options, n_best):
    states = torch.arange(len(model.next)).repeat(2)
    together = search.beam_search(model.step, states, **options, n_best=n_best)
    alone = [
        search.beam_search(model.step, state[None], **options, n_best=n_best)[0] for state in states
    ]
    assert together == alone


@settings(deadline=None, max_examples=200)
@given(models, searches, st.integers(1, 4))
def test_stopping_early_gives_the_same_best(model, options, n):
    def ranked(hypotheses):
        return sorted((h for h in hypotheses if h.text), key=lambda h: h.score)[:n]

    (whole,) = search.beam_search(model.step, torch.tensor([0]), **options)
    (early,) = search.beam_search(model.step, torch.tensor([0]), **options, n_best=n)
    assert ranked(early) == ranked(whole)
    assert search.best(early) == search.best(whole)


def test_a_hypothesis_that_cannot_win_still_keeps_its_place():
    """What it becomes fills the beam; without that, a dearer end would narrow it."""
    costs = {  # word by word from the first: what the words after these cost
        (): {2: 3.5, 4: 4.9, 3: 5.4},
        (2,): {5: 0.5}, (3,): {0: 0.1}, (4,): {6: 0.1}, (4, 6): {2: 0.1},
        (2, 5): {7: 0.5, 0: 1.8}, (2, 5, 7): {2: 0.2, 3: 0.3}, (2, 5, 7, 3): {0: 0.1},
    }  # fmt: skip
    texts = [(8,), *costs]  # the first stands for all that is not here

    def step(words, state):
        told = zip(state.tolist(), words.tolist(), strict=True)
        after = [() if w < 0 else (*texts[i], w) for i, w in told]
        logp = torch.full((len(words), 9), -30.0)
        for row, text in enumerate(after):
            for word, cost in costs.get(text, {}).items():
                logp[row, word] = -cost
        return logp, torch.tensor([texts.index(t) if t in costs else 0 for t in after])

    whole, early = (
        search.beam_search(step, torch.tensor([0]), k=3, maxlen=20, n_best=n)[0] for n in (None, 1)
    )
    assert search.best(whole).words == [2, 5, 7, 3, 0]
    assert search.best(early) == search.best(whole)


def chain(*rows):
    """A step function with a fixed distribution per position; the state counts positions."""
    table = torch.tensor(rows).log()

    def step(words, state):
        step.calls += 1
        return table[state.clamp(max=len(rows) - 1)], state + 1

    step.calls = 0
    return step


def test_stopping_early_saves_steps_and_leaves_the_live_ones_out():
    step = chain([0.1, 0.0, 0.9], [0.9, 0.0, 0.1], [0.01, 0.0, 0.99])
    (found,) = search.beam_search(step, torch.tensor([0]), 3, 100, n_best=1)
    assert [h.words for h in found] == [[0], [2, 0]]
    assert step.calls == 2
    (whole,) = search.beam_search(step, torch.tensor([0]), 3, 100)
    assert step.calls > 50
    assert [h.words for h in whole[:2]] == [[0], [2, 0]]


def test_an_empty_text_does_not_stop_the_search():
    step = chain([0.98, 0.0, 0.02], [0.5, 0.0, 0.5])
    (found,) = search.beam_search(step, torch.tensor([0]), 2, 10, n_best=1)
    assert [h.words for h in found] == [[0], [2, 0]]
    assert search.best(found).text == [2]


def test_each_finished_hypothesis_narrows_the_beam():
    widths = []

    def step(words, state):
        widths.append(len(words))
        return torch.tensor([0.3, 0.0, 0.4, 0.3]).log().expand(len(words), 4), state

    search.beam_search(step, torch.zeros(1, 1), 4, 50)
    assert widths[0] == 1  # the first step goes out from one hypothesis
    assert widths[1:] == sorted(widths[1:], reverse=True)
    assert widths[-1] == 1


def test_a_finished_context_leaves_the_batch():
    rows = []
    table = torch.tensor([[0.9, 0.0, 0.1], [0.2, 0.0, 0.8]]).log()

    def step(words, state):
        rows.append(state.tolist())
        return table[state], state

    search.beam_search(step, torch.tensor([0, 1]), 1, 5)
    assert rows == [[0, 1], [1], [1], [1], [1]]


def test_equal_costs_are_ranked_by_hypothesis_then_word():
    def step(words, state):
        return torch.full((len(words), 5), 0.2).log(), state

    (found,) = search.beam_search(step, torch.zeros(1, 1), 3, 2, use_unk=True)
    assert [h.words for h in found] == [[0], [1, 0], [1, 1]]


def test_a_banned_unk_ranks_before_impossible_words():
    step = chain([0.0, 0.5, 0.5, 0.0])
    (found,) = search.beam_search(step, torch.tensor([0]), 4, 1)
    assert [h.words for h in found] == [[0], [2], [1], [3]]
    assert [h.score for h in found] == [np.inf, pytest.approx(np.log(2)), np.float32(1e20), np.inf]


def test_a_wide_vocabulary_needs_no_sort_to_be_right():
    logp = torch.randn(7, 5003, generator=torch.Generator().manual_seed(1)).log_softmax(dim=1)

    def step(words, state):
        return logp[words % 7], state

    (found,) = search.beam_search(step, torch.tensor([0]), 7, 2)
    first = logp[-1].clone()
    first[1] = -torch.inf
    first = first.sort(descending=True)
    costs = -first.values[:7, None] - logp[first.indices[:7] % 7]
    costs[:, 1] = 1e20
    order = costs.flatten().sort(stable=True).indices[:7]
    expected = [[int(first.indices[i // 5003]), int(i % 5003)] for i in order]
    assert [h.words for h in found] == expected


def test_no_contexts_give_no_results():
    assert search.beam_search(chain([1.0, 0.0]), torch.zeros(0, dtype=torch.int64), 3) == []
    assert search.sample(chain([1.0, 0.0]), torch.zeros(0, dtype=torch.int64)) == []


@pytest.mark.parametrize('name', ['k', 'maxlen', 'n_best'])
@pytest.mark.parametrize('value', [0, -1, True, 2.0, '3'])
def test_an_option_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f'expected an integer from 1 up, found {value!r}'):
        search.beam_search(chain([1.0, 0.0]), torch.tensor([0]), **{name: value})


def test_nan_is_refused():
    step = chain([0.5, 0.0, torch.nan])
    for run in (search.beam_search, search.sample):
        with pytest.raises(ValueError, match='NaN'):
            run(step, torch.tensor([0]), maxlen=3)


# --- the best of a list --------------------------------------------------------------------------


def test_best_drops_an_empty_text_only_where_it_stands_first():
    empty, short, long = ([0], 0.1), ([5, 0], 2.0), ([5, 6, 0], 1.0)
    pick = lambda *items: search.best([search.Hypothesis(*item) for item in items])  # noqa: E731
    assert pick(empty, short, long) == long
    assert pick(short, empty) == empty
    assert pick(short, ([0], 3.0)) == short
    assert pick(empty) is None
    assert pick() is None
    assert pick(([5, 0], 1.0), ([6, 0], 1.0)).words == [5, 0]  # among equals the first


def test_a_cut_hypothesis_keeps_its_last_word():
    assert search.Hypothesis([4, 5, 0], 1.0).text == [4, 5]
    assert search.Hypothesis([4, 5], 1.0).text == [4, 5]


# --- sampling ------------------------------------------------------------------------------------


def test_samples_follow_the_distribution_without_unk():
    step = chain([0.1, 0.5, 0.1, 0.3])
    drawn = search.sample(step, torch.zeros(5000, dtype=torch.int64), 1, seeds=range(5000))
    shares = np.bincount([h.words[0] for h in drawn], minlength=4) / 5000
    np.testing.assert_allclose(shares, [0.2, 0, 0.2, 0.6], atol=0.03)
    drawn = search.sample(step, torch.zeros(5000, dtype=torch.int64), 1, use_unk=True)
    shares = np.bincount([h.words[0] for h in drawn], minlength=4) / 5000
    np.testing.assert_allclose(shares, [0.1, 0.5, 0.1, 0.3], atol=0.03)


@settings(deadline=None, max_examples=30)
@given(models, st.lists(st.integers(0, 2**40), min_size=1, max_size=5), st.booleans())
def test_a_seed_repeats_a_sample_whatever_its_neighbours(model, seeds, use_unk):
    states = torch.arange(len(seeds)) % len(model.next)
    together = search.sample(model.step, states, 20, use_unk=use_unk, seeds=seeds)
    for state, seed, hypothesis in zip(states, seeds, together, strict=True):
        alone = search.sample(model.step, state[None], 20, use_unk=use_unk, seeds=[seed])
        assert alone == [hypothesis]


@settings(deadline=None, max_examples=30)
@given(models, st.integers(0, 2**40))
def test_the_score_of_a_sample_is_its_summed_nll(model, seed):
    (hypothesis,) = search.sample(model.step, torch.tensor([0]), 20, use_unk=True, seeds=[seed])
    state, last, total = 0, -1, 0.0
    for word in hypothesis.words:
        logp, state = model.slow_step(last, state)
        total, last = total - logp[word], word
    assert hypothesis.score == pytest.approx(total, rel=1e-5, abs=1e-6)
    assert 0 not in hypothesis.words[:-1]
    assert hypothesis.words[-1] == 0 or len(hypothesis.words) == 20


def test_unk_is_drawn_where_nothing_else_is_possible():
    (hypothesis,) = search.sample(chain([0.0, 1.0, 0.0]), torch.tensor([0]), 3)
    assert hypothesis.words == [1, 1, 1]


@pytest.mark.parametrize('seed', [-1, 1.5, True, 'x'])
def test_a_bad_seed_is_named(seed):
    with pytest.raises(ValueError, match='seed: expected an integer from 0 up'):
        search.sample(chain([1.0, 0.0]), torch.tensor([0]), seeds=[seed])
