"""Which files are opened as pictures, and what is said of the others."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from storyteller.batch import results
from storyteller.formats import ImageError
from storyteller.images import load_image, read_rgb
from storyteller.io import picture_files
from storyteller.io.extras import way_to

PIXELS = np.kron(
    np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8), np.ones((8, 8, 1), np.uint8)
)
HEIC = b'\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf' + bytes(50)


@pytest.fixture
def plain(monkeypatch):
    """Pillow without what others have registered."""
    Image.init()
    for table in (Image.OPEN, Image.EXTENSION):
        monkeypatch.setattr(Image, 'OPEN' if table is Image.OPEN else 'EXTENSION', dict(table))
    for name in [n for n, (factory, _) in Image.OPEN.items() if factory.__module__[:4] != 'PIL.']:
        del Image.OPEN[name]
    for suffix in [s for s, name in Image.EXTENSION.items() if name == 'HEIF']:
        del Image.EXTENSION[suffix]
    monkeypatch.setattr(Image, 'ID', list(Image.ID))


class Doubled(ImageFile.ImageFile):
    """A format of somebody's: a letter, and one grey."""

    format = 'DOUBLED'

    def _open(self):
        if self.fp.read(4) != b'GREY':
            raise SyntaxError('not one of these')
        self._mode, self._size = 'L', (30, 20)
        self.tile = [ImageFile._Tile('raw', (0, 0, 30, 20), 4, ('L', 0, 1))]


# --- plugins -------------------------------------------------------------------------------------


@pytest.mark.parametrize('accepts', [None, lambda beginning: beginning[:4] == b'GREY'])
def test_what_a_plugin_reads_is_read(plain, tmp_path, accepts):
    (tmp_path / 'a.grey').write_bytes(b'GREY' + bytes([7]) * 600)
    for given in (tmp_path / 'a.grey', io.BytesIO((tmp_path / 'a.grey').read_bytes())):
        with pytest.raises(ImageError, match='known format'):
            read_rgb(given)
    with pytest.raises(FileNotFoundError, match='no photos there'):
        results.find_photos([tmp_path])
    Image.register_open('DOUBLED', Doubled, accepts)
    Image.register_extension('DOUBLED', '.grey')
    for given in (tmp_path / 'a.grey', io.BytesIO((tmp_path / 'a.grey').read_bytes())):
        assert (read_rgb(given) == 7).all() and load_image(given)[1].shape == (1, 3, 224, 224)
    assert [photo.name for photo in results.find_photos([tmp_path]).photos] == ['a.grey']
    Image.fromarray(PIXELS).save(tmp_path / 'a.png')  # and the others as before
    np.testing.assert_array_equal(read_rgb(tmp_path / 'a.png'), PIXELS)


def test_what_pillow_itself_reads_beyond_photos_stays_closed():
    assert not {'EPS', 'PSD', 'WMF', 'FITS', 'MPEG'} & set(picture_files.known_formats())


@pytest.mark.parametrize('orientation', [1, 6])
def test_heic_is_read_and_turned_by_its_reader_alone(plain, tmp_path, orientation):
    pytest.importorskip('pillow_heif')
    picture_files.register_plugins()
    exif = Image.Exif()
    exif[0x0112] = orientation  # says again what the container says
    Image.fromarray(PIXELS).save(tmp_path / 'a.heic', quality=95, exif=exif)
    found = read_rgb(tmp_path / 'a.heic')
    with Image.open(tmp_path / 'a.heic') as opened:
        np.testing.assert_array_equal(found, np.asarray(opened.convert('RGB')))
        opened.getexif()[0x0112] = orientation  # where the reader has left it
        np.testing.assert_array_equal(read_rgb(opened), found)
    assert np.abs(found.astype(int) - PIXELS).mean() < 12
    (tmp_path / 'called.jpg').write_bytes((tmp_path / 'a.heic').read_bytes())
    np.testing.assert_array_equal(read_rgb(tmp_path / 'called.jpg'), found)
    names = [photo.name for photo in results.find_photos([tmp_path]).photos]
    assert names == ['a.heic', 'called.jpg']


