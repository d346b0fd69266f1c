"""The network of the story decoder: the next word, given a thought vector and a word.

The vector c gives the first state, tanh(c W + b); each step of a GRU reads the word before and
gives the probabilities of the next one (Kiros et al., "Skip-Thought Vectors", 2015).

Dimension letters: B contexts, R hypotheses, D thought vector, H states, W word vector, V words.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from .. import layers
from . import packed


class Decoder(nn.Module):
    """The network behind a decoder, from its arrays of 2015.

    Parameters
    ----------
    params : mapping of str to float32 array
        ``Wemb`` (V, W), ``ff_state_W`` (D, H), ``decoder_*`` (a GRU, W to H), ``ff_logit_W``
        (H, V), each affine layer with its ``_b``. With a deep output ``ff_hid_W`` (H, W) and
        ``ff_logit_W`` (W, V).
    device : str or torch.device, optional

    Examples
    --------
    >>> from storyteller import search
    >>> rng = np.random.RandomState(0)
    >>> params = {'Wemb': layers.norm_weight(rng, 9, 2)} | layers.init_gru(rng, 'decoder', 2, 3)
    >>> params |= layers.init_affine(rng, 'ff_state', 4, 3)
    >>> model = Decoder(params | layers.init_affine(rng, 'ff_logit', 3, 9))
    >>> logp, state = model.step(torch.tensor([search.START]), model.start(torch.ones(1, 4)))
    >>> logp.shape, state.shape
    (torch.Size([1, 9]), torch.Size([1, 3]))
    """

    def __init__(self, params: Mapping[str, np.ndarray], device: str | torch.device | None = None):
        super().__init__()
        device = layers.pick_device(device or 'cpu')
        self.embedding = nn.Embedding.from_pretrained(torch.from_numpy(params['Wemb']).to(device))
        self.first = packed.Linear.of(params, 'ff_state', device)
        self.gru = packed.GRU(params, 'decoder', device)
        self.hidden = None
        if 'ff_hid_W' in params:
            self.hidden = packed.Linear.of(params, 'ff_hid', device)
        self.logit = packed.Linear.of(params, 'ff_logit', device)
        self.device = device

    def start(self, contexts: Tensor) -> Tensor:
        """The first state (B, H) from contexts (B, D)."""
        return self.first(contexts).tanh()

    def embed(self, words: Tensor) -> Tensor:
        """Word vectors (..., W); zero for word -1, the start symbol."""
        return self.embedding(words.clamp(min=0)) * (words >= 0).unsqueeze(-1)

    def log_probs(self, states: Tensor) -> Tensor:
        """Log-probabilities of the next word (R, V) from states (R, H)."""
        return self.logit.log_probs(states if self.hidden is None else self.hidden(states).tanh())

    def step(self, words: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step of :mod:`storyteller.search`: words (R,), state (R, H) to logp (R, V), state."""
        # The hypotheses of a beam end in few different words.
        words, where = words.unique(return_inverse=True)
        state = self.gru.step(self.gru.project(self.embed(words))[where], state)
        return self.log_probs(state), state
