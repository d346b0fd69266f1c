"""Files called VGG-19 that are damaged, something else, or made to do harm: one error each."""

from __future__ import annotations

import pickle
import struct
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from counting import calls_below
from test_hostile_files import CALLS, MEGABYTES, NAMES, exploits, peak
from torch import nn

from storyteller import convnet, formats
from storyteller.convnet import Architecture, build_convnet
from storyteller.formats import MissingFileError, ModelFileError
from storyteller.nn import vgg_caffe

FORMS = 'lasagne', 'caffe', 'caffe_layer', 'keras', 'torch_older', 'torchvision'
BLOCKS = ((2,) * 2, (2,) * 2, (3,) * 4, (3,) * 4, (4,) * 4)


def random_params():
    shapes, rng = (
        Architecture(BLOCKS, fc=(12, 10), input_size=64).shapes(),
        np.random.default_rng(0),
    )
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def write(forms, tmp_path):
    """Write a narrow random network, or other parameters, in a form; the path."""

    def written(form, params=None):
        params = random_params() if params is None else params
        getattr(forms, form)(tmp_path / 'network', params)
        return tmp_path / 'network'

    return written


def refused(path, match):
    before = peak()
    with calls_below(CALLS), pytest.raises(ModelFileError, match=match) as caught:
        build_convnet(path)
    assert peak() - before < MEGABYTES
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('name', ['conv3_2_W', 'fc6_W', 'fc7_b'])
def test_wrong_shapes_are_named(write, form, name):
    params = random_params()
    shape = np.array(params[name].shape)
    params[name] = np.zeros(shape + (np.arange(len(shape)) == len(shape) - 1), np.float32)
    refused(write(form, params), 'network: .*(shape|rows|widths|input_size)')


@pytest.mark.parametrize('form', FORMS)
def test_what_is_not_finite_is_named(write, form):
    params = random_params()
    params['fc7_b'][3] = np.nan
    refused(write(form, params), 'network: fc7_b holds values that are not finite')


@pytest.mark.parametrize('form', FORMS)
def test_files_that_were_cut(write, form):
    path = write(form)
    whole = path.read_bytes()
    for part in (0, 1, 5, 64, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:part])
        refused(path, 'network: ')


def others(folder: Path) -> dict[str, Path]:
    """Files of these kinds with something else in them."""
    with h5py.File(folder / 'hdf5', 'w') as root:
        root['block1_conv1'] = np.zeros(3)
    (folder / 'protobuf').write_bytes(b'\x0a\x03abc\x12\x05\x22\x03xyz')
    (folder / 'text').write_bytes(b'\nA dog runs on the beach .\n')
    np.savez(folder / 'npz.npz', conv1_1_W=np.zeros(3))
    torch.save([torch.zeros(3)], folder / 'list')
    torch.save({'features.0.weight': torch.zeros(3)}, folder / 'short')
    torch.save({'features.0.weight': torch.zeros(3, dtype=torch.int64)}, folder / 'integers')
    torch.save(nn.Linear(2, 2), folder / 'module', _use_new_zipfile_serialization=False)
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ('kind', 'match'),
    [
        ('hdf5', "no layer 'block1_conv1'"),
        ('protobuf', "'conv1_1_W' is missing"),
        ('text', 'Caffe model'),
        ('npz', 'no data.pkl'),
        ('list', 'expected a state dict, found list'),
        ('short', "'conv1_1_b' is missing|4 axes"),
        ('integers', 'torch.LongStorage'),
        ('module', 'torch.nn.modules'),
    ],
)
def test_something_else_of_the_same_kind(tmp_path, kind, match):
    refused(others(tmp_path)[kind], match)


def test_an_archive_that_would_expand(write, tmp_path):
    with zipfile.ZipFile(write('torchvision')) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / 'bomb', 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    refused(tmp_path / 'bomb', 'not compressed')


@pytest.mark.parametrize('archive', [True, False])
def test_a_tensor_larger_than_the_file(tmp_path, archive):
    """One number, said to be as many as one likes."""
    state = {'features.0.weight': torch.zeros(1).expand(64, 3, 3, 3)}
    torch.save(state, tmp_path / 'a', _use_new_zipfile_serialization=archive)
    refused(tmp_path / 'a', 'in one piece')


@pytest.mark.parametrize('count', [1 << 30, (1 << 62) + 1])
def test_a_storage_larger_than_the_file(write, count):
    path = write('torch_older')
    data = path.read_bytes()
    little = struct.pack('<q', 54)  # conv1_1 has 2 x 3 x 9 weights
    assert data.count(little)
    path.write_bytes(data.replace(little, struct.pack('<q', count)))
    refused(path, f'storage of {count} numbers')


