"""Which files are opened as pictures, and by whom."""

from __future__ import annotations

import struct
from typing import BinaryIO

from PIL import Image

from storyteller.png import without_metadata

# What photos come as. Others that Pillow reads start programs (EPS) or are no photos.
FORMATS = (
    'JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'DIB', 'TIFF', 'JPEG2000', 'AVIF', 'PPM', 'TGA',
    'ICO', 'PCX', 'SGI',
)  # fmt: skip


def known_formats() -> list[str]:
    """Those of `FORMATS` that this Pillow reads."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def open_picture(stream: BinaryIO, path: str = '') -> Image.Image:
    """Open a picture of a known format, not yet decoded, as ``Image.open`` does.

    But how large it may be is for our caller to say: Pillow's own limit is one for the whole
    program, and nobody should have to move it for a photo of a telephone.

    Parameters
    ----------
    stream : binary file
        It can be sought in.
    path : str
        Of the file, if it has one: what is not compressed is read from there.

    Raises
    ------
    PIL.Image.UnidentifiedImageError
        If it is of no known format, or begins like one and does not go on so.
    """
    stream = without_metadata(stream)
    stream.seek(0)
    beginning = stream.read(16)
    for name in known_formats():
        factory, accepts = Image.OPEN[name]
        try:
            answer = accepts(beginning) if accepts else True
            if answer and not isinstance(answer, str):  # a text says what Pillow lacks for it
                stream.seek(0)
                return factory(stream, path)
        except (SyntaxError, IndexError, TypeError, struct.error):  # how a reader says no
            continue
    raise Image.UnidentifiedImageError('not a picture of a known format')
