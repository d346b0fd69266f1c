"""A photo file to the array that the network sees, against the arrays of the 2015 code."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib

import numpy as np
import pytest
import torch
from conftest import REFERENCE
from PIL import Image
from skimage.transform import resize

from storyteller.formats import ImageError
from storyteller.images import CROP, MEAN_BGR, Loaded, load_image, photo_name, read_rgb
from storyteller.options import MAX_PIXELS

VGG = REFERENCE / 'vgg'
PICTURES = {
    'landscape': 'landscape_decoded.png',
    'portrait': 'portrait.png',
    'grey': 'grey.png',
}


@pytest.fixture(scope='module')
def reference():
    with np.load(VGG / 'vgg.npz') as file:
        return dict(file)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def slow_crop(picture: np.ndarray) -> np.ndarray:
    """The resize and crop of 2015, spelt out: (224, 224, 3) float64 RGB."""
    height, width = picture.shape[:2]
    short = min(height, width)
    shape = (height * 256 // short, width * 256 // short)
    whole = resize(
        picture.astype(np.float64),
        shape,
        order=1,
        mode='constant',
        anti_aliasing=False,
        preserve_range=True,
    )
    top, left = shape[0] // 2 - 112, shape[1] // 2 - 112
    return whole[top : top + 224, left : left + 224]


@pytest.mark.parametrize('name', PICTURES)
def test_input_equals_that_of_2015(reference, name):
    _, im = load_image(VGG / PICTURES[name])
    assert im.dtype == np.float32
    assert im.shape == (1, 3, 224, 224)
    np.testing.assert_allclose(im, reference[f'input_{name}'], atol=1e-4)


@pytest.mark.parametrize('name', PICTURES)
def test_raw_equals_that_of_2015_but_for_truncation_at_whole_numbers(reference, name):
    rawim, im = load_image(VGG / PICTURES[name])
    assert rawim.dtype == np.uint8
    assert rawim.shape == (224, 224, 3)
    values = im[0].transpose(1, 2, 0)[:, :, ::-1] + np.float32(MEAN_BGR[::-1])
    near_whole = np.abs(values - np.rint(values)) < 1e-4
    np.testing.assert_array_equal(rawim[~near_whole], reference[f'raw_{name}'][~near_whole])
    difference = rawim.astype(int) - reference[f'raw_{name}']
    assert np.abs(difference).max() <= 1


def test_jpeg_is_close_to_its_decoding_of_2015(reference):
    _, im = load_image(VGG / 'landscape.jpg')
    assert np.abs(im - reference['input_landscape']).mean() < 1


@pytest.mark.parametrize(
    'height, width',
    [(256, 256), (257, 256), (255, 300), (300, 401), (777, 1000), (30, 40), (5, 4), (3, 100)],
)
def test_only_interpolating_the_crop_changes_nothing(height, width):
    picture = noise(height, width, 3)
    _, im = load_image(picture)
    np.testing.assert_allclose(
        im[0].transpose(1, 2, 0)[:, :, ::-1] + MEAN_BGR[::-1], slow_crop(picture), atol=1e-4
    )


def test_path_object_picture_and_array_give_the_same(tmp_path):
    picture = noise(60, 50, 3)
    path = tmp_path / 'photo.png'
    Image.fromarray(picture).save(path)
    expected = load_image(picture)[1]
    with open(path, 'rb') as file:
        for given in (path, str(path), Image.open(path), file, io.BytesIO(path.read_bytes())):
            np.testing.assert_array_equal(load_image(given)[1], expected)


@pytest.mark.parametrize('shape', [(60, 50), (60, 50, 3), (60, 50, 4)])
@pytest.mark.parametrize('dtype', ['f2', 'f4', 'f8', '>f4'])
def test_arrays_of_floats_are_those_of_their_bytes(shape, dtype):
    picture = noise(*shape)
    floats = (picture / 255).astype(dtype)
    for found, expected in zip(load_image(floats), load_image(picture), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('dtype', ['uint8', 'float16', 'float32', 'float64'])
@pytest.mark.parametrize('first', [True, False])
def test_tensors_are_read_with_the_channels_first_or_last(dtype, first):
    picture = noise(60, 50, 3)
    tensor = torch.from_numpy(picture)
    if dtype != 'uint8':
        tensor = (tensor / 255).to(getattr(torch, dtype)).requires_grad_()
    tensor = tensor.permute(2, 0, 1) if first else tensor
    np.testing.assert_array_equal(load_image(tensor)[1], load_image(picture)[1])


def test_tensors_of_bfloat16_are_read_as_well_as_they_hold_the_values():
    picture = noise(60, 50, 3)
    found = read_rgb((torch.from_numpy(picture) / 255).bfloat16())
    assert np.abs(found - picture.astype(int)).max() <= 1


def test_a_tensor_of_three_rows_and_columns_has_its_channels_first():
    picture = noise(3, 3, 3)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    np.testing.assert_array_equal(read_rgb(tensor), picture)


def test_rounding_errors_of_floats_do_no_harm():
    floats = np.full((9, 9, 3), 1.0019, np.float16)
    floats[0] = -0.0019
    found = read_rgb(floats)
    assert found[0].max() == 0 and found[1:].min() == 255


def test_the_folder_of_bytes_does_not_matter(tmp_path):
    os.makedirs(tmp_path / 'ünïcode dir')
    path = tmp_path / 'ünïcode dir' / 'wrong extension.txt'
    Image.fromarray(noise(30, 30, 3)).save(path, format='PNG')
    assert load_image(path)[0].shape == (CROP, CROP, 3)


# --- every kind of picture becomes RGB -----------------------------------------------------------


def stored(tmp_path, image: Image.Image, suffix: str, **options) -> np.ndarray:
    path = tmp_path / f'photo.{suffix}'
    image.save(path, **options)
    return read_rgb(path)


@pytest.mark.parametrize(
    'mode, suffix', [('1', 'png'), ('L', 'png'), ('P', 'gif'), ('CMYK', 'tif')]
)
def test_opaque_modes(tmp_path, mode, suffix):
    image = Image.fromarray(noise(40, 50, 3)).convert(mode)
    expected = np.asarray(image.convert('RGB'))
    np.testing.assert_array_equal(stored(tmp_path, image, suffix), expected)


@pytest.mark.parametrize('mode', ['LA', 'RGBA'])
def test_transparent_parts_become_white(tmp_path, mode):
    image = Image.new('RGBA', (40, 30), (200, 200, 200, 255))
    image.paste((10, 10, 10, 0), (0, 0, 20, 30))
    found = stored(tmp_path, image.convert(mode), 'png')
    assert (found[:, :20] == 255).all()
    assert (found[:, 20:] == 200).all()


def test_a_transparent_grey_of_16_bits_becomes_white(tmp_path):
    grey = np.full((300, 300), 40000, np.uint16)
    grey[:150] = 500
    path = tmp_path / 'grey16.png'
    Image.fromarray(grey).save(path, transparency=500)
    found = read_rgb(path)
    assert (found[:150] == 255).all() and (found[150:] == 156).all()


def test_half_transparent_is_mixed_with_white():
    assert (read_rgb(Image.new('RGBA', (9, 9), (0, 0, 0, 51))) == 204).all()


@pytest.mark.parametrize('mode', ['P', 'RGB', 'L'])
def test_a_transparent_colour_becomes_white(tmp_path, mode):
    image = Image.new('RGB', (40, 30), (200, 0, 0))
    image.paste((0, 0, 100), (0, 0, 20, 30))
    image = image.convert(mode, palette=Image.Palette.ADAPTIVE)
    found = stored(tmp_path, image, 'png', transparency=image.getpixel((0, 0)))
    assert (found[:, :20] == 255).all()
    assert (found[:, 20:] != 255).any()


def test_palette_with_alpha():
    image = Image.new('RGBA', (4, 4), (9, 9, 9, 0)).convert('PA')
    assert (read_rgb(image) == 255).all()


@pytest.mark.parametrize('mode', ['YCbCr', 'HSV', 'LAB', 'RGBX', 'La', 'RGBa'])
def test_other_modes_are_read(mode):
    assert read_rgb(Image.new(mode, (20, 20))).shape == (20, 20, 3)


@pytest.mark.parametrize('order', ['<u2', '>u2'])
def test_16_bit_greys_are_scaled_not_clipped(tmp_path, order):
    ramp = np.linspace(0, 65535, 256 * 4).reshape(32, 32).astype(order)
    found = stored(tmp_path, Image.fromarray(ramp), 'tif')
    expected = np.rint(ramp / 257).astype(np.uint8)
    np.testing.assert_array_equal(found, np.repeat(expected[:, :, None], 3, axis=2))


@pytest.mark.parametrize(
    'values, expected',
    [
        (np.float32([[0, 0.5, 1]]), [0, 128, 255]),
        (np.float32([[0, 100, 255]]), [0, 100, 255]),
        (np.int32([[0, 100, 255]]), [0, 100, 255]),
        (np.int32([[0, 1, 2]]), [0, 1, 2]),
        (np.int32([[0, 257 * 100, 65535]]), [0, 100, 255]),
        (np.int32([[-100, 0, 100]]), [0, 128, 255]),
        (np.float32([[-3e9, 0, 3e9]]), [0, 128, 255]),
        (np.float32([[-5, -5, -5]]), [0, 0, 0]),
    ],
)
def test_range_of_integers_and_floats(tmp_path, values, expected):
    found = stored(tmp_path, Image.fromarray(values), 'tif')
    np.testing.assert_array_equal(found[0, :, 0], expected)


def test_floats_that_are_not_finite_are_refused():
    with pytest.raises(ImageError, match='not finite'):
        load_image(Image.fromarray(np.float32([[0, np.nan], [1, 2]])))


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new('RGB', (30, 30), colour) for colour in ('red', 'blue')]
    found = stored(tmp_path, frames[0], 'gif', save_all=True, append_images=frames[1:])
    assert (found == [255, 0, 0]).all()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_photos_are_turned_upright(tmp_path, orientation):
    upright = noise(20, 30, 3)
    turns = {  # how a camera stores it, given what undoes it
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(turns[orientation](upright)))
    np.testing.assert_array_equal(stored(tmp_path, image, 'png', exif=exif), upright)


def test_broken_exif_is_ignored(tmp_path):
    image = Image.fromarray(noise(20, 30, 3))
    found = stored(tmp_path, image, 'png', exif=b'Exif\0\0MM\0*\0\0\xff\xff garbage')
    np.testing.assert_array_equal(found, np.asarray(image))


# --- the whole photo -----------------------------------------------------------------------------


@pytest.mark.parametrize('side', [260, 224, 7])
@pytest.mark.parametrize('height, width', [(300, 401), (40, 30), (260, 260), (10, 600)])
def test_the_whole_photo_is_squashed_as_pillow_does(height, width, side):
    picture = noise(height, width, 3)
    rawim, im = load_image(picture, side=side)
    assert im.dtype == np.float32 and im.shape == (1, 3, side, side) and im.flags.c_contiguous
    whole = Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR)
    expected = np.asarray(whole, np.float64)[:, :, ::-1] - MEAN_BGR
    np.testing.assert_allclose(im[0].transpose(1, 2, 0), expected, atol=1e-4)
    np.testing.assert_array_equal(rawim, load_image(picture)[0])  # for display as before


def test_the_corners_are_in_the_whole_photo_alone():
    picture = np.zeros((300, 600, 3), np.uint8)
    picture[:, :100] = 255
    assert not load_image(picture)[0].any()
    whole = load_image(picture, side=60)[1] + np.array(MEAN_BGR).reshape(1, 3, 1, 1)
    assert (whole[..., :9] > 254).all() and (whole[..., 12:] < 1).all()


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_the_whole_photo_is_upright(tmp_path, orientation):
    upright = noise(20, 30, 3)
    turns = {1: 0, 3: 2, 6: 1, 8: -1}
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored_as = np.ascontiguousarray(np.rot90(upright, turns[orientation]))
    Image.fromarray(stored_as).save(tmp_path / 'a.png', exif=exif)
    for found, expected in zip(
        load_image(tmp_path / 'a.png', side=26), load_image(upright, side=26), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_transparent_parts_of_the_whole_photo_are_white():
    image = Image.new('RGBA', (80, 60), (200, 200, 200, 255))
    image.paste((10, 10, 10, 0), (0, 0, 40, 60))
    whole = load_image(image, side=40)[1] + np.array(MEAN_BGR).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(whole[..., :19], 255, atol=1e-3)
    np.testing.assert_allclose(whole[..., 21:], 200, atol=1e-3)


@pytest.mark.parametrize('height, width', [(1, 50000), (50000, 1), (10, 10000), (1, 65)])
def test_slivers_are_refused_whole_too(height, width):
    for side in (None, 260):
        with pytest.raises(ImageError, match='narrow'):
            load_image(noise(height, width, 3), side=side)


def test_what_was_read_before_stays_as_it_is():
    read = Loaded('a', *load_image(noise(50, 60, 3), side=260))
    rawim, im = load_image(read, side=260)
    assert rawim is read.rawim and im is read.im


# --- what cannot be used -------------------------------------------------------------------------


def refused(file, *words: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(file)
    for word in words:
        assert word in caught.value.reason
    if isinstance(file, (str, os.PathLike)):
        assert caught.value.path == os.fspath(file)


def png(width: int, height: int, data: bytes = b'') -> bytes:
    """A PNG file of grey pixels that claims a size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack('>I', len(body)) + checked + struct.pack('>I', zlib.crc32(checked))

    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(data))


