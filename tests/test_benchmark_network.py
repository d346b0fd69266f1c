"""The benchmark's rows of the bundle's network, whichever kind it is; no time is looked at."""

from __future__ import annotations

import argparse
import importlib
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from storyteller import config, convnet, formats, generate, images
from storyteller.nn import efficientnet

pytestmark = pytest.mark.usefixtures('scripts')


@pytest.fixture(scope='module')
def benchmark(scripts):
    return importlib.import_module('benchmark')


@pytest.fixture(scope='module')
def networks(scripts):
    return importlib.import_module('benchmark_network')


@pytest.fixture(scope='module')
def lite2(tmp_path_factory):
    """Settings that are not the defaults, so that they are seen to be read."""
    path = tmp_path_factory.mktemp('bundle') / 'convnet.json'
    efficientnet.write_eyes(path, efficientnet.Eyes(temperature=1.5, class_weight=0.7))
    return path


@pytest.fixture(scope='module')
def vgg(scripts, tmp_path_factory):
    models = importlib.import_module('benchmark_models')
    path = tmp_path_factory.mktemp('models') / 'vgg19.pkl'
    models.write_vgg(path, models.TINY, np.random.default_rng(0))
    return path


@pytest.fixture(params=['lite2', 'vgg'])
def bench(request, benchmark, tmp_path):
    """A bundle of which only the network is there."""
    path = request.getfixturevalue(request.param)
    photos = importlib.import_module('benchmark_models').sample_photos(tmp_path, 2)
    return benchmark.Bench(config.folder_paths(path.parent), photos, benchmark.SCALES['tiny'])


def test_photos_are_read_as_the_network_wants_them(bench, networks):
    net = convnet.build_convnet(bench.paths['vgg'])
    expected = [images.load_image(photo, side=net['side'])[1] for photo in bench.photos]
    np.testing.assert_array_equal(bench.inputs(2), np.concatenate(expected))
    assert networks.preprocessing(bench).run().seconds > 0


def test_the_plain_network_is_the_same_network(bench, networks):
    net, photos = convnet.build_convnet(bench.paths['vgg'], device='cpu'), bench.inputs(2)
    with torch.no_grad():
        plain = networks.load_network(bench.paths['vgg'])(torch.from_numpy(photos)).numpy()
    ours = convnet.compute_features(net, photos)
    np.testing.assert_allclose(plain, ours, atol=1e-5 * ours.max())


def test_products_are_those_of_the_layers(bench, networks):
    """All but the convolutions of single channels, counted where the plain network computes."""
    flops = []

    def count(layer, _, output):
        pixels = output[0, 0].numel() if output.ndim == 4 else 1
        if getattr(layer, 'groups', 1) == 1:
            flops.append(2 * pixels * layer.weight.numel())

    network, net = (
        load(bench.paths['vgg']) for load in (networks.load_network, convnet.build_convnet)
    )
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.from_numpy(bench.inputs(1)))
    products = networks.machine.convnet_products(net['options'], 3)
    assert sum(product.flops for product in products) == 3 * sum(flops)


def test_stories_of_a_bundle_that_sees_through_lite2(benchmark, lite2, tmp_path, monkeypatch):
    """Random models, but for the network, and an image layer of the width of its features."""
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    models = importlib.import_module('benchmark_models')
    models.make_models(tmp_path, models.TINY)
    shutil.copy(lite2, tmp_path)
    file, width = tmp_path / 'coco_embedding.npz', efficientnet.POOLED + efficientnet.CLASSES
    params, options = formats.read_model(file)
    layer = models.affine(np.random.default_rng(0), 'ff_image', width, models.TINY.joint)
    formats.write_model(file, params | layer, options | {'dim_image': width})
    paths, photos = config.folder_paths(tmp_path), models.sample_photos(tmp_path / 'photos', 2)
    bench = benchmark.Bench(paths, photos, benchmark.SCALES['tiny'])
    assert benchmark.stages.telling(bench).run().products
    for photo in photos:
        (story,) = generate.stories(bench.z, [photo], k=5, bw=4, maxlen=20)
        plain = bench.plain.story(photo, bench.z['cap'], bench.z['cvec'], 5, 4, 20)
        assert plain == story.passage


def test_the_runtime_computes_the_same(bench, networks):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    stage = networks.bundled(2)(bench)
    run = stage.plain()
    assert run.seconds > 0 and run.facts['difference'] < 1e-4
    assert networks.RUNTIME in run.note and not stage.note


def test_a_difference_is_noted(networks, vgg):
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    net, plain = convnet.build_convnet(vgg, device='cpu'), networks.load_network(vgg)
    photos = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        plain[-2].weight.mul_(2)  # the last affine layer, whose bias is 0
    run = networks.beside(net, plain, photos)()
    assert run.facts['difference'] == pytest.approx(1, rel=1e-4)


def test_a_row_says_what_is_not_installed(benchmark, networks, vgg, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, 'NEEDED', ('a_package_that_nobody_has',))
    photos = importlib.import_module('benchmark_models').sample_photos(tmp_path, 2)
    paths, tiny = config.folder_paths(vgg.parent), benchmark.SCALES['tiny']
    row = benchmark.Row('network', networks.bundled(2), always_plain=True)
    args = argparse.Namespace(seconds=0, compare=True)
    monkeypatch.setattr(benchmark, 'measure_limits', lambda *_: None)
    figures = benchmark.measure(row, benchmark.Bench(paths, photos, tiny), args)
    assert 'plain_seconds' not in figures
    assert figures['seconds_each'] == figures['seconds'] / 2
    assert 's each' in figures['notes'] and 'ONNX Runtime: not installed' in figures['notes']


def test_memory_is_that_of_a_process_of_its_own(bench, networks):
    run = networks.memory(1)(bench).run()
    weights = 6e6 * 4 / 1e6 if bench.side else 0  # MB
    assert weights <= run.facts.get('peak_mb', weights) < 500
