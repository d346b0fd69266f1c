"""Image formats: which are opened, and messages about the others."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image

from storyteller.io.extras import way_to
from storyteller.io.png import without_metadata

# What photos come as. Others that Pillow reads start programs (EPS) or are no photos.
FORMATS = (
    'JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'DIB', 'TIFF', 'JPEG2000', 'AVIF', 'PPM', 'TGA',
    'ICO', 'PCX', 'SGI',
)  # fmt: skip

SUFFIXES = (
    '.avif', '.bmp', '.gif', '.jfif', '.jp2', '.jpe', '.jpeg', '.jpg', '.mpo', '.png', '.ppm',
    '.tga', '.tif', '.tiff', '.webp',
)  # fmt: skip
HEIF = '.heic', '.heif', '.hif'
RAW = (
    '.3fr', '.arw', '.cr2', '.cr3', '.dng', '.erf', '.nef', '.nrw', '.orf', '.pef', '.raf', '.raw',
    '.rw2', '.srw',
)  # fmt: skip
OTHERS = (
    '.dib', '.eps', '.ico', '.j2k', '.jxl', '.jxr', '.pbm', '.pcx', '.pgm', '.pnm', '.psd', '.sgi',
    '.svg', '.xcf',
)  # fmt: skip
BY_NAME = 'name the file itself to have it told'
NEEDS = {
    'HEIF': f'a HEIC picture: {way_to("heif")}, and in a program of your own '
    'pillow_heif.register_heif_opener()',
    'AVIF': f'an AVIF picture, which this Pillow does not read: {way_to("heif")}',
}


def register_plugins() -> None:
    """Register pillow-heif if it is installed, for commands; the library does not."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def known_formats() -> list[str]:
    """Those of `FORMATS` that this Pillow reads, and what plugins of others have added to it."""
    Image.init()
    return sorted(_loaded_formats(), key=lambda name: Image.OPEN[name][1] is None)


def _loaded_formats() -> list[str]:
    """The known formats whose readers are there already."""
    return [
        name
        for name, (factory, _) in Image.OPEN.items()
        if name in FORMATS or not getattr(factory, '__module__', '').startswith('PIL.')
    ]


def _formats_to_try() -> Iterator[str]:
    """The common ones first: loading the readers of all takes a while. Who takes all comes last."""
    Image.preinit()
    common = [name for name in _loaded_formats() if Image.OPEN[name][1] is not None]
    yield from common
    yield from (name for name in known_formats() if name not in common)


def read_suffixes() -> set[str]:
    """File name suffixes of photos."""
    added = set(known_formats()).difference(FORMATS)
    return {*SUFFIXES, *(suffix for suffix, name in Image.EXTENSION.items() if name in added)}


def why_passed_over(path: str | os.PathLike[str]) -> str | None:
    """Why a file that looks like a photo is skipped; None if it does not look like one.

    Its suffix is none of `read_suffixes`.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix in HEIF:
        return f'to read it: {way_to("heif")}'
    if suffix in RAW:
        return 'the raw photos of cameras are not read'
    if suffix in OTHERS:
        return f'not among the usual kinds of photos; {BY_NAME}'
    try:
        with open(path, 'rb') as file:
            begins = file.read(16)
    except OSError:
        return None
    if _kind(begins) or begins.startswith((b'\xff\xd8\xff', b'\x89PNG', b'GIF8')):
        return f'a picture that is not called so; {BY_NAME}'
    return None


def _kind(beginning: bytes) -> str | None:
    """HEIF or AVIF, by the first 16 bytes; the suffixes are often wrong."""
    if beginning[4:8] != b'ftyp':
        return None
    if beginning[8:12] in (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1'):
        return 'HEIF'
    return 'AVIF' if beginning[8:12] in (b'avif', b'avis') else None


def open_picture(stream: BinaryIO, path: str = '') -> Image.Image:
    """Open an image of a known format, without decoding it, as ``Image.open`` does.

    But how large it may be is for our caller to say: Pillow's own limit is one for the whole
    program, and nobody should have to move it for a photo of a telephone.

    The stream can be sought in; `path` is that of its file, if it has one: what is not compressed
    is read from there. A PIL.UnidentifiedImageError says that it is of no known format, or begins
    like one and does not go on so.
    """
    stream = without_metadata(stream)
    stream.seek(0)
    beginning = stream.read(16)
    for name in _formats_to_try():
        accepts = Image.OPEN[name][1]
        try:
            answer = accepts(beginning) if accepts else True
            if answer and not isinstance(answer, str):  # a text says what Pillow lacks for it
                return _opened(name, stream, path)
        except (SyntaxError, IndexError, TypeError, struct.error):  # how a reader says no
            continue
    kind = _kind(beginning)
    lacking = NEEDS.get(kind) if kind and kind not in known_formats() else None
    raise Image.UnidentifiedImageError(lacking or 'not a picture of a known format')


def _opened(name: str, stream: BinaryIO, path: str) -> Image.Image:
    factory = Image.OPEN[name][0]
    stream.seek(0)
    try:
        return factory(stream, path)
    except Exception:
        if name != 'AVIF':
            raise
    # Which way is up stands outside of EXIF there, and Pillow writes all of EXIF anew to add it,
    # which a bad field defeats. So once more, with EXIF that begins alike and holds no field.
    stream.seek(0)
    content = re.sub(rb'(II\*\0|MM\0\*).{6}', _without_fields, stream.read(), flags=re.DOTALL)
    return factory(io.BytesIO(content), path)


def _without_fields(header: re.Match[bytes]) -> bytes:
    order = '<' if header[1][:1] == b'I' else '>'
    return header[1] + struct.pack(f'{order}IH', 8, 0)
