"""PNG files without their metadata.

Colour profiles, texts and private notes change no pixel here, but a reader of the whole file fails
on those that are damaged or large, and holds the others in memory. So it is given the rest alone.
"""

from __future__ import annotations

import bisect
import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

MAGIC = b'\x89PNG\r\n\x1a\n'
LARGEST = 2**20  # bytes of what is kept beside the picture, as stored and as unpacked
FOR_TURNING = b'XML:com.adobe.xmp', b'Raw profile type exif'  # texts that know which way is up


def without_metadata(file: BinaryIO) -> BinaryIO:
    """A view of a PNG file without chunks that change no pixel; other files unchanged.

    The file can be sought in, and stays open and is read for as long as the view is.
    """
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        return file
    return io.BufferedReader(_Parts(file, list(_kept(file))), 2**16)


def _kept(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Start and length of the parts to keep, up to what is no chunk any more."""
    start = here = len(MAGIC)
    yield 0, here
    seen: set[bytes] = set()
    while len(head := _read(file, here, 8)) == 8 and head[4:].isalpha():
        (length,) = struct.unpack_from('>I', head)
        end = here + length + 12
        if head[4:] != b'IDAT' and not _needed(file, here, length, head[4:], seen):
            yield start, here - start
            start = end
        here = end
        if head[4:] == b'IEND':
            head = b''
            break
    yield start, here + len(head) - start  # with what came instead of a chunk


def _needed(file: BinaryIO, here: int, length: int, kind: bytes, seen: set[bytes]) -> bool:
    if kind[:1].isupper() or kind == b'tRNS':  # without these the picture is another one
        return True
    if kind not in (b'eXIf', b'tEXt', b'zTXt', b'iTXt') or length > LARGEST:
        return False
    body, check = _read(file, here + 8, length), _read(file, here + 8 + length, 4)
    key = b'' if kind == b'eXIf' else body.partition(b'\0')[0]
    if key in seen or (key and key not in FOR_TURNING):
        return False
    seen.add(key)
    return check == struct.pack('>I', zlib.crc32(kind + body)) and _is_small(kind, body)


def _is_small(kind: bytes, body: bytes) -> bool:
    """Whether a text can be unpacked, and is not too large then."""
    _, _, rest = body.partition(b'\0')
    if kind == b'iTXt' and rest[:1] == b'\1':
        packed = rest[2:].split(b'\0', 2)[-1]
    elif kind == b'zTXt':
        packed = rest[1:]
    else:
        return True
    unpacking = zlib.decompressobj()
    try:
        return len(unpacking.decompress(packed, LARGEST)) < LARGEST
    except zlib.error:
        return False


def _read(file: BinaryIO, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)


class _Parts(io.RawIOBase):
    """Parts of a file, one after the other."""

    def __init__(self, file: BinaryIO, parts: list[tuple[int, int]]):
        self.file, self.at = file, 0
        self.parts = [part for part in parts if part[1]]
        self.ends = list(itertools.accumulate(length for _, length in self.parts))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.ends[-1]}[whence]
        self.at = max(0, origin + offset)
        return self.at

    def readinto(self, buffer) -> int:
        number = bisect.bisect_right(self.ends, self.at)
        if number == len(self.parts):
            return 0
        (start, length), left = self.parts[number], self.ends[number] - self.at
        content = _read(self.file, start + length - left, min(left, len(buffer)))
        buffer[: len(content)] = content
        self.at += len(content)
        return len(content)
