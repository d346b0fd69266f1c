"""Word tables as they were published: arrays of objects, read safely and made plain once."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REFERENCE
from hypothesis import given, settings
from hypothesis import strategies as st
from object_files import beginning, npy_header, row, write_objects

from storyteller import convert, formats, skipthoughts
from storyteller.formats import ModelFileError
from storyteller.io import pickle_2015, pickle_2015_rows, pickle_2015_tables

FOLDER = REFERENCE / 'skipthoughts'
FORMS = Path(__file__).parent / 'forms'
NUMBERS = np.arange(36, dtype=np.float32).reshape(12, 3) / 8
PAIR = ('utable', 'btable')


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder where plain tables are kept."""
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def table(tmp_path):
    """A table of objects of 2015 that a test may spoil."""
    return shutil.copyfile(FOLDER / 'utable_objects.npy', tmp_path / 'utable.npy')


def plain(path):
    """What the reader makes of a file, without the cache."""
    out = path.with_suffix('.plain.npy')
    pickle_2015_tables.write_plain(path, out)
    return np.load(out)


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize('name', PAIR)
def test_the_published_form_equals_the_plain_one(name):
    found = formats.open_table(FOLDER / f'{name}_objects.npy')
    assert isinstance(found, np.memmap) and not found.flags.writeable
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.load(FOLDER / f'{name}.npy'))


def test_encoders_give_the_vectors_of_2015(tmp_path):
    for path in FOLDER.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    for name in PAIR:
        os.replace(tmp_path / f'{name}_objects.npy', tmp_path / f'{name}.npy')
    model = skipthoughts.load_model(tmp_path, tmp_path, device='cpu')
    texts = json.loads((FOLDER / 'tokenised.json').read_text(encoding='utf-8'))
    found = skipthoughts.encode(model, texts, verbose=False, tokenised=True)
    expected = np.load(FOLDER / 'vectors.npz')['norm1_eos0']
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('patterns', [0, pickle_2015.MOST_PATTERNS])
@pytest.mark.filterwarnings('ignore:Reading')  # of headers with Python 2's long integers
@pytest.mark.parametrize(
    'path',
    [path for path in sorted(FORMS.glob('table_*.npy')) if path.stem != 'table_twice'],
    ids=lambda path: path.stem,
)
def test_every_form_that_python_2_writes(monkeypatch, path, patterns):
    monkeypatch.setattr(pickle_2015, 'MOST_PATTERNS', patterns)  # 0: a step at a time
    np.testing.assert_array_equal(formats.open_table(path), NUMBERS)


