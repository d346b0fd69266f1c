"""VGG-19 from each form in which it was published: equal weights give equal features."""

from __future__ import annotations

import pickle
import pickletools

import h5py
import numpy as np
import pytest
import torch
from test_convnet import photos, random_params, slow_features
from torch import nn

from storyteller import convert, formats
from storyteller.convnet import VGG19, Architecture, build_convnet, compute_features, read_params
from storyteller.errors import why
from storyteller.images import MEAN_BGR
from storyteller.nn import vgg_files, vgg_torch

FORMS = 'lasagne', 'caffe', 'caffe_layer', 'keras', 'torch_older', 'torchvision'
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of photos from 0 to 1
ARCHITECTURE = Architecture(blocks=((2,) * 2, (2,) * 2, (3,) * 4, (3,) * 4, (4,) * 4), fc=(12, 10))


@pytest.fixture
def write(forms, tmp_path):
    """Write a narrow random network in a form; the path."""

    def written(form, name='network'):
        getattr(forms, form)(tmp_path / name, random_params(ARCHITECTURE))
        return tmp_path / name

    return written


def features(path, im):
    return compute_features(build_convnet(path, device='cpu'), im)


def torchvision_photos(im: np.ndarray) -> np.ndarray:
    """BGR less the mean of 2015 to RGB from 0 to 1, less one mean, divided by a deviation."""
    rgb = (im.astype('f8') + np.reshape(MEAN_BGR, (3, 1, 1)))[:, ::-1] / 255
    return (rgb - np.reshape(RGB_MEAN, (3, 1, 1))) / np.reshape(RGB_STD, (3, 1, 1))


# --- equal weights, equal features ---------------------------------------------------------------


@pytest.fixture(scope='module')
def expected():
    """What the weights come to for two photos."""
    return slow_features(ARCHITECTURE, random_params(ARCHITECTURE), photos(2))


@pytest.mark.parametrize('form', [form for form in FORMS if form != 'torchvision'])
def test_equal_weights_give_the_features_of_a_slow_network(write, form, expected):
    found = features(write(form), photos(2))
    assert (expected > 0).any() and ARCHITECTURE.pooled > 1  # so that the order of fc6 counts
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * expected.max())


@pytest.mark.parametrize('form', FORMS)
def test_a_name_says_nothing(write, form):
    first = read_params(write(form))[1]
    for name in ('network.pkl', 'network.h5', 'network.caffemodel', 'network.pth'):
        found = read_params(write(form, name=name))[1]
        assert all(np.array_equal(first[key], found[key]) for key in first)


def test_torchvision_s_network_sees_what_it_learned_from(write):
    """Against the state dict in plain layers, in double precision, shown its own kind of photo."""
    path, im = write('torchvision'), photos(2)
    layers, convolutions, n_in = [], [], 3
    for block in ARCHITECTURE.blocks:
        for width in block:
            convolutions.append(nn.Conv2d(n_in, width, 3, padding=1))
            layers += [convolutions[-1], nn.ReLU()]
            n_in = width
        layers.append(nn.MaxPool2d(2))
    dense = [nn.Linear(n_in * ARCHITECTURE.pooled**2, 12), nn.Linear(12, 10)]
    network = nn.Sequential(*layers, nn.Flatten(), dense[0], nn.ReLU(), dense[1], nn.ReLU())
    state = torch.load(path, weights_only=True)
    with torch.no_grad():
        for layer, key in zip([*convolutions, *dense], list(state)[::2], strict=False):
            layer.weight.copy_(state[key])
            layer.bias.copy_(state[key.replace('weight', 'bias')])
        expected = network.double()(torch.from_numpy(torchvision_photos(im))).numpy()
    assert (expected > 0).any()
    np.testing.assert_allclose(features(path, im), expected, rtol=1e-5, atol=1e-5 * expected.max())


def test_torchvision_s_weights_equal_the_others_on_the_same_photos(write, forms):
    im = photos(2)
    moved = im + np.float32(np.subtract(forms.TORCHVISION_MEAN, MEAN_BGR)).reshape(3, 1, 1)
    expected = features(write('lasagne'), im)
    found = features(write('torchvision'), moved)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * expected.max())


@pytest.mark.parametrize('archive', [True, False])
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64])
def test_state_dicts_are_read_as_torch_reads_them(write, forms, tmp_path, archive, dtype):
    state = torch.load(write('torch_older'), weights_only=True)
    path = tmp_path / 'again.pth'
    kept = {name: nn.Parameter(value.to(dtype)) for name, value in state.items()}
    torch.save(kept, path, _use_new_zipfile_serialization=archive)
    params, _ = vgg_torch.read(path)
    torch_s = list(torch.load(path, weights_only=True).values())[:-2]
    for (name, value), expected in zip(params.items(), torch_s, strict=True):
        expected = expected.detach().float().numpy()
        np.testing.assert_array_equal(value, expected.T if expected.ndim == 2 else expected, name)


def test_a_state_dict_that_python_2_wrote(write):
    """Its texts are bytes, and its tensors are made by an older function."""
    path = write('torch_older')
    expected, data = read_params(path)[1], path.read_bytes()
    path.write_bytes(as_python_2(data).replace(b'_rebuild_tensor_v2', b'_rebuild_tensor'))
    found = read_params(path)[1]
    assert all(np.array_equal(expected[key], found[key]) for key in expected)


