"""Memory-mapped tables of word vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ..formats import ModelFileError, PathLike, atomic_path


def write_table(
    path: PathLike, shape: tuple[int, int], dtype: str, blocks: Iterable[np.ndarray]
) -> None:
    """Write a ``.npy`` table (V, W) in blocks of rows: it may exceed the memory."""
    with atomic_path(path) as temporary, open(temporary, 'wb') as file:
        descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
        header = {'descr': descr, 'fortran_order': False, 'shape': shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).tobytes())


class WordTable(Mapping):
    """Word vectors by word, read from disk on demand.

    Parameters
    ----------
    index : dict of str to int
        Words in the order in which they were first seen, and their rows.
    rows : (V, W) array
        float16, float32 or float64; usually memory-mapped.

    Examples
    --------
    >>> table = WordTable({'dog': 1, 'cat': 0}, np.array([[1, 2], [3, 4]], dtype=np.float16))
    >>> table['dog']
    array([3., 4.], dtype=float32)
    >>> 'fish' in table, len(table), list(table)
    (False, 2, ['dog', 'cat'])
    """

    def __init__(self, index: dict[str, int], rows: np.ndarray):
        self.index = index
        self._rows = rows

    @property
    def width(self) -> int:
        """W, the width of a word vector."""
        return self._rows.shape[1]

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n,) of the table to word vectors (n, W), float32.

        A ModelFileError says that one of them is not finite; the table as a whole is never read.
        """
        vectors = np.asarray(self._rows[rows], dtype=np.float32)
        if not np.isfinite(vectors.sum()) and not np.isfinite(vectors).all():
            row = rows[~np.isfinite(vectors).all(axis=1)][0]
            word = next(word for word, at in self.index.items() if at == row)
            table = getattr(self._rows, 'filename', None) or 'a word table'
            raise ModelFileError(f'{table}: the vector of {word!r} holds NaN or infinity')
        return vectors

    def __getitem__(self, word: str) -> np.ndarray:
        return np.array(self._rows[self.index[word]], dtype=np.float32)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def __iter__(self) -> Iterator[str]:
        return iter(self.index)

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f'<WordTable of {len(self)} words, {self.width} wide>'
