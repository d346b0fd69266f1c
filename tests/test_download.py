"""Fetching files from a server that cuts connections, errs, lies and dawdles."""

from __future__ import annotations

import hashlib
import http.server
import io
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from storyteller import download
from storyteller.download import Published
from storyteller.formats import ModelFileError

CONTENT = np.random.default_rng(0).bytes(200_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` by name; `cuts` says after how many bytes each next answer is cut."""

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.content: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges = True
        self.pause = 0.0
        self.asked: list[str | None] = []

    def url(self, name: str) -> str:
        return f'http://127.0.0.1:{self.server_port}/{name}'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name, server = self.path.lstrip('/'), self.server
        wanted = self.headers.get('Range')
        server.asked.append(wanted)
        if name not in server.content:
            return self.send_error(500 if name == 'broken' else 404)
        body = server.content[name]
        begin = int(wanted.removeprefix('bytes=').rstrip('-')) if wanted and server.ranges else 0
        if begin >= len(body) > 0 and begin:
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(body)}')
            self.send_header('Content-Length', '0')
            return self.end_headers()
        self.send_response(206 if begin else 200)
        self.send_header('Content-Length', str(len(body) - begin))
        self.end_headers()
        rest = body[begin:]
        if server.cuts:
            rest = rest[: server.cuts.pop(0)]
        self.wfile.write(rest[:1000])
        self.wfile.flush()
        time.sleep(server.pause)
        self.wfile.write(rest[1000:])
        self.close_connection = True
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    found = Server()
    found.content['a.npy'] = CONTENT
    thread = threading.Thread(target=found.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def test_a_file_is_fetched(server, tmp_path):
    download.fetch(server.url('a.npy'), tmp_path / 'a.npy', DIGEST)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ['a.npy']


def test_a_cut_download_goes_on_where_it_stopped(server, tmp_path):
    server.cuts = [70_000, 70_000]
    download.fetch(server.url('a.npy'), tmp_path / 'a.npy', DIGEST)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT
    assert server.asked == [None, 'bytes=65536-', 'bytes=131072-']


def test_the_next_run_goes_on(server, tmp_path):
    server.cuts = [70_000, *[1] * (download.ATTEMPTS - 1)]
    with pytest.raises(OSError, match='more expected'):
        download.fetch(server.url('a.npy'), tmp_path / 'a.npy', DIGEST)
    assert not (tmp_path / 'a.npy').exists()
    assert (tmp_path / 'a.npy.part').stat().st_size == 65536
    download.fetch(server.url('a.npy'), tmp_path / 'a.npy', DIGEST)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT and server.asked[-1] == 'bytes=65536-'


def test_a_server_that_cannot_begin_in_the_middle(server, tmp_path):
    server.ranges, server.cuts = False, [70_000]
    download.fetch(server.url('a.npy'), tmp_path / 'a.npy', DIGEST)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT


def test_a_part_that_is_whole_is_not_fetched_again(server, tmp_path):
    (tmp_path / 'a.npy.part').write_bytes(CONTENT)
    download.fetch(server.url('a.npy'), tmp_path / 'a.npy', DIGEST)
    assert server.asked == ['bytes=200000-'] and (tmp_path / 'a.npy').read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_begun_anew(server, tmp_path):
    (tmp_path / 'a.npy.part').write_bytes(CONTENT + b'more')
    download.fetch(server.url('a.npy'), tmp_path / 'a.npy', DIGEST)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT


def test_wrong_bytes_are_thrown_away(server, tmp_path):
    server.content['a.npy'] = CONTENT[:-1] + b'x'
    with pytest.raises(ModelFileError, match='SHA-256'):
        download.fetch(server.url('a.npy'), tmp_path / 'a.npy', DIGEST)
    assert not list(tmp_path.iterdir())


def test_a_page_that_says_sorry_is_no_file(server, tmp_path):
    server.content['a.npy'] = b'<!DOCTYPE html><html><body>Moved</body></html>'
    with pytest.raises(ModelFileError, match='a web page'):
        download.fetch(server.url('a.npy'), tmp_path / 'a.npy')
    assert not list(tmp_path.iterdir())


def test_a_server_that_stands_still_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, 'TIMEOUT', (1, 0.1))
    monkeypatch.setattr(download, 'ATTEMPTS', 2)
    server.pause = 1.0
    with pytest.raises(OSError, match='timed out'):
        download.fetch(server.url('a.npy'), tmp_path / 'a.npy', DIGEST)
    assert not (tmp_path / 'a.npy').exists()


def test_a_slow_body_arrives(server, tmp_path):
    server.pause = 0.3
    download.fetch(server.url('a.npy'), tmp_path / 'a.npy', DIGEST)
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT


# --- all of them ---------------------------------------------------------------------------------


def archive(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, 'w', zipfile.ZIP_DEFLATED) as content:
        for name, text in members.items():
            content.writestr(name, text)
    return data.getvalue()


@pytest.fixture
def files(server):
    server.content['all.zip'] = archive(**{'top/m.npz': b'params', 'top/caps.txt': b'A dog .\n'})
    return (
        Published('http://elsewhere.invalid/x/a.npy', len(CONTENT), DIGEST),
        Published('http://elsewhere.invalid/all.zip', 1000, holds=('m.npz', 'caps.txt')),
    )


def test_all_files_from_a_mirror(server, files, tmp_path):
    assert download.fetch_all(tmp_path / 'new', files, server.url('')) == {}
    found = {path.name: path.read_bytes() for path in (tmp_path / 'new').iterdir()}
    assert found == {'a.npy': CONTENT, 'm.npz': b'params', 'caps.txt': b'A dog .\n'}
    asked = len(server.asked)
    assert download.fetch_all(tmp_path / 'new', files, server.url('')) == {}
    assert len(server.asked) == asked  # nothing is fetched twice


def test_what_could_not_be_had_is_named_and_the_rest_is_there(server, files, tmp_path):
    files = (Published(server.url('none.pkl'), 9), Published(server.url('broken'), 9), *files)
    failed = download.fetch_all(tmp_path, files, server.url(''))
    assert list(failed) == ['none.pkl', 'broken']
    assert '404' in failed['none.pkl'] and '500' in failed['broken']
    assert (tmp_path / 'a.npy').exists() and (tmp_path / 'm.npz').exists()


def test_a_file_of_another_size_is_fetched_again(server, files, tmp_path):
    (tmp_path / 'a.npy').write_bytes(b'cut')
    assert download.fetch_all(tmp_path, files[:1], server.url('')) == {}
    assert (tmp_path / 'a.npy').read_bytes() == CONTENT


def test_the_room_is_looked_at_first(server, tmp_path):
    with pytest.raises(OSError, match=r'1000000000\.0 GB are needed'):
        download.fetch_all(tmp_path, [Published(server.url('a.npy'), 10**18)])
    assert not server.asked


def test_a_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(download, 'ATTEMPTS', 1)
    (why,) = download.fetch_all(tmp_path, [Published('http://127.0.0.1:9/a', 9)]).values()
    assert '127.0.0.1:9' in why


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


def test_an_archive_that_is_a_bomb_or_lacks_a_file(tmp_path):
    (tmp_path / 'x.zip').write_bytes(archive(**{'m.npz': bytes(50_000_000)}))
    with pytest.raises(ModelFileError, match='expand'):
        download.unpack(tmp_path / 'x.zip', tmp_path, ['m.npz'])
    with pytest.raises(ModelFileError, match=r'caps\.txt missing'):
        download.unpack(tmp_path / 'x.zip', tmp_path, ['m.npz', 'caps.txt'])


def test_the_published_table():
    names = [file.name for file in download.FILES]
    assert len(set(names)) == len(names) == 9
    assert sum(file.sha256 is not None for file in download.FILES) == 7


def test_the_script(server, tmp_path):
    script = Path(__file__).parent.parent / 'scripts' / 'download_models.py'

    def run(*arguments):
        command = [sys.executable, str(script), '--out', str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, encoding='utf-8', timeout=120)

    server.content['dictionary.txt'] = b'the\n'
    done = run('--mirror', server.url(''), '--only', 'dictionary.txt', 'vgg19.pkl')
    assert done.returncode == 1 and '0 of 2' in done.stdout
    assert 'dictionary.txt: its SHA-256' in done.stderr and '404' in done.stderr
    assert 'btable.npy' in run('--list').stdout
    assert run('--only', 'x').returncode == 2
