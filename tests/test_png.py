"""PNG files are read for their pixels, whatever else they hold."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from storyteller.formats import ImageError
from storyteller.images import read_rgb
from storyteller.io.png import LARGEST, MAGIC, without_metadata

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
LARGE = 3 * LARGEST


def chunk(kind: bytes, body: bytes) -> bytes:
    checked = kind + body
    return struct.pack('>I', len(body)) + checked + struct.pack('>I', zlib.crc32(checked))


def chunks_of(content: bytes) -> list[bytes]:
    found, here = [], len(MAGIC)
    while here < len(content):
        end = here + 12 + struct.unpack_from('>I', content, here)[0]
        found.append(content[here:end])
        here = end
    return found


def written(before: bytes = b'', after: bytes = b'', image: Image.Image | None = None, **options):
    """A PNG file with more chunks, before and after its pixels."""
    file = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(file, 'PNG', **options)
    head, *rest, end = chunks_of(file.getvalue())
    return MAGIC + head + before + b''.join(rest) + after + end


DAMAGED = bytearray(chunk(b'tEXt', b'Title\0A dog'))
DAMAGED[-1] ^= 255
NOTES = {
    'a large profile': chunk(b'iCCP', b'a\0\0' + zlib.compress(bytes(LARGE))),
    'a profile packed in another way': chunk(b'iCCP', b'a\0\7' + bytes(9)),
    'a profile without a name': chunk(b'iCCP', b''),
    'a large text': chunk(b'zTXt', b'Comment\0\0' + zlib.compress(bytes(LARGE))),
    'a large text of all scripts': chunk(
        b'iTXt', b'Comment\0\1\0\0\0' + zlib.compress(bytes(LARGE))
    ),
    'XMP that is large': chunk(
        b'iTXt', b'XML:com.adobe.xmp\0\1\0\0\0' + zlib.compress(bytes(LARGE))
    ),
    'a plain text that is large': chunk(b'tEXt', b'Comment\0' + b'x' * LARGE),
    'many texts': 80 * chunk(b'zTXt', b'Comment\0\0' + zlib.compress(bytes(LARGEST - 1))),
    'an empty gamma': chunk(b'gAMA', b''),
    'an empty resolution': chunk(b'pHYs', b''),
    'a wrong checksum': bytes(DAMAGED),
    'EXIF that is large': chunk(b'eXIf', b'MM\0*' + bytes(LARGE)),
    'a broken animation': chunk(b'acTL', b'\0') + chunk(b'fcTL', b''),
    'a note of a program': chunk(b'prVt', bytes(LARGE)),
}


@pytest.mark.parametrize('place', ['before', 'after'])
@pytest.mark.parametrize('note', NOTES)
def test_what_is_not_the_picture_does_not_matter(tmp_path, note, place):
    content = written(**{place: NOTES[note]})
    (tmp_path / 'a.jpg').write_bytes(content)
    for given in (tmp_path / 'a.jpg', io.BytesIO(content)):
        np.testing.assert_array_equal(read_rgb(given), PIXELS)


def test_the_view_is_the_file_without_its_notes():
    plain = written()
    content = written(NOTES['a large profile'], NOTES['a large text'])
    view = without_metadata(io.BytesIO(content))
    assert view.read() == plain
    for start, count in ((0, 5), (3, 40), (len(plain) - 9, 30), (len(plain) + 5, 3), (40, 0)):
        assert view.seek(start) == start
        assert view.read(count) == plain[start : start + count]
    assert view.seek(-4, os.SEEK_END) == len(plain) - 4 and view.read() == plain[-4:]
    jpeg = io.BytesIO(b'\xff\xd8\xff')
    assert without_metadata(jpeg) is jpeg


@pytest.mark.parametrize('note', ['eXIf', 'exif as a text', 'XMP', 'XMP, packed'])
@pytest.mark.parametrize('place', ['before', 'after'])
def test_which_way_is_up_is_kept(note, place):
    exif = b'MM\0*' + struct.pack('>IHHHIHHI', 8, 1, 0x0112, 3, 1, 6, 0, 0)
    xmp = b'<rdf tiff:Orientation="6"/>'
    text = b'\nexif\n%8d\n%s\n' % (len(exif), exif.hex().encode())
    body = {
        'eXIf': chunk(b'eXIf', exif),
        'exif as a text': chunk(b'zTXt', b'Raw profile type exif\0\0' + zlib.compress(text)),
        'XMP': chunk(b'iTXt', b'XML:com.adobe.xmp\0\0\0\0\0' + xmp),
        'XMP, packed': chunk(b'iTXt', b'XML:com.adobe.xmp\0\1\0\0\0' + zlib.compress(xmp)),
    }[note]
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(PIXELS)))
    content = written(**{place: NOTES['a large text'] + body}, image=lying)
    np.testing.assert_array_equal(read_rgb(io.BytesIO(content)), PIXELS)


def test_transparency_and_palettes_are_kept():
    image = Image.fromarray(PIXELS).quantize(8)
    content = written(NOTES['a large text'], image=image, transparency=0)
    with Image.open(io.BytesIO(written(image=image, transparency=0))) as plain:
        expected = plain.convert('RGBA')
    expected = Image.alpha_composite(Image.new('RGBA', expected.size, 'white'), expected)
    np.testing.assert_array_equal(read_rgb(io.BytesIO(content)), expected.convert('RGB'))


def test_of_an_animation_the_first_picture_counts():
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    for default in (False, True):
        content = written(
            NOTES['a large text'], image=frames[0], save_all=True, append_images=frames[1:],
            default_image=default,
        )  # fmt: skip
        np.testing.assert_array_equal(read_rgb(io.BytesIO(content)), PIXELS)


@pytest.mark.parametrize('share', [0.2, 0.5, 0.9])
def test_a_cut_file_is_still_refused_and_taken_when_allowed(share):
    pixels = np.kron(PIXELS, np.ones((10, 10, 1), np.uint8))
    plain = written(image=Image.fromarray(pixels))
    cut = written(NOTES['a large text'], image=Image.fromarray(pixels))
    cut = cut[: len(cut) - int(len(plain) * (1 - share))]
    with pytest.raises(ImageError):
        read_rgb(io.BytesIO(cut))
    found = read_rgb(io.BytesIO(cut), allow_truncated=True)
    assert found.shape == pixels.shape and (found == pixels)[:20].all()


def test_large_notes_take_no_memory(tmp_path):
    path, body = tmp_path / 'a.png', bytes(64 * LARGEST)
    path.write_bytes(written(chunk(b'tEXt', b'Comment\0' + body)))
    del body
    tracemalloc.start()
    read_rgb(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * LARGEST
