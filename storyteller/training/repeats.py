"""The cost of repeating oneself: a decoder unlearns the rounds that it goes in.

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
from torch import Tensor

from .recurrence import run_gru
from .softmax import unlikely_cost

if TYPE_CHECKING:
    from .decoder import ConditionalGRU

RUN = 4  # so many words in a row that stood there before are a repetition
EOS, UNK = 0, 1


def repeat_cost(model: ConditionalGRU, context: Tensor, steps: int) -> Tensor:
    """Summed -log(1 - p) of the repeated words in what the model writes from vectors.

    Parameters
    ----------
    model : ConditionalGRU
    context : (B, D) tensor
    steps : int
        Words to write at most.

    Returns
    -------
    () tensor
    """
    context = model.towards_mean(context)
    width = model.options.repeats_beam
    x = write(model, context, steps) if width == 1 else find(model, context, steps, width)
    again = repeated(x)
    states = model.states(model.table(x[:-1]), context)[again]
    return unlikely_cost(model.top(states), x[again], model.output, model.dtype)


@torch.no_grad()
def write(model: ConditionalGRU, context: Tensor, steps: int, *, sample: bool = False) -> Tensor:
    """Words (T, B) that follow one another, UNK apart; 0 after the end.

    The most probable each time, or with `sample` drawn at random.
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
    """Words (T, B) of the most probable text that a beam search finds, UNK apart; 0 after the end.

    A search finds rounds where the most probable word each time does not lead. What has ended
    keeps its place among the `width` hypotheses; apart from that it is the search of 2015.
    """
    state = torch.tanh(model.start(context)).repeat_interleave(width, 0)  # (B width, H)
    inputs = state.new_zeros(len(state), model.table.embedding_dim)
    first = torch.arange(len(context), device=state.device)[:, None] * width
    cost = state.new_full((len(context), width), torch.inf)
    cost[:, 0] = 0  # all hypotheses are the same at first
    words = torch.zeros(0, len(state), dtype=torch.int64, device=state.device)
    device, half = state.device.type, model.dtype is torch.bfloat16
    with torch.autocast(device, torch.bfloat16, half):  # around all steps: weights are cast once
        for _ in range(steps):
            state = run_gru(model.decoder, inputs[None], state, model.dtype)[0]
            logits = model.output(model.top(state)).float()
            whole = logits.logsumexp(1, keepdim=True)
            logits[:, UNK] = -torch.inf
            best, chosen = logits.topk(min(width, logits.shape[1]), 1)  # no more of a row can enter
            best -= whole
            if len(words):
                ended = words[-1] == EOS
                best[ended] = -torch.inf
                best[ended, 0], chosen[ended, 0] = 0, EOS
            total = cost[..., None] - best.view(len(context), width, -1)  # (B, width, n)
            cost, place = total.flatten(1).topk(width, largest=False)
            rows = (first + place // best.shape[1]).flatten()
            word = chosen.view(len(context), -1).gather(1, place).flatten()
            words = torch.cat([words[:, rows], word[None]])
            state, inputs = state[rows], model.table(word)
            if not word.any():
                break
    return words[:, ::width]


def repeated(x: Tensor, run: int = RUN) -> Tensor:
    """Which words (T, B) belong to a run of `run` words that stood in their column before.

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
    grams = x.unfold(0, run, 1)  # (n, B, run)
    same = (grams[:, None] == grams).all(-1)  # (n, n, B)
    earlier = torch.ones(count, count, dtype=torch.bool, device=x.device).tril(-1)
    again = (same & earlier[..., None]).any(1) & (grams != EOS).all(-1)  # (n, B)
    for offset in range(run):
        found[offset : offset + count] |= again
    return found
