"""Unlikelihood loss on repeated n-grams.

A language model that is trained on its next word alone gives loops more probability than any book
does, and a search for the most probable text finds them. Here the decoder writes a text of its own,
and each word of it that belongs to a run of words that stood in the same text before is made less
probable: the sequence-level unlikelihood of Welleck et al. (2020), "Neural Text Generation with
Unlikelihood Training".

Dimension letters: T time, B batch, D thought vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..search import beam_search, best
from ..vocabulary import EOS, UNK
from .ops.recurrence import run_gru
from .ops.softmax import unlikely_cost

if TYPE_CHECKING:
    from .decoder import ConditionalGRU

RUN = 4  # n of the n-grams that must not be repeated


def repeat_cost(model: ConditionalGRU, context: Tensor, steps: int) -> Tensor:
    """Summed -log(1 - p), a () tensor, of repeated words in texts generated from vectors (B, D).

    Each text has at most `steps` words.
    """
    width = model.options.repeats_beam
    x = write(model, context, steps) if width == 1 else find(model, context, steps, width)
    again = repeated(x)
    states = model.states(model.table(x[:-1]), context)[again]
    return unlikely_cost(model.top(states), x[again], model.output, model.dtype)


@torch.no_grad()
def write(model: ConditionalGRU, context: Tensor, steps: int, *, sample: bool = False) -> Tensor:
    """Generate words (T, B) step by step, without UNK; 0 after the end.

    The most probable word at each step, or with `sample` a random one.
    """
    state = torch.tanh(model.start(context))
    word, written = None, []
    device, half = state.device.type, model.dtype is torch.bfloat16
    with torch.autocast(device, torch.bfloat16, half):  # around all steps: weights are cast once
        for _ in range(steps):
            inputs = state.new_zeros(len(state), model.table.embedding_dim)
            if word is not None:
                inputs = model.table(word)
            state = run_gru(model.decoder, inputs[None], state, model.dtype)[0]
            logits = model.output(model.top(state))
            logits[:, UNK] = -torch.inf
            chosen = logits.argmax(1)
            if sample:
                chosen = torch.multinomial(torch.softmax(logits.float(), 1), 1)[:, 0]
            word = chosen if word is None else torch.where(word == EOS, EOS, chosen)
            written.append(word)
            if not word.any():
                break
    return torch.stack(written)


@torch.no_grad()
def find(model: ConditionalGRU, context: Tensor, steps: int, width: int) -> Tensor:
    """Words (T, B) of the most probable text by the search of 2015; 0 after the end.

    It finds rounds where the most probable word each time does not lead.
    """

    def step(words: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        inputs = model.table(words.clamp(min=0)) * (words >= 0)[:, None]  # zero before the first
        state = run_gru(model.decoder, inputs[None], state, model.dtype)[0]
        return model.output(model.top(state)).float().log_softmax(1), state

    device, half = context.device.type, model.dtype is torch.bfloat16
    with torch.autocast(device, torch.bfloat16, half):  # around all steps: weights are cast once
        state = torch.tanh(model.start(context)).float()
        found = map(best, beam_search(step, state, width, steps, n_best=1))
    texts = [torch.tensor(text.words if text else [EOS]) for text in found]
    return nn.utils.rnn.pad_sequence(texts, padding_value=EOS).to(context.device)


def repeated(x: Tensor, run: int = RUN) -> Tensor:
    """Which words (T, B) belong to an n-gram that occurred in their column before.

    Runs that overlap themselves count, and those with an ``<eos>`` (0) do not.

    Examples
    --------
    >>> repeated(torch.tensor([[5], [6], [7], [5], [6], [8]]), run=2)[:, 0].int()
    tensor([0, 0, 0, 1, 1, 0], dtype=torch.int32)
    """
    found = torch.zeros_like(x, dtype=torch.bool)
    count = len(x) - run + 1
    if count < 2:
        return found
    windows = [x[offset : offset + count] for offset in range(run)]  # each (n, B)
    same = torch.ones(count, count, dtype=torch.bool, device=x.device).tril(-1)[..., None]
    for words in windows:
        same = same & (words[:, None] == words) & (words != EOS)  # (n, n, B): this run, that one
    again = same.any(1)
    for offset in range(run):
        found[offset : offset + count] |= again
    return found
