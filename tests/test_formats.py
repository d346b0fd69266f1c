from __future__ import annotations

import collections
import io
import json
import os
import pickle
import pickletools
import stat
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from conftest import REFERENCE
from hypothesis import given, settings
from hypothesis import strategies as st

from storyteller import formats
from storyteller.formats import MissingFileError, ModelFileError

PICKLES = sorted(REFERENCE.rglob('*.pkl'))
MODELS = [
    path for path in sorted(REFERENCE.rglob('*.npz')) if path.with_suffix('.npz.pkl').exists()
]
TABLES = [path for path in sorted(REFERENCE.rglob('*.npy')) if 'objects' not in path.name]


def name_of(path):
    return str(path.relative_to(REFERENCE))


def pairs(path):
    """The ordered [word, index, ...] rows of a .json twin, as word -> index."""
    rows = json.loads((REFERENCE / path).read_text(encoding='utf-8'))
    return {row[0]: row[1] for row in rows}


def written(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


# --- the files of 2015 ---------------------------------------------------------------------------


def test_the_reference_files_are_here():
    assert len(PICKLES) >= 15 and len(MODELS) >= 10 and len(TABLES) >= 4


@pytest.mark.parametrize('path', PICKLES, ids=name_of)
def test_every_pickle_of_2015_is_read_as_text(path):
    def leaves(value):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from (key, *leaves(item))
        else:
            yield value

    objects = formats.load_pickles(path)
    assert objects and all(isinstance(item, dict) for item in objects)
    assert {type(leaf) for item in objects for leaf in leaves(item)} <= {
        str, int, float, bool, type(None)
    }  # fmt: skip


@pytest.mark.parametrize(
    ('path', 'twin'),
    [
        ('decoder/romance_dictionary.pkl', 'decoder/romance_dictionary.json'),
        ('decoder/romance_dictionary_plain.pkl', 'decoder/romance_dictionary.json'),
        ('decoder/romance_dictionary_unicode.pkl', 'decoder/romance_dictionary.json'),
        ('embedding/coco_embedding.npz.dictionary.pkl', 'embedding/dictionary.json'),
        ('embedding/coco_embedding_bow.npz.dictionary.pkl', 'embedding/dictionary.json'),
        ('embedding/dictionary_plain_protocol2.pkl', 'embedding/dictionary.json'),
    ],
)
def test_dictionaries_of_2015_equal_their_twins(path, twin):
    words, expected = formats.load_dictionary(REFERENCE / path), pairs(twin)
    assert type(words) is dict and words == expected
    assert all(type(index) is int for index in words.values())
    if 'plain' not in path and 'unicode' not in path:  # an OrderedDict keeps the order
        assert list(words) == list(expected)
    if path.startswith('decoder'):
        assert 'café' in words  # UTF-8 in a byte string of Python 2


def test_a_file_may_hold_two_pickles_of_which_the_first_is_the_dictionary():
    path = REFERENCE / 'training' / 'vocab_saved.pkl'
    twin = json.loads((path.parent / 'vocab.json').read_text(encoding='utf-8'))['captions']
    worddict, wordcount = formats.load_pickles(path)
    assert isinstance(worddict, collections.OrderedDict)
    assert list(worddict.items()) == [tuple(row) for row in twin['worddict']]
    assert list(wordcount.items()) == [tuple(row) for row in twin['wordcount']]
    assert formats.load_dictionary(path) == dict(worddict)


@pytest.mark.parametrize('path', MODELS, ids=name_of)
def test_every_model_of_2015_is_read(path):
    params, options = formats.read_model(path)
    with np.load(path, allow_pickle=False) as arrays:
        assert set(params) == set(arrays.files) - {'history_errs'}
        for name, array in params.items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, arrays[name])
    with open(f'{path}.pkl', 'rb') as file:
        assert options == pickle.load(file, encoding='utf-8')
    assert params['Wemb'].shape[1] == options['dim_word']


@pytest.mark.parametrize('path', TABLES, ids=name_of)
def test_every_array_of_2015_is_read(path):
    array = formats.read_array(path)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.load(path))


def test_a_table_is_mapped_and_not_read():
    table = formats.open_table(REFERENCE / 'skipthoughts' / 'utable.npy')
    assert isinstance(table, np.memmap) and table.shape == (443, 20)
    assert not table.flags.writeable


