"""From photo files to the arrays that a convolutional network expects.

For a VGG network the preprocessing is that of 2015: the shorter side is resized to 256 pixels by
bilinear interpolation without anti-aliasing, the central 224x224 are cropped, the channels reversed
to BGR, and the mean colour of ImageNet subtracted. For a network that takes whole photos they are
resized to a square.
Three things are new, because the code of 2015 failed on them or misread them: every kind of image
becomes RGB, photos are rotated according to their EXIF tag, and an unusable image raises one type
of error that gives the reason.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Union

import numpy as np
from PIL import Image, ImageFile

from storyteller.errors import why
from storyteller.formats import ImageError, stand_in
from storyteller.io.files import at_home
from storyteller.io.orientation import upright
from storyteller.io.picture_files import open_picture
from storyteller.nn.architecture import CROP as CROP
from storyteller.nn.architecture import MEAN_BGR as MEAN_BGR
from storyteller.options import MAX_PIXELS, check_count

if TYPE_CHECKING:
    import torch

SHORT_SIDE = 256  # pixels of the shorter side after the resize
FULL_PIXELS = 89_478_485  # photos of more are taken at 1/2, 1/4 or 1/8 of their sides
MAX_RESIZED = 2**22  # pixels after the resize, which is 64:1 for the sides: slivers are no photos


@dataclass(frozen=True)
class Loaded:
    """The result of `load_image`, with the name of the photo."""

    name: str
    rawim: np.ndarray
    im: np.ndarray


# Not by |, which takes no name of a type; torch is not imported for one.
Photo = Union[str, os.PathLike[str], Image.Image, np.ndarray, 'torch.Tensor', BinaryIO, Loaded]


def load_image(
    file: Photo,
    *,
    allow_truncated: bool = False,
    side: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[np.ndarray, np.ndarray]:
    """Read a photo as the input of the network.

    Parameters
    ----------
    file : path, PIL image, binary file object, array or torch.Tensor
        Arrays are (H, W), (H, W, 3) or (H, W, 4), tensors (3, H, W) or (H, W, 3), on any device;
        in RGB, of uint8, or of floats from 0 to 1. Of an animation the first frame counts.
    allow_truncated : bool
        Accept a photo whose file is truncated: what is missing stays black (or grey).
    side : int, optional
        None: `im` holds the centre, as VGG-19 sees it. A number, ``net['side']``: the whole photo,
        resized to a square of this size in pixels.
    max_pixels : int
        Maximum number of pixels; each takes four bytes, and more while it is processed. Of more
        than `FULL_PIXELS`, every second (fourth, eighth) is kept each way; a JPEG is decoded so.

    Returns
    -------
    rawim : (224, 224, 3) array of uint8
        The centre, RGB, for display.
    im : (1, 3, 224, 224) array of float32, or (1, 3, side, side)
        What the network sees, in BGR, 0 to 255 less `MEAN_BGR`.

    Raises
    ------
    ImageError
        If the file is missing, no regular file, empty, no picture of a known format (see
        `storyteller.io.picture_files`), truncated, larger than `max_pixels`, or a sliver.
        Attributes ``path`` and ``reason``.
    TypeError
        If `file` is of none of the kinds above.
    ValueError
        If `max_pixels` is no number of pixels.

    Notes
    -----
    Transparent parts become white. 16-bit greys are scaled to 0..255. Modes without a stated
    range (32-bit integers, floats) are scaled by the first of 0..1 (floats only), 0..255 and
    0..65535 that holds all their values, or else by their own least and greatest value.

    Examples
    --------
    >>> rawim, im = load_image(np.full((300, 400, 3), 255, dtype=np.uint8))
    >>> rawim.shape, im.shape, im[0, :, 0, 0].astype(int).tolist()
    ((224, 224, 3), (1, 3, 224, 224), [151, 138, 131])
    """
    if isinstance(file, Loaded):
        return file.rawim, file.im
    picture = read_rgb(file, allow_truncated=allow_truncated, max_pixels=max_pixels)
    pixels = _resize_and_crop(picture)  # (224, 224, 3) float64, RGB
    rawim = pixels.astype(np.uint8)  # truncates, as in 2015
    if side is not None:
        whole = Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR)
        pixels = np.asarray(whole, np.float64)
    im = pixels[:, :, ::-1] - np.array(MEAN_BGR)
    return rawim, np.ascontiguousarray(im.transpose(2, 0, 1)[None], dtype=np.float32)


def photo_name(file: Photo) -> str:
    """The name of a photo in messages and results: its path, if it has one."""
    if isinstance(file, (str, os.PathLike)):
        return os.fspath(file)
    if isinstance(file, np.ndarray):
        return '<array>'
    if is_tensor(file):
        return '<tensor>'
    return str(getattr(file, 'filename', None) or getattr(file, 'name', None) or '<picture>')


def read_rgb(
    file: Photo, *, allow_truncated: bool = False, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Read a whole photo, upright, as an (H, W, 3) array of uint8; the rest as `load_image`."""
    check_count('max_pixels', max_pixels)
    name = photo_name(file)
    if isinstance(file, np.ndarray):
        file = _from_array(file, max_pixels)
    elif is_tensor(file):
        file = _from_array(_pixels_last(file), max_pixels, name)
    elif isinstance(file, (str, os.PathLike)):
        name = file = at_home(file)
        _check_file(name)
    elif not isinstance(file, Image.Image) and not hasattr(file, 'read'):
        raise TypeError(
            'a photo is a path, a PIL image, a binary file object, an array or a tensor, '
            f'not {type(file).__name__}'
        )
    try:
        if isinstance(file, Image.Image):
            return _decode(file, name, allow_truncated, max_pixels)
        path = name if isinstance(file, (str, os.PathLike)) else ''
        with _stream(file) as stream, open_picture(stream, path) as image:
            _check_size(image.width, image.height, name, max_pixels)
            if (size := _kept_size(image)) != image.size:
                image.draft(None, size)  # a JPEG is decoded at that size; others stay as they are
            return _decode(image, name, allow_truncated, max_pixels)
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(name, str(error)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(name, f'more pixels than PIL.Image.MAX_IMAGE_PIXELS: {error}') from None
    except Exception as error:  # decoders raise whatever the broken bytes make them stumble over
        raise ImageError(name, f'cannot be decoded: {error or type(error).__name__}') from error


def _stream(file: Any) -> AbstractContextManager[BinaryIO]:
    """A file that can be sought in; one that was opened by others stays open."""
    if isinstance(file, (str, os.PathLike)):
        return open(file, 'rb')
    try:
        file.seek(0)
    except (AttributeError, OSError):  # a pipe
        return io.BytesIO(file.read())
    return nullcontext(file)


def _check_file(path: str) -> None:
    """Refuse what Pillow would report obscurely, or (a pipe) wait for without end."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ImageError(path, 'no such file') from None
    except (OSError, ValueError) as error:
        raise ImageError(path, f'cannot be opened: {error}') from None
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(path, 'a folder, not a picture')
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(path, 'not a regular file')
    if status.st_size == 0:
        raise ImageError(path, 'the file is empty')
    try:
        what = stand_in(path)
    except OSError as error:
        raise ImageError(path, f'cannot be opened: {error}') from None
    if what:
        raise ImageError(path, f'not a picture but {what}')


def is_tensor(file: object) -> bool:
    """Whether it is a torch.Tensor; there is none where torch has not been imported."""
    torch = sys.modules.get('torch')
    return torch is not None and isinstance(file, torch.Tensor)


def _pixels_last(tensor: Any) -> np.ndarray:
    """The array (H, W, 3) of a tensor. What may be read either way is (3, H, W), torch's own."""
    shape = tuple(tensor.shape)
    if len(shape) != 3 or 3 not in (shape[0], shape[2]):
        found = f'{shape} of {tensor.dtype}'
        raise ImageError('<tensor>', f'expected (3, H, W) or (H, W, 3), found {found}')
    try:
        tensor = tensor.detach().cpu()
        # NumPy knows no bfloat16.
        array = (tensor.float() if tensor.dtype.is_floating_point else tensor).numpy()
    except (RuntimeError, TypeError) as error:  # a sparse one, or one without values
        raise ImageError('<tensor>', f'cannot be read: {why(error)}') from error
    return array.transpose(1, 2, 0) if shape[0] == 3 else array


def _from_array(array: np.ndarray, max_pixels: int, name: str = '<array>') -> Image.Image:
    channels, floats = array.shape[2:], array.dtype.kind == 'f'
    known = floats or array.dtype == np.uint8
    if not known or array.ndim < 2 or channels not in ((), (3,), (4,)):
        raise ImageError(
            name,
            'expected (H, W), (H, W, 3) or (H, W, 4) of uint8, or of floats from 0 to 1, '
            f'found {array.shape} of {array.dtype}',
        )
    if not array.size:
        raise ImageError(name, f'no pixels: shape {array.shape}')
    _check_size(array.shape[1], array.shape[0], name, max_pixels)  # before anything is computed
    return Image.fromarray(np.ascontiguousarray(_bytes_of(array, name) if floats else array))


def _bytes_of(array: np.ndarray, name: str) -> np.ndarray:
    """Floats from 0 to 1 as uint8. What rounds to 0 or 255 may lie outside by that little."""
    least, most = float(array.min()), float(array.max())
    if not (least * 255 > -0.5 and most * 255 < 255.5):  # also if they are not finite
        raise ImageError(name, f'expected floats from 0 to 1, found {least:.6g} to {most:.6g}')
    return np.rint(array * array.dtype.type(255)).clip(0, 255).astype(np.uint8)


def _decode(image: Image.Image, name: str, allow_truncated: bool, max_pixels: int) -> np.ndarray:
    _check_size(image.width, image.height, name, max_pixels)
    try:
        image.load()
    except (OSError, SyntaxError):
        if not allow_truncated or not isinstance(image, ImageFile.ImageFile):
            raise
        image.tile = []  # nothing is left to decode; Pillow's own switch is for all its users
    if image.size != (size := _kept_size(image)):
        image = image.resize(size, Image.Resampling.NEAREST)
    return np.asarray(_to_rgb(upright(image)))


def _kept_size(image: Image.Image) -> tuple[int, int]:
    """The sides of a photo, or a half, a quarter or an eighth of them if they are long."""
    width, height = image.size
    parts = (1, 2, 4, 8)
    part = next((n for n in parts if width * height <= n * n * FULL_PIXELS), parts[-1])
    return width // part, height // part


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            name,
            f'{width}x{height} is more than {max_pixels:,} pixels; '
            'max_pixels (--max-pixels) raises the limit',
        )
    if not width * height:
        raise ImageError(name, f'no pixels: {width}x{height}')
    long = max(width, height) * SHORT_SIDE // min(width, height)
    if long * SHORT_SIDE > MAX_RESIZED:
        raise ImageError(name, f'{width}x{height} is too narrow: sides of at most 64:1 can be used')


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
        grey = _to_bytes(image)
        if isinstance(clear := image.info.get('transparency'), int):  # one grey of a PNG
            grey[np.asarray(image) == clear] = 255
        return Image.fromarray(grey).convert('RGB')
    if not image.has_transparency_data:
        return image if image.mode == 'RGB' else image.convert('RGB')
    if image.mode == 'La':  # Pillow knows no direct way
        image = image.convert('LA')
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    return Image.alpha_composite(white, image).convert('RGB')