def test_missing_file(tmp_path):
    refused(tmp_path / 'none.jpg', 'no such file')
    refused('http://example.org/photo.jpg', 'no such file')


def test_folder_and_pipe(tmp_path):
    refused(tmp_path, 'folder')
    os.mkfifo(tmp_path / 'pipe.jpg')
    thread = threading.Thread(target=refused, args=(tmp_path / 'pipe.jpg', 'not a regular'))
    thread.daemon = True
    thread.start()
    thread.join(5)
    assert not thread.is_alive()  # it did not wait for a writer


@pytest.mark.parametrize('content', [b'A letter.\n', b'\0' * 100, os.urandom(1000), b'\xff\xd8'])
def test_what_is_no_picture(tmp_path, content):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(content)
    refused(path)
    refused(io.BytesIO(content))


def test_empty_file_and_null_byte(tmp_path):
    (tmp_path / 'empty.jpg').touch()
    refused(tmp_path / 'empty.jpg', 'empty')
    refused('photo\0.jpg', 'cannot be opened')


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'gif', 'tif', 'bmp', 'webp'])
def test_every_cut_file_is_refused(tmp_path, suffix):
    whole = tmp_path / f'whole.{suffix}'
    Image.fromarray(noise(64, 64, 3)).save(whole)
    content, path = whole.read_bytes(), tmp_path / f'cut.{suffix}'
    for share in (0.001, 0.1, 0.5, 0.9):
        path.write_bytes(content[: max(1, int(len(content) * share))])
        refused(path)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'tif'])