def test_npy_headers_of_python_2_may_hold_long_integers(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': True, 'shape': (2L, 3L), }".ljust(117) + b'\n'
    data = np.arange(6, dtype='<f4').tobytes()
    path = written(
        tmp_path, 'a.npy', b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + data
    )
    with pytest.warns(UserWarning, match='Python 2'):
        np.testing.assert_array_equal(formats.read_array(path), [[0, 2, 4], [1, 3, 5]])


# --- what pickles of 2015 may hold ---------------------------------------------------------------


def array_of_python_2(core='numpy.core'):
    """[2.5, -1.0] in protocol 0, as Python 2 and NumPy 1 wrote it: data as a byte string."""
    return (
        f"c{core}.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
        f"{DTYPE}I00\nS'\\x00\\x00\\x20@\\x00\\x00\\x80\\xbf'\ntb."
    ).encode()


def scalar_of_python_2(core='numpy.core'):
    return f"c{core}.multiarray\nscalar\n({DTYPE}S'\\x00\\x00\\x20@'\ntR.".encode()


DTYPE = "cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
CORES = ['numpy.core', 'numpy._core']  # NumPy 1 and NumPy 2


@pytest.mark.parametrize('core', CORES)
def test_arrays_and_scalars_of_python_2(tmp_path, core):
    path = written(tmp_path, 'a.pkl', array_of_python_2(core) + scalar_of_python_2(core))
    array, scalar = formats.load_pickles(path)
    assert array.dtype == np.float32 and array.tolist() == [2.5, -1.0]
    assert scalar.dtype == np.float32 and scalar == 2.5


@pytest.mark.parametrize('core', CORES)
@pytest.mark.parametrize('order', ['C', 'F'])
def test_arrays_of_protocol_5(tmp_path, core, order):
    array = np.arange(6.0).reshape(2, 3)
    arguments = pickle.dumps((array.tobytes(order), array.dtype, (2, 3), order), 2)[2:-1]
    data = b'\x80\x05' + f'c{core}.numeric\n_frombuffer\n'.encode() + arguments + b'R.'
    (read,) = formats.load_pickles(written(tmp_path, 'a.pkl', data))
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize('protocol', range(6))
def test_what_pickles_may_hold(tmp_path, protocol):
    held = {
        'param values': [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, '>f8')],
        'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        'objects': np.array(['a', 1, None], object),
        'scalar': np.float64(0.25),
        'plain': [None, True, -3, 2**70, 0.5, 'café', ('t', 'u'), {1, 2}, frozenset({'é'})],
        'ordered': collections.OrderedDict([('b', 1), ('a', 2)]),
    }
    (read,) = formats.load_pickles(written(tmp_path, 'a.pkl', pickle.dumps(held, protocol)))
    assert read.keys() == held.keys()
    for name in ('fortran', 'objects', 'scalar'):
        np.testing.assert_array_equal(read[name], held[name])
    for ours, theirs in zip(read['param values'], held['param values'], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert read['plain'] == held['plain']
    assert list(read['ordered'].items()) == [('b', 1), ('a', 2)]


def test_byte_strings_are_utf8_else_latin_1(tmp_path):
    data = b"(dS'caf\\xc3\\xa9'\nI2\nsS'caf\\xe9'\nI3\ns."
    path = written(tmp_path, 'a.pkl', data)
    assert formats.load_pickles(path) == [{'café': 2}, {'café': 3}][1:]
    data = b"(dS'caf\\xc3\\xa9'\n(lS'na\\xefve'\nas."
    assert formats.load_pickles(written(tmp_path, 'b.pkl', data)) == [{'café': ['naïve']}]


# --- what they may not ---------------------------------------------------------------------------

FORBIDDEN = [
    ('os', 'system'),
    ('posix', 'system'),
    ('subprocess', 'Popen'),
    ('builtins', 'eval'),
    ('builtins', 'exec'),
    ('builtins', 'getattr'),
    ('__builtin__', 'eval'),
    ('functools', 'partial'),
    ('copy_reg', '_reconstructor'),
    ('copyreg', '__newobj__'),
    ('numpy', 'load'),
    ('numpy', 'fromfile'),
    ('numpy', 'memmap'),
    ('numpy.core.multiarray', 'fromfile'),
    ('numpy.testing', 'runstring'),
    ('torch._utils', '_rebuild_tensor_v2'),
    ('torch', 'load'),
    ('collections', 'defaultdict'),
    ('collections', 'OrderedDict.fromkeys'),
    ('theano.sandbox.cuda.type', 'CudaNdarray_unpickler'),
    ('storyteller.formats', 'write_text'),
]


def calls(module, name, marker):
    """Pickles that call module.name with a shell command, a text and a path, each its own way."""
    command = f'echo run > {marker}'
    call = pickle.dumps((command,), 2)[2:-1] + b'R.'
    attribute = b'\x8c' + bytes([len(module)]) + module.encode()
    attribute += b'\x8c' + bytes([len(name)]) + name.encode() + b'\x93'
    return {
        'GLOBAL': b'\x80\x02c' + f'{module}\n{name}\n'.encode() + call,
        'STACK_GLOBAL': b'\x80\x04' + attribute + call,
        'INST': f"(S'{command}'\ni{module}\n{name}\n.".encode(),
        'OBJ': f"(c{module}\n{name}\nS'{command}'\no.".encode(),
    }


@pytest.mark.parametrize(('module', 'name'), FORBIDDEN)
@pytest.mark.parametrize('way', ['GLOBAL', 'STACK_GLOBAL', 'INST', 'OBJ'])
def test_a_pickle_that_asks_for_anything_else_is_refused_by_name(tmp_path, module, name, way):
    marker = tmp_path / 'marker'
    path = written(tmp_path, 'evil.pkl', calls(module, name, marker)[way])
    with pytest.raises(ModelFileError) as caught:
        formats.load_pickles(path)
    assert f'{module}.{name}' in str(caught.value) and str(path) in str(caught.value)
    assert not marker.exists()


def test_the_pickles_above_would_run_elsewhere(tmp_path):
    for way, data in calls('os', 'system', tmp_path / 'marker').items():
        pickle.loads(data)
        assert (tmp_path / 'marker').exists(), way
        (tmp_path / 'marker').unlink()


class Command:
    """Pickles as a call of os.system."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'echo run > {self.marker}',)


@pytest.mark.parametrize('protocol', range(6))
def test_no_reader_runs_a_pickle(tmp_path, protocol):
    marker = tmp_path / 'marker'
    objects = np.array([Command(marker)], object)
    evil = pickle.dumps(Command(marker), protocol)
    array = io.BytesIO()
    np.lib.format.write_array(array, objects)
    written(tmp_path, 'array.npy', array.getvalue())
    written(tmp_path, 'pickle.pkl', evil)
    np.savez(tmp_path / 'options.npz', Wemb=np.zeros((2, 2)))
    written(tmp_path, 'options.npz.pkl', evil)
    np.savez(tmp_path / 'params.npz', Wemb=objects)
    formats.write_pickle(tmp_path / 'params.npz.pkl', {})
    readers = {
        'array.npy': (formats.read_array, formats.open_table),
        'pickle.pkl': (formats.load_pickles, formats.load_dictionary),
        'options.npz': (formats.read_model,),
        'params.npz': (formats.read_model,),
    }
    for name, functions in readers.items():
        for function in functions:
            with pytest.raises(ModelFileError, match=name) as caught:
                function(tmp_path / name)
            if function is not formats.open_table:  # which takes no objects at all
                assert 'system' in str(caught.value)
            assert not marker.exists()


def test_a_history_of_errors_is_not_even_read(tmp_path):
    marker = tmp_path / 'marker'
    history = np.array([Command(marker)], object)
    np.savez(tmp_path / 'm.npz', Wemb=np.ones((2, 2)), history_errs=history)
    formats.write_pickle(tmp_path / 'm.npz.pkl', {})
    assert list(formats.read_model(tmp_path / 'm.npz')[0]) == ['Wemb']
    assert not marker.exists()


def test_arrays_of_objects_that_are_numbers_are_read(tmp_path):
    array = np.empty(2, object)
    array[:] = [1, 2.5]
    np.save(tmp_path / 'a.npy', array)
    assert formats.read_array(tmp_path / 'a.npy').tolist() == [1.0, 2.5]


# Bytes that are taken for objects are pointers to wherever the file wants.
POINTERS = {
    'ndarray called': b"cnumpy\nndarray\n((I1\ntS'O'\nS'AAAAAAAA'\ntR.",
    'flags changed': (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nt"
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'AAAAAAAA'\ntb."
    ),
    'fields changed': (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nt"
        b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR(I3\nS'|'\nN(S'f'\nt(dS'f'\n(cnumpy\ndtype\n(S'O8'\n"
        b"I0\nI1\ntRI0\ntsI8\nI1\nI0\ntbI00\nS'AAAAAAAA'\ntb."
    ),
    'a list that is too short': (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I9\nt"
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntRI00\n(lI1\natb."
    ),
    'a list for a record': (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\nt"
        b"cnumpy\ndtype\n(S'O,O'\nI0\nI1\ntRI00\n(lI1\natb."
    ),
    'frombuffer': (
        b"cnumpy.core.numeric\n_frombuffer\n(S'AAAAAAAA'\ncnumpy\ndtype\n(S'O'\ntR(I1\ntS'C'\ntR."
    ),
    'scalar': b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O'\ntRS'AAAAAAAA'\ntR.",
    'attributes of a function': b"c_codecs\nencode\n(dS'a'\nI1\nsb.",
    'attributes of a dict': b"ccollections\nOrderedDict\n(tR(dS'items'\nI1\nsb.",
}


@pytest.mark.parametrize('trick', POINTERS)
def test_bytes_never_become_objects(tmp_path, trick):
    with pytest.raises(ModelFileError, match=r'evil\.pkl'):
        formats.load_pickles(written(tmp_path, 'evil.pkl', POINTERS[trick]))


# --- files that are something else ---------------------------------------------------------------

READERS = {
    'pickle': (formats.load_pickles, 'a.pkl'),
    'dictionary': (formats.load_dictionary, 'a.pkl'),
    'npz': (formats.read_model, 'a.npz'),
    'safetensors': (formats.read_model, 'a.safetensors'),
    'array': (formats.read_array, 'a.npy'),
    'table': (formats.open_table, 'a.npy'),
}
JUNK = {
    'empty': b'',
    'text': b'It was a dark and stormy night.\n' * 40,
    'LFS pointer': (
        b'version https://git-lfs.github.com/spec/v1\n'
        b'oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n'
    ),
    'HTML': b'<!DOCTYPE html>\n<html><title>404</title><body>Not found</body></html>\n',
    'zeros': bytes(4096),
    'PNG': (REFERENCE / 'vgg' / 'grey.png').read_bytes(),
    'zip of something': (b'PK\x05\x06' + bytes(18)),
    'long header': struct.pack('<Q', 2**62) + b'{}',
    'header beyond the file': b'\x93NUMPY\x01\x00\xff\xff{',
    'version of tomorrow': b'\x93NUMPY\x09\x00\x10\x00' + b' ' * 16,
}


def good_files(folder):
    """One small valid file of each kind: reader's name -> path."""
    paths = {kind: folder / kind / name for kind, (_, name) in READERS.items()}
    for path in paths.values():
        path.parent.mkdir(exist_ok=True)
    params = {'Wemb': np.arange(6, dtype=np.float32).reshape(3, 2)}
    paths['pickle'].write_bytes(array_of_python_2())
    formats.write_pickle(paths['dictionary'], {'a': 2, 'café': 3})
    formats.write_model(paths['npz'], params, {'dim': 2})
    formats.write_model(paths['safetensors'], params, {'dim': 2})
    formats.write_array(paths['array'], params['Wemb'])
    formats.write_array(paths['table'], params['Wemb'])
    return paths


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    return good_files(tmp_path_factory.mktemp('good'))


@pytest.mark.parametrize('content', JUNK)
@pytest.mark.parametrize('kind', READERS)
def test_a_file_that_is_something_else_is_named(tmp_path, kind, content):
    read, name = READERS[kind]
    formats.write_pickle(tmp_path / 'a.npz.pkl', {})
    path = written(tmp_path, name, JUNK[content])
    if (kind, content) == ('npz', 'zip of something'):
        assert read(path) == ({}, {})  # an archive without members; `require` says what is missing
        return
    with pytest.raises(ModelFileError) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize('kind', READERS)
def test_a_missing_file_and_a_folder_are_named(tmp_path, kind):
    read, name = READERS[kind]
    for found in ('no such file', 'folder'):
        with pytest.raises(MissingFileError, match=found) as caught:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert isinstance(caught.value, FileNotFoundError)
        (tmp_path / name).mkdir(exist_ok=True)


def test_a_model_without_its_options_is_missing_a_file(tmp_path):
    np.savez(tmp_path / 'm.npz', Wemb=np.zeros((2, 2)))
    with pytest.raises(MissingFileError, match=r'm\.npz\.pkl.*the options of m\.npz'):
        formats.read_model(tmp_path / 'm.npz')
    formats.write_pickle(tmp_path / 'm.npz.pkl', ['a', 'list'])
    with pytest.raises(ModelFileError, match=r'm\.npz\.pkl.*expected a dict.*list'):
        formats.read_model(tmp_path / 'm.npz')


@pytest.mark.parametrize('kind', READERS)
def test_every_part_of_a_good_file_is_refused(good, tmp_path, kind):
    read, name = READERS[kind]
    formats.write_pickle(tmp_path / 'a.npz.pkl', {})
    whole = good[kind].read_bytes()
    for length in range(len(whole)):
        path = written(tmp_path, name, whole[:length])
        with pytest.raises(ModelFileError) as caught:
            read(path)
        assert str(path) in str(caught.value), length
    read(written(tmp_path, name, whole))


@settings(deadline=None, max_examples=40)
@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of headers that look like Python
@given(data=st.data())
@pytest.mark.parametrize('kind', READERS)
def test_a_changed_file_is_read_or_refused(good, tmp_path_factory, kind, data):
    read, name = READERS[kind]
    folder = tmp_path_factory.getbasetemp()
    formats.write_pickle(folder / 'a.npz.pkl', {})
    changed = bytearray(good[kind].read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place] = data.draw(st.integers(0, 255))
    path = written(folder, name, bytes(changed))
    try:
        read(path)
    except ModelFileError as error:
        assert str(path) in str(error)


@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_pickle_or_refused(tmp_path_factory, data):
    path = written(tmp_path_factory.getbasetemp(), 'any.pkl', b'\x80\x02' + data + b'.')
    try:
        formats.load_pickles(path)
    except ModelFileError as error:
        assert str(path) in str(error)


def test_a_pickle_cannot_ask_for_memory_that_it_does_not_fill(tmp_path):
    memo = b'\x80\x02Nr\xff\xff\xff\x7f.'  # puts None into place 2 ** 31 of a table
    assert formats.load_pickles(written(tmp_path, 'a.pkl', memo)) == [None]
    shape = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I9999999999\ntS'b'\ntR."
    (array,) = formats.load_pickles(written(tmp_path, 'b.pkl', shape))
    assert array.nbytes == 0


@pytest.mark.parametrize('suffix', ['npz', 'safetensors'])
def test_only_what_is_asked_for_is_read(tmp_path, suffix):
    path = tmp_path / f'm.{suffix}'
    params = {name: np.full((2, 3), i, np.float32) for i, name in enumerate(('a_W', 'a_b', 'b_W'))}
    formats.write_model(path, params, {'dim': 2})
    found, options = formats.read_model(path, 'a_')
    assert list(found) == ['a_W', 'a_b'] and options == {'dim': 2}
    assert list(formats.read_model(path)[0]) == list(params)


@pytest.mark.parametrize('suffix', ['npz', 'safetensors'])
@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_what_is_read_can_be_written_to_and_the_file_stays(tmp_path, suffix, dtype):
    path = tmp_path / f'm.{suffix}'
    formats.write_model(path, {'W': np.ones((3, 5))}, {}, dtype)
    before = path.read_bytes()
    found = formats.read_model(path)[0]['W']
    assert found.dtype == np.float32 and found.flags.aligned
    found += 1
    assert (found == 2).all() and path.read_bytes() == before


WORDS = {f"{'it' * (i % 9)}'s {i}" if i % 7 else f'wort-ü{i}': i * 37 for i in range(6000)}


@pytest.mark.parametrize('kind', [dict, collections.OrderedDict])
@pytest.mark.parametrize('protocol', [None, *range(5)])
def test_large_dictionaries_are_read(tmp_path, kind, protocol):
    path = tmp_path / 'words.pkl'
    if protocol is None:
        formats.write_pickle(path, kind(WORDS), kind(WORDS))
    else:
        path.write_bytes(pickle.dumps(kind(WORDS), protocol))
    found = formats.load_pickles(path)
    assert found[0] == WORDS
    assert list(found[0]) == list(WORDS) and type(found[0]) is kind


def test_a_changed_number_in_an_npz_is_found(good, tmp_path):
    whole = good['npz'].read_bytes()
    start = whole.index(np.float32(4.0).tobytes())
    path = written(tmp_path, 'a.npz', whole[:start] + b'\x01' + whole[start + 1 :])
    formats.write_pickle(tmp_path / 'a.npz.pkl', {})
    with pytest.raises(ModelFileError, match='CRC'):
        formats.read_model(path)


def test_a_header_that_promises_more_than_the_file_holds(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000), }"
    data = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header) + 1) + header + b'\n' + bytes(8)
    path = written(tmp_path, 'a.npy', data)
    with pytest.raises(ModelFileError, match=r'declares 4000000000000 bytes, the file has'):
        formats.read_array(path)
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('Wemb.npy', data)
    formats.write_pickle(tmp_path / 'a.npz.pkl', {})
    with pytest.raises(ModelFileError, match='declares'):
        formats.read_model(tmp_path / 'a.npz')


