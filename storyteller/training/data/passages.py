"""Passages of books with their thought vectors: the training data of the story decoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...formats import PathLike, write_array
from ...skipthoughts import Encoder
from ...vocabulary import Vocabulary
from .. import distributed
from . import origins
from .corpus import Corpus, batches_of_equal_length, padded

if TYPE_CHECKING:
    from ..back_translation import BackTranslation
    from ..decoder import DecoderOptions


class Passages:
    """Passages and their vectors, in batches of similar length.

    Parameters
    ----------
    corpus : Corpus
        In the decoder's vocabulary.
    spans : (P, 2) int array
        First sentence and the one after the last, of each passage.
    vectors : (P, D) array
        The thought vector of each; may be memory-mapped and of half width.
    pairs : BackTranslation, optional
        What the style shift makes of captions like each passage.
    """

    def __init__(
        self,
        corpus: Corpus,
        spans: np.ndarray,
        vectors: np.ndarray,
        options: DecoderOptions,
        seed: int = 0,
        pairs: BackTranslation | None = None,
    ):
        if len(spans) != len(vectors):
            raise ValueError(f'{len(spans)} passages, but {len(vectors)} vectors')
        if pairs is not None and pairs.content.shape != vectors.shape:
            raise ValueError(
                f'pairs: expected shape {vectors.shape}, as the vectors have, '
                f'found {pairs.content.shape}'
            )
        self.corpus, self.spans, self.vectors = corpus, spans, vectors
        self.options, self.seed, self.pairs = options, seed, pairs
        self.lengths = corpus.sentences[spans[:, 1]] - corpus.sentences[spans[:, 0]]

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, as rows of `spans`."""
        rng = np.random.default_rng([self.seed, epoch])
        # Lengths that share a step of eight fill batches; the mask takes care of the rest.
        batches = batches_of_equal_length(
            -(-self.lengths // 8) * 8, rng, self.options.batch_size, self.options.batch_words
        )
        return [batch for batch in batches if distributed.enough(batch)]

    def tensors(self, batch: np.ndarray, device: torch.device) -> list[Tensor]:
        """x (T, B), its mask (T, B), and the vectors (B, D)."""
        x, mask = padded([self.corpus.words(first, end) for first, end in self.spans[batch]])
        vectors = read_rows(self.vectors, batch)
        return [torch.from_numpy(array).to(device) for array in (x, mask, vectors)]

    def told_of(self, batch: np.ndarray, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        """The vectors (B, D) that a batch is decoded from in training, given its own.

        A share of ``options.pairs``, by chance, of those that have captions is told from these,
        shifted. Also whether each (B,) has kept its own; None: all have.
        """
        options = self.options
        if not options.pairs:
            return vectors, None
        if self.pairs is None:
            raise ValueError(
                f'pairs: a share of {options.pairs} is to be told from captions, '
                'but the passages have none'
            )
        chance, place = torch.rand(2, len(batch))
        strength = options.weakest + (options.strongest - options.weakest) * place
        shifted = torch.from_numpy(self.pairs.vectors(batch, strength.numpy())).to(vectors.device)
        alone = torch.from_numpy(np.isnan(self.pairs.match[batch]))
        own = (alone | (chance >= options.pairs)).to(vectors.device)
        return torch.where(own[:, None], vectors, shifted), own

    def take(self, rows: np.ndarray) -> Passages:
        """A subset of the passages."""
        pairs = self.pairs and self.pairs.take(rows)
        spans, vectors = self.spans[rows], self.vectors[rows]
        return Passages(self.corpus, spans, vectors, self.options, self.seed, pairs)


def read_rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows (n, D) of an array that may be memory-mapped, as float32; read in order of the file."""
    read = np.asarray(array[np.sort(rows)], np.float32)
    return read[np.argsort(np.argsort(rows))]


def encode_passages(
    corpus: Corpus,
    spans: np.ndarray,
    vocabulary: Vocabulary,
    encoder: Encoder,
    folder: PathLike,
    block: int = 4096,
    made_from: Mapping[str, str] | None = None,
) -> np.ndarray:
    """The thought vectors (P, D), float16, of passages, kept in `folder` by blocks; resumable.

    Parameters
    ----------
    corpus, vocabulary
        The words of the encoder, and a corpus in them.
    spans : (P, 2) int array
        First sentence and the one after the last, of each passage.
    block : int
        Passages in a file.
    made_from : mapping of str to str, optional
        Hashes of what the vectors hang on, such as text and encoder; see :func:`origins.is_made`.
        None: whatever is in the folder is taken for them.

    Raises
    ------
    MismatchError
        If the vectors in the folder were made from something else.
    """
    if made_from is not None:
        origins.is_made(folder, made_from)
    # Other spans, other files.
    cut = hashlib.sha256(np.ascontiguousarray(spans).data).hexdigest()[:12]
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