def test_a_cut_file_is_taken_when_that_is_allowed(tmp_path, suffix):
    picture = np.kron(noise(24, 32, 3), np.ones((10, 10, 1), np.uint8))
    Image.fromarray(picture).save(tmp_path / f'whole.{suffix}')
    content = (tmp_path / f'whole.{suffix}').read_bytes()
    cut = tmp_path / f'cut.{suffix}'
    cut.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(ImageError, match='cut'):
        load_image(cut)
    rawim, _ = load_image(cut, allow_truncated=True)
    whole, _ = load_image(tmp_path / f'whole.{suffix}', allow_truncated=True)
    if suffix in ('jpg', 'png'):  # these are stored from the top
        np.testing.assert_array_equal(rawim[:90], whole[:90])
    assert (rawim == whole).mean() > 0.4 and (rawim != whole).any()


def test_a_picture_with_nothing_in_it_is_refused_all_the_same(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'\xff\xd8\xff')
    with pytest.raises(ImageError):
        load_image(tmp_path / 'a.jpg', allow_truncated=True)


def test_formats_that_start_programs_are_not_opened(tmp_path):
    eps = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n'
    (tmp_path / 'a.eps').write_bytes(eps)
    (tmp_path / 'a.jpg').write_bytes(eps)  # whatever it is called
    for name in ('a.eps', 'a.jpg'):
        with pytest.raises(ImageError, match='known format'):
            load_image(tmp_path / name)