def test_a_negative_shape_is_refused(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }".ljust(69) + b'\n'
    data = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + bytes(8)
    with pytest.raises(ModelFileError):
        formats.read_array(written(tmp_path, 'a.npy', data))
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('Wemb.npy', data)
    formats.write_pickle(tmp_path / 'a.npz.pkl', {})
    with pytest.raises(ModelFileError):
        formats.read_model(tmp_path / 'a.npz')


@pytest.mark.parametrize('numpy_type', ['BF16', 'F8_E4M3', 'F4'])
def test_numbers_that_numpy_does_not_know(tmp_path, numpy_type):
    size = {'BF16': 4, 'F8_E4M3': 2, 'F4': 1}[numpy_type]
    tensor = {'dtype': numpy_type, 'shape': [2], 'data_offsets': [0, size]}
    header = json.dumps({'__metadata__': {'options': '{}'}, 'a': tensor}).encode()
    data = struct.pack('<Q', len(header)) + header + bytes(size)
    with pytest.raises(ModelFileError, match=r'a\.safetensors'):
        formats.read_model(written(tmp_path, 'a.safetensors', data))


@pytest.mark.parametrize(
    'metadata', [None, {}, {'options': 'dim = 3'}, {'options': '[1]'}, {'options': '[' * 100_000}]
)
def test_safetensors_without_options_are_refused(tmp_path, metadata):
    path = tmp_path / 'a.safetensors'
    safetensors.numpy.save_file({'a': np.zeros(2, np.float32)}, path, metadata)
    with pytest.raises(ModelFileError, match=r'a\.safetensors.*options'):
        formats.read_model(path)


