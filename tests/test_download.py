"""Fetching files from servers that cut connections, err, lie and dawdle."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile

import numpy as np
import pytest
from file_server import archive, running

from storyteller.formats import ModelFileError
from storyteller.io import download
from storyteller.io.download import RefusedError
from storyteller.io.published import Part, Published

CONTENT = np.random.default_rng(0).bytes(200_000)
DIGEST = f'sha256:{hashlib.sha256(CONTENT).hexdigest()}'
FILE = Published('a.npy', ('http://elsewhere.invalid/x/a.npy',), len(CONTENT), DIGEST)
DENIED = b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'
PAGE = b'\n<!DOCTYPE html><html><body>Moved</body></html>'


@pytest.fixture
def server():
    with running() as found:
        found.content['a.npy'] = CONTENT
        yield found


def test_a_file_is_fetched(server, tmp_path):
    download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ['a.npy']


def test_a_cut_download_goes_on_where_it_stopped(server, tmp_path):
    server.cuts = [70_000, 70_000]
    download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT
    assert server.asked == [None, 'bytes=65536-', 'bytes=131072-']


def test_the_next_run_goes_on(server, tmp_path):
    server.cuts = [70_000, *[1] * (download.ATTEMPTS - 1)]
    with pytest.raises(OSError, match='more expected'):
        download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert not (tmp_path / 'a.npy').exists()
    assert (tmp_path / 'a.npy.part').stat().st_size == 65536
    download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT and server.asked[-1] == 'bytes=65536-'


def test_a_server_that_cannot_begin_in_the_middle(server, tmp_path):
    server.ranges, server.cuts = False, [70_000]
    download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT


def test_a_part_that_is_whole_is_not_fetched_again(server, tmp_path):
    (tmp_path / 'a.npy.part').write_bytes(CONTENT)
    download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert server.asked == ['bytes=200000-'] and (tmp_path / 'a.npy').read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_begun_anew(server, tmp_path):
    (tmp_path / 'a.npy.part').write_bytes(CONTENT + b'more')
    download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT


def test_wrong_bytes_are_thrown_away(server, tmp_path):
    server.content['a.npy'] = CONTENT[:-1] + b'x'
    with pytest.raises(ModelFileError, match='its sha256 is'):
        download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('body', [PAGE, DENIED, b'\xef\xbb\xbf<html>', b'<Error>'])
def test_a_page_that_says_sorry_is_no_file(server, tmp_path, body):
    server.content['a.npy'] = body
    with pytest.raises(RefusedError, match=r'a (web page|message in XML) instead'):
        download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert not list(tmp_path.iterdir()) and len(server.asked) == 1


def test_a_page_does_not_take_the_place_of_what_is_there(server, tmp_path):
    (tmp_path / 'a.npy.part').write_bytes(CONTENT[:1000])
    server.content['a.npy'], server.ranges = PAGE, False
    with pytest.raises(RefusedError, match='a web page'):
        download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert (tmp_path / 'a.npy.part').read_bytes() == CONTENT[:1000]


def test_a_pointer_is_no_file(server, tmp_path):
    server.content['a.npy'] = b'version https://git-lfs.github.com/spec/v1\n'
    file = Published('a.npy', ('http://x.invalid/a',), 43, exact=False)
    with pytest.raises(ModelFileError, match='Git-LFS'):
        download.fetch(server.url('a.npy'), tmp_path, file)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('code', [401, 403, 404, 410, 500, 503])
def test_a_refusal_is_not_asked_again(server, tmp_path, code):
    server.codes['a.npy'] = code
    with pytest.raises(RefusedError, match=f'^{code} '):
        download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert not list(tmp_path.iterdir()) and len(server.asked) == 1


def test_another_size_is_refused_before_it_is_fetched(server, tmp_path):
    server.content['a.npy'] = CONTENT + b'more'
    with pytest.raises(RefusedError, match='offers 200,004 bytes, expected 200,000'):
        download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert not list(tmp_path.iterdir())


def test_of_a_size_that_is_not_known_well_a_tenth_may_differ(server, tmp_path):
    for size, fits in ((190_000, True), (210_000, True), (150_000, False), (300_000, False)):
        file = Published('a.npy', ('http://x.invalid/a',), size, exact=False)
        if fits:
            download.fetch(server.url('a.npy'), tmp_path, file)
            assert (tmp_path / 'a.npy').read_bytes() == CONTENT
        else:
            with pytest.raises(RefusedError, match='offers 200,000 bytes'):
                download.fetch(server.url('a.npy'), tmp_path, file)


@pytest.mark.parametrize('digest', [f'md5:{hashlib.md5(CONTENT).hexdigest()}', DIGEST[:15]])
def test_other_sums_and_first_digits(server, tmp_path, digest):
    file = dataclasses.replace(FILE, digest=digest)
    download.fetch(server.url('a.npy'), tmp_path, file)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT
    wrong = digest[:-1] + ('0' if digest[-1] != '0' else '1')
    with pytest.raises(ModelFileError, match=r'its (md5|sha256) is'):
        download.fetch(server.url('a.npy'), tmp_path, dataclasses.replace(file, digest=wrong))


def test_what_another_source_began_wrongly_is_begun_anew(server, tmp_path):
    (tmp_path / 'a.npy.part').write_bytes(bytes(1000))
    download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT
    assert server.asked == ['bytes=1000-', None]


def test_what_nothing_could_check_is_not_mixed(server, tmp_path):
    (tmp_path / 'a.npy.part').write_bytes(bytes(1000))
    file = Published('a.npy', ('http://x.invalid/a',), len(CONTENT), exact=False)
    download.fetch(server.url('a.npy'), tmp_path, file)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT and server.asked == [None]


def test_a_server_that_stands_still_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, 'TIMEOUT', (1, 0.1))
    monkeypatch.setattr(download, 'ATTEMPTS', 2)
    server.pause = 1.0
    with pytest.raises(OSError, match='timed out'):
        download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert not (tmp_path / 'a.npy').exists()


def test_a_slow_body_arrives(server, tmp_path):
    server.pause = 0.3
    download.fetch(server.url('a.npy'), tmp_path, FILE)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT


# --- all of them ---------------------------------------------------------------------------------


@pytest.fixture
def parts(server):
    server.content['all.zip'] = archive(**{'top/m.npz': b'params', 'top/caps.txt': b'A dog .\n'})
    places = ('http://elsewhere.invalid/all.zip',)
    held = Published('all.zip', places, 1000, exact=False, holds=('m.npz', 'caps.txt'))
    return Part('encoders', 'x', (FILE,)), Part('decoder', 'y', (held,))


def test_all_files_from_a_mirror(server, parts, tmp_path):
    lines = []
    assert download.fetch_all(tmp_path / 'new', parts, server.url(''), lines.append) == {}
    found = {path.name: path.read_bytes() for path in (tmp_path / 'new').iterdir()}
    assert found == {'a.npy': CONTENT, 'm.npz': b'params', 'caps.txt': b'A dog .\n'}
    assert len(lines) == 2 and 'sums inside the archive' in lines[1]
    asked = len(server.asked)
    assert download.fetch_all(tmp_path / 'new', parts, server.url('')) == {}
    assert len(server.asked) == asked  # nothing is fetched twice


def from_sources(server, *names):
    """The file, from that server under these names."""
    file = dataclasses.replace(FILE, sources=tuple(map(server.url, names)))
    return (Part('encoders', 'x', (file,)),)


def test_sources_are_tried_in_order(server, tmp_path):
    server.content = {'1': DENIED, '2': CONTENT, '3': CONTENT}
    server.codes['1'], server.ends['2'] = 403, 100_000
    lines = []
    tried = from_sources(server, '1', '2', '3')
    assert download.fetch_all(tmp_path, tried, tell=lines.append) == {}
    assert [path.name for path in tmp_path.iterdir()] == ['a.npy']
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT
    first, second, third = lines
    assert first.startswith(f'a.npy: {server.url("1")}: 403 ')
    assert second.startswith(f'a.npy: {server.url("2")}: ') and 'more expected' in second
    assert third == f'a.npy: {server.url("3")}: fetched; SHA-256 {DIGEST[7:]}'
    assert server.names == ['1', *'2' * download.ATTEMPTS, '3']
    assert server.asked[-1] == 'bytes=65536-'  # what the second gave counts


def test_each_refusal_is_told_and_nothing_stays(server, tmp_path):
    server.content = {'page': PAGE, 'denied': DENIED, 'wrong': CONTENT[::-1]}
    tried = from_sources(server, 'page', 'none', 'denied', 'wrong')
    lines = []
    assert download.fetch_all(tmp_path, tried, tell=lines.append) == {'encoders': ['a.npy']}
    assert server.names == ['page', 'none', 'denied', 'wrong'] and not list(tmp_path.iterdir())
    for line, what in zip(lines, ('web page', '404', 'XML', 'its sha256'), strict=True):
        assert what in line and '\n' not in line


def test_a_cut_at_the_last_source_is_kept_for_the_next_run(server, tmp_path):
    server.content['2'], server.ends['2'] = CONTENT, 100_000
    tried = from_sources(server, '1', '2')
    assert download.fetch_all(tmp_path, tried) == {'encoders': ['a.npy']}
    assert [path.name for path in tmp_path.iterdir()] == ['a.npy.part']
    server.content['1'] = CONTENT
    assert download.fetch_all(tmp_path, tried) == {}
    assert server.asked[-1] == 'bytes=65536-'
    assert [path.name for path in tmp_path.iterdir()] == ['a.npy']


@pytest.fixture
def forms(server):
    """Three forms of one thing, from that server."""
    names = ('v.pkl', 'v.caffemodel', 'v.pth')
    files = [dataclasses.replace(FILE, name=n, sources=(server.url(n),)) for n in names]
    return Part('network', 'z', tuple(files), one=True)


def test_the_first_form_that_can_be_had_is_enough(server, forms, tmp_path):
    server.content = {'v.pkl': CONTENT, 'v.caffemodel': CONTENT, 'v.pth': CONTENT}
    server.ends['v.pkl'] = 100_000
    assert download.fetch_all(tmp_path, [forms]) == {}
    assert [path.name for path in tmp_path.iterdir()] == ['v.caffemodel']
    server.names.clear()
    assert download.fetch_all(tmp_path, [forms]) == {} and not server.names


def test_no_form_can_be_had(server, forms, tmp_path):
    lines = []
    lacking = download.fetch_all(tmp_path, [forms], tell=lines.append)
    assert lacking == {'network': ['v.pkl', 'v.caffemodel', 'v.pth']}
    assert len(lines) == 3 and not list(tmp_path.iterdir())


def test_what_could_not_be_had_is_named_and_the_rest_is_there(server, parts, tmp_path):
    server.codes['broken'] = 500
    wanted = tuple(dataclasses.replace(FILE, name=name) for name in ('none.pkl', 'broken'))
    parts, lines = (Part('more', 'z', wanted), *parts), []
    lacking = download.fetch_all(tmp_path, parts, server.url(''), lines.append)
    assert lacking == {'more': ['none.pkl', 'broken']}
    assert '404' in lines[0] and '500' in lines[1]
    assert (tmp_path / 'a.npy').exists() and (tmp_path / 'm.npz').exists()


def test_a_damaged_archive_is_had_from_the_next_source(server, parts, tmp_path):
    whole = archive(**{'m.npz': CONTENT, 'caps.txt': b'A dog .\n'})
    damaged = bytearray(whole)
    damaged[1000] ^= 1
    server.content = {'1': bytes(damaged), '2': whole[: len(whole) // 2], '3': whole}
    file = dataclasses.replace(parts[1].files[0], sources=tuple(map(server.url, '123')))
    lines = []
    assert download.fetch_all(tmp_path, [Part('x', 'y', (file,))], tell=lines.append) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ['caps.txt', 'm.npz']
    assert (tmp_path / 'm.npz').read_bytes() == CONTENT and len(lines) == 3
    only = dataclasses.replace(file, sources=file.sources[:2])
    assert download.fetch_all(tmp_path / 'new', [Part('x', 'y', (only,))])
    assert not list((tmp_path / 'new').iterdir())


def test_a_file_of_another_size_is_fetched_again(server, parts, tmp_path):
    (tmp_path / 'a.npy').write_bytes(b'cut')
    assert download.fetch_all(tmp_path, parts[:1], server.url('')) == {}
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT


def test_the_room_is_looked_at_first(server, forms, tmp_path):
    huge = tuple(dataclasses.replace(file, size=10**18) for file in forms.files)
    for one, needed in ((True, '1000000000'), (False, '3000000000')):
        with pytest.raises(OSError, match=rf'{needed}\.0 GB are needed'):
            download.fetch_all(tmp_path, [Part('x', 'y', huge, one)])
    assert not server.asked


def test_a_server_that_is_not_there(tmp_path):
    lines = []
    assert download.fetch_all(
        tmp_path, [Part('x', 'y', (FILE,))], 'http://127.0.0.1:9', lines.append
    )
    (line,) = lines
    assert line.startswith('a.npy: http://127.0.0.1:9/a.npy: no answer: ') and 'refused' in line


def test_a_full_disk_ends_it(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(download.os, 'fsync', full)
    with pytest.raises(OSError, match='No space left'):
        download.fetch_all(tmp_path, from_sources(server, 'a.npy', 'a.npy'))
    assert len(server.asked) == 1


@pytest.mark.parametrize('name', ['../out.txt', '/out.txt', 'a/../../out.txt', 'a\\out.txt'])
def test_no_member_leaves_the_folder(tmp_path, name):
    (tmp_path / 'x.zip').write_bytes(archive(**{'m.npz': b'1', name: b'2'}))
    (tmp_path / 'in').mkdir()
    with pytest.raises(ModelFileError, match='plain file'):
        download.unpack(tmp_path / 'x.zip', tmp_path / 'in', ['m.npz'])
    assert not list((tmp_path / 'in').iterdir()) and not (tmp_path / 'out.txt').exists()


def test_links_are_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as content:
        link = zipfile.ZipInfo('m.npz')
        link.external_attr = 0o120777 << 16
        content.writestr(link, '/etc/passwd')
    with pytest.raises(ModelFileError, match='plain file'):
        download.unpack(tmp_path / 'x.zip', tmp_path, ['m.npz'])


def test_what_is_no_archive_or_an_unusual_one(tmp_path):
    (tmp_path / 'x.zip').write_bytes(b'PK')
    with pytest.raises(ModelFileError, match='not a readable archive'):
        download.unpack(tmp_path / 'x.zip', tmp_path, ['m.npz'])
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w', zipfile.ZIP_LZMA) as content:
        content.writestr('m.npz', b'params')
    with pytest.raises(ModelFileError, match='unusual'):
        download.unpack(tmp_path / 'x.zip', tmp_path, ['m.npz'])


def test_an_archive_that_is_a_bomb_or_lacks_a_file(tmp_path):
    (tmp_path / 'x.zip').write_bytes(archive(**{'m.npz': bytes(50_000_000)}))
    with pytest.raises(ModelFileError, match='expand'):
        download.unpack(tmp_path / 'x.zip', tmp_path, ['m.npz'])
    with pytest.raises(ModelFileError, match=r'caps\.txt missing'):
        download.unpack(tmp_path / 'x.zip', tmp_path, ['m.npz', 'caps.txt'])
