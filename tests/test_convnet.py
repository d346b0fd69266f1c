"""VGG networks of any width, against a slow convolution and the numbers of the 2015 code."""

from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
import pytest
import torch
from conftest import REFERENCE

from storyteller import formats
from storyteller.convnet import VGG19, Architecture, build_convnet, compute_features

NARROW = Architecture(blocks=((4,), (6, 5)), fc=(9, 7), input_size=56)


def random_params(architecture: Architecture, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.normal(0, 0.1, shape)
            if len(shape) == 1
            else rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
            if len(shape) == 4
            else rng.normal(0, np.sqrt(2 / shape[0]), shape)
        ).astype(np.float32)
        for name, shape in architecture.shapes().items()
    }


def slow_features(architecture: Architecture, params: dict, im: np.ndarray) -> np.ndarray:
    """fc7 in float64, one kernel position at a time."""
    x, side = im.astype(np.float64), architecture.input_size
    step = 224 // side
    x = x.reshape(len(x), 3, side, step, side, step).mean((3, 5))
    for i, block in enumerate(architecture.blocks, 1):
        for j in range(1, len(block) + 1):
            W, b = params[f'conv{i}_{j}_W'], params[f'conv{i}_{j}_b']
            padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
            height, width = x.shape[2:]
            x = sum(
                np.einsum(
                    'ncyx,oc->noyx', padded[:, :, r : r + height, c : c + width], W[:, :, r, c]
                )
                for r in range(3)
                for c in range(3)
            )
            x = np.maximum(x + b[None, :, None, None], 0)
        n, channels, height, width = x.shape
        x = x[:, :, : height // 2 * 2, : width // 2 * 2]
        x = x.reshape(n, channels, height // 2, 2, width // 2, 2).max((3, 5))
    x = x.reshape(len(x), -1)
    for name in ('fc6', 'fc7'):
        x = np.maximum(x @ params[f'{name}_W'] + params[f'{name}_b'], 0)
    return x


def photos(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 60, (n, 3, 224, 224)).astype(np.float32)


def save(path, architecture: Architecture, params=None, dtype='float32', **changes):
    params = random_params(architecture) if params is None else params
    formats.write_model(path, params, architecture.options() | changes, dtype=dtype)
    return path


def python2_pickle(arrays: list[np.ndarray]) -> bytes:
    """A pickle of {'param values': arrays} as Python 2 and NumPy 1 write it (protocol 2)."""

    def short(text: bytes) -> bytes:
        return b'U' + bytes([len(text)]) + text

    def array(a: np.ndarray) -> bytes:
        shape = b'(' + b''.join(b'J' + struct.pack('<i', n) for n in a.shape) + b't'
        return b''.join(
            [
                b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85',
                short(b'b') + b'\x87R(K\x01' + shape,
                b'cnumpy\ndtype\n' + short(b'f4') + b'K\x00K\x01\x87R(K\x03' + short(b'<'),
                b'NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T',
                struct.pack('<i', a.nbytes) + a.astype('<f4').tobytes() + b'tb',
            ]
        )

    body = b']' + b'(' + b''.join(map(array, arrays)) + b'e'
    return b'\x80\x02}' + short(b'param values') + body + b's.'


def narrow_vgg19() -> Architecture:
    blocks = tuple(tuple(width // 32 for width in block) for block in VGG19.blocks)
    return Architecture(blocks, fc=(12, 10), input_size=64)


def lasagne(tmp_path, architecture: Architecture, params: dict):
    values = [*params.values(), np.zeros((architecture.dim, 5), 'f4'), np.zeros(5, 'f4')]
    path = tmp_path / 'vgg19.pkl'
    path.write_bytes(python2_pickle(values))
    return path


# --- the network ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'architecture',
    [
        NARROW,
        Architecture(blocks=((3, 4),), fc=(5, 6), input_size=224),
        Architecture(blocks=((4,), (4,), (4,), (4,), (6,)), fc=(8, 8), input_size=112),
    ],
)
def test_equals_a_slow_network(tmp_path, architecture):
    params, im = random_params(architecture), photos(2)
    net = build_convnet(save(tmp_path / 'net.safetensors', architecture), device='cpu')
    features = compute_features(net, im)
    expected = slow_features(architecture, params, im)
    assert features.dtype == np.float32
    assert (expected > 0).any() and (expected == 0).any()
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


def test_a_lasagne_pickle_of_any_width(tmp_path):
    architecture, im = narrow_vgg19(), photos(1)
    params = random_params(architecture)
    net = build_convnet(lasagne(tmp_path, architecture, params), device='cpu')
    assert (net['input_size'], net['dim'], net['side']) == (64, 10, None)
    ours = build_convnet(save(tmp_path / 'n.safetensors', architecture, params), device='cpu')
    np.testing.assert_array_equal(compute_features(net, im), compute_features(ours, im))


def test_table_of_vgg19():
    shapes = VGG19.shapes()
    assert len(shapes) == 36  # and fc8's two make the 38 arrays of the file
    assert list(shapes)[:4] == ['conv1_1_W', 'conv1_1_b', 'conv1_2_W', 'conv1_2_b']
    assert shapes['fc6_W'] == (25088, 4096)
    recorded = json.loads((REFERENCE / 'vgg' / 'params_sha256.json').read_text())
    assert [tuple(entry['shape']) for entry in recorded[:36]] == list(shapes.values())


def test_half_precision_file_computes_in_single(tmp_path):
    path = save(tmp_path / 'net.safetensors', NARROW, dtype='float16')
    full = build_convnet(save(tmp_path / 'full.safetensors', NARROW), device='cpu')
    features = compute_features(build_convnet(path, device='cpu'), photos(2))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, compute_features(full, photos(2)), rtol=0.02, atol=0.2)


def test_batches_do_not_matter(tmp_path):
    net = build_convnet(save(tmp_path / 'net.safetensors', NARROW), device='cpu')
    im = photos(5)
    one_by_one = np.concatenate([compute_features(net, im[i : i + 1]) for i in range(5)])
    for size in (1, 2, 5, 99):
        features = compute_features(net, im, batch_size=size)
        np.testing.assert_allclose(features, one_by_one, rtol=1e-5, atol=1e-4)


def test_no_photos_give_no_features(tmp_path):
    net = build_convnet(save(tmp_path / 'net.safetensors', NARROW), device='cpu')
    assert compute_features(net, photos(0)).shape == (0, 7)


def test_input_is_not_changed(tmp_path):
    net = build_convnet(save(tmp_path / 'net.safetensors', NARROW), device='cpu')
    im = photos(1)
    before = im.copy()
    compute_features(net, im)
    np.testing.assert_array_equal(im, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_gpu_gives_the_same(tmp_path):
    path = save(tmp_path / 'net.safetensors', NARROW)
    ours = compute_features(build_convnet(path), photos(3))
    cpu = compute_features(build_convnet(path, device='cpu'), photos(3))
    np.testing.assert_allclose(ours, cpu, rtol=1e-4, atol=1e-3)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'im',
    [
        np.zeros((3, 224, 224), 'f4'),
        np.zeros((1, 224, 224, 3), 'f4'),
        np.zeros((1, 3, 56, 56), 'f4'),
        np.zeros((1, 1, 224, 224), 'f4'),
        np.zeros((1, 3, 260, 260), 'f4'),
    ],
)
def test_wrong_shape(tmp_path, im):
    net = build_convnet(save(tmp_path / 'net.safetensors', NARROW), device='cpu')
    with pytest.raises(ValueError, match=r'\(N, 3, 224, 224\).*got \('):
        compute_features(net, im)


def test_bytes_and_infinities_are_refused(tmp_path):
    net = build_convnet(save(tmp_path / 'net.safetensors', NARROW), device='cpu')
    with pytest.raises(ValueError, match='floating point'):
        compute_features(net, np.zeros((1, 3, 224, 224), np.uint8))
    im = photos(1)
    im[0, 1, 2, 3] = np.nan
    with pytest.raises(ValueError, match='not finite'):
        compute_features(net, im)
    with pytest.raises(ValueError, match='batch_size'):
        compute_features(net, photos(1), batch_size=0)


def test_missing_file(tmp_path):
    for name in ('vgg19.pkl', 'net.safetensors'):
        with pytest.raises(formats.MissingFileError, match=name):
            build_convnet(tmp_path / name)


def broken(params, name, value):
    params = dict(params)
    if value is None:
        del params[name]
    else:
        params[name] = value
    return params


@pytest.mark.parametrize(
    'name, value',
    [
        ('conv2_1_W', None),
        ('conv2_1_W', np.zeros((6, 4, 5, 5), 'f4')),
        ('fc6_W', np.zeros((981, 9), 'f4')),
        ('fc7_b', np.full(7, np.nan, 'f4')),
        ('conv1_1_W', np.full((4, 3, 3, 3), np.inf, 'f4')),
    ],
)
def test_bad_parameter_is_named(tmp_path, name, value):
    path = save(tmp_path / 'n.safetensors', NARROW, broken(random_params(NARROW), name, value))
    with pytest.raises(formats.ModelFileError, match=f'n.safetensors.*{name}'):
        build_convnet(path)


@pytest.mark.parametrize(
    'changes',
    [
        {'blocks': []},
        {'blocks': 3},
        {'blocks': [[4], []]},
        {'blocks': [[4], ['6', 5]]},
        {'fc': [9]},
        {'fc': [9, -7]},
        {'fc': [10**9, 7]},
        {'input_size': 448},
        {'input_size': 1},
        {'input_size': 56.5},
        {'input_size': True},
    ],
)
def test_bad_table_of_widths(tmp_path, changes):
    path = save(tmp_path / 'n.safetensors', NARROW, **changes)
    with pytest.raises(formats.ModelFileError, match='table of widths'):
        build_convnet(path)


def test_a_model_of_another_kind(tmp_path):
    formats.write_model(tmp_path / 'n.safetensors', {'a': np.zeros(3)}, {'dim': 3})
    with pytest.raises(formats.ModelFileError, match='not a convolutional network'):
        build_convnet(tmp_path / 'n.safetensors')


@pytest.mark.parametrize('change', ['short', 'shape', 'scalar', 'nan'])
def test_bad_pickles(tmp_path, change):
    architecture = narrow_vgg19()
    params = random_params(architecture)
    match = 'conv1_2_W'
    if change == 'short':
        del params['fc7_b']
        match = '38 arrays, found 37'
    else:
        params['conv1_2_W'] = {
            'shape': np.zeros((2, 5, 3, 3), 'f4'),
            'scalar': np.zeros(3, 'f4'),
            'nan': np.full((2, 2, 3, 3), np.nan, 'f4'),
        }[change]
    with pytest.raises(formats.ModelFileError, match=match):
        build_convnet(lasagne(tmp_path, architecture, params))


def test_another_pickle(tmp_path):
    formats.write_pickle(tmp_path / 'vgg19.pkl', {'words': [1, 2]})
    with pytest.raises(formats.ModelFileError, match='param values'):
        build_convnet(tmp_path / 'vgg19.pkl')


# --- the full VGG-19, random weights -------------------------------------------------------------


def reference_params() -> list[np.ndarray]:
    """The 38 arrays of the reference, drawn anew and checked."""
    rs, values = np.random.RandomState(1234), []
    for name, shape in [*VGG19.shapes().items(), ('fc8_W', (4096, 1000)), ('fc8_b', (1000,))]:
        if name.endswith('_W'):
            fan_in = 9 * shape[1] if len(shape) == 4 else shape[0]
            values.append((rs.randn(*shape) * np.sqrt(2.0 / fan_in)).astype('float32'))
        else:
            values.append((rs.randn(*shape) * 0.01).astype('float32'))
    recorded = json.loads((REFERENCE / 'vgg' / 'params_sha256.json').read_text())
    for value, entry in zip(values, recorded, strict=True):
        assert hashlib.sha256(value.data).hexdigest() == entry['sha256'], entry['name']
    return values


@pytest.fixture(scope='module')
def vgg19(tmp_path_factory):
    values = reference_params()
    path = tmp_path_factory.mktemp('vgg') / 'vgg19.pkl'
    path.write_bytes(python2_pickle(values))
    net = build_convnet(path, device='cpu')
    path.unlink()
    return net, values[-2:]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['landscape', 'portrait', 'grey'])
def test_fc7_equals_that_of_2015(vgg19, name):
    with np.load(REFERENCE / 'vgg' / 'vgg.npz') as file:
        im, expected = file[f'input_{name}'], file[f'fc7_{name}']
    features = compute_features(vgg19[0], im)
    assert features.shape == (1, 4096)
    assert np.linalg.norm(features[0] - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.slow
def test_every_layer_equals_that_of_2015(vgg19):
    net, (W, b) = vgg19
    with np.load(REFERENCE / 'vgg' / 'vgg.npz') as file:
        im = file['input_landscape']
        centre = file['conv1_1_landscape_first4maps_center16']
    found = {}
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out, key=name: found.update({key: out.numpy()}))
        for name, layer in net['_module'].named_children()
        if name in ('relu1_1', 'pool1', 'relu2_2', 'pool3', 'pool5', 'relu6')
    ]
    features = compute_features(net, im)
    for hook in hooks:
        hook.remove()
    logits = features @ W + b
    found['prob'] = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(
        found['relu1_1'][0, :4, 104:120, 104:120].ravel(), centre.ravel(), rtol=1e-4, atol=1e-3
    )
    stats = json.loads((REFERENCE / 'vgg' / 'layer_stats.json').read_text())['landscape']
    renamed = {'conv1_1': 'relu1_1', 'conv2_2': 'relu2_2', 'fc6': 'relu6'}
    assert len(stats) == 7
    for name, entry in stats.items():
        value = found[renamed.get(name, name)]
        assert list(value.shape) == entry['shape'], name
        scale = entry['std'] + abs(entry['mean'])
        np.testing.assert_allclose(value.mean(dtype='f8'), entry['mean'], atol=1e-4 * scale)
        np.testing.assert_allclose(value.std(dtype='f8'), entry['std'], atol=1e-4 * scale)
        np.testing.assert_allclose(value.max(), entry['max'], rtol=1e-4)
        np.testing.assert_allclose(value.ravel()[:8], entry['first8'], atol=1e-3 * scale)