@pytest.mark.parametrize(
    ('held', 'message'),
    [
        (['a', 'b'], 'found list'),
        ({'a': 'b'}, "'a' -> 'b'"),
        ({'a': None}, "'a' -> None"),
        ({'a': 1.5}, r"'a' -> 1\.5"),
        ({2: 'a'}, "2 -> 'a'"),
        (np.arange(3), r'an array of shape \(3,\) and type int64'),
    ],
)
def test_a_pickle_that_is_no_dictionary(tmp_path, held, message):
    path = written(tmp_path, 'd.pkl', pickle.dumps(held, 2))
    with pytest.raises(ModelFileError, match=message):
        formats.load_dictionary(path)


def test_indices_may_be_numpy_integers(tmp_path):
    path = written(tmp_path, 'd.pkl', pickle.dumps({'a': np.int64(2)}, 2))
    assert formats.load_dictionary(path) == {'a': 2}


def test_a_dictionary_as_text(tmp_path):
    path = written(tmp_path, 'd.txt', '\ufeff<eos>\r\nUNK\r\ncafé\r\na b\r\n'.encode())
    assert formats.load_dictionary(path) == {'<eos>': 0, 'UNK': 1, 'café': 2, 'a b': 3}
    for data, message in [
        (b'<eos>\nUNK\na\na\n', '1 words stand there twice'),
        (b'<eos>\nUNK\n\na\n', 'line 3 is empty'),
        (b'', 'line 1 is empty'),
        (b'<eos>\ncaf\xe9\n', 'expected UTF-8'),
    ]:
        with pytest.raises(ModelFileError, match=message):
            formats.load_dictionary(written(tmp_path, 'e.txt', data))


