"""Photos to train a convolutional network on: reading them, and changing them at random.

Photos are kept as bytes, (N, 3, side, side) uint8 RGB, and become what the network takes (BGR, 0
to 255 less the mean) a batch at a time.

Dimension letters: N photos, B batch, E joint space.
"""

from __future__ import annotations

import io
import itertools
import math
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate, normalize

from .. import formats
from ..images import CROP, MEAN_BGR, SHORT_SIDE, read_rgb
from .matching import Matches


@dataclass(frozen=True)
class Labelled:
    """Small photos, (N, 3, 64, 64) uint8 RGB, and their classes, (N,) int64.

    ``targets`` (C, E) are unit rows, the places of the classes in a joint space, or None;
    ``matches``, which captions of a pool fit each class, or None.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor | None = None
    matches: Matches | None = None


@dataclass(frozen=True)
class Captioned:
    """Photos with the real network's fc7.

    ``pixels`` (N, 3, side, side) uint8 RGB; ``fc7`` (N, 4096) unit rows; ``flipped`` the same for
    the mirrored photos; ``targets`` (N, E) unit rows in a joint space, or None; ``matches``, which
    captions of a pool fit each photo, or None.
    """

    pixels: torch.Tensor
    fc7: torch.Tensor
    flipped: torch.Tensor
    targets: torch.Tensor | None = None
    matches: Matches | None = None

    def subset(self, index: np.ndarray) -> Captioned:
        """The photos at `index`."""
        targets = None if self.targets is None else self.targets[index]
        matches = self.matches and self.matches.subset(index)
        fields = (self.pixels[index], self.fc7[index], self.flipped[index], targets, matches)
        return Captioned(*fields)


def read_labelled(paths: Sequence[Path], targets: Path | None = None) -> Labelled:
    """Read ``.npz`` files that hold JPEG photos end to end (`jpeg`, `offsets`, `labels`).

    `targets` is an ``.npy`` of one (E,) vector for each class in a joint space.
    """
    pixels, labels = [], []
    for path in paths:
        with np.load(formats.existing(path, 'labelled photos'), allow_pickle=False) as file:
            jpeg, offsets = file['jpeg'], file['offsets']
            labels.append(file['labels'].astype(np.int64))
        spans = itertools.pairwise(offsets)
        pixels += [np.array(Image.open(io.BytesIO(jpeg[a:b].tobytes()))) for a, b in spans]
    photos = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    numbers = torch.from_numpy(np.concatenate(labels))
    matrix = None if targets is None else torch.tensor(formats.read_array(targets))
    if matrix is not None and len(matrix) <= int(numbers.max()):
        raise formats.MismatchError(f'{targets}: {len(matrix)} rows, labels to {numbers.max()}')
    return Labelled(photos, numbers, matrix)


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


def read_captioned(
    folder: Path, split: str = 'train', side: int = 128, targets: Path | None = None
) -> Captioned:
    """Read the photos of a split, reduced to `side` pixels, and the real network's fc7.

    Parameters
    ----------
    folder : path
        Holds the photos, ``{split}.txt`` (one file name a line), ``fc7_{split}.npz`` and, if
        there is one, ``fc7_{split}_flipped.npz`` for the first photos mirrored.
    targets : path, optional
        ``.npy`` of one (E,) vector for each photo in a joint space.
    """
    names, photos = read_names(folder, split), read_photos(folder)
    fc7 = read_fc7(folder / f'fc7_{split}.npz')
    if len(fc7) != len(names):
        raise formats.MismatchError(f'{folder}: {len(names)} names in {split}.txt, {len(fc7)} fc7')
    flipped = fc7.clone()
    if (path := folder / f'fc7_{split}_flipped.npz').exists():
        part = read_fc7(path)
        flipped[: len(part)] = part
    matrix = None if targets is None else torch.tensor(formats.read_array(targets))
    if matrix is not None and len(matrix) != len(names):
        raise formats.MismatchError(f'{targets}: {len(matrix)} rows for {len(names)} photos')
    pixels = torch.stack([_square(photos[name], side) for name in names])
    return Captioned(pixels, fc7, flipped, matrix)


def read_names(folder: Path, split: str) -> list[str]:
    """The file names of a split."""
    return formats.read_lines(folder / f'{split}.txt')


def read_fc7(path: Path) -> torch.Tensor:
    """The fc7 vectors of a ``.npz`` file as unit rows, (N, 4096)."""
    with np.load(formats.existing(path, 'fc7 vectors'), allow_pickle=False) as file:
        return normalize(torch.from_numpy(file['fc7'].astype(np.float32)))


def _square(jpeg: bytes, side: int) -> torch.Tensor:
    """A photo's central square as (3, side, side) uint8, by the road that new photos take."""
    x = torch.from_numpy(read_rgb(io.BytesIO(jpeg)).copy()).permute(2, 0, 1)[None].float()
    short = min(x.shape[2:])
    top, left = (x.shape[2] - short) // 2, (x.shape[3] - short) // 2
    x = x[:, :, top : top + short, left : left + short]
    x = interpolate(x, size=(SHORT_SIDE, SHORT_SIDE), mode='bilinear', align_corners=False)
    return interpolate(x, size=(side, side), mode='area')[0].round().to(torch.uint8)


