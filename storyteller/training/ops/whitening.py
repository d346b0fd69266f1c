"""An affine layer trained on whitened vectors and exported as a plain layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ... import layers


@dataclass(frozen=True)
class Whitening:
    """A linear change of coordinates, (v - mean) @ matrix, to equal variances."""

    mean: np.ndarray  # (D,)
    matrix: np.ndarray  # (D, D), symmetric, with an inverse

    @classmethod
    def of(cls, vectors: np.ndarray, floor: float = 0.1) -> Whitening:
        """That of vectors (n, D).

        `floor`, in mean variances, is added to each variance: directions far below it are noise.
        """
        mean = vectors.mean(0, dtype=np.float64)
        centred = vectors - mean
        variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
        floor = max(floor * variances.mean(), 1e-12)
        scale = 1 / np.sqrt(np.maximum(variances, 0) + floor)
        return cls(mean, (axes * scale) @ axes.T)

    def start(self, params: dict[str, np.ndarray], vectors: np.ndarray) -> dict[str, np.ndarray]:
        """The parameters with a ``ff_state`` that gives `vectors` pre-activations of deviation 1/2.

        So different vectors give different states from the first step on.
        """
        weight = self.matrix @ params['ff_state_W']
        weight *= 0.5 / max(((vectors - self.mean) @ weight).std(), 1e-12)
        bias = -self.mean @ weight
        return params | {
            'ff_state_W': weight.astype(np.float32),
            'ff_state_b': bias.astype(np.float32),
        }


class WhitenedAffine(nn.Module):
    """An affine layer in whitened coordinates.

    It begins as the plain layer ``{prefix}_W`` (D, H) and ``{prefix}_b`` (H,) in `params`.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, params: Mapping[str, np.ndarray], prefix: str, whitening: Whitening):
        super().__init__()
        weight, bias = params[f'{prefix}_W'], params[f'{prefix}_b']
        inner = {
            f'{prefix}_W': np.linalg.solve(whitening.matrix, weight).astype(np.float32),
            f'{prefix}_b': (bias + whitening.mean @ weight).astype(np.float32),
        }
        self.prefix, self.whitening = prefix, whitening
        self.inner = layers.affine(inner, prefix)
        for name in ('mean', 'matrix'):
            value = torch.tensor(getattr(whitening, name), dtype=torch.float32)
            self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, H)."""
        return self.inner((x - self.mean) @ self.matrix)

    def params(self) -> dict[str, np.ndarray]:
        """The plain layer, ``{prefix}_W`` and ``{prefix}_b``, float32."""
        W, b = f'{self.prefix}_W', f'{self.prefix}_b'
        inner = layers.affine_params(self.inner, self.prefix)
        weight = self.whitening.matrix @ inner[W]
        bias = inner[b] - self.whitening.mean @ weight
        return {W: weight.astype(np.float32), b: bias.astype(np.float32)}
