"""Reading and writing model files, safely.

Two families of files are read. *Theirs*, made by the code of 2015: NumPy ``.npz`` parameters with
a Python 2 pickle of options beside them, ``.npy`` tables, dictionaries and ``vgg19.pkl`` as
pickles. *Ours*: ``.safetensors`` with the options as JSON in the header, and UTF-8 text. Nothing
read here can run code: pickles go through an unpickler that knows arrays and plain containers and
refuses everything else by name.

Every file is written atomically: see :func:`storyteller.io.files.atomic_path`.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from .errors import EmptyStoryError as EmptyStoryError
from .errors import ImageError as ImageError
from .errors import MismatchError as MismatchError
from .errors import MissingFileError as MissingFileError
from .errors import ModelFileError as ModelFileError
from .errors import PathLike as PathLike
from .errors import why
from .io import arrays, pickle_2015_tables
from .io.arrays import kind_of
from .io.files import atomic_path as atomic_path
from .io.pickle_writer import Pickler
from .io.unpickle import existing
from .io.unpickle import load_pickles as load_pickles
from .io.unpickle import stand_in as stand_in

DEEPEST = 20  # containers in containers that options may have

# --- writing -------------------------------------------------------------------------------------


def write_text(path: PathLike, text: str) -> None:
    """Write `text` as UTF-8, atomically, with ``\\n`` line ends on every system."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode('utf-8'))


def write_array(path: PathLike, array: np.ndarray) -> None:
    """Write one array as ``.npy``, atomically; arrays of objects are refused."""
    with atomic_path(path) as temporary, open(temporary, 'wb') as file:
        np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def write_model(
    path: PathLike,
    params: Mapping[str, np.ndarray],
    options: Mapping[str, Any],
    dtype: str = 'float32',
) -> None:
    """Write parameters and options, in our format or in that of 2015.

    Parameters
    ----------
    path : path-like
        ``.safetensors`` writes one file with `options` as JSON in its header. ``.npz`` writes the
        pair of 2015: the arrays, and `options` as a pickle of protocol 2 in ``path + '.pkl'``.
    params : mapping of str to array
        The parameters under their names of 2015.
    options : mapping
        Plain values only (str, int, float, bool, None, lists).
    dtype : {'float32', 'float16'}
        What is stored. ``'float16'`` halves the file; readers give float32 again.

    Raises
    ------
    ValueError
        If the suffix is neither of the two.
    """
    path = Path(path)
    stored: dict[str, Any] = {
        name: np.ascontiguousarray(value, dtype=dtype) for name, value in params.items()
    }
    if path.suffix == '.safetensors':
        with atomic_path(path) as temporary:
            safetensors.numpy.save_file(
                stored, temporary, {'options': json.dumps(dict(options), sort_keys=True)}
            )
    elif path.suffix == '.npz':
        with atomic_path(path) as temporary:
            np.savez(temporary, **stored)
        write_pickle(f'{path}.pkl', dict(options))
    else:
        raise ValueError(f'{path}: a model file ends in .safetensors or .npz, not {path.suffix!r}')


def write_pickle(path: PathLike, *objects: Any) -> None:
    """Write plain objects and arrays as consecutive pickles that the code of 2015 reads.

    Raises
    ------
    pickle.PicklingError
        If an object is not plain.
    """
    with atomic_path(path) as temporary, open(temporary, 'wb') as file:
        for item in objects:
            Pickler(file).dump(item)


# --- reading -------------------------------------------------------------------------------------


