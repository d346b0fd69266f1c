"""Flickr8k in a folder: photos in files and in archives, names, vectors."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from storyteller import formats
from storyteller.training.data import flickr8k


def write_tar(path, **files):
    with tarfile.open(path, 'w') as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f'photos/{name}.jpg')
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_photos_lie_in_the_folder_or_in_its_archives(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'a')
    (tmp_path / 'notes.txt').write_text('no photo')
    write_tar(tmp_path / 'one.tar', b=b'bb', c=b'ccc')
    write_tar(tmp_path / 'two.tar', d=b'')
    expected = {'a.jpg': b'a', 'b.jpg': b'bb', 'c.jpg': b'ccc', 'd.jpg': b''}
    assert flickr8k.read_photos(tmp_path) == expected


def test_names_are_the_lines_of_a_split(tmp_path):
    (tmp_path / 'dev.txt').write_text('b.jpg\na.jpg\n')
    assert flickr8k.read_names(tmp_path, 'dev') == ['b.jpg', 'a.jpg']


def test_vectors_become_unit_rows(tmp_path):
    rows = np.random.default_rng(0).random((5, 4096)).astype(np.float16)
    rows[3] = 0
    np.savez(tmp_path / 'fc7_dev.npz', fc7=rows)
    found = flickr8k.read_fc7(tmp_path / 'fc7_dev.npz')
    assert found.dtype == np.float32
    for row, own in zip(rows.astype(np.float64), found, strict=True):
        np.testing.assert_allclose(own, row / (np.sqrt((row**2).sum()) or 1), rtol=1e-5)


def test_missing_data_is_named(tmp_path):
    with pytest.raises(formats.MissingFileError, match='expected photos'):
        flickr8k.read_photos(tmp_path)
    with pytest.raises(formats.MissingFileError, match=r'none\.npz'):
        flickr8k.read_fc7(tmp_path / 'none.npz')
    with pytest.raises(formats.MissingFileError, match=r'dev\.txt'):
        flickr8k.read_names(tmp_path, 'dev')
