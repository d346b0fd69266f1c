"""Files made to do harm: each is refused with our error, soon, and without taking memory."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from counting import calls_below

from storyteller import formats
from storyteller.formats import MissingFileError, ModelFileError

CALLS, MEGABYTES = 3_000_000, 200


def peak() -> float:
    """Most memory that this process has held so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def exploits(marker: Path) -> dict[str, bytes]:
    """Pickles that would make the file `marker`, or take the machine's memory or time."""
    command = f'echo run > {marker}'
    code = f'open({str(marker)!r}, "w")'
    build = __import__
    laughs = b'\x80\x04]\x94' + b''.join(
        b'(' + b'h' + bytes([i]) * 1 + (b'h' + bytes([i])) * 9 + b'l\x94' for i in range(60)
    )
    keys = b'\x80\x04)\x94' + b''.join(b'h%ch%c\x86\x94' % (i, i) for i in range(60))
    return {
        'os.system': pickle.dumps(Calls(os.system, command)),
        'builtins.eval': pickle.dumps(Calls(eval, code)),
        'builtins.exec': pickle.dumps(Calls(exec, code)),
        'importlib': pickle.dumps(Calls(build, 'os')),
        'nested reduce': pickle.dumps([[{'a': (Calls(eval, code), 1)}]]),
        'persistent id': b'\x80\x02X\x01\x00\x00\x00aQ.',
        'extension': b'\x80\x02\x82\x01.',
        'lists of lists of lists as a dictionary': laughs + b'.',
        'tuples of tuples as a key': keys + b'}\x94h=N\x73.',
        'a set of tuples of tuples': keys + b'\x8f(h=\x90.',
        'tuples of tuples in OrderedDict': (
            keys + b'ccollections\nOrderedDict\n(]((h=Nta' + b'etR.'
        ),
        'four gigabytes in a string': b'\x80\x04\x8e' + struct.pack('<Q', 1 << 32) + b'x.',
        'four gigabytes in a bytearray': b'\x80\x05\x96' + struct.pack('<Q', 1 << 32) + b'x.',
        'two gigabytes in a byte string': b'\x80\x02T' + struct.pack('<i', 2**31 - 1) + b'x.',
        'an exabyte in a frame': b'\x80\x04\x95' + struct.pack('<Q', 1 << 60) + b'N.',
        'a scalar of two gigabytes': (
            b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'S2147483647'\nI0\nI1\ntRtR."
        ),
        'an array larger than its bytes': (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n"
            b"(I1000000000\nI1000000000\ntcnumpy\ndtype\n(S'f8'\nI0\nI1\ntRI00\nS'AAAAAAAA'\ntb."
        ),
        'a deep nest': b'(' * 200_000 + b'.',
        'a list in a list in a list': b']' * 100_000 + b'a' * 99_999 + b'.',
        'itself': b'\x80\x04]\x94h\x00a.',
    }


NAMES = sorted(exploits(Path('marker')))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(
    'place', ['pickle', 'dictionary', 'options', 'array in npz', 'array', 'table']
)
def test_no_exploit_runs_or_lasts(tmp_path, monkeypatch, name, place):
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    marker = tmp_path / 'marker'
    data = exploits(marker)[name]
    path, read = put(tmp_path, place, data)
    before = peak()
    with calls_below(CALLS), pytest.raises(ModelFileError, match=path.name):
        read(path)
    assert peak() - before < MEGABYTES
    assert not marker.exists()


def put(folder: Path, place: str, data: bytes):
    """A pickle where a reader meets it; the path and the reader."""
    if place in ('pickle', 'dictionary'):
        (folder / 'evil.pkl').write_bytes(data)
        # A list of lists is a pickle like others; as a dictionary it is refused.
        read = formats.load_dictionary if place == 'dictionary' else strict_pickles
        return folder / 'evil.pkl', read
    if place == 'options':
        np.savez(folder / 'm.npz', Wemb=np.ones((2, 2), np.float32))
        (folder / 'm.npz.pkl').write_bytes(data)
        return folder / 'm.npz', formats.read_model
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {'descr': '|O', 'fortran_order': False, 'shape': (1,)}
    )
    if place in ('array', 'table'):
        (folder / 'a.npy').write_bytes(head.getvalue() + data)
        return folder / 'a.npy', formats.read_array if place == 'array' else formats.open_table
    with zipfile.ZipFile(folder / 'm.npz', 'w') as archive:
        archive.writestr('Wemb.npy', head.getvalue() + data)
    formats.write_pickle(folder / 'm.npz.pkl', {})
    return folder / 'm.npz', formats.read_model


