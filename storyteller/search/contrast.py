"""Contrast with what a decoder says anyway.

The most probable beginning of a text is one that suits many photos. Here a word counts for how much
more probable it is than without the photo: from its log-probability, that which it has when the
decoder is told of the style alone is subtracted in part (the anti-language model of Li et al. 2016,
"A Diversity-Promoting Objective Function for Neural Conversation Models", which likewise stops
after the first words), among words that are plausible with the photo (Li et al. 2023, "Contrastive
Decoding: Open-ended Text Generation as Optimization").

Dimension letters: R hypotheses, H states, V words.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import Step

FAR = 50.0  # nats from plausible words to others, which come where rules leave nothing else


def contrasted(
    step: Step, state: Tensor, anyway: Tensor, weight: float, words: int, plausibility: float
) -> tuple[Step, Tensor]:
    """A step function of contrasted words, with its states before the first one.

    Parameters
    ----------
    step : callable
        See :mod:`storyteller.search`.
    state, anyway : Tensor, shape (R, H) and (1, H)
        The states before the first word, of the contexts and of the style alone.
    weight, words, plausibility
        ``contrast``, ``contrast_words`` and ``plausibility`` of
        :class:`storyteller.options.SearchOptions`.

    Returns
    -------
    step, state
        Which carry both states and the number of words along, as long as words are contrasted.
    """
    width = state.shape[1]

    def both(last: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        if states.shape[1] == width:
            return step(last, states)
        told, plain, length = states.split([width, width, 1], dim=1)
        logp, states = step(torch.cat([last, last]), torch.cat([told, plain]))
        of_photo, of_style = logp.float().chunk(2)
        told, plain = states.chunk(2)
        logp, length = against(of_photo, of_style, weight, plausibility), length + 1
        over = words and len(length) and int(length[0]) >= words
        return logp, told if over else torch.cat([told, plain, length], dim=1)

    length = state.new_zeros(len(state), 1)
    return both, torch.cat([state, anyway.expand_as(state), length], dim=1)


def against(logp: Tensor, anyway: Tensor, weight: float, plausibility: float) -> Tensor:
    """Log-probabilities (R, V) in proportion to ``logp - weight * anyway``.

    Words below `plausibility` times the probability of the likeliest one come after all others, in
    the order of `logp`.

    Examples
    --------
    >>> of_photo, of_style = torch.tensor([[0.5, 0.45, 0.05]]), torch.tensor([[0.8, 0.1, 0.1]])
    >>> against(of_photo.log(), of_style.log(), 1.0, 0.2).exp().round(decimals=3)
    tensor([[0.1220, 0.8780, 0.0000]])
    """
    least = logp.amax(1, keepdim=True) + math.log(plausibility)
    gained = logp - weight * anyway.clamp(min=-FAR)
    return torch.where(logp < least, logp - FAR, gained).log_softmax(1)