def augment(
    pixels: torch.Tensor, size: int, min_crop: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crop, mirror and tint a batch at random.

    Parameters
    ----------
    pixels : (B, 3, side, side) uint8 tensor, RGB
    size : int
        Side of the result.
    min_crop : float
        Smallest crop, as a share of the side. One batch shares the size of its crops.

    Returns
    -------
    x : (B, 3, size, size) float32 tensor
        BGR less the mean.
    mirrored : (B,) bool tensor
    """
    n, _, side, _ = pixels.shape
    crop = int(rng.integers(math.ceil(min_crop * side), side + 1))
    tops, lefts = rng.integers(0, side - crop + 1, (2, n))
    x = torch.stack(
        [pixels[i, :, t : t + crop, s : s + crop] for i, (t, s) in enumerate(zip(tops, lefts))]  # noqa: B905
    ).float()
    if crop != size:
        x = interpolate(x, size=(size, size), mode='bilinear', align_corners=False)
    mirrored = torch.from_numpy(rng.random(n) < 0.5)
    x[mirrored] = x[mirrored].flip(3)
    return _tint(x, rng).flip(1).contiguous(memory_format=torch.channels_last), mirrored


def _tint(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random saturation, contrast and colour cast; takes and gives RGB, the mean subtracted."""
    n = len(x)
    mean = torch.tensor(MEAN_BGR[::-1]).view(1, 3, 1, 1)
    saturation = torch.from_numpy(rng.uniform(0.6, 1.4, (n, 1, 1, 1)).astype(np.float32))
    contrast = torch.from_numpy(rng.uniform(0.8, 1.2, (n, 1, 1, 1)).astype(np.float32))
    cast = torch.from_numpy(
        (rng.normal(0, 10, (n, 1, 1, 1)) + rng.normal(0, 4, (n, 3, 1, 1))).astype(np.float32)
    )
    grey = x.mean(1, keepdim=True)
    return (grey + saturation * (x - grey) - mean) * contrast + cast


def erased(x: torch.Tensor, most: float, rng: np.random.Generator) -> torch.Tensor:
    """Lay a square of the mean colour over each photo of a batch, in place.

    So that no single part of a photo decides what it is. The side is drawn for each photo, up to
    `most` of the photo's.
    """
    size = x.shape[-1]
    sides = rng.integers(0, int(most * size) + 1, len(x))
    for photo, side in zip(x, sides, strict=True):
        top, left = rng.integers(0, size - side + 1, 2)
        photo[:, top : top + side, left : left + side] = 0
    return x


def pasted(
    x: torch.Tensor, most: float, rng: np.random.Generator
) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """Lay a square of another photo of the batch over each photo, where it is in that one.

    The CutMix of Yun et al. (2019). The side is drawn for each photo, up to `most` of the photo's.

    Returns
    -------
    x : (B, 3, size, size) tensor
        A new one.
    mix : function
        Does to (B, n) rows of what is to be learned as was done to the photos: mixes those of two
        photos by their areas.
    """
    size, n = x.shape[-1], len(x)
    sides, other = rng.integers(0, int(most * size) + 1, n), rng.permutation(n)
    result = x.clone()
    for i, (side, j) in enumerate(zip(sides, other, strict=True)):
        top, left = rng.integers(0, size - side + 1, 2)
        square = (slice(None), slice(top, top + side), slice(left, left + side))
        result[i][square] = x[j][square]
    share = torch.from_numpy((sides / size).astype(np.float32)[:, None]) ** 2
    return result, lambda rows: torch.lerp(rows, rows[other], share)


def plain_batch(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Photos as the finished network sees them: the centre, (B, 3, size, size), BGR less mean."""
    side = pixels.shape[-1]
    inner = round(side * CROP / SHORT_SIDE)
    edge = (side - inner) // 2
    x = pixels[:, :, edge : edge + inner, edge : edge + inner].float()
    if inner != size:
        x = interpolate(x, size=(size, size), mode='bilinear', align_corners=False)
    x = x - torch.tensor(MEAN_BGR[::-1]).view(1, 3, 1, 1)
    return x.flip(1).contiguous(memory_format=torch.channels_last)