def read_model(path: PathLike, prefix: str = '') -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read parameters and options from a model file of either family.

    Parameters
    ----------
    path : path-like
        ``.safetensors`` as :func:`write_model` makes it, or a ``.npz`` of 2015 with its options
        in ``path + '.pkl'``.
    prefix : str
        Read only parameters whose names begin so: files of 2015 hold much that only their trainers
        need.

    Returns
    -------
    params : dict of str to float32 array
        Without ``history_errs``, which the trainers of 2015 saved beside the parameters.
    options : dict

    Raises
    ------
    MissingFileError
        If the file, or the options of a ``.npz``, are not there.
    ModelFileError
        If it cannot be read as what its name says.
    """
    path = existing(path, 'a model file')
    if path.suffix == '.safetensors':
        return _read_ours(path, prefix)
    options = existing(f'{path}.pkl', f'the options of {path.name}')
    try:
        params = arrays.read_npz(path, prefix, without='history_errs')
    except Exception as error:  # zipfile raises from NotImplementedError to zlib.error
        raise ModelFileError(f'{path}: not a readable .npz archive: {why(error)}') from None
    return params, _plain(_as_options(load_pickles(options)[0], options))


def _read_ours(path: Path, prefix: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        params, header = arrays.read_safetensors(path, prefix)
    except Exception as error:  # NumPy lacks some of the types that may stand there
        raise ModelFileError(f'{path}: not a readable safetensors file: {why(error)}') from None
    try:
        options = json.loads(header['options'])
    except (KeyError, ValueError, RecursionError):
        raise ModelFileError(f"{path}: the header holds no 'options' in JSON") from None
    return params, _as_options(options, path)


def load_dictionary(path: PathLike) -> dict[str, int]:
    """Read a dictionary word -> index.

    Parameters
    ----------
    path : path-like
        A pickle of 2015, whose first object counts (a second one holds the word counts), or our
        UTF-8 text: one word a line, the first line has index 0.

    Raises
    ------
    MissingFileError, ModelFileError
        If the file is not there, or is no dictionary.
    """
    path = existing(path, 'a dictionary')
    if path.suffix == '.txt':
        lines = read_lines(path)
        words = {word: index for index, word in enumerate(lines)}
        if len(words) != len(lines):
            raise ModelFileError(f'{path}: {len(lines) - len(words)} words stand there twice')
        if '' in words:
            raise ModelFileError(f'{path}: line {words[""] + 1} is empty, expected a word')
        return words
    words = load_pickles(path)[0]
    if not isinstance(words, dict):
        raise ModelFileError(f'{path}: expected a dictionary word -> index, found {kind_of(words)}')
    for word, index in words.items():
        if not isinstance(word, str) or not isinstance(index, (int, np.integer)):
            found = f'{reprlib.repr(word)} -> {reprlib.repr(index)}'
            raise ModelFileError(f'{path}: expected word -> index, found {found}')
    return {word: int(index) for word, index in words.items()}


def read_lines(path: PathLike) -> list[str]:
    """Read UTF-8 text as the lines between ``\\n``; a byte order mark and ``\\r`` are dropped.

    Raises
    ------
    MissingFileError, ModelFileError
        If the file is not there, or not UTF-8.
    """
    path = existing(path, 'a text file')
    try:
        text = path.read_bytes().decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ModelFileError(f'{path}: expected UTF-8 text: {error}') from None
    lines = text.removesuffix('\n').split('\n')
    return [line.removesuffix('\r') for line in lines] if '\r' in text else lines


def open_table(path: PathLike) -> np.ndarray:
    """Open a ``.npy`` table of word vectors, memory-mapped and read-only.

    The published tables of 2015 are arrays of Python objects: the first time their plain form is
    made in the cache (see :mod:`storyteller.io.pickle_2015_tables`), which takes a while.

    Returns
    -------
    array, shape (V, W), a float type
        Rows are read from disk as they are used.

    Raises
    ------
    MissingFileError, ModelFileError
        If it is not there, or not a matrix of numbers.
    """
    path = existing(path, 'a table of word vectors')
    if pickle_2015_tables.holds_objects(path):
        return pickle_2015_tables.open_plain(path)
    try:
        table = np.load(path, mmap_mode='r', allow_pickle=False)
    except Exception as error:  # a broken header raises whatever it stumbles over
        raise ModelFileError(f'{path}: not a readable .npy array: {why(error)}') from None
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.dtype.kind != 'f':
        raise ModelFileError(f'{path}: expected a (V, W) array of floats, found {kind_of(table)}')
    return table


def read_array(path: PathLike) -> np.ndarray:
    """Read one ``.npy`` array into memory, as float32.

    Raises
    ------
    MissingFileError, ModelFileError
        If it is not there, or not an array of finite numbers.
    """
    path = existing(path, 'an array')
    try:
        with open(path, 'rb') as file:
            array = arrays.read_npy(file, path.stat().st_size)
        array = np.asarray(array, dtype=np.float32)
    except Exception as error:  # a broken header or pickle raises whatever it stumbles over
        raise ModelFileError(f'{path}: not a readable .npy array: {why(error)}') from None
    if not np.isfinite(array).all():
        raise ModelFileError(f'{path}: holds numbers that are not finite')
    return array


def require(
    params: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int | None, ...]], path: PathLike
) -> None:
    """Check that `params`, read from `path`, has the named arrays in these shapes.

    Parameters
    ----------
    params : mapping of str to array
    shapes : mapping of str to tuple
        The shape of each; None stands for any length.
    path : path-like
        For the message.

    Raises
    ------
    ModelFileError
        Naming file, key, and the shape found and expected.
    """
    for name, shape in shapes.items():
        if name not in params:
            raise ModelFileError(f'{path}: parameter {name!r} is missing')
        found = params[name].shape
        fits = len(found) == len(shape) and all(
            want in (None, have) for want, have in zip(shape, found, strict=True)
        )
        if not fits:
            wanted = '(' + ', '.join('any' if want is None else str(want) for want in shape) + ')'
            raise ModelFileError(f'{path}: parameter {name!r} has shape {found}, not {wanted}')


def require_finite(params: Mapping[str, np.ndarray], names: Iterable[str], path: PathLike) -> None:
    """Check that arrays hold numbers alone.

    Raises
    ------
    ModelFileError
        If one of them holds NaN or infinity; it names file and array.
    """
    for name in names:
        if not np.isfinite(params[name]).all():
            raise ModelFileError(f'{path}: parameter {name!r} holds NaN or infinity')


def _plain(value: Any, depth: int = 0) -> Any:
    """Options whose numbers are Python's own: 2015 left NumPy's among them, which JSON lacks."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (dict, list, tuple)) and depth < DEEPEST:
        if isinstance(value, dict):
            return {key: _plain(item, depth + 1) for key, item in value.items()}
        return type(value)(_plain(item, depth + 1) for item in value)
    return value


def _as_options(options: Any, path: Path) -> dict[str, Any]:
    if not isinstance(options, dict):
        raise ModelFileError(f'{path}: expected a dict of options, found {kind_of(options)}')
    return dict(options)
