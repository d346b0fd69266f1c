"""Evaluation of the story decoder during training: held-out loss, and samples."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..vocabulary import Vocabulary
from .data.passages import Passages
from .ops.softmax import full_cost
from .unlikelihood import write

if TYPE_CHECKING:
    from .decoder import ConditionalGRU


def shown(
    model: ConditionalGRU,
    passages: Passages,
    vocabulary: Vocabulary,
    device: torch.device,
    count: int = 3,
) -> str:
    """Some passages, and a sample of the decoder from the vector of each."""
    x, mask, vectors = passages.tensors(passages.batches(0)[0][:count], device)
    drawn = write(model, vectors, len(x), sample=True)
    pairs = zip(x.T.tolist(), mask.sum(0).int().tolist(), drawn.T.tolist(), strict=True)
    return '\n'.join(
        f'truth:  {" ".join(vocabulary.decode(words[: length - 1]))}\n'
        f'sample: {" ".join(vocabulary.decode(itertools.takewhile(bool, told)))}'
        for words, length, told in pairs
    )


def perplexity(
    model: ConditionalGRU, held_out: Passages, device: torch.device, n_batches: int = 8
) -> dict[str, float]:
    """Loss per word in nats, and perplexity, over some batches, with and without their vectors.

    Where the passages have their captions, also of what the style shift makes of those.
    """
    word_cost = partial(full_cost, dtype=model.dtype)
    costs, words = np.zeros(2 if held_out.pairs is None else 3), 0
    for batch in held_out.batches(0)[:n_batches]:
        x, mask, vectors = held_out.tensors(batch, device)
        contexts = [vectors, model.get_buffer('mean').expand_as(vectors)]
        if held_out.pairs is not None:
            contexts.append(torch.from_numpy(held_out.pairs.vectors(batch)).to(device))
        costs += [float(model(x, mask, v, word_cost)) for v in contexts]
        words += int(mask.sum())
    told, *others = costs / max(1, words)
    names = 'perplexity_of_the_mean_vector', 'perplexity_of_the_shifted_vector'
    return {
        'held_out_cost': told,
        'held_out_perplexity': float(np.exp(told)),
        **{name: float(np.exp(cost)) for name, cost in zip(names, others, strict=False)},
    }


def goal_of(held_out: Passages | None) -> str | None:
    """The metric for the best checkpoint: that of the vectors that stories are told from.

    None, the last one, where passages are told from their own vectors and from shifted ones about
    as often: what is best for the one is not for the other.
    """
    if held_out is None or 0 < held_out.options.pairs <= 0.5:
        return None
    return 'held_out_cost' if held_out.pairs is None else 'perplexity_of_the_shifted_vector'