def _to_bytes(image: Image.Image) -> np.ndarray:
    """Greys of more than 8 bits as uint8; see the notes of `load_image` for their range."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError('it holds values that are not finite')
    least, most = values.min(), values.max()
    ranges = {'I': (255, 65535), 'F': (1, 255, 65535)}.get(image.mode, (65535,))
    top = next((top for top in ranges if least >= 0 and most <= top), None)
    low, span = (0.0, top) if top else (least, most - least)
    return np.rint((values - low) * 255 / (span or 1)).astype(np.uint8)


def _resize_and_crop(picture: np.ndarray) -> np.ndarray:
    """Shorter side to 256, the longer in proportion and rounded down; the central 224x224.

    Only the pixels that the crop needs are interpolated, so that a large photo costs no more
    memory than a small one. The values are those of ``skimage.transform.resize(order=1,
    mode='constant', anti_aliasing=False)``.
    """
    height, width = picture.shape[:2]
    short = min(height, width)
    rows = _samples(height, height * SHORT_SIDE // short)
    columns = _samples(width, width * SHORT_SIDE // short)
    corners = [
        picture[np.ix_(r, c)] * (r_weight[:, None, None] * c_weight[None, :, None])
        for r, r_weight in rows
        for c, c_weight in columns
    ]
    return np.clip(sum(corners), 0, 255)


def _samples(n_in: int, n_out: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For the crop of a resized side: two source indices for each pixel, and their weights.

    A sample beyond the border counts as 0 (mode 'constant'), hence its weight of 0.
    """
    first = n_out // 2 - CROP // 2
    position = (np.arange(first, first + CROP) + 0.5) * n_in / n_out - 0.5
    below = np.floor(position).astype(np.int64)
    share = position - below
    return [
        (np.clip(index, 0, n_in - 1), weight * ((index >= 0) & (index < n_in)))
        for index, weight in ((below, 1 - share), (below + 1, share))
    ]
