"""Reading Flickr8k: split names, photos, and published features."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np

from ... import formats
from ...layers import unit_rows


def read_names(folder: Path, split: str) -> list[str]:
    """The file names of a split, lines of ``{split}.txt``."""
    return formats.read_lines(folder / f'{split}.txt')


def read_photos(folder: Path) -> dict[str, bytes]:
    """The photos of a folder by name: its ``.jpg`` files and those in its ``.tar`` files."""
    photos = {path.name: path.read_bytes() for path in sorted(folder.glob('*.jpg'))}
    for path in sorted(folder.glob('*.tar')):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and (file := tar.extractfile(member)):
                    photos[Path(member.name).name] = file.read()
    if not photos:
        raise formats.MissingFileError(f'{folder}: no .jpg and no .tar file (expected photos)')
    return photos


def read_fc7(path: Path) -> np.ndarray:
    """The fc7 vectors of a ``.npz`` file as unit rows, (N, 4096) float32."""
    with np.load(formats.existing(path, 'fc7 vectors'), allow_pickle=False) as file:
        return unit_rows(file['fc7'].astype(np.float32))