def test_a_blob_larger_than_the_file(forms, tmp_path):
    huge = forms.varint(1 << 40)
    layer = forms.field(4, b'conv1_1') + b'\x32' + huge
    blob = forms.field(4, b'conv1_1') + forms.field(6, b'\x08' + huge + forms.field(5, b'1234'))
    for content, match in ((b'\x12' + huge, 'announced'), (forms.field(2, layer), 'announced'),
                           (forms.field(2, blob), 'Caffe model')):  # fmt: skip
        (tmp_path / 'a').write_bytes(forms.field(1, b'VGG') + content)
        refused(tmp_path / 'a', match)


def test_many_empty_blobs(forms, tmp_path):
    """Each would be an object, of many times its two bytes."""
    layer = forms.field(4, b'conv1_1') + forms.field(6, b'') * 2 * vgg_caffe.MOST_FIELDS
    (tmp_path / 'a').write_bytes(forms.field(2, layer))
    refused(tmp_path / 'a', 'more than 1000 fields')


@pytest.mark.parametrize(
    'how', ['compressed', 'empty', 'elsewhere', 'elsewhere and here', 'in another file', 'itself']
)
def test_arrays_of_hdf5_that_are_not_in_the_file(write, tmp_path, how):
    path = write('keras')
    with h5py.File(path, 'r+') as root:
        name = 'block1_conv2/block1_conv2_W_1:0'
        shape = root[name].shape
        del root[name]
        if how == 'compressed':
            root.create_dataset(name, data=np.zeros((9, 9, 1000, 1000)), compression='gzip')
        elif how == 'empty':
            root.create_dataset(name, (1 << 20, 3, 1 << 20, 1 << 20), 'f4')
        elif how.startswith('elsewhere'):
            root.create_dataset(name, shape, 'f4', external=[(tmp_path / 'x', 0, 10**6)])
        elif how == 'in another file':
            root[name] = h5py.ExternalLink(str(path), '/block1_conv1/block1_conv1_W_1:0')
        else:
            root['block1_conv2/again'] = root['block1_conv2']
    if how == 'elsewhere and here':  # an address where there is none, in its layout message
        layout, nowhere = b'\x03\x01', b'\xff' * 8
        written = path.read_bytes()
        assert written.count(layout + nowhere) == 1
        path.write_bytes(written.replace(layout + nowhere, layout + (512).to_bytes(8, 'little')))
    refused(path, 'block1_conv2 holds|its groups are no layers')


@pytest.mark.parametrize(
    ('form', 'package', 'extra'),
    [('keras', 'h5py', 'keras'), ('caffe', 'google.protobuf', 'caffe')],
)
def test_a_package_that_is_not_installed(write, monkeypatch, form, package, extra):
    vgg_caffe._classes.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingFileError, match=rf"pip install 'storyteller\[{extra}\]'"):
        convnet.build_convnet(write_without(write, form, monkeypatch))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('place', ['archive', 'older', 'lasagne'])
def test_no_exploit_runs_or_lasts(tmp_path, name, place):
    marker, path = tmp_path / 'marker', tmp_path / 'network'
    data = exploits(marker)[name]
    if place == 'archive':
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('archive/data.pkl', data)
    else:
        system = [0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}]
        heads = b''.join(pickle.dumps(each, 2) for each in system)
        path.write_bytes((heads if place == 'older' else b'') + data)
    refused(path, 'network')
    assert not marker.exists()


def write_without(write, form, monkeypatch):
    """The file is written while the package is still there."""
    with monkeypatch.context() as context:
        context.setitem(sys.modules, 'h5py', h5py)
        return write(form)


def test_a_web_page_in_place_of_a_model(tmp_path):
    (tmp_path / 'vgg19.pth').write_bytes(b'\n<!DOCTYPE html><html></html>')
    refused(tmp_path / 'vgg19.pth', 'a web page')
    with pytest.raises(formats.MissingFileError):
        build_convnet(tmp_path / 'nothing.h5')


@pytest.mark.parametrize('axes', [101, 200_000])
def test_a_shape_of_many_axes_is_refused_before_it_is_read(tmp_path, forms, axes):
    shape = forms.field(7, forms.field(1, b'\x01' * axes))
    layer = forms.field(1, b'conv1_1') + forms.field(7, shape + forms.field(5, b''))
    path = tmp_path / 'a.caffemodel'
    path.write_bytes(b'\x0a\x01x' + forms.field(100, layer))
    with pytest.raises(ModelFileError) as caught:
        convnet.read_params(path)
    assert len(str(caught.value)) < len(str(path)) + 200