def test_lines_are_parted_at_newlines_alone(tmp_path):
    path = written(tmp_path, 'a.txt', 'a\u2028b\x0cc\r\n\n d \nlast'.encode())
    assert formats.read_lines(path) == ['a\u2028b\x0cc', '', ' d ', 'last']


@pytest.mark.parametrize('array', [np.zeros(3), np.zeros((2, 2), int), np.zeros((2, 2, 2))])
def test_a_table_is_a_matrix_of_floats(tmp_path, array):
    np.save(tmp_path / 't.npy', array)
    with pytest.raises(ModelFileError, match=r'expected a \(V, W\) array of floats'):
        formats.open_table(tmp_path / 't.npy')


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_an_array_must_be_finite(tmp_path, bad):
    np.save(tmp_path / 'a.npy', np.array([1, bad]))
    with pytest.raises(ModelFileError, match='not finite'):
        formats.read_array(tmp_path / 'a.npy')


def test_text_in_an_array_is_no_number(tmp_path):
    np.save(tmp_path / 'a.npy', np.array(['one', 'two']))
    with pytest.raises(ModelFileError, match=r'a\.npy'):
        formats.read_array(tmp_path / 'a.npy')


def test_require_names_file_key_and_shape():
    params = {'W': np.zeros((3, 4)), 'b': np.zeros(4)}
    formats.require(params, {'W': (None, 4), 'b': (4,)}, 'm.npz')
    with pytest.raises(ModelFileError, match=r"m\.npz: parameter 'U' is missing"):
        formats.require(params, {'U': (4, 4)}, 'm.npz')
    with pytest.raises(ModelFileError, match=r"m\.npz.*'W' has shape \(3, 4\), not \(any, 5\)"):
        formats.require(params, {'W': (None, 5)}, 'm.npz')
    with pytest.raises(ModelFileError, match=r"'b' has shape \(4,\), not \(any, any\)"):
        formats.require(params, {'b': (None, None)}, 'm.npz')


