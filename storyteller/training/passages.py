"""Passages of books with their thought vectors: what the story decoder learns from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..formats import PathLike, write_array
from ..skipthoughts import Encoder
from ..vocabulary import Vocabulary
from . import ranks
from .corpus import Corpus, batches_of_equal_length, padded

if TYPE_CHECKING:
    from .decoder import DecoderOptions


class Passages:
    """Passages and their vectors, in batches of like length.

    Parameters
    ----------
    corpus : Corpus
        In the decoder's vocabulary.
    spans : (P, 2) int array
        First sentence and the one after the last, of each passage.
    vectors : (P, D) array
        The thought vector of each; may be memory-mapped and of half width.
    options : DecoderOptions
    seed : int
    """

    def __init__(
        self,
        corpus: Corpus,
        spans: np.ndarray,
        vectors: np.ndarray,
        options: DecoderOptions,
        seed: int = 0,
    ):
        if len(spans) != len(vectors):
            raise ValueError(f'{len(spans)} passages, but {len(vectors)} vectors')
        self.corpus, self.spans, self.vectors = corpus, spans, vectors
        self.options, self.seed = options, seed
        self.lengths = corpus.sentences[spans[:, 1]] - corpus.sentences[spans[:, 0]]

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, as rows of `spans`."""
        rng = np.random.default_rng([self.seed, epoch])
        # Lengths that share a step of eight fill batches; the mask takes care of the rest.
        batches = batches_of_equal_length(
            -(-self.lengths // 8) * 8, rng, self.options.batch_size, self.options.batch_words
        )
        return [batch for batch in batches if ranks.enough(batch)]

    def tensors(self, batch: np.ndarray, device: torch.device) -> list[Tensor]:
        """x (T, B), its mask (T, B), and the vectors (B, D)."""
        x, mask = padded([self.corpus.words(first, end) for first, end in self.spans[batch]])
        vectors = np.asarray(self.vectors[np.sort(batch)], np.float32)
        vectors = vectors[np.argsort(np.argsort(batch))]  # read in order of the file
        return [torch.from_numpy(array).to(device) for array in (x, mask, vectors)]


def encode_passages(
    corpus: Corpus,
    spans: np.ndarray,
    vocabulary: Vocabulary,
    encoder: Encoder,
    folder: PathLike,
    block: int = 4096,
) -> np.ndarray:
    """The thought vectors of passages, kept in `folder` block by block, so that it can go on.

    Parameters
    ----------
    corpus : Corpus
        In the vocabulary of the encoder.
    spans : (P, 2) int array
        First sentence and the one after the last, of each passage.
    vocabulary : Vocabulary
        The encoder's.
    encoder : skipthoughts.Encoder
    folder : path-like
    block : int
        Passages in a file.

    Returns
    -------
    (P, D) float16 array
    """
    cut = hashlib.sha256(np.ascontiguousarray(spans)).hexdigest()[:12]  # other spans, other files
    parts = []
    for first in tqdm(range(0, len(spans), block), desc='encoding passages', unit=' blocks'):
        path = Path(folder) / f'{cut}-{first:08d}.npy'
        if not path.exists():
            texts = [
                ' '.join(vocabulary.decode(corpus.words(*span)))
                for span in spans[first : first + block]
            ]
            vectors = encoder.encode(texts, verbose=False, tokenised=True)
            write_array(path, vectors.astype(np.float16))
        parts.append(np.load(path))
    return np.concatenate(parts)
