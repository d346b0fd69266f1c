"""The decoder's output layer, with most of the vocabulary scored in 8 bits.

Most of a step of the search computes the scores of words that no hypothesis will go on with. Here
all words are scored in integers of eight bits, several times as fast; then the words that any
hypothesis may want are scored again in float32, and the probabilities are put right with what that
changes. What is left is an error of the size of a rounding in the sum over all the words that are
improbable for all hypotheses.

Dimension letters: R hypotheses, H width of the output layer's input, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .packed import ROWS, can_pack, matmul

# Words rescored in float32: a fixed number, and more for each hypothesis.
RESCORED, RESCORED_EACH = 256, 8
ZERO = 128  # what stands for an input of 0, among the 256 numbers that oneDNN takes


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
    >>> exact = (x @ weight.T + bias).log_softmax(1)
    >>> bool((ScreenedLinear(weight, bias).log_probs(x) - exact).abs().max() < 0.01)
    True
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight, self.bias = weight.detach().contiguous(), bias.detach()
        self.steps = self.weight.abs().amax(1).clamp(min=1e-30) / 127
        self._round()

    def __getstate__(self) -> dict[str, Any]:
        """Without what :meth:`_round` makes: packed weights cannot be copied or pickled."""
        return self.__dict__ | {'rounded': None, 'packed': None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._round()

    def _round(self) -> None:
        """The weights in 8 bits, packed for oneDNN where it has fast products of these."""
        self.packed: Any = None
        self.rounded: Any
        with torch.inference_mode(False):
            self.rounded = (self.weight / self.steps[:, None]).round().to(torch.int8)  # (V, H)
            if can_pack(self.weight) and torch.cpu._is_vnni_supported():
                shape = [ROWS, self.in_features]
                self.packed = torch.ops.onednn.qlinear_prepack(self.rounded, shape)
                self.zeros = torch.zeros_like(self.bias, dtype=torch.int64)
                self.rounded = None

    def scores(self, x: Tensor) -> Tensor:
        """Logits (R, V) of inputs (R, H), in 8-bit arithmetic."""
        inputs = (x * 127).round().clamp(-127, 127)
        if self.packed is None:
            product = torch._int_mm(inputs.to(torch.int8), self.rounded.t())
            return (product * (self.steps / 127)).add_(self.bias)
        scaled = inputs.add_(ZERO).to(torch.uint8), 1 / 127, ZERO
        weights = self.packed, self.steps, self.zeros, self.bias
        plain: Any = 1.0, 0, torch.float32, 'none', [], ''  # float32, and nothing after it
        return torch.ops.onednn.qlinear_pointwise(*scaled, *weights, *plain)

    def log_probs(self, x: Tensor) -> Tensor:
        """Log-probabilities (R, V) of inputs (R, H)."""
        if not len(x):
            return x.new_empty(0, self.out_features)
        logp = self.scores(x)
        first = logp[:, :1].clone()
        torch.log_softmax(logp, 1, out=logp)
        total = first - logp[:, :1]  # the log of the sum over the words, (R, 1)
        count = min(RESCORED + RESCORED_EACH * len(x), self.out_features)
        words = logp.amax(0).topk(count, sorted=False).indices
        before = logp[:, words]
        after = matmul(x, self.weight[words].T).add_(self.bias[words]).sub_(total)
        # The words that were scored again have another share of the probability now.
        rest = (1 - before.exp().sum(1, keepdim=True)).clamp(min=0)
        logp.index_copy_(1, words, after)
        return logp.sub_((rest + after.exp().sum(1, keepdim=True)).log())
