"""Photos are turned upright, whatever else their EXIF holds."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, features

from storyteller.images import load_image, read_rgb
from storyteller.io.orientation import orientation_in

UPRIGHT = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
UPRIGHT[:12] = 0  # so that a lossy format can be told apart too
ORIENTATION = (0x0112, 3, 1, 6)
LYING = np.ascontiguousarray(np.rot90(UPRIGHT))  # what orientation 6 undoes
BAD = {
    'unit as a long': (0x0128, 4, 1, 131072),
    'unit as a long of no value': (0x0128, 4, 0, 0),
    'unit as a text': (0x0128, 2, 4, 0x41414141),
    'description beyond the end': (0x010E, 2, 400, 70000),
    'description of an unknown type': (0x010E, 99, 1, 0),
    'description without end': (0x010E, 2, 0xFFFFFFFF, 8),
    'resolution that divides by nothing': (0x011A, 5, 1, 8),
    'resolution beyond the end': (0x011A, 5, 1, 99999),
    'directory beyond the end': (0x8769, 4, 1, 99999),
    'directory in itself': (0x8769, 4, 1, 8),
    'place as a text': (0x8825, 2, 4, 0x41414141),
    'strips where there are none': (0x0111, 4, 1, 99999),
}


def exif(*fields: tuple[int, int, int, int], order: str = '>') -> bytes:
    """EXIF of fields (tag, type, count, value or offset)."""
    begin = b'MM' if order == '>' else b'II'
    content = struct.pack(f'{order}HIH', 42, 8, len(fields))
    for tag, kind, count, value in sorted(fields):
        short = kind == 3 and count == 1
        body = struct.pack(f'{order}HH' if short else f'{order}I', value, *([0] * short))
        content += struct.pack(f'{order}HHI', tag, kind, count) + body
    return b'Exif\0\0' + begin + content + b'\0\0\0\0'


def written(pixels: np.ndarray, kind: str, tags: bytes) -> io.BytesIO:
    file = io.BytesIO()
    options = {'quality': 95} if kind == 'JPEG' else {'lossless': True} if kind == 'WEBP' else {}
    Image.fromarray(pixels).save(file, kind, exif=tags, **options)
    return file


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
@pytest.mark.parametrize('bad', BAD)
@pytest.mark.filterwarnings('ignore::UserWarning')  # of Pillow, about the field
def test_a_bad_field_does_not_leave_a_photo_lying(bad, kind, order):
    if kind == 'WEBP' and not features.check('webp'):
        pytest.skip('this Pillow has no WebP')
    found = read_rgb(written(LYING, kind, exif(BAD[bad], ORIENTATION, order=order)))
    assert found.shape == UPRIGHT.shape
    assert np.abs(found.astype(int) - UPRIGHT).mean() < (30 if kind == 'JPEG' else 1e-9)


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_what_the_network_sees_is_upright_too():
    lying = written(LYING, 'PNG', exif(BAD['unit as a long'], ORIENTATION))
    for side in (None, 26):
        for found, expected in zip(
            load_image(lying, side=side), load_image(UPRIGHT, side=side), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('field', [(0x0112, 3, 1, 1), (0x0112, 3, 1, 9), (0x0112, 2, 2, 0x3600)])
def test_an_orientation_that_says_nothing_turns_nothing(field):
    np.testing.assert_array_equal(read_rgb(written(UPRIGHT, 'PNG', exif(field))), UPRIGHT)


@pytest.mark.parametrize('kind', [1, 3, 4])
def test_an_orientation_of_another_width_counts(kind):
    value = 6 << 24 if kind == 1 else 6
    assert orientation_in(exif((0x0112, kind, 1, value))) == 6


@pytest.mark.parametrize('cut', range(0, 40, 3))
def test_cut_exif_is_no_reason_to_fail(cut):
    whole = exif(BAD['unit as a long'], ORIENTATION)
    assert orientation_in(whole[:cut]) in (None, 6)
    assert orientation_in(b'Exif\0\0' * 2 + whole[6:]) == 6
    assert orientation_in(None) is None


@pytest.mark.parametrize('bad', BAD)
@pytest.mark.filterwarnings('ignore::UserWarning')
def test_an_avif_picture_with_a_bad_field_is_turned(bad):
    if not features.check('avif'):
        pytest.skip('this Pillow has no AVIF')
    known = Image.Exif()
    known[0x0112], known[0x0131] = 6, 'x' * 99  # Pillow writes the first one outside of EXIF
    file = io.BytesIO()
    Image.fromarray(LYING).save(file, 'AVIF', quality=100, exif=known)
    content, fields = file.getvalue(), exif(BAD[bad])[6:]
    start = max(content.find(b'MM\0*'), content.find(b'II*\0'))
    found = read_rgb(io.BytesIO(content[:start] + fields + content[start + len(fields) :]))
    assert found.shape == UPRIGHT.shape
    assert np.abs(found.astype(int) - UPRIGHT).mean() < 30


def test_a_tiff_with_a_bad_field_is_turned(tmp_path):
    Image.fromarray(LYING).save(tmp_path / 'a.tif', tiffinfo={0x0112: 6, 0x0128: 2})
    content = (tmp_path / 'a.tif').read_bytes()
    field = struct.pack('<HHI', 0x0128, 3, 1)
    assert content.count(field) == 1
    wrong = struct.pack('<HHII', 0x0128, 4, 1, 131072)
    start = content.index(field)
    (tmp_path / 'a.tif').write_bytes(content[:start] + wrong + content[start + 12 :])
    np.testing.assert_array_equal(read_rgb(tmp_path / 'a.tif'), UPRIGHT)