def strict_pickles(path):
    """What a user does with a pickle of options: he expects a dict."""
    (found,) = formats.load_pickles(path)
    return formats._as_options(found, path)


def test_these_pickles_do_harm_elsewhere(tmp_path):
    """Else the test above would show nothing."""
    for name in ('builtins.eval', 'nested reduce', 'os.system'):
        marker = tmp_path / name
        pickle.loads(exploits(marker)[name])
        assert marker.exists()


# --- archives and arrays -------------------------------------------------------------------------


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    np.savez_compressed(tmp_path / 'm.npz', Wemb=np.zeros((300, 1 << 20), np.uint8))
    formats.write_pickle(tmp_path / 'm.npz.pkl', {})
    assert (tmp_path / 'm.npz').stat().st_size < 1 << 20
    before = peak()
    with calls_below(CALLS), pytest.raises(ModelFileError, match=r'm\.npz: .*expands'):
        formats.read_model(tmp_path / 'm.npz')
    assert peak() - before < MEGABYTES


def test_compressed_parameters_are_read(tmp_path):
    np.savez_compressed(tmp_path / 'm.npz', b=np.zeros(100_000, np.float32))
    formats.write_pickle(tmp_path / 'm.npz.pkl', {})
    assert formats.read_model(tmp_path / 'm.npz')[0]['b'].shape == (100_000,)


def test_a_member_that_declares_less_than_it_holds(tmp_path):
    """The size in the archive's list is a lie; what comes out is cut there."""
    with zipfile.ZipFile(tmp_path / 'm.npz', 'w', zipfile.ZIP_DEFLATED) as archive:
        data = io.BytesIO()
        np.lib.format.write_array(data, np.zeros(1 << 20))
        archive.writestr('Wemb.npy', data.getvalue())
        archive.infolist()[0].file_size = 1000
    formats.write_pickle(tmp_path / 'm.npz.pkl', {})
    with pytest.raises(ModelFileError, match=r'm\.npz'):
        formats.read_model(tmp_path / 'm.npz')


@pytest.mark.parametrize('shape', [(1 << 40,), (1 << 20, 1 << 20), (1 << 62, 4), (0, 1 << 62)])
@pytest.mark.parametrize('kind', ['array', 'table', 'npz'])
def test_a_header_that_lies_takes_no_memory(tmp_path, shape, kind):
    head = io.BytesIO()
    declared = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
    np.lib.format.write_array_header_1_0(head, declared)
    content = head.getvalue() + b'\0' * 64
    if kind == 'npz':
        with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
            archive.writestr('Wemb.npy', content)
        formats.write_pickle(tmp_path / 'a.npz.pkl', {})
        path, read = tmp_path / 'a.npz', formats.read_model
    else:
        path = tmp_path / 'a.npy'
        path.write_bytes(content)
        read = formats.read_array if kind == 'array' else formats.open_table
    before = peak()
    with pytest.raises(ModelFileError, match=path.name):
        read(path)
    assert peak() - before < MEGABYTES


@pytest.mark.parametrize('size', [1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_a_safetensors_header_that_lies(tmp_path, size):
    (tmp_path / 'm.safetensors').write_bytes(struct.pack('<Q', size) + b'{}')
    before = peak()
    with pytest.raises(ModelFileError, match=r'm\.safetensors'):
        formats.read_model(tmp_path / 'm.safetensors')
    assert peak() - before < MEGABYTES


# --- files that stand for others -----------------------------------------------------------------

POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n'
PAGE = b'\n<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>'
READERS = {
    'm.safetensors': formats.read_model,
    'a.npy': formats.read_array,
    't.npy': formats.open_table,
    'd.pkl': formats.load_dictionary,
    'd.txt': formats.load_dictionary,
    'lines.txt': formats.read_lines,
}


@pytest.mark.parametrize('name', READERS)
@pytest.mark.parametrize(('content', 'words'), [(POINTER, 'git lfs pull'), (PAGE, 'a web page')])
def test_stand_ins_are_called_what_they_are(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=rf'{name}: .*{words}'):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize('name', READERS)
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(MissingFileError, match='no regular file'):
        READERS[name](tmp_path / name)
