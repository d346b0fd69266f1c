"""More ways to tell than that of 2015: other searches and other draws, by rules for the words.

:class:`storyteller.options.SearchOptions` says how; as it is by default, it is the search of 2015,
which stands in :mod:`storyteller.search`. What is here takes the same step functions, and as that
does, it searches (in :mod:`storyteller.search.group_beams`) or draws the texts of several contexts
in one batch.

Dimension letters: B contexts, R live texts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .decoder import at_once, network
from .layers import inference
from .options import SearchOptions, check_count
from .options import Telling as Telling
from .search import START, Hypothesis, Step, generator, keywords
from .search.contrast import contrasted
from .search.group_beams import search
from .search.rules import Rules, Texts
from .vocabulary import EOS

# --- drawing -------------------------------------------------------------------------------------


def draw(
    step: Step,
    state: Tensor,
    maxlen: int,
    seeds: Sequence[int | torch.Generator],
    rules: Rules | None = None,
) -> list[Hypothesis]:
    """Draw a text of each of B contexts word by word, by the rules.

    Arguments as for :func:`search`; each of B `seeds` makes its text repeatable, whatever its
    neighbours, or is a source that goes on. Scores are those of the model's own distribution. Where
    the rules leave no word, the text ends.
    """
    rules = rules or Rules()
    rules.telling.check_for(drawn=True)
    device, texts = state.device, Texts(rules, len(state))
    sources = [
        seed if isinstance(seed, torch.Generator) else generator(seed, device) for seed in seeds
    ]
    told: list[list[int]] = [[] for _ in sources]
    scores, last = [0.0] * len(sources), np.full(len(sources), START)
    while len(texts) and texts.words.shape[1] < maxlen:
        logp, state = step(torch.from_numpy(last).to(device), state)
        plain = logp[:, 0] if logp.dim() == 3 else logp
        going_on = []
        for row, (context, allowed) in enumerate(
            zip(texts.owner.tolist(), texts.allowed(logp.float()), strict=True)
        ):
            if (chances := chances_of(allowed, rules.telling)) is None:
                continue
            word = int(chances.multinomial(1, generator=sources[context]))
            told[context].append(word)
            scores[context] -= float(plain[row, word])
            if word != EOS:
                going_on.append((row, word))
        rows, last = np.array(going_on, np.int64).reshape(-1, 2).T
        texts.grow(rows, last)
        state = state[torch.from_numpy(rows).to(device)]
    return [Hypothesis(text or [EOS], score) for text, score in zip(told, scores, strict=True)]


def chances_of(logp: Tensor, telling: SearchOptions) -> Tensor | None:
    """Probabilities (V,) to draw from: `top_k`, then `temperature`, then `top_p`.

    None where no word has any.
    """
    if not torch.isfinite(logp).any():
        if logp.isnan().any():
            raise ValueError('the step function gave log-probabilities that are NaN')
        return None
    if telling.top_k:
        edge = logp.topk(min(telling.top_k, len(logp))).values[-1]
        logp = logp.masked_fill(logp < edge, -torch.inf)
    chances = (logp / telling.temperature).softmax(0)
    if telling.top_p < 1:
        likeliest, order = chances.sort(descending=True, stable=True)
        before = likeliest.cumsum(0) - likeliest  # what likelier words have together
        chances = chances.scatter(0, order[before >= telling.top_p], 0.0)
        chances = chances / chances.sum()
    return chances


# --- from vectors to texts -----------------------------------------------------------------------


@inference()
def tell(
    dec: Mapping[str, Any],
    contexts: np.ndarray,
    telling: SearchOptions,
    beam_width: int = 1,
    *,
    maxlen: int = 1000,
    seed: int | None = None,
    use_unk: bool = False,
    captions: Sequence[Sequence[str]] | None = None,
    style: np.ndarray | None = None,
) -> list[list[tuple[str, float]]]:
    """Tell the stories of many contexts, each for itself.

    Parameters
    ----------
    dec : dict
        From `storyteller.decoder.load_model`.
    contexts : (B, D) array
        Thought vectors.
    telling : SearchOptions
    beam_width, maxlen : int
    seed : int, optional
        Draw each story by this number instead of searching.
    use_unk : bool
        Allow the word ``UNK``.
    captions : sequence of B sequences of str, optional
        What each story is told of; for ``telling.keywords``.
    style : (D,) array, optional
        b; for ``telling.contrast``.

    Returns
    -------
    list of B lists of (str, float)
        Texts, words between blanks, and what they were compared by, best first; empty where there
        is none. With several `candidates` all of them, in the order in which they were found, with
        the mean log-probability of a word: for :func:`storyteller.search.candidates.nearest_first`.

    Raises
    ------
    ValueError
        If a field has no effect on what is asked for, a required word is not known, keywords are
        asked for without captions, or a contrast without a style.
    """
    check_count('beam width', beam_width)
    check_count('maxlen', maxlen)
    telling.check_for(seed is not None, beam_width)
    contexts = np.atleast_2d(np.asarray(contexts, np.float32))
    if telling.keywords and (captions is None or len(captions) != len(contexts)):
        raise ValueError(f'keywords={telling.keywords}: expected the captions of each context')
    if telling.contrast and (style is None or np.shape(style) != contexts.shape[1:]):
        raise ValueError(
            f'contrast={telling.contrast}: expected the vector of the style, of shape '
            f'{contexts.shape[1:]}, found {"none" if style is None else np.shape(style)}'
        )
    words = words_of(dec)
    rules, worth = Rules.of(telling, words, use_unk), []
    if captions is not None and telling.keywords:
        alike = keywords.by_letters(words)
        worth = [keywords.worth(each, telling.keywords, alike) for each in captions]
    model, told = network(dec), []
    rows = (beam_width if seed is None else 1) * (2 if telling.contrast else 1)
    size = at_once(model, rows)
    for first in range(0, len(contexts), size):
        here = slice(first, first + size)
        step: Step = model.step
        state = model.start(torch.from_numpy(contexts[here]).to(model.device))
        if telling.contrast:
            b = np.array(style, np.float32)[None]  # a copy: that of a bundle is read-only
            anyway = model.start(torch.from_numpy(b).to(model.device))
            step, state = contrasted(step, state, anyway, telling.contrast_words)
        own = replace(rules, worth=worth[here])
        found = _found(step, state, beam_width, maxlen, seed, own)
        told += [_scored(dec, hypotheses, rules) for hypotheses in found]
    return told


def _found(
    step: Step, state: Tensor, k: int, maxlen: int, seed: int | None, rules: Rules
) -> Iterable[Sequence[Hypothesis]]:
    if seed is None:
        return search(step, state, k, maxlen, rules)
    sources = [generator(seed, state.device) for _ in state]
    rounds = [draw(step, state, maxlen, sources, rules) for _ in range(rules.telling.wanted)]
    return zip(*rounds, strict=True)


def words_of(dec: Mapping[str, Any]) -> dict[str, int]:
    """The words that a decoder can say; its dictionary may hold more."""
    return {word: i for word, i in dec['worddict'].items() if i < dec['options']['n_words']}


def _scored(
    dec: Mapping[str, Any], hypotheses: Iterable[Hypothesis], rules: Rules
) -> list[tuple[str, float]]:
    """Texts that are not empty, and what they are compared by."""
    score = _fluency if rules.telling.candidates > 1 else rules.score
    words = dec['word_idict']
    return [(' '.join(words[i] for i in h.text), score(h)) for h in hypotheses if h.text]


def _fluency(hypothesis: Hypothesis) -> float:
    return -hypothesis.score / len(hypothesis.text)