@pytest.mark.parametrize(
    ('content', 'words'),
    [(HEIC, r"HEIC picture: .*'storyteller\[heif\]', .*'\.\[heif\]'.*register_heif_opener"),
     (HEIC.replace(b'heic', b'avif'), r"AVIF picture.*pip install 'storyteller\[heif\]'")],
)  # fmt: skip
def test_what_a_plugin_would_read_is_named(plain, tmp_path, content, words):
    Image.OPEN.pop('AVIF', None)
    path = tmp_path / 'a.jpg'  # as telephones hand it on
    path.write_bytes(content)
    for given in (path, io.BytesIO(content)):
        with pytest.raises(ImageError, match=words):
            read_rgb(given)


def test_a_broken_heic_picture_needs_no_plugin(plain, tmp_path):
    pytest.importorskip('pillow_heif')
    picture_files.register_plugins()
    with pytest.raises(ImageError) as refused:
        read_rgb(io.BytesIO(HEIC))
    assert 'pip install' not in refused.value.reason


# --- files that are passed over ------------------------------------------------------------------


def test_what_looks_like_a_photo_is_told_or_named(plain, tmp_path):
    jpeg = io.BytesIO()
    Image.fromarray(PIXELS).save(jpeg, 'JPEG')
    contents = {
        'a.jpg': jpeg.getvalue(), 'sub/b.PNG': b'broken', 'c.heic': HEIC, 'd.HEIF': HEIC,
        'sub/e.dng': b'II*\0', 'f.psd': b'8BPS', '._a.jpg': b'Mac OS X', '.thumbs/g.png': b'',
        'letter.txt': b'Dear Ann,', 'h': jpeg.getvalue(), 'i.bin': HEIC, 'empty': b'',
        'film.mov': b'\0\0\0\x14ftypqt  ',
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    finds = results.find_photos([tmp_path])
    assert [photo.name for photo in finds.photos] == ['a.jpg', 'sub/b.PNG']
    passed = finds.passed_over
    assert set(contents) == {'a.jpg', 'sub/b.PNG', 'letter.txt', 'empty', 'film.mov', *passed}
    assert passed['c.heic'] == passed['d.HEIF'] == f'to read it: {way_to("heif")}'
    assert passed['._a.jpg'] == passed['.thumbs/g.png'] == 'hidden'
    assert 'raw photos' in passed['sub/e.dng'] and 'usual kinds' in passed['f.psd']
    assert 'not called so' in passed['h'] and passed['h'] == passed['i.bin']
    lines = results.said_of(passed)
    assert f'passed over 2 (to read it: {way_to("heif")}): c.heic, d.HEIF' in lines
    assert sum(int(line.split()[2]) for line in lines) == len(passed)


def test_links_and_folders_that_lead_nowhere_are_named(plain, tmp_path, monkeypatch):
    folder = tmp_path / 'photos'
    for each in (folder / 'closed', tmp_path / 'elsewhere'):
        each.mkdir(parents=True)
    (folder / 'a.jpg').write_bytes(HEIC)
    (folder / 'b.jpg').symlink_to(tmp_path / 'lost.jpg')
    (folder / 'c.txt').symlink_to(tmp_path / 'lost.txt')
    (folder / 'd').symlink_to(tmp_path / 'elsewhere')
    monkeypatch.setattr(results.os, 'access', lambda path, how: path.name != 'closed')
    finds = results.find_photos([folder])
    assert [photo.name for photo in finds.photos] == ['a.jpg']
    assert set(finds.passed_over) == {'b.jpg', 'closed', 'd'}


def test_of_several_inputs_what_is_named_itself_is_not_passed_over(plain, tmp_path):
    for name in ('a.jpg', 'b.ico', 'c.heic'):
        (tmp_path / name).write_bytes(HEIC)
    finds = results.find_photos([tmp_path, tmp_path / 'b.ico'])
    assert [photo.path.name for photo in finds.photos] == ['a.jpg', 'b.ico']
    assert list(finds.passed_over) == [(tmp_path / 'c.heic').as_posix()]


def test_a_folder_of_what_cannot_be_read_says_why(plain, tmp_path):
    (tmp_path / 'c.heic').write_bytes(HEIC)
    with pytest.raises(
        FileNotFoundError, match=r'no photos there .*passed over 1 .*\[heif\].*c\.h'
    ):
        results.find_photos([tmp_path])


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'gif', 'bmp'])
def test_a_common_picture_needs_no_readers_of_others(monkeypatch, kind):
    Image.preinit()
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind)
    monkeypatch.setattr(Image, 'init', lambda: pytest.fail('all readers are loaded'))
    assert picture_files.open_picture(stream).size == PIXELS.shape[1::-1]
