"""The search by rules of many contexts at once, against a slow and obvious version of one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import REFERENCE
from test_telling import CASES, echoes, repeats, rules_of

from storyteller import decoder, telling
from storyteller.options import Telling
from storyteller.search import EOS, UNK, Hypothesis
from storyteller.search.rules import Rules

V, B = 9, 5


def random_model(seed, sharp=2.0):
    """A step function whose probabilities depend on the context and the last two words."""
    rng = np.random.default_rng(seed)
    table = torch.from_numpy(sharp * rng.normal(size=(B, V + 1, V + 1, V))).log_softmax(3).float()

    def step(words, state):
        context, before = state.long().T
        return table[context, before, words], torch.stack([state[:, 0], words.float()], 1)

    return step, torch.tensor([[float(context), -1.0] for context in range(B)])


def allowed(words, logp, rules, worth):
    """What each word that may come next adds to the cost."""
    may = {}
    for word, chance in enumerate(logp.tolist()):
        text = [*words, word]
        banned = word in rules.banned or (word == UNK and not rules.use_unk)
        early = len(words) < rules.telling.min_words or not set(rules.required) <= set(words)
        again = rules.telling.no_repeat and repeats(text, rules.telling.no_repeat)
        echo = word in rules.content and echoes(text, rules.telling.no_echo, rules.content)
        if not (banned or again or echo or (word == EOS and early)):
            had = set(words) & {word, *rules.content.get(word, ())}
            may[word] = -chance - (0.0 if had else worth.get(word, 0.0))
    return may


def chosen(choices, live, width, rules):
    """Of (cost, row, word) those that a group goes on with."""
    cheapest = sorted(choices)[:width]
    if not rules.required:
        return cheapest
    needed = set(rules.required)
    kept = set(cheapest)
    for row, (words, _) in enumerate(live):
        own = [choice for choice in sorted(choices) if choice[1] == row]
        kept |= {*own[:width], *(c for c in own if c[2] in needed - set(words))}
    banks = {}
    for choice in sorted(kept):
        met = len(needed & {*live[choice[1]][0], choice[2]})
        banks.setdefault(met, []).append(choice)
    share = max(1, width // (len(rules.required) + 1))
    found = [choice for met in sorted(banks, reverse=True) for choice in banks[met][:share]][:width]
    found += [choice for choice in sorted(kept) if choice not in found][: width - len(found)]
    return sorted(found)


def slow_search(step, state, k, maxlen, rules, worth):
    """One context, one hypothesis at a time, by the definition."""
    asked = rules.telling
    live = [[((), 0.0)] for _ in range(asked.groups)]
    finished = [[] for _ in range(asked.groups)]

    def logps(words):
        here, last = state, -1
        for word in [*words, None]:
            logp, here = step(torch.tensor([last]), here)
            last = word
        return logp[0]

    for _ in range(maxlen):
        known = sorted(rules.score(h) for group in finished for h in group if h.text)
        lowest = min((cost for group in live for _, cost in group), default=math.inf)
        bound = lowest / maxlen**asked.length_penalty
        if len(known) >= asked.wanted and known[asked.wanted - 1] <= bound:
            break
        said = []
        for g in range(asked.groups):
            true = {
                (row, word): cost + more
                for row, (words, cost) in enumerate(live[g])
                for word, more in allowed(words, logps(words), rules, worth).items()
            }
            dear = [(c + asked.diversity * said.count(w), row, w) for (row, w), c in true.items()]
            best = chosen(dear, live[g], k // asked.groups - len(finished[g]), rules)
            grown = [((*live[g][row][0], w), true[row, w]) for _, row, w in best]
            said += [word for _, _, word in best]
            finished[g] += [Hypothesis(list(w), cost) for w, cost in grown if w[-1] == EOS]
            live[g] = [(words, cost) for words, cost in grown if words[-1] != EOS]
    found = [h for group in finished for h in group]
    cut = (Hypothesis(list(words), cost) for group in live for words, cost in group)
    found += [h for h in cut if len(h.words) == maxlen and set(rules.required) <= set(h.words)]
    return sorted((h for h in found if h.text), key=rules.score)[: asked.wanted]


ALIKE = {'content': {2: (2, 6), 6: (2, 6), 3: (3,), 7: (7,)}}
WAYS = CASES | {
    'groups': {'groups': 3, 'n_best': 6},
    'groups that are far apart': {'groups': 6, 'n_best': 6, 'diversity': 3.0},
    'groups with required words': {'groups': 2, 'required': (4, 7), 'n_best': 4},
    'candidates': {'candidates': 6, 'groups': 2},
    'as the bundle': {
        'groups': 3, 'length_penalty': 1.0, 'min_words': 4, 'no_repeat': 3, 'no_echo': 5,
        'candidates': 6, 'worth': {2: 3.0, 6: 3.0, 4: 0.7}, **ALIKE,
    },
    'everything': {
        'groups': 2, 'length_penalty': 0.5, 'min_words': 3, 'no_repeat': 2, 'no_echo': 2,
        'n_best': 5, 'worth': {3: 1.0, 5: 2.5}, 'required': (4, 8), 'banned': (7,), **ALIKE,
        'use_unk': True, 'diversity': 1.3,
    },
}  # fmt: skip


def with_worth(case, count):
    """The rules of a case; what words are worth differs from context to context."""
    rules = rules_of(case, count)
    worth = [{w: gain / (1 + b) for w, gain in own.items()} for b, own in enumerate(rules.worth)]
    return rules, worth


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('seed', range(3))
def test_each_context_has_the_texts_of_the_definition(way, seed):
    step, state = random_model(seed)
    rules, worth = with_worth(WAYS[way], B)
    found = telling.search(step, state, 6, 9, Rules(**vars(rules) | {'worth': worth}))
    for b, hypotheses in enumerate(found):
        own = worth[b] if worth else {}
        expected = slow_search(step, state[b : b + 1], 6, 9, rules, own)
        assert [h.words for h in hypotheses] == [h.words for h in expected]
        np.testing.assert_allclose(
            [h.score for h in hypotheses], [h.score for h in expected], rtol=1e-4, atol=1e-5
        )
    assert sum(map(len, found)) >= B


@pytest.mark.parametrize('groups', [1, 2])
def test_of_equal_words_the_first_are_taken(groups):
    """All words but a few are equally probable, so that ties stand at every edge."""
    logits = torch.zeros(30)
    logits[EOS], logits[20] = -1.0, 1.0
    logp = logits.log_softmax(0)

    def step(words, state):
        return logp.expand(len(words), -1), state

    rules = Rules(Telling(groups=groups, n_best=4, no_repeat=1))
    found = telling.search(step, torch.zeros(2, 1), 4, 3, rules)
    expected = slow_search(step, torch.zeros(1, 1), 4, 3, rules, {})
    assert [[h.words for h in texts] for texts in found] == [[h.words for h in expected]] * 2


def test_a_step_by_rules_leaves_what_it_was_given():
    table = torch.randn(V + 1, V).log_softmax(1)
    kept = table.clone()

    def step(words, state):
        return (table if len(words) == V + 1 else table[words]), state

    rules = Rules(Telling(min_words=2), worth=[{2: 1.0}] * (V + 1))
    telling.search(step, torch.zeros(V + 1, 1), 1, 4, rules)
    assert (table == kept).all()


# --- draws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('way', ['no pair twice', 'no echo', 'long', 'keywords'])
def test_draws_do_not_depend_on_their_neighbours(way):
    step, state = random_model(1)
    asked = {key: value for key, value in WAYS[way].items() if key != 'n_best'}
    rules, worth = with_worth(asked, B)
    together = telling.draw(step, state, 12, range(B), Rules(**vars(rules) | {'worth': worth}))
    for b in range(B):
        own = Rules(**vars(rules) | {'worth': worth[b : b + 1]})
        assert telling.draw(step, state[b : b + 1], 12, [b], own) == [together[b]]
    assert len({len(hypothesis.words) for hypothesis in together}) > 1


# --- with a decoder ------------------------------------------------------------------------------


@pytest.mark.parametrize('seed', [None, 4])
@pytest.mark.parametrize('largest', [1, 20, 2**20])
def test_texts_do_not_depend_on_how_many_are_told_at_once(monkeypatch, seed, largest):
    folder = REFERENCE / 'decoder'
    dec = decoder.load_model(folder / 'romance.npz', folder / 'romance_dictionary.pkl')
    rng = np.random.default_rng(5)
    contexts = rng.normal(size=(7, dec['options']['dimctx'])).astype(np.float32)
    words = [word for word in telling.words_of(dec) if word.isalpha()]
    captions = [[f'the {word} of the sea', f'a {word} .'] for word in words[5:12]]
    groups = {'groups': 2} if seed is None else {}
    asked = Telling(min_words=4, no_repeat=3, no_echo=4, candidates=3, keywords=2.0, **groups)
    options = {'maxlen': 20, 'seed': seed}
    alone = [
        telling.tell(dec, context, asked, 4, captions=[own], **options)[0]
        for context, own in zip(contexts, captions, strict=True)
    ]
    rows, inner = [], dec['_model'].step

    def step(last, state):
        rows.append(len(last))
        return inner(last, state)

    monkeypatch.setattr(dec['_model'], 'step', step)
    monkeypatch.setattr(decoder, 'LARGEST_STEP', largest * dec['options']['n_words'])
    together = telling.tell(dec, contexts, asked, 4, captions=captions, **options)
    assert [[text for text, _ in texts] for texts in together] == [
        [text for text, _ in texts] for texts in alone
    ]
    assert max(rows) <= max(largest, 1 if seed is not None else 4)
