"""The orientation of a photo, from its metadata.

It is read by itself, so that nothing else that a camera or an editor wrote there can undo it.
"""

from __future__ import annotations

import struct

from PIL import ExifTags, Image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BEGIN = b'Exif\0\0'
INTEGERS = {1: 'B', 3: 'H', 4: 'I'}  # types of a field, as `struct` calls them


def upright(image: Image.Image) -> Image.Image:
    """Rotate or mirror a photo as its EXIF or XMP says; nothing else in them is used."""
    # HEIF says it outside of EXIF, and its readers turn the picture; what EXIF repeats is done.
    turn = None if image.format == 'HEIF' else TURNS.get(_orientation(image) or 1)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int | None:
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # the parser of all tags raises many types
        found = None
    if found is None:  # it also stops silently at the first field that it cannot follow
        found = orientation_in(image.info.get('exif'))
    return found if isinstance(found, int) else None


def orientation_in(exif: object) -> int | None:
    """The orientation in EXIF bytes, or None.

    Examples
    --------
    >>> entry = struct.pack('>HHIHH', ExifTags.Base.Orientation, 3, 1, 6, 0)
    >>> orientation_in(BEGIN + b'MM' + struct.pack('>HIH', 42, 8, 1) + entry)
    6
    """
    if not isinstance(exif, bytes):
        return None
    while exif.startswith(BEGIN):  # some programs write it twice
        exif = exif[len(BEGIN) :]
    order = {b'II': '<', b'MM': '>'}.get(exif[:2])
    if order is None or len(exif) < 10:
        return None
    (first,) = struct.unpack_from(f'{order}I', exif, 4)
    for start in range(first + 2, len(exif) - 11, 12):  # a wrong count of fields does not matter
        tag, kind, count = struct.unpack_from(f'{order}HHI', exif, start)
        if tag == ExifTags.Base.Orientation and kind in INTEGERS and count == 1:
            return struct.unpack_from(f'{order}{INTEGERS[kind]}', exif, start + 8)[0]
    return None