def test_an_image_error_knows_path_and_reason():
    error = formats.ImageError('a.jpg', 'the file is empty')
    assert (error.path, error.reason, str(error)) == (
        'a.jpg',
        'the file is empty',
        'a.jpg: the file is empty',
    )
    assert isinstance(error, ValueError)


# --- writing -------------------------------------------------------------------------------------

SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
PARAMS = st.dictionaries(
    st.text('abWU_', min_size=1, max_size=6),
    SHAPES.flatmap(
        lambda shape: st.lists(
            st.floats(-100, 100, width=16),
            min_size=int(np.prod(shape)),
            max_size=int(np.prod(shape)),
        ).map(lambda numbers: np.array(numbers, np.float32).reshape(shape))
    ),
    max_size=4,
)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
OPTIONS = st.dictionaries(st.text(max_size=8), PLAIN | st.lists(PLAIN, max_size=3), max_size=4)


@settings(deadline=None, max_examples=12)
@given(params=PARAMS, options=OPTIONS)
@pytest.mark.parametrize('suffix', ['.npz', '.safetensors'])
@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_what_is_written_is_read_back(tmp_path_factory, suffix, dtype, params, options):
    options = json.loads(json.dumps(options))  # lone surrogates become what UTF-8 can hold
    path = tmp_path_factory.getbasetemp() / f'model{suffix}'
    formats.write_model(path, params, options, dtype)
    read, read_options = formats.read_model(path)
    assert read_options == options and read.keys() == params.keys()
    for name, array in params.items():  # all of them float16 numbers
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], array)


