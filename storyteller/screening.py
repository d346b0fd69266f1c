"""The decoder's next word, with most of the vocabulary looked at in eight bits only.

Most of a step of the search computes the scores of words that no hypothesis will go on with. Here
all words are scored in integers of eight bits, several times as fast; then the words that any
hypothesis may want are scored again in float32, and the probabilities are put right with what that
changes. What is left is an error of the size of a rounding in the sum over all the words that are
improbable for all hypotheses.

Dimension letters: R hypotheses, H width of the output layer's input, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

# Words scored again in float32: so many, and so many more for each hypothesis.
RESCORED, RESCORED_EACH = 256, 8


class ScreenedLinear(nn.Module):
    """An output layer for inputs between -1 and 1, such as the states of a GRU.

    Parameters
    ----------
    weight : (V, H) tensor
        Each row is rounded to multiples of a 127th of its largest entry.
    bias : (V,) tensor

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> weight, bias, x = torch.randn(500, 8) / 4, torch.randn(500), torch.rand(2, 8) * 2 - 1
    >>> exact = linear(x, weight, bias).log_softmax(1)
    >>> bool((ScreenedLinear(weight, bias).log_probs(x) - exact).abs().max() < 0.01)
    True
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight, self.bias = weight.detach().contiguous(), bias.detach()
        steps = self.weight.abs().amax(1).clamp(min=1e-30) / 127
        self.rounded = (self.weight / steps[:, None]).round().to(torch.int8)  # (V, H)
        self.steps = steps / 127  # the inputs' steps too

    def log_probs(self, x: Tensor) -> Tensor:
        """Log-probabilities (R, V) of inputs (R, H)."""
        if not len(x):
            return x.new_empty(0, self.out_features)
        rounded = (x * 127).round().clamp(-127, 127).to(torch.int8)
        scores = (torch._int_mm(rounded, self.rounded.t()) * self.steps).add_(self.bias)
        logp = scores.log_softmax(1)
        count = min(RESCORED + RESCORED_EACH * len(x), self.out_features)
        words = logp.amax(0).topk(count, sorted=False).indices
        before = logp[:, words]
        total = scores[:, words[:1]] - before[:, :1]  # the log of the sum over the words, (R, 1)
        after = linear(x, self.weight[words], self.bias[words]) - total
        # The words that were scored again have another share of the probability now.
        rest = (1 - before.exp().sum(1, keepdim=True)).clamp(min=0)
        logp.index_copy_(1, words, after)
        return logp.sub_((rest + after.exp().sum(1, keepdim=True)).log())
