"""Photos to train a convolutional network on: reading them, and changing them at random.

Photos are kept as bytes, (N, 3, side, side) uint8 RGB, and become what the network takes (BGR, 0
to 255 less the mean) a batch at a time.

Dimension letters: N photos, B batch, E joint space.
"""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import affine_grid, grid_sample, interpolate, normalize

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

    def to(self, device: torch.device) -> Labelled:
        """The same in the memory of a device."""
        return _moved(self, device)


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

    def to(self, device: torch.device) -> Captioned:
        """The same in the memory of a device."""
        return _moved(self, device)


def _moved(photos: Labelled | Captioned, device: torch.device) -> Labelled | Captioned:
    there = {name: part.to(device) for name, part in vars(photos).items() if part is not None}
    return replace(photos, **there)


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
    """Crop, mirror and tint each photo of a batch at random, on the device where it is.

    Parameters
    ----------
    pixels : (B, 3, side, side) uint8 tensor, RGB
    size : int
        Side of the result.
    min_crop : float
        Smallest crop, as a share of the side.

    Returns
    -------
    x : (B, 3, size, size) float32 tensor
        BGR less the mean.
    mirrored : (B,) bool tensor
    """
    n = len(pixels)
    crops = rng.uniform(min_crop, 1, n)
    tops, lefts = rng.uniform(-1, 1, (2, n)) * (1 - crops)  # -1 to 1 is the photo from edge to edge
    mirrored = rng.random(n) < 0.5
    moves = np.zeros((n, 2, 3), np.float32)
    moves[:, 0, 0], moves[:, 0, 2] = np.where(mirrored, -crops, crops), lefts
    moves[:, 1, 1], moves[:, 1, 2] = crops, tops
    with torch.autocast(pixels.device.type, enabled=False):  # it would be half a pixel off
        grid = affine_grid(sent(moves, pixels.device), [n, 3, size, size], False)
    x = grid_sample(pixels.float(), grid, padding_mode='border', align_corners=False)
    x = _tint(x, rng).flip(1).contiguous(memory_format=torch.channels_last)
    return x, sent(mirrored, x.device)


def _tint(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random saturation, contrast and colour cast; takes and gives RGB, the mean subtracted."""
    n = len(x)
    saturation = _column(rng.uniform(0.6, 1.4, (n, 1)), x)
    contrast = _column(rng.uniform(0.8, 1.2, (n, 1)), x)
    cast = _column(rng.normal(0, 10, (n, 1)) + rng.normal(0, 4, (n, 3)), x)
    grey = x.mean(1, keepdim=True)
    return (grey + saturation * (x - grey) - _mean_rgb(x)) * contrast + cast


def _column(values: np.ndarray, x: torch.Tensor) -> torch.Tensor:
    """Numbers (B, c) for each photo of a batch, to compute with `x`: (B, c, 1, 1)."""
    return sent(values.astype(np.float32), x.device)[..., None, None]


def _mean_rgb(x: torch.Tensor) -> torch.Tensor:
    return _column(np.array([MEAN_BGR[::-1]]), x)


def sent(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A small array in the memory of a device, without waiting for what the device still does."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def erased(x: torch.Tensor, most: float, rng: np.random.Generator) -> torch.Tensor:
    """Lay a square of the mean colour over each photo of a batch.

    So that no single part of a photo decides what it is. The side is drawn for each photo, up to
    `most` of the photo's.
    """
    squares, _ = _squares(x, most, rng)
    return torch.where(squares, x.new_zeros(()), x)  # keeps the layout of `x`


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
    squares, sides = _squares(x, most, rng)
    other = sent(rng.permutation(len(x)), x.device)
    share = _column((sides / x.shape[-1]) ** 2, x)[..., 0, 0]  # (B, 1)
    return torch.where(squares, x[other], x), lambda rows: torch.lerp(rows, rows[other], share)


def _squares(
    x: torch.Tensor, most: float, rng: np.random.Generator
) -> tuple[torch.Tensor, np.ndarray]:
    """Where a square lies in each photo, a mask (B, 1, size, size), and its sides (B, 1)."""
    n, size = len(x), x.shape[-1]
    sides = rng.integers(0, int(most * size) + 1, (n, 1))
    corners = sent(rng.integers(0, size - sides + 1, (n, 2)), x.device)
    along = torch.arange(size, device=x.device) - corners[..., None]  # (B, 2, size)
    inside = (along >= 0) & (along < sent(sides, x.device)[..., None])
    rows, columns = inside.unbind(1)
    return (rows[:, :, None] & columns[:, None, :])[:, None], sides


def plain_batch(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Photos as the finished network sees them: the centre, (B, 3, size, size), BGR less mean."""
    side = pixels.shape[-1]
    inner = round(side * CROP / SHORT_SIDE)
    edge = (side - inner) // 2
    x = pixels[:, :, edge : edge + inner, edge : edge + inner].float()
    if inner != size:
        x = interpolate(x, size=(size, size), mode='bilinear', align_corners=False)
    return (x - _mean_rgb(x)).flip(1).contiguous(memory_format=torch.channels_last)