def test_float16_halves_the_file_and_rounds(tmp_path):
    params = {'W': np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)}
    sizes = {}
    for dtype in ('float32', 'float16'):
        formats.write_model(tmp_path / 'm.safetensors', params, {}, dtype)
        sizes[dtype] = (tmp_path / 'm.safetensors').stat().st_size
    assert sizes['float16'] < 0.55 * sizes['float32']
    read = formats.read_model(tmp_path / 'm.safetensors')[0]['W']
    np.testing.assert_array_equal(read, params['W'].astype(np.float16).astype(np.float32))


@pytest.mark.parametrize('name', ['m.pkl', 'm', 'm.npy'])
def test_a_model_of_another_suffix_is_not_written(tmp_path, name):
    with pytest.raises(ValueError, match=r'ends in \.safetensors or \.npz'):
        formats.write_model(tmp_path / name, {}, {})
    assert list(tmp_path.iterdir()) == []


def test_the_pair_of_2015_can_be_read_by_python_2(tmp_path):
    path = tmp_path / 'uni_skip.npz'
    options = {'dim': 2400, 'encoder': 'gru', 'embeddings': None, 'doutput': True, 'lr': 0.01}
    formats.write_model(path, {'Wemb': np.ones((3, 2))}, options)
    assert_python_2_reads(tmp_path / 'uni_skip.npz.pkl', options)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ['Wemb.npy'] and archive.testzip() is None
        data = archive.read('Wemb.npy')
    assert data[:8] == b'\x93NUMPY\x01\x00'  # the one version that NumPy 1.0 knew
    assert b"'descr': '<f4'" in data
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays['Wemb'], np.ones((3, 2)))


