"""Photos of many pixels: how many are allowed, and what is kept of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from storyteller import images
from storyteller.formats import ImageError
from storyteller.images import MEAN_BGR, load_image, read_rgb


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(('width', 'height'), [(12000, 9000), (16320, 12240)])  # of telephones
def test_photos_of_large_telephones_are_read(tmp_path, width, height):
    photo = Image.linear_gradient('L').resize((width, height))
    photo.save(tmp_path / 'a.jpg')
    _, im = load_image(tmp_path / 'a.jpg', side=26)
    small = np.asarray(photo.resize((26, 26), Image.Resampling.BOX), np.float64)
    found = im[0].transpose(1, 2, 0) + np.array(MEAN_BGR)
    assert np.abs(found - small[:, :, None]).max() < 3


def test_what_is_allowed_can_be_moved(tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(noise(30, 40, 3)).save(path)
    for given in (path, Image.open(path), noise(30, 40, 3), io.BytesIO(path.read_bytes())):
        for reader in (load_image, read_rgb):
            reader(given, max_pixels=1200)
            with pytest.raises(ImageError, match=r'40x30 is more than 1,199 .*--max-pixels'):
                reader(given, max_pixels=1199)
    for wrong in (0, 1.5, True, '9'):
        with pytest.raises(ValueError, match='max_pixels: expected an integer'):
            load_image(path, max_pixels=wrong)


@pytest.mark.parametrize(('most', 'part'), [(1200, 1), (1199, 2), (300, 2), (80, 4), (5, 8)])
@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'CMYK', 'I;16', 'I', 'F'])
def test_of_large_pictures_every_second_pixel_is_kept(monkeypatch, mode, most, part):
    picture = Image.fromarray(noise(30, 40))
    if mode == 'I;16':
        picture = Image.fromarray(noise(30, 40).astype(np.uint16) * 257)
    elif mode in ('I', 'F'):
        picture = picture.convert(mode)
    else:
        picture = Image.fromarray(noise(30, 40, 4)).convert('RGB').convert(mode)
    whole = read_rgb(picture)
    monkeypatch.setattr(images, 'FULL_PIXELS', most)
    found = read_rgb(picture)
    assert found.shape == (30 // part, 40 // part, 3)
    if mode not in ('I', 'F'):  # their range is that of what is kept
        pixels = {tuple(pixel) for pixel in whole.reshape(-1, 3).tolist()}
        assert {tuple(pixel) for pixel in found.reshape(-1, 3).tolist()} <= pixels
    assert picture.size == (40, 30)


@pytest.mark.parametrize('kind', ['JPEG', 'MPO'])
@pytest.mark.parametrize('progressive', [False, True])
def test_large_jpegs_are_decoded_at_a_part_of_their_size(tmp_path, monkeypatch, kind, progressive):
    coarse = Image.fromarray(noise(6, 9, 3)).resize((902, 600), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / 'a.jpg'
    coarse.save(path, kind, quality=95, progressive=progressive, exif=exif)
    whole = read_rgb(path)
    monkeypatch.setattr(images, 'FULL_PIXELS', 200_000)
    decoded = []
    for kind in (Image.Image, type(Image.open(path))):
        draft = kind.draft
        monkeypatch.setattr(
            kind, 'draft', lambda *given, draft=draft: decoded.append(draft(*given)) or decoded[-1]
        )
    found = read_rgb(path)
    assert found.shape == (451, 300, 3) and decoded and all(decoded)
    assert np.abs(found.astype(int) - whole[::2, ::2]).mean() < 4
    with Image.open(path) as opened:  # a picture of somebody's is not changed
        assert read_rgb(opened).shape == (451, 300, 3) and opened.size == (902, 600)