def test_the_helper_writes_what_python_2_wrote(tmp_path):
    for name, flat in zip(PAIR, (60, 0), strict=True):
        write_objects(
            tmp_path / 'a.npy', np.load(FOLDER / f'{name}.npy'), np.arange(443) < flat, align=64
        )
        assert (tmp_path / 'a.npy').read_bytes() == (FOLDER / f'{name}_objects.npy').read_bytes()


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_table_is_read_whatever_the_pieces(tmp_path_factory, data):
    """Rows of both shapes by turns; places below and above 255; a buffer that cuts anywhere."""
    path = tmp_path_factory.getbasetemp() / 'any.npy'
    count, width = data.draw(st.integers(1, 2300)), data.draw(st.sampled_from([1, 2, 63, 64, 300]))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    rows = rng.normal(size=(count, width)).astype(np.float32)
    write_objects(path, rows, rng.random(count) < data.draw(st.sampled_from([0, 0.1, 0.5, 1])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickle_2015_rows, 'BUFFER', data.draw(st.sampled_from([1, 7, 999, 1 << 22])))
        if pickle_2015_rows.BUFFER == 1 and count > 100:
            patch.setattr(pickle_2015_rows, 'BUFFER', 5)
        np.testing.assert_array_equal(plain(path), rows)


def test_nearly_all_rows_are_matched_as_a_whole(table, monkeypatch):
    taken = []
    monkeypatch.setattr(
        pickle_2015.ObjectRows, '_take', lambda *args, take=pickle_2015.ObjectRows._take: (
            taken.append(1), take(*args))[1],
    )  # fmt: skip
    assert plain(table).shape == (443, 20) and len(taken) < 5


# --- the cache -----------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch):
    """The files that were made plain."""
    paths = []
    write = pickle_2015_tables.write_plain
    monkeypatch.setattr(
        pickle_2015_tables, 'write_plain', lambda path, out: (paths.append(path), write(path, out))
    )
    return paths


def test_a_table_is_made_plain_once(table, cache, made, tmp_path):
    first, second = formats.open_table(table), formats.open_table(table)
    np.testing.assert_array_equal(first, second)
    assert made == [table] and len(list(cache.glob('*.npy'))) == 1
    moved = table.rename(tmp_path / 'elsewhere.npy')
    copied = shutil.copyfile(moved, tmp_path / 'copy.npy')
    for path in (moved, copied):  # the contents count
        np.testing.assert_array_equal(formats.open_table(path), first)
    assert made == [table]


def test_another_content_is_another_table(table, cache, made):
    first = np.array(formats.open_table(table))
    stat = table.stat()
    shutil.copyfile(FOLDER / 'utable_objects.npy', table)
    data = bytearray(table.read_bytes())
    data[-40:-30] = bytes(10)
    table.write_bytes(data)
    os.utime(table, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as old as before, and as large
    assert not np.array_equal(formats.open_table(table), first)
    assert len(made) == 2


@pytest.mark.parametrize('damage', ['cut', 'gone', 'other', 'note'])
def test_a_damaged_cache_is_made_anew(table, cache, made, damage):
    first = np.array(formats.open_table(table))
    (file,), (note,) = cache.glob('*.npy'), cache.glob('*.txt')
    if damage == 'cut':
        os.truncate(file, file.stat().st_size - 1)
    elif damage == 'gone':
        file.unlink()
    elif damage == 'other':
        np.save(file, np.arange(5))
    else:
        note.write_text('../../x')
    np.testing.assert_array_equal(formats.open_table(table), first)
    assert len(made) == (1 if damage == 'note' else 2)


@pytest.mark.parametrize('where', ['a file', 'nowhere'])
def test_without_a_cache_the_table_is_made_for_this_process(table, tmp_path, monkeypatch, where):
    (tmp_path / 'file').write_bytes(b'')
    folder = tmp_path / 'file' / 'cache' if where == 'a file' else None
    monkeypatch.setattr(pickle_2015_tables, 'cache_folder', lambda: folder)
    with pytest.warns(UserWarning, match=r'utable\.npy.*anew each time.*STORYTELLER_CACHE'):
        found = formats.open_table(table)
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, np.load(FOLDER / 'utable.npy'))

    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(pickle_2015_tables.tempfile, 'TemporaryFile', full)
    with pytest.raises(ModelFileError, match=r'utable\.npy.*no room.*STORYTELLER_CACHE'):
        formats.open_table(table)


@pytest.mark.parametrize('error', [KeyboardInterrupt, MemoryError])
def test_an_interrupted_table_leaves_nothing(table, cache, monkeypatch, error):
    def stop(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(pickle_2015.ObjectRows, '_run', stop)
        with pytest.raises((error, ModelFileError)):
            formats.open_table(table)
    assert list(cache.iterdir()) == []
    assert formats.open_table(table).shape == (443, 20)


def test_what_a_killed_process_left_is_removed(table, cache):
    cache.mkdir()
    old, new = cache / '.table-1.npy.abc.npy', cache / '.table-2.npy.def.npy'
    for file in (old, new):
        file.write_bytes(b'half')
    os.utime(old, (0, 0))
    formats.open_table(table)
    assert not old.exists() and new.exists()


def test_a_file_that_changes_meanwhile_is_refused(table, cache, monkeypatch):
    write = pickle_2015_tables.write_plain
    monkeypatch.setattr(
        pickle_2015_tables,
        'write_plain',
        lambda path, out: (write(path, out), os.utime(path, (1, 1))),
    )
    with pytest.raises(ModelFileError, match='changed while it was read'):
        formats.open_table(table)
    assert list(cache.iterdir()) == []


def test_converted_models_have_plain_tables(tmp_path, cache):
    for name in PAIR:
        (tmp_path / 'a').mkdir(exist_ok=True)
        for suffix in ('skip.npz', 'skip.npz.pkl'):
            kind = f'{"uni" if name[0] == "u" else "bi"}_{suffix}'
            shutil.copyfile(FOLDER / kind, tmp_path / 'a' / kind)
        shutil.copyfile(FOLDER / f'{name}_objects.npy', tmp_path / 'a' / f'{name}.npy')
    for to in ('ours', '2015'):
        list(convert.convert(tmp_path / 'a', tmp_path / to, to))
        for name in PAIR:
            found = np.load(tmp_path / to / f'{name}.npy', allow_pickle=False)
            np.testing.assert_array_equal(found, np.load(FOLDER / f'{name}.npy'))
    assert not cache.exists()


# --- what is refused -----------------------------------------------------------------------------


def rows_of(*rows, count=None):
    """A file of these rows, whatever they are."""
    count = len(rows) if count is None else count
    return npy_header(count) + beginning(count) + b'(' + b''.join(rows) + b'etb.'


def good(i, values=(1.0, 2.0, 3.0)):
    return row(values, i, flat=False)


def nested(depth=60):
    """A tuple of tuples of tuples, small in a pickle."""
    return b')' + b''.join(b'r' + struct.pack('<I', 900 + i) + (b'j' + struct.pack('<I', 900 + i))
                           + b'\x86' for i in range(depth))  # fmt: skip


FIRST, SECOND = good(0), good(1)
ROWS = {
    'another width': good(1, (1.0, 2.0)),
    'no width': good(1, ()),
    'a number': b'K\x01',
    'nothing': b'N',
    'a word': b'U\x03dog',
    'a list': b']',
    'a dict': b'}',
    'a tuple': b'K\x01K\x02\x86',
    'a row twice': b'h\x07',
    'integers': SECOND.replace(b'h\x08', b'h\x04U\x02i4K\x00K\x01\x87R'),
    'objects': SECOND.replace(b'h\x08', b'h\x05'),
    'text': SECOND.replace(b'h\x08', b'h\x04U\x02S4K\x00K\x01\x87R'),
    'a type without its order': SECOND.replace(b'h\x08', b'h\x04U\x02f4K\x00K\x01\x87R'),
    'a type with fields': SECOND.replace(
        b'h\x08', b'h\x04U\x02f4K\x00K\x01\x87R(K\x03U\x01<NU\x01a\x85}J\xff\xff\xff\xffJ\xff\xff'
        b'\xff\xffK\x00tb'
    ),
    'a type made anew': SECOND.replace(b'h\x08', b'h\x08(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff'
                                                 b'\xff\xffK\x3ftb'),
    'too few bytes': SECOND.replace(b'\x89U\x0c', b'\x89U\x0b').replace(b'\x00tb', b'tb'),
    'too many bytes': SECOND.replace(b'\x89U\x0c', b'\x89U\x0d').replace(b'tb', b'\x00tb'),
    'two rows in one': SECOND.replace(b'K\x01K\x03\x86', b'K\x02K\x03\x86'),
    'three axes': SECOND.replace(b'K\x01K\x03\x86', b'K\x01K\x01K\x03\x87'),
    'a shape of tuples': SECOND.replace(b'K\x01K\x03\x86', nested() + b'\x85'),
    'a type of tuples': SECOND.replace(b'h\x08', b'h\x04' + nested() + b'K\x00K\x01\x87R'),
    'an order of tuples': SECOND.replace(b'\x89', nested()),
    'a version of tuples': SECOND.replace(b'(K\x01', b'(' + nested()),
    'a negative width': SECOND.replace(b'K\x03\x86', b'J\xff\xff\xff\xff\x86'),
    'a wide shape': SECOND.replace(b'K\x03\x86', b'J\xff\xff\xff\x7f\x86'),
    'no bytes': SECOND.replace(SECOND[-16:-2], b'N'),
    'another state': SECOND[:-2] + b'Ntb',
    'a row of a row': SECOND[:-2] + b'tbNb',
    'another letter': SECOND.replace(b'U\x01b', b'U\x01c'),
    'another class': SECOND.replace(b'h\x02', b'h\x04'),
    'another function': SECOND.replace(b'h\x01h', b'h\x02h'),
    'os.system': b'cposix\nsystem\nU\x04true\x85R',
    'eval': b'c__builtin__\neval\nU\x011\x85R',
    'any array': b'cnumpy\nndarray\n(K\x01\x85U\x01OU\x08AAAAAAAAtR',
    'instance': b'(cposix\nsystem\no',
    'named instance': b'(U\x04trueiposix\nsystem\n',
    'new object': b'cposix\nsystem\n)\x81',
    'persistent id': b'U\x01aQ',
    'extension': b'\x82\x01',
    'popped': SECOND + b'0' + SECOND,
    'doubled': SECOND + b'2',
    'a second list': SECOND + b']',
    'a place taken': SECOND.replace(b'Rq\x09', b'Rq\x01'),
    'a place unknown': b'j\xff\xff\xff\x7f',
    'marks': b'(' * 500_000,
    'numbers': b'K\x01' * 500_000,
    'large words': (b'T' + struct.pack('<i', 1 << 22) + bytes(1 << 22)) * 8,
    'two gigabytes': b'T' + struct.pack('<i', 2**31 - 1) + b'x',
    'a negative length': b'T' + struct.pack('<i', -1) + b'x',
    'four gigabytes': b'\x8e' + struct.pack('<Q', 1 << 32),
    'a line without end': b'V' + b'x' * (1 << 25),
    'a string without end': b"S'" + b'x' * (1 << 25),
    'a number without end': b'I' + b'9' * 200_000 + b'\n',
    'a long without end': b'\x8b' + struct.pack('<i', 1 << 20) + b'\x01' * (1 << 20),
    'a frame': b'\x95' + struct.pack('<Q', 1 << 60),
    'floats': b'G?\xf0\x00\x00\x00\x00\x00\x00',
    'Python 3': pickle.dumps([1.0], 4)[:-1],
}  # fmt: skip
WHOLE = {
    'too few rows': rows_of(FIRST, SECOND, count=3),
    'too many rows': rows_of(FIRST, SECOND, good(2), count=2),
    'far too many rows': rows_of(*(good(i) for i in range(900)), count=800),
    'no rows': npy_header(0) + beginning(0) + b'tb.',
    'a header that lies': npy_header(10**12) + rows_of(FIRST)[80:],
    'a negative count': npy_header(-1) + rows_of(FIRST)[80:],
    'another count inside': npy_header(2) + rows_of(FIRST, SECOND, count=3)[80:],
    'something behind': rows_of(FIRST, SECOND) + b'x',
    'two pickles': rows_of(FIRST, SECOND) + b'N.',
    'no end': rows_of(FIRST, SECOND)[:-1],
    'no array around it': npy_header(1) + b'\x80\x02](' + FIRST + b'e.',
    'nothing at all': npy_header(2),
    'None': npy_header(2) + b'N.',
    'numbers': npy_header(2) + pickle.dumps(np.array([1.0, 2.0], object), 2),
    'protocol 4': npy_header(2) + b'\x80\x04' + rows_of(FIRST, SECOND)[82:],
    'a matrix of objects': rows_of(FIRST, SECOND).replace(b'(2,), }  ', b'(1, 2), }'),
    'a scalar': rows_of(FIRST).replace(b'(1,), }', b'(), }  '),
    'records with objects': rows_of(FIRST).replace(b"'|O', ", b"[('a','|O')], ").replace(
        b'}' + b' ' * 8, b'}'
    ),
    'a type of objects that is none': rows_of(FIRST, SECOND).replace(b'U\x02O8', b'U\x02f8'),
}  # fmt: skip


@pytest.mark.parametrize('before', [0, 1, 2000])
@pytest.mark.parametrize('name', ROWS)
def test_a_row_that_is_none_is_refused(tmp_path, cache, name, before):
    """As the first, the second, and after many that were matched as a whole."""
    bad = ROWS[name]
    path = tmp_path / 'evil.npy'
    rows = [good(i) for i in range(before)]
    path.write_bytes(rows_of(*rows, bad, count=before + (2 if name == 'a row twice' else 1)))
    with pytest.raises(ModelFileError, match=r'evil\.npy') as caught:
        formats.open_table(path)
    assert len(str(caught.value)) < 1000
    assert not cache.exists() or list(cache.iterdir()) == []


@pytest.mark.parametrize('name', WHOLE)
def test_a_table_that_is_none_is_refused(tmp_path, cache, name):
    (tmp_path / 'evil.npy').write_bytes(WHOLE[name])
    with pytest.raises(ModelFileError, match=r'evil\.npy'):
        formats.open_table(tmp_path / 'evil.npy')
    assert not cache.exists() or list(cache.iterdir()) == []


def test_these_are_refused_for_what_they_hold(tmp_path):
    """Else the tests above would show nothing."""
    (tmp_path / 'a.npy').write_bytes(rows_of(FIRST, SECOND, good(2)))
    np.testing.assert_array_equal(plain(tmp_path / 'a.npy'), [[1, 2, 3]] * 3)
    assert [bad for bad in ROWS if ROWS[bad] == SECOND] == []
    for _ in pickletools.genops(rows_of(FIRST, SECOND)[80:]):
        pass


def test_one_array_twice_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r'table_twice\.npy: .*index 14'):
        formats.open_table(FORMS / 'table_twice.npy')


def test_python_3_s_own_form_is_named(tmp_path):
    rows = np.empty(2, object)
    rows[:] = list(NUMBERS[:2])
    np.save(tmp_path / 'a.npy', rows)
    with pytest.raises(ModelFileError, match=r'a\.npy: .*protocol \d, expected 0 to 2'):
        formats.open_table(tmp_path / 'a.npy')


# --- at the published size -----------------------------------------------------------------------

MEASURED = """
import json, pathlib, sys
from storyteller import formats
peak = pathlib.Path('/proc/self/status')
table = formats.open_table(sys.argv[1])
print(json.dumps({
    'shape': table.shape, 'sums': [float(table[i].sum()) for i in (0, 1000, 930_912)],
    'megabytes': int(peak.read_text().split('VmHWM:')[1].split()[0]) / 1024,
}))
"""


@pytest.mark.slow
def test_a_table_of_the_published_size(tmp_path):
    count, width, own = 930_913, 620, 20_000
    if shutil.disk_usage(tmp_path).free < 8e9:
        pytest.skip('needs 5 GB on the disk')
    if not Path('/proc/self/status').exists():  # the system's other figure counts the parent's too
        pytest.skip('peak memory is not told here')
    rng = np.random.default_rng(0)
    flat = rng.permutation(count) < own  # the encoder's own words, wherever they stand
    block = rng.normal(size=(1000, width)).astype(np.float32)
    path = tmp_path / 'utable.npy'
    try:
        write_objects(path, lambda begin, end: block[: end - begin], flat, count)
        assert path.stat().st_size == 2_342_138_474  # the published file, to the byte
        runs = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, '-c', MEASURED, str(path)], capture_output=True, check=True
            )
            runs.append(json.loads(done.stdout))
    finally:
        path.unlink(missing_ok=True)
        shutil.rmtree(tmp_path / 'cache', ignore_errors=True)
    for run in runs:
        assert run['shape'] == [count, width] and run['megabytes'] < 400
        assert run['sums'] == [float(block[i].sum()) for i in (0, 0, 912)]