def test_dictionaries_for_python_2(tmp_path):
    words, counts = {'<eos>': 0, 'UNK': 1, 'café': 2}, collections.OrderedDict([('café', 7)])
    path = tmp_path / 'dictionary.pkl'
    formats.write_pickle(path, words, counts)
    assert_python_2_reads(path, words, counts)
    assert formats.load_dictionary(path) == words
    assert formats.load_pickles(path) == [words, counts]


def assert_python_2_reads(path, *expected):
    """Nothing but what Python 2 knows: protocol 2, and no name but OrderedDict's."""
    data = io.BytesIO(path.read_bytes())
    for item in expected:
        for opcode, argument, _ in pickletools.genops(data):
            assert opcode.proto <= 2, opcode.name
            assert opcode.name != 'GLOBAL' or argument == 'collections OrderedDict'
        assert opcode.name == 'STOP'
        del item
    assert data.read() == b''
    with open(path, 'rb') as file:
        assert [pickle.load(file, encoding='utf-8') for _ in expected] == list(expected)


def test_arrays_are_written_without_pickles(tmp_path):
    array = np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3))
    formats.write_array(tmp_path / 'a.npy', array)
    assert np.load(tmp_path / 'a.npy', allow_pickle=False).dtype == np.float16
    np.testing.assert_array_equal(formats.open_table(tmp_path / 'a.npy'), array)
    with pytest.raises(ValueError):
        formats.write_array(tmp_path / 'b.npy', np.array([None]))
    assert [path.name for path in tmp_path.iterdir()] == ['a.npy']


def test_text_is_utf8_with_newlines_of_unix(tmp_path):
    formats.write_text(tmp_path / 'a.txt', 'café\nb\n')
    assert (tmp_path / 'a.txt').read_bytes() == b'caf\xc3\xa9\nb\n'


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, error):
    path = written(tmp_path, 'a.npz', b'old')
    with pytest.raises(error), formats.atomic_path(path) as temporary:
        temporary.write_bytes(b'half of the n')
        assert path.read_bytes() == b'old'
        raise error
    assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]


def test_a_write_that_succeeds_replaces_the_old_file(tmp_path, monkeypatch):
    order = []
    for name in ('fsync', 'replace'):
        function = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, f=function, n=name: (order.append(n), f(*args))[1]
        )
    path = tmp_path / 'new' / 'folder' / 'a.tar.npz'
    for content in (b'first', b'second'):
        with formats.atomic_path(path) as temporary:
            assert temporary.parent == path.parent and temporary.suffix == '.npz'
            temporary.write_bytes(content)
        assert path.read_bytes() == content and list(path.parent.iterdir()) == [path]
    assert order == ['fsync', 'replace'] * 2  # on the disk before it has the name


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / 'a').mkdir()
    with pytest.raises(OSError), formats.atomic_path(tmp_path / 'a') as temporary:
        temporary.write_bytes(b'x')
    assert [path.name for path in tmp_path.iterdir()] == ['a']


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no file mask')
@pytest.mark.parametrize(('mask', 'mode'), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
@pytest.mark.parametrize('suffix', ['.txt', '.safetensors', '.npz'])
def test_permissions_follow_the_file_mask(tmp_path, mask, mode, suffix):
    before = os.umask(mask)
    try:
        if suffix == '.txt':
            formats.write_text(tmp_path / 'a.txt', 'a')
        else:
            formats.write_model(tmp_path / f'a{suffix}', {'a': np.zeros(2)}, {})
        assert os.umask(mask) == mask  # and the mask is what it was
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}