def as_python_2(data: bytes) -> bytes:
    """The pickles at the beginning of `data`, five of them, with texts as Python 2 writes them."""
    found, place = [], 0
    for _ in range(5):
        steps = [(step.name, value, at) for step, value, at in pickletools.genops(data[place:])]
        ends = [at for _, _, at in steps[1:]] + [steps[-1][2] + 1]
        for (name, value, at), end in zip(steps, ends, strict=True):
            if name == 'BINUNICODE':
                found.append(b'U' + bytes([len(value)]) + value.encode())
            else:
                found.append(data[place + at : place + end])
        place += ends[-1]
    return b''.join(found) + data[place:]


def test_parts_of_a_shared_storage(write, tmp_path):
    state = torch.load(write('torch_older'), weights_only=True)
    expected = vgg_torch.read(tmp_path / 'network')[0]
    whole = torch.cat([state['features.0.bias'], state['features.2.bias']])
    state |= {'features.0.bias': whole[:2], 'features.2.bias': whole[2:]}
    torch.save(state, tmp_path / 'shared')
    found = vgg_torch.read(tmp_path / 'shared')[0]
    assert all(np.array_equal(expected[key], found[key]) for key in expected)


def test_keras_has_put_its_arrays_in_groups_of_groups(write, tmp_path):
    expected = read_params(write('keras'))[1]
    with h5py.File(tmp_path / 'network', 'r+') as root:
        for layer in list(root):
            kernel, bias = (root[layer][f'{layer}_{kind}_1:0'][()] for kind in ('W', 'b'))
            del root[layer]
            root[f'{layer}/{layer}/kernel:0'], root[f'{layer}/{layer}/bias:0'] = kernel, bias
    found = read_params(tmp_path / 'network')[1]
    assert all(np.array_equal(expected[key], found[key]) for key in expected)


# --- conversion ----------------------------------------------------------------------------------

PUBLISHED = {
    'lasagne': 'vgg19.pkl',
    'caffe': 'VGG_ILSVRC_19_layers.caffemodel',
    'keras': 'vgg19_weights_tf_dim_ordering_tf_kernels.h5',
    'torch_older': 'vgg19-d01eb7cb.pth',
    'torchvision': 'vgg19-dcbb9e9d.pth',
}


@pytest.mark.parametrize('form', PUBLISHED)
def test_each_form_becomes_our_file(write, tmp_path, form):
    architecture, params = read_params(write(form, name=PUBLISHED[form]))
    assert list(convert.convert(tmp_path, tmp_path / 'ours', 'ours')) == ['convnet.safetensors']
    ours = tmp_path / 'ours' / 'convnet.safetensors'
    found, converted = read_params(ours)
    assert found == architecture
    assert all(np.array_equal(params[name], converted[name]) for name in architecture.shapes())
    (line,) = convert.convert(tmp_path / 'ours', tmp_path / 'theirs', '2015')
    if form == 'torchvision':
        assert line.startswith('left out: convnet.safetensors') and 'mean' in line
    else:
        assert line == 'vgg19.pkl'


def test_only_another_mean_stands_in_the_table():
    assert 'mean' not in VGG19.options()
    other = Architecture(blocks=((2,),), fc=(3, 3), input_size=32, mean=(1, 2, 3))
    assert Architecture(**other.options()) == other
    for mean in ((1, 2), (1, 2, float('nan')), (0, 0, 256), ('1', '2', '3')):
        with pytest.raises(ValueError, match='mean'):
            Architecture(blocks=((2,),), fc=(3, 3), input_size=32, mean=mean)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', 'XML'),
        (b'<Error/>', 'XML'),
        (b'<!DOCTYPE html><p>', 'a web page'),
        (b'{"message": "Not Found"}', 'byte 123'),
        (b'\x80\x02}q\x00(X\x0c\x00\x00\x00param valuesq', 'ends too soon'),
        (b'\x80\x02}q\x00(X\x0c\x00', 'ends too soon'),
        (b'\x80\x02}q\x00(', 'ends too soon'),
        (b'\x80\x02.', r'\w{5}'),
        (b'\x00', 'byte 0'),
    ],
)
def test_what_came_in_place_of_the_file_is_said(tmp_path, content, words):
    path = tmp_path / 'vgg19.pkl'
    path.write_bytes(content)
    with pytest.raises(formats.ModelFileError, match=rf'vgg19\.pkl: .*{words}') as refused:
        vgg_files.read(path)
    assert '\n' not in str(refused.value)


def test_a_file_that_is_cut_anywhere_says_something(tmp_path):
    whole = pickle.dumps({'param values': [np.zeros(3, np.float32)] * 40}, protocol=2)
    path = tmp_path / 'vgg19.pkl'
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(formats.ModelFileError) as refused:
            vgg_files.read(path)
        said = str(refused.value).partition('pickle: ')[2]
        assert len(said.split()) > 2, (length, str(refused.value))


def test_no_reason_is_empty_or_a_bare_key():
    found = [why(error) for error in (EOFError(), KeyError(60), KeyError('a'), ValueError())]
    assert found == ['it ends too soon', 'KeyError 60', "KeyError 'a'", 'ValueError']
    assert why(ValueError('two\n lines')) == 'two lines'
