"""Contrast with what a decoder says anyway.

The most probable beginning of a text is one that suits many photos. Here a word counts for how much
more probable it is than without the photo: from its log-probability, that which it has when the
decoder is told of the style alone is subtracted in part, in the first words of a text (the anti-
language model of Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation
Models", section 4.5), where the word is plausible with the photo (Li et al. 2023, "Contrastive
Decoding: Open-ended Text Generation as Optimization").

Dimension letters: R hypotheses, H states, V words.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import Step

FAR = 1000.0  # nats from plausible words to the others, which come where rules leave nothing else
IMPOSSIBLE = -100.0  # no finite log-probability is less


def contrasted(step: Step, state: Tensor, anyway: Tensor, words: int) -> tuple[Step, Tensor]:
    """A step function that also says what is said anyway, with its states before the first word.

    Parameters
    ----------
    step : callable
        See :mod:`storyteller.search`.
    state, anyway : Tensor, shape (R, H) and (1, H)
        The states before the first word, of the contexts and of the style alone.
    words : int
        For how many words it does; 0: for all. Then it is `step`.

    Returns
    -------
    step, state
        The step gives log-probabilities (R, 2, V), with the context and of the style alone. Its
        states carry both along, and the number of words.
    """
    width = state.shape[1]

    def both(last: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        if states.shape[1] == width:
            return step(last, states)
        told, plain, length = states.split([width, width, 1], dim=1)
        logp, states = step(torch.cat([last, last]), torch.cat([told, plain]))
        told, plain = states.chunk(2)
        over = words and len(length) and int(length[0]) + 1 >= words
        states = told if over else torch.cat([told, plain, length + 1], dim=1)
        return logp.unflatten(0, (2, -1)).transpose(0, 1), states

    length = state.new_zeros(len(state), 1)
    return both, torch.cat([state, anyway.expand_as(state), length], dim=1)


def against(
    allowed: Tensor, logp: Tensor, anyway: Tensor, weight: float, plausibility: float
) -> Tensor:
    """``allowed - weight * anyway`` (R, V) for plausible words; the others come after all of them.

    Parameters
    ----------
    allowed : Tensor, shape (R, V)
        Log-probabilities and what words are worth; -inf of those that rules forbid.
    logp, anyway : Tensor, shape (R, V)
        Log-probabilities with the context, and of the style alone.
    weight, plausibility : float
        Plausible is what has at least `plausibility` times the probability of the likeliest word
        that is allowed, or is worth as much as is lacking.

    Examples
    --------
    >>> of_photo, of_style = torch.tensor([[0.5, 0.4, 0.1]]), torch.tensor([[0.8, 0.1, 0.1]])
    >>> of_photo, of_style = of_photo.log(), of_style.log()
    >>> against(of_photo, of_photo, of_style, 1.0, 0.3).topk(2).indices
    tensor([[1, 0]])
    """
    likeliest = logp.masked_fill(allowed.isneginf(), -torch.inf).amax(1, keepdim=True)
    gained = allowed - weight * anyway.clamp(min=IMPOSSIBLE)
    return torch.where(allowed < likeliest + math.log(plausibility), allowed - FAR, gained)
