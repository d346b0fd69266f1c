"""Other ways to tell, each against a slow and obvious version on small random models."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import REFERENCE

from storyteller import decoder, generate, search, telling
from storyteller.options import Telling
from storyteller.search import EOS, UNK, Hypothesis
from storyteller.telling import Rules
from storyteller.text.function_words import has_content

V = 5


def random_model(seed, n_words=V, sharp=1.5):
    """A step function whose probabilities depend on the last two words."""
    rng = np.random.default_rng(seed)
    table = torch.from_numpy(sharp * rng.normal(size=(n_words + 1, n_words + 1, n_words)))
    table = table.log_softmax(2).float()

    def step(words, state):
        before = state[:, 0].long()
        return table[before, words], words[:, None].float()

    return step, torch.full((1, 1), -1.0)


def cost(step, state, words, rules=None):
    """Summed cost of a text, one step after the other, less what its words are worth."""
    total, last = 0.0, -1
    for word in words:
        logp, state = step(torch.tensor([last]), state)
        total -= float(logp[0, word])
        last = word
    return total - (gained(words, rules) if rules else 0.0)


def gained(words, rules):
    """What the first use of each word is worth; of those that are the same, only one counts."""
    had, total = set(), 0.0
    worth = rules.worth[0] if rules.worth else {}
    for word in words:
        if word in worth and word not in had:
            total += worth[word]
            had |= {word, *rules.content.get(word, ())}
    return total


def all_texts(maxlen, n_words=V):
    """Every finished text, and every one that is cut."""
    inner = [word for word in range(n_words) if word != EOS]
    for length in range(maxlen):
        yield from ([*words, EOS] for words in itertools.product(inner, repeat=length))
    yield from (list(words) for words in itertools.product(inner, repeat=maxlen))


def repeats(text, n):
    runs = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    return len(runs) != len(set(runs))


def echoes(text, n, content):
    """Whether a word comes within n words of one that it must not echo."""
    pairs = ((a, b) for i, a in enumerate(text) for b in text[i + 1 : i + 1 + n])
    return any(b in content.get(a, ()) for a, b in pairs)


def fits(words, rules):
    """Whether a text keeps the rules, by their definition."""
    text, asked = [word for word in words if word != EOS], rules.telling
    return (
        not set(text) & set(rules.banned)
        and (rules.use_unk or UNK not in text)
        and set(rules.required) <= set(text)
        and (words[-1] != EOS or len(text) >= asked.min_words)
        and not (asked.no_repeat and repeats(text, asked.no_repeat))
        and not echoes(text, asked.no_echo, rules.content)
        and bool(text)
    )


def exhaustive(step, state, maxlen, rules):
    """All texts that keep the rules, best first, by trying every one."""
    found = [
        Hypothesis(w, cost(step, state, w, rules)) for w in all_texts(maxlen) if fits(w, rules)
    ]
    return sorted(found, key=rules.score)


CASES = {
    'as in 2015': {},
    'with UNK': {'use_unk': True},
    'several': {'n_best': 7},
    'mean cost': {'length_penalty': 1.0, 'n_best': 3},
    'half the penalty': {'length_penalty': 0.5},
    'long': {'min_words': 3, 'n_best': 2},
    'no word twice': {'no_repeat': 1, 'n_best': 3},
    'no pair twice': {'no_repeat': 2, 'n_best': 3},
    'banned': {'banned': (3,), 'n_best': 3},
    'no echo': {'no_echo': 2, 'content': {3: (3,), 4: (4,)}, 'n_best': 3},
    'no echo in other letters': {'no_echo': 3, 'content': {2: (2, 4), 4: (2, 4)}, 'n_best': 3},
    'required': {'required': (4,), 'n_best': 3},
    'two required': {'required': (4, 2)},
    'keywords': {'worth': {3: 1.5, 4: 0.5}, 'n_best': 3},
    'a keyword in other letters': {'worth': {2: 2.0, 4: 2.0}, 'content': {2: (2, 4), 4: (2, 4)}},
    'keywords at their mean': {'worth': {2: 3.0}, 'length_penalty': 1.0, 'n_best': 2},
    'all of it': {'required': (4,), 'banned': (2,), 'no_repeat': 2, 'length_penalty': 1.0},
}


def rules_of(case, count=1):
    case = dict(case)
    words = {name: case.pop(name, ()) for name in ('banned', 'required')}
    words['content'] = case.pop('content', {})
    worth = [case.pop('worth')] * count if 'worth' in case else []
    return Rules(use_unk=case.pop('use_unk', False), telling=Telling(**case), worth=worth, **words)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('seed', range(4))
def test_a_beam_that_holds_everything_finds_the_best_texts(case, seed):
    step, state = random_model(seed)
    rules = rules_of(CASES[case])
    (found,) = telling.search(step, state, 3000, 5, rules)
    expected = exhaustive(step, state, 5, rules)[: rules.telling.n_best]
    assert [h.words for h in found] == [h.words for h in expected]
    np.testing.assert_allclose([h.score for h in found], [h.score for h in expected], rtol=1e-5)


@pytest.mark.parametrize('k', [1, 2, 3, 8])
@pytest.mark.parametrize('seed', range(6))
def test_by_default_it_is_the_search_of_2015(seed, k):
    step, state = random_model(seed, n_words=12)
    (beam,) = search.beam_search(step, state, k, 9)
    expected = search.best(beam)
    (found,) = telling.search(step, state, k, 9)
    assert [h.words for h in found] == ([expected.words] if expected else [])
    (several,) = telling.search(step, state, k, 9, Rules(Telling(n_best=100)))
    texts = sorted((h for h in beam if h.text and UNK not in h.text), key=lambda h: h.score)
    assert [h.words for h in several] == [h.words for h in texts]


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('k', [1, 3])
def test_narrow_beams_keep_the_rules(case, k):
    for seed in range(5):
        step, state = random_model(seed)
        rules = rules_of(CASES[case])
        for hypothesis in telling.search(step, state, k, 8, rules)[0]:
            assert fits(hypothesis.words, rules)
            assert hypothesis.score == pytest.approx(
                cost(step, state, hypothesis.words, rules), rel=1e-5, abs=1e-5
            )


def test_required_words_are_found_by_a_narrow_beam():
    """The required word is very unlikely everywhere, and still the text is told to its end."""
    logits = torch.tensor([3.0, 0.0, 3.0, 3.0, -12.0])

    def step(words, state):
        return logits.log_softmax(0).expand(len(words), -1), state

    ((found,),) = telling.search(step, torch.zeros(1, 1), 4, 20, Rules(required=(4,)))
    assert 4 in found.words and found.words[-1] == EOS


def slow_groups(step, state, k, maxlen, groups, diversity):
    """Diverse beams by their definition: dictionaries, one hypothesis at a time."""
    size = k // groups
    live = [[((), 0.0)] for _ in range(groups)]
    finished = [[] for _ in range(groups)]

    def logps(words):
        here, last = state, -1
        for word in [*words, None]:
            logp, here = step(torch.tensor([last]), here)
            last = word
        return logp[0]

    for _ in range(maxlen):
        said = Counter()
        for g in range(groups):
            candidates = []
            for row, (words, score) in enumerate(live[g]):
                logp = logps(words)
                for word in range(len(logp)):
                    if word != UNK:
                        true = score - float(logp[word])
                        candidates.append((true + diversity * said[word], row, word, true))
            chosen = sorted(candidates)[: size - len(finished[g])]
            taken, following = Counter(), []
            for _, row, word, true in chosen:
                taken[word] += 1
                words = (*live[g][row][0], word)
                (finished[g] if word == EOS else following).append((words, true))
            live[g] = following
            said += taken
    return {
        words for g in range(groups) for words, _ in [*finished[g], *live[g]] if words != (EOS,)
    }


@pytest.mark.parametrize('groups', [1, 2, 3])
@pytest.mark.parametrize('seed', range(3))
def test_diverse_beams_are_those_of_the_definition(seed, groups):
    step, state = random_model(seed, n_words=8)
    asked = Telling(groups=groups, diversity=0.7 if groups > 1 else 0.5, n_best=100)
    (found,) = telling.search(step, state, 6, 5, Rules(asked))
    assert {tuple(h.words) for h in found} == slow_groups(step, state, 6, 5, groups, 0.7)


def test_groups_begin_differently():
    step, state = random_model(0, n_words=8)
    (alike,) = telling.search(step, state, 4, 6, Rules(Telling(n_best=4)))
    (apart,) = telling.search(
        step, state, 4, 6, Rules(Telling(n_best=4, groups=4, diversity=100.0))
    )
    assert len({h.words[0] for h in apart}) == len(apart) > len({h.words[0] for h in alike})


def test_a_step_that_gives_nan_is_named():
    def step(words, state):
        return torch.full((len(words), V), torch.nan), state

    with pytest.raises(ValueError, match='NaN'):
        telling.search(step, torch.zeros(1, 1), 2, 5)
    with pytest.raises(ValueError, match='NaN'):
        telling.draw(step, torch.zeros(1, 1), 5, [0])


# --- draws ---------------------------------------------------------------------------------------

LOGP = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05]).log()


@pytest.mark.parametrize(
    ('asked', 'expected'),
    [
        ({}, [0.4, 0.3, 0.15, 0.1, 0.05]),
        ({'top_k': 2}, [4 / 7, 3 / 7, 0, 0, 0]),
        ({'top_k': 99}, [0.4, 0.3, 0.15, 0.1, 0.05]),
        ({'top_p': 0.7}, [4 / 7, 3 / 7, 0, 0, 0]),
        ({'top_p': 0.71}, [8 / 17, 6 / 17, 3 / 17, 0, 0]),
        ({'top_p': 1e-9}, [1, 0, 0, 0, 0]),
        ({'temperature': 0.5}, np.square([8, 6, 3, 2, 1]) / 114),
        ({'temperature': 1000.0}, [0.2] * 5),
        ({'top_k': 3, 'temperature': 0.5, 'top_p': 0.9}, [0.64, 0.36, 0, 0, 0]),
    ],
)
def test_chances(asked, expected):
    found = telling.chances_of(LOGP.clone(), Telling(**asked))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_draws_have_the_chances_of_the_model():
    step, state = random_model(1, sharp=1.0)
    texts = Counter(
        tuple(h.words)
        for h in telling.draw(step, state.expand(4000, 1), 2, range(4000), Rules(use_unk=True))
    )
    for words, times in texts.most_common(6):
        chance = np.exp(-cost(step, state, words))
        assert times / 4000 == pytest.approx(chance, abs=4 * (chance / 4000) ** 0.5)


@pytest.mark.parametrize('case', ['long', 'no pair twice', 'banned', 'as in 2015', 'no echo'])
def test_draws_keep_the_rules(case):
    asked = {key: value for key, value in CASES[case].items() if key != 'n_best'}
    step, state = random_model(2)
    for seed in range(60):
        (found,) = telling.draw(step, state, 8, [seed], rules_of(asked))
        assert found.words == [EOS] or fits(found.words, rules_of(asked))
        assert [found] == telling.draw(step, state, 8, [seed], rules_of(asked))


def test_a_draw_ends_where_no_word_is_left():
    step, state = random_model(0)
    rules = Rules(Telling(no_repeat=1, min_words=50))
    (found,) = telling.draw(step, state, 40, [0], rules)
    assert sorted(found.words) == [2, 3, 4]  # each once, and <eos> not yet


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('asked', 'name'),
    [
        ({'n_best': 0}, 'n_best'), ({'min_words': -1}, 'min_words'),
        ({'no_repeat': 1.5}, 'no_repeat'),
        ({'groups': True}, 'groups'), ({'top_k': -3}, 'top_k'), ({'top_p': 0}, 'top_p'),
        ({'top_p': 1.1}, 'top_p'), ({'temperature': 0}, 'temperature'),
        ({'temperature': float('nan')}, 'temperature'), ({'length_penalty': -1}, 'length_penalty'),
        ({'length_penalty': float('inf')}, 'length_penalty'), ({'diversity': -1}, 'diversity'),
        ({'banned': 'the'}, 'banned'), ({'required': [3]}, 'required'), ({'banned': 3}, 'banned'),
        ({'no_echo': -1}, 'no_echo'), ({'candidates': 0}, 'candidates'),
        ({'closeness': -1}, 'closeness'), ({'closeness': True}, 'closeness'),
        ({'contrast': -1}, 'contrast'), ({'contrast_words': -1}, 'contrast_words'),
        ({'plausibility': 0}, 'plausibility'), ({'plausibility': 2}, 'plausibility'),
        ({'banned': ['a'], 'required': ['a', 'b']}, "'a' is in both"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_named(asked, name):
    with pytest.raises(ValueError, match=name):
        Telling(**asked)


@pytest.mark.parametrize(
    ('asked', 'drawn', 'message'),
    [
        ({'top_k': 3}, False, r'top_k=3 .*searched'),
        ({'n_best': 3}, True, r'n_best=3 .*draws'),
        ({'contrast_words': 2}, False, r'contrast_words=2 .*nothing is contrasted'),
        ({'closeness': 2}, True, r'closeness=2.0 .*there is one candidate'),
        ({'diversity': 2}, False, r'diversity=2.0 .*there is one group'),
        ({'diversity': 2}, True, r'diversity=2.0 .*a seed draws a text'),
        ({'groups': 3}, False, '3 do not part a beam width of 4'),
    ],
)
def test_options_without_effect_are_refused(asked, drawn, message):
    with pytest.raises(ValueError, match=message):
        Telling(**asked).check_for(drawn, beam_width=4)


def test_options_with_effect_are_not():
    Telling(closeness=2, candidates=2).check_for(drawn=True)
    Telling(diversity=2, groups=2).check_for(drawn=False, beam_width=4)
    Telling(contrast=0.1, plausibility=0.3).check_for(drawn=True)
    assert Telling().changed() == {} and Telling(n_best=2).changed() == {'n_best': 2}


# --- with a decoder ------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def dec():
    folder = REFERENCE / 'decoder'
    return decoder.load_model(folder / 'romance.npz', folder / 'romance_dictionary.pkl')


@pytest.fixture(scope='module')
def contexts(dec):
    rng = np.random.default_rng(5)
    return rng.normal(size=(4, dec['options']['dimctx'])).astype(np.float32)


def test_the_best_of_several_is_the_story(dec, contexts):
    told = telling.tell(dec, contexts, Telling(n_best=3), 5, maxlen=30)
    plain = decoder.run_samplers(dec, contexts, 5, maxlen=30)
    for texts, story in zip(told, plain, strict=True):
        assert texts[0][0] == story and len(texts) == 3
        assert [score for _, score in texts] == sorted(score for _, score in texts)


def test_words_are_banned_and_required_by_name(dec, contexts):
    (story,) = decoder.run_samplers(dec, contexts[:1], 5, maxlen=30)
    common = Counter(story.split()).most_common(1)[0][0]
    ((text, _),) = telling.tell(dec, contexts[:1], Telling(banned=(common, 'zzz')), 5, maxlen=30)[0]
    assert common not in text.split()
    absent = next(w for w in list(dec['worddict'])[5:40] if w not in story.split() and w.isalpha())
    ((text, _),) = telling.tell(dec, contexts[:1], Telling(required=(absent,)), 5, maxlen=30)[0]
    assert absent in text.split()
    with pytest.raises(ValueError, match=r"required: .*'zzz'"):
        telling.tell(dec, contexts, Telling(required=('zzz',)), 5)


@pytest.mark.parametrize('seed', [None, 1])
def test_what_has_content_does_not_echo(dec, contexts, seed):
    def near(text, n):
        words = [word.lower() for word in text.split()]
        content = [word for word in words if has_content(word)]
        assert content
        return any(has_content(w) and w in words[i + 1 : i + 1 + n] for i, w in enumerate(words))

    options = {'maxlen': 40, 'seed': seed}
    plain = telling.tell(dec, contexts, Telling(min_words=40), 3, **options)
    asked = telling.tell(dec, contexts, Telling(min_words=40, no_echo=6), 3, **options)
    assert any(near(text, 6) for ((text, _),) in plain)
    assert not any(near(text, 6) for ((text, _),) in asked)


def test_words_that_the_decoder_cannot_say_are_unknown_though_its_dictionary_has_them(
    dec, contexts
):
    beyond = dec | {'worddict': dec['worddict'] | {'beyond': dec['options']['n_words']}}
    plain = telling.tell(dec, contexts, Telling(no_echo=3), 2, maxlen=9)
    asked = Telling(no_echo=3, banned=('beyond',))
    assert telling.tell(beyond, contexts, asked, 2, maxlen=9) == plain
    with pytest.raises(ValueError, match=r"required: .*'beyond'"):
        telling.tell(beyond, contexts, Telling(required=('beyond',)), 2)


@pytest.mark.parametrize('seed', [None, 1])
def test_what_captions_share_is_said(dec, contexts, seed):
    options = {'maxlen': 30, 'seed': seed}
    plain = telling.tell(dec, contexts, Telling(min_words=5), 5, **options)
    said = {word for ((text, _),) in plain for word in text.lower().split()}
    known = telling.words_of(dec)
    wanted = [w for w in known if w.islower() and has_content(w) and w not in said][:4]
    captions = [[f'the {word} of', f'{word}'] for word in wanted]
    asked = Telling(min_words=5, keywords=30.0)
    told = telling.tell(dec, contexts, asked, 5, captions=captions, **options)
    assert all(
        word in text.lower().split() for word, ((text, _),) in zip(wanted, told, strict=True)
    )
    asked = Telling(min_words=5, keywords=1e-9)
    little = telling.tell(dec, contexts, asked, 5, captions=captions, **options)
    assert [text for ((text, _),) in little] == [text for ((text, _),) in plain]


def test_keywords_need_captions(dec, contexts):
    for captions in (None, [['a dog']]):
        with pytest.raises(ValueError, match=r'keywords=2\.0: expected the captions'):
            telling.tell(dec, contexts, Telling(keywords=2.0), 2, captions=captions)


def test_a_contrast_needs_a_style(dec, contexts):
    with pytest.raises(
        ValueError, match=r'contrast=0\.5: expected the vector of the style.* found none'
    ):
        telling.tell(dec, contexts, Telling(contrast=0.5), 2)
    with pytest.raises(ValueError, match=r'of shape .* found \(1, '):
        telling.tell(dec, contexts, Telling(contrast=0.5), 2, style=contexts[:1])


@pytest.mark.parametrize('seed', [None, 3], ids=['searched', 'drawn'])
def test_texts_of_many_contexts_are_contrasted_each_for_itself(dec, contexts, seed):
    style = contexts.mean(0)
    options = {'maxlen': 12, 'seed': seed, 'style': style}
    asked = Telling(contrast=0.6, contrast_words=4, candidates=2)
    told = telling.tell(dec, contexts, asked, 4, **options)
    alone = [telling.tell(dec, context[None], asked, 4, **options)[0] for context in contexts]
    assert [[t for t, _ in each] for each in told] == [[t for t, _ in each] for each in alone]
    plain = telling.tell(dec, contexts, Telling(candidates=2), 4, **options)
    assert told != plain
    nothing = Telling(contrast=1e-9, plausibility=1e-30, candidates=2)
    little = telling.tell(dec, contexts, nothing, 4, **options)
    assert [[t for t, _ in each] for each in little] == [[t for t, _ in each] for each in plain]


def test_drawn_stories_repeat_with_their_seed(dec, contexts):
    asked = Telling(temperature=0.7, top_p=0.9)
    once, again, other = (
        telling.tell(dec, contexts, asked, maxlen=20, seed=seed) for seed in (3, 3, 4)
    )
    assert once == again != other


# --- the facade ----------------------------------------------------------------------------------

PHOTO = np.full((240, 240, 3), 120, np.uint8)


@pytest.fixture(scope='module')
def z(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('STORYTELLER_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield generate.load_all()


def test_stories_take_a_telling(z, capsys):
    asked = Telling(no_repeat=2, n_best=2)
    told = generate.story(z, PHOTO, k=5, bw=4, maxlen=40, telling=asked)
    assert len(told.others) == 1 and told.settings['telling'] == {'n_best': 2, 'no_repeat': 2}
    for text in (told.passage, told.others[0][0]):
        assert not repeats(text.split(), 2)
    assert capsys.readouterr().out.endswith(f'ALSO: \n{told.others[0][0]}\n')
    assert told.to_dict()['others'][0][0] == told.others[0][0]
    old = {'telling': Telling.of_2015()}
    plain = generate.stories(z, [PHOTO], k=5, bw=4, maxlen=40, **old)[0]
    same = generate.stories(z, [PHOTO], k=5, bw=4, maxlen=40, telling=Telling())[0]
    assert same.passage == plain.passage and not same.others and 'others' not in plain.to_dict()


def test_a_telling_without_effect_is_refused_before_photos_are_read(z):
    with pytest.raises(ValueError, match='top_k'):
        generate.stories(z, ['none.jpg'], telling=Telling(top_k=5))
