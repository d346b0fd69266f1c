"""Encoding word sequences of different lengths with a GRU, for both sentence encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..layers import inference
from ..options import check_count
from . import packed

WORDS_AT_ONCE = 4096  # bounds the projected inputs: 118 MB at the published uni-skip's 3 x 2400
WORDS_IN_BATCH = 1 << 18  # bounds the indices of a batch: 2 MB


def as_texts(X: str | Iterable[str]) -> list[str]:
    """One text, or many, as a list; anything but str in it is refused by its index."""
    texts = [X] if isinstance(X, (str, bytes)) else list(X)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f'X[{i}]: expected str, found {type(text).__name__}')
    return texts


def batches(lengths: Sequence[int] | np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Batches (B,) of rows by descending length, so that a lack of memory shows at once.

    `lengths` are the words of each of N sequences, 1 or more. A batch has `batch_size` rows at
    most; long sequences stand in smaller ones.

    Examples
    --------
    >>> [rows.tolist() for rows in batches([3, 9, 4, 8], batch_size=2)]
    [[1, 3], [2, 0]]
    """
    check_count('batch_size', batch_size)
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind='stable')
    start = 0
    while start < len(order):
        fitting = WORDS_IN_BATCH // int(lengths[order[start]])
        stop = start + min(batch_size, max(1, fitting))
        yield order[start:stop]
        start = stop


def last_states(
    module: nn.GRU | packed.GRU,
    sequences: Sequence[np.ndarray],
    lookup: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """The state of a GRU after the last word of each sequence, (B, H) float32.

    Each sequence is read for exactly its length: at every step those that have ended are no longer
    in the batch, so there is no padding and no mask, and the inputs of all words are projected in
    one product. A very long sequence is read in pieces.

    Parameters
    ----------
    module : torch.nn.GRU or packed.GRU
    sequences : sequence of B int arrays
        Word indices, 1 or more each, by descending length.
    lookup : callable
        Indices (n,) to word vectors (n, W), float32.
    """
    ids = np.full((len(sequences[0]), len(sequences)), -1, dtype=np.int64)  # (T, B)
    for column, sequence in enumerate(sequences):
        ids[: len(sequence), column] = sequence
    read: Callable = _read_stepping if isinstance(module, packed.GRU) else _read
    device = next((p.device for p in module.parameters()), torch.device('cpu'))
    shape = len(sequences), module.hidden_size
    states = torch.zeros(shape, dtype=torch.float32, device=device)
    step = max(1, WORDS_AT_ONCE // len(sequences))
    # A GPU's TensorFloat-32 would cost three digits.
    with inference(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for start in range(0, len(ids), step):
            piece = ids[start : start + step]
            live = (piece >= 0).sum(axis=1)  # (T,) sequences at each step
            words = torch.from_numpy(lookup(piece[piece >= 0])).to(device)  # time-major
            states[: live[0]] = read(module, words, live, states[: live[0]].clone())
    return states.cpu().numpy()


def states_by_prefix(
    module: packed.GRU, sequences: Sequence[np.ndarray], lookup: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """What :func:`last_states` gives, in any order of lengths; equal beginnings are read once.

    A third of the words in a pool of captions stand in a beginning that another caption has too.
    All sequences are read together, so this takes memory for two states of each.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    ids = np.full((lengths.max(), len(sequences)), -1, dtype=np.int64)  # (T, B)
    for column, sequence in enumerate(sequences):
        ids[: len(sequence), column] = sequence
    used, words = np.unique(ids[ids >= 0], return_inverse=True)
    ids[ids >= 0] = words  # rows of what is used
    found = np.empty((len(sequences), module.hidden_size), np.float32)
    node = np.zeros(len(sequences), dtype=np.int64)  # the beginning that each has read so far
    with inference():
        projected = module.project(torch.from_numpy(lookup(used)))  # (V, 3H)
        states = torch.zeros(1, module.hidden_size, dtype=torch.float32, device='cpu')
        for length, column in enumerate(ids, 1):
            live = np.flatnonzero(column >= 0)
            branches = node[live] * len(used) + column[live]
            branches, node[live] = np.unique(branches, return_inverse=True)
            before, word = map(torch.from_numpy, np.divmod(branches, len(used)))
            pieces = zip(before.split(WORDS_AT_ONCE), word.split(WORDS_AT_ONCE), strict=True)
            states = torch.cat([module.step(projected[w], states[b]) for b, w in pieces])
            ended = live[lengths[live] == length]
            found[ended] = states[node[ended]].numpy()
    return found


def _read(module: nn.GRU, words: Tensor, live: np.ndarray, states: Tensor) -> Tensor:
    return module(PackedSequence(words, torch.from_numpy(live)), states[None])[1][0]


def _read_stepping(module: packed.GRU, words: Tensor, live: np.ndarray, states: Tensor) -> Tensor:
    projected = module.project(words).split(live.tolist())
    for inputs in projected:
        states[: len(inputs)] = module.step(inputs, states[: len(inputs)])
    return states