@pytest.mark.parametrize(
    ('content', 'words'),
    [(b'version https://git-lfs.github.com/spec/v1\n', 'lfs pull'), (b'<html>', 'a web page')],
)
def test_what_stands_for_a_picture_is_named(tmp_path, content, words):
    (tmp_path / 'a.jpg').write_bytes(content)
    with pytest.raises(ImageError, match=words):
        load_image(tmp_path / 'a.jpg')


@pytest.mark.parametrize('width, height', [(30000, 30000), (16385, 16384), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_before_they_are_decoded(tmp_path, width, height):
    assert width * height > MAX_PIXELS
    path = tmp_path / 'bomb.png'
    path.write_bytes(png(width, height))
    refused(path, f'more than {MAX_PIXELS:,} pixels', 'max_pixels', '--max-pixels')


@pytest.mark.parametrize('width, height', [(1, 50000), (50000, 1), (10, 10000)])
def test_slivers_are_refused(tmp_path, width, height):
    path = tmp_path / 'sliver.png'
    path.write_bytes(png(width, height, (b'\0' * (width + 1)) * height))
    refused(path, 'narrow')


def test_a_wide_panorama_is_not_a_sliver():
    assert load_image(noise(10, 600, 3))[0].shape == (224, 224, 3)


@pytest.mark.parametrize(
    'shape, dtype', [((9, 9, 2), 'u1'), ((9,), 'u1'), ((9, 9, 3), 'i4'), ((9,), 'f4')]
)
def test_arrays_of_another_kind(shape, dtype):
    refused(np.zeros(shape, dtype), 'uint8', str(shape))


@pytest.mark.parametrize(
    'wrong, found',
    [
        (255, '0.5 to 255'),
        (-1, '-1 to 0.5'),
        (1.01, '0.5 to 1.01'),
        (np.nan, 'nan'),
        (np.inf, 'inf'),
    ],
)
def test_floats_of_another_range(wrong, found):
    picture = np.full((9, 9, 3), 0.5)
    picture[4, 4, 1] = wrong
    for given in (picture, torch.from_numpy(picture)):
        refused(given, 'floats from 0 to 1', found)


@pytest.mark.parametrize(
    'tensor, words',
    [
        (torch.zeros(9, 9), '(9, 9) of torch.float32'),
        (torch.zeros(1, 3, 9, 9), '(3, H, W) or (H, W, 3), found (1, 3, 9, 9)'),
        (torch.zeros(9, 3, 9), '(9, 3, 9)'),
        (torch.zeros(3, 9, 9, dtype=torch.int64), 'int64'),
        (torch.zeros(3, 0, 9), 'no pixels'),
        (torch.zeros(3, 9, 9, device='meta'), 'cannot be read'),
        (torch.zeros(3, 9, 9).to_sparse(), 'cannot be read'),
    ],
)
def test_tensors_of_another_kind(tensor, words):
    refused(tensor, words)
    assert photo_name(tensor) == '<tensor>'


def test_arrays_of_floats_are_not_converted_if_they_are_too_large():
    with pytest.raises(ImageError, match='more than 80 pixels'):
        load_image(np.full((9, 9, 3), np.nan), max_pixels=80)


def test_array_without_pixels():
    refused(np.zeros((0, 5, 3), np.uint8), 'no pixels')


@pytest.mark.parametrize('given', [None, 3, b'photo.jpg', ['photo.jpg']])
def test_what_is_no_photo_at_all(given):
    with pytest.raises(TypeError, match='a photo is a path'):
        load_image(given)


def test_pillow_is_left_as_it_was():
    from PIL import ImageFile

    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
