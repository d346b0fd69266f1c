"""Finding text files and reading their lines."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...formats import MissingFileError, ModelFileError, PathLike, existing

TYPOGRAPHY = str.maketrans(
    {'“': '"', '”': '"', '„': '"', '‘': "'", '’': "'", '—': '--', '–': '-', '…': '...'}
)


def read_text(path: PathLike) -> Iterator[str]:
    """The lines of a UTF-8 text file, plain, ``.gz`` or ``.xz``, without their line ends."""
    path = existing(path, 'a text to train on')
    opener: Any = {'.gz': gzip.open, '.xz': lzma.open}.get(path.suffix, open)
    try:
        with opener(path, 'rt', encoding='utf-8-sig', newline='\n') as file:
            for line in file:
                yield line.rstrip('\r\n')
    except (UnicodeDecodeError, lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise ModelFileError(f'{path}: not readable as UTF-8 text: {error}') from None


def text_files(path: PathLike, pattern: str = '*') -> list[Path]:
    """The text files (``.txt``, ``.txt.gz``, ``.txt.xz``) in a folder, sorted; or the one file."""
    path = Path(path)
    if path.is_file():
        return [path]
    suffixes = ('.txt', '.txt.gz', '.txt.xz')
    files = sorted(file for file in path.glob(pattern) if file.name.endswith(suffixes))
    if not files:
        raise MissingFileError(f'{path}: found no .txt, .txt.gz or .txt.xz file to train on')
    return files
