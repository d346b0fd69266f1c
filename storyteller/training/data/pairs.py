"""Captions with the features of their photos, in batches, for training a joint space.

Dimension letters: P photos, F features, B batch, T time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .. import distributed
from .corpus import batches_of_equal_length, padded
from .matching import Candidates

if TYPE_CHECKING:
    from ..embedding import EmbeddingOptions


class Pairs:
    """Captions with the features of their photos, in batches of equal caption length.

    Parameters
    ----------
    captions : list of int arrays
        Word indices.
    photos : (n,) int array
        For each caption, the row of `features`.
    features : (P, F) array
        Unit rows, as the image encoder takes them.
    options : EmbeddingOptions
    seed : int
    once : bool
        Whether a batch takes a photo once at most. Where few photos have many captions, those of
        the same photo would otherwise stand against each other.
    candidates : Candidates, optional
        Captions of a pool, to choose among; needs a temperature.
    """

    def __init__(
        self,
        captions: Sequence[np.ndarray],
        photos: np.ndarray,
        features: np.ndarray,
        options: EmbeddingOptions,
        seed: int = 0,
        once: bool = False,
        candidates: Candidates | None = None,
    ):
        self.captions, self.photos, self.features = captions, np.asarray(photos), features
        self.options, self.seed, self.once = options, seed, once
        self.candidates = candidates
        if candidates is not None and not options.temperature:
            raise ValueError('candidates: need a temperature above 0')
        self.lengths = np.array([len(caption) for caption in captions])
        self.short = np.flatnonzero(self.lengths <= options.longest)
        if len(self.short) < 2:
            raise ValueError(
                f'{len(captions)} captions, {len(self.short)} of them of at most '
                f'{options.longest} words: expected two at least'
            )

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, as caption numbers; lone captions are left out."""
        rng = np.random.default_rng([self.seed, epoch])
        size = self.options.batch_size
        batches = batches_of_equal_length(self.lengths[self.short], rng, size, size * 1000)
        batches = [self.short[batch] for batch in batches]
        if self.once:
            batches = [b[np.unique(self.photos[b], return_index=True)[1]] for b in batches]
        return [batch for batch in batches if len(batch) > 1 and distributed.enough(batch)]

    def choices(
        self, batch: np.ndarray, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """The candidates of the photos of a batch; see :meth:`Candidates.draw`."""
        candidates = self.candidates
        return candidates.draw(self.photos[batch], device) if candidates else None

    def tensors(self, batch: np.ndarray, device: torch.device) -> list[Tensor]:
        """x (T, B), its mask (T, B), and the features (B, F)."""
        x, mask = padded([self.captions[i] for i in batch])
        features = np.asarray(self.features[self.photos[batch]], np.float32)
        return [torch.from_numpy(array).to(device) for array in (x, mask, features)]
