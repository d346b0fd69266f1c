"""Which file is where, and the keys that the CPU mode of 2015 had."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from storyteller import config, generate, images, layers, style
from storyteller.batch import results
from storyteller.cli import arguments
from storyteller.io import files

CAFFE = 'VGG_ILSVRC_19_layers.caffemodel'
PUBLISHED = (
    CAFFE,
    'vgg19_weights_tf_dim_ordering_tf_kernels.h5',
    'vgg19-d01eb7cb.pth',
    'vgg19-dcbb9e9d.pth',
)


@pytest.fixture
def paths(monkeypatch):
    """`config` as it is at first, and again afterwards."""
    monkeypatch.setattr(config, 'FLAG_CPU_MODE', False)
    monkeypatch.setattr(config, 'paths', dict(config.paths))
    return config.paths


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_folder_may_hold_the_network_in_another_form(tmp_path, name):
    (tmp_path / name).touch()
    assert config.folder_paths(tmp_path)['vgg'] == str(tmp_path / name)
    (tmp_path / 'vgg19.pkl').touch()
    assert config.folder_paths(tmp_path)['vgg'].endswith('vgg19.pkl')


def test_the_only_model_of_caffe_may_have_any_name(tmp_path):
    (tmp_path / 'mine.caffemodel').touch()
    assert config.folder_paths(tmp_path)['vgg'] == str(tmp_path / 'mine.caffemodel')
    (tmp_path / 'another.caffemodel').touch()
    assert config.folder_paths(tmp_path)['vgg'] == str(tmp_path / 'convnet.json')
    (tmp_path / CAFFE).touch()
    assert config.folder_paths(tmp_path)['vgg'] == str(tmp_path / CAFFE)


def test_the_network_of_caffe_takes_the_place_of_the_bundle_s(paths):
    before = config.resolve(None)
    paths |= {'vgg_model_caffe': 'a.caffemodel', 'vgg_proto_caffe': 'a.prototxt', 'pycaffe': 'b'}
    assert config.resolve(None) == before | {'vgg': 'a.caffemodel'}
    assert config.resolve({'vgg': 'b.pkl'}) == before | {'vgg': 'b.pkl'}


@pytest.mark.parametrize(('flag', 'network'), [(False, 'a.pkl'), (True, 'a.caffemodel')])
def test_of_two_networks_the_mode_says_which(paths, monkeypatch, flag, network):
    monkeypatch.setattr(config, 'FLAG_CPU_MODE', flag)
    both = {'vgg': 'a.pkl', 'vgg_model_caffe': 'a.caffemodel'}
    assert config.resolve(both)['vgg'] == network
    paths |= both
    assert config.resolve(None)['vgg'] == network


def test_the_cpu_mode_alone_changes_no_file(paths, monkeypatch):
    before = config.resolve(None)
    monkeypatch.setattr(config, 'FLAG_CPU_MODE', True)
    assert config.resolve(None) == before


def test_models_may_be_named_after_the_import(paths, monkeypatch, tmp_path):
    monkeypatch.setenv('STORYTELLER_MODELS', str(tmp_path))
    paths['captions'] = 'mine.txt'
    now = config.folder_paths(tmp_path)
    assert config.resolve(None) == now | {'captions': 'mine.txt'}
    assert config.resolve({'vgg': 'b.pkl'}) == now | {'captions': 'mine.txt', 'vgg': 'b.pkl'}
    monkeypatch.delenv('STORYTELLER_MODELS')
    assert (
        config.resolve(None)['vsemodel'] == config.folder_paths(config.default_folder())['vsemodel']
    )


def test_the_home_folder_is_written_as_in_a_shell(paths, monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('USERPROFILE', str(tmp_path))
    (tmp_path / 'models').mkdir()
    here = config.folder_paths(tmp_path / 'models')
    assert config.resolve('~/models') == config.resolve(['~/models']) == here
    assert config.local('~/models') == tmp_path / 'models'
    assert config.resolve({'vgg': '~/a.pkl'})['vgg'] == str(tmp_path / 'a.pkl')
    paths['captions'] = '~/c.txt'
    assert config.resolve(None)['captions'] == str(tmp_path / 'c.txt')
    monkeypatch.setenv('STORYTELLER_MODELS', '~/models')
    assert config.resolve(None) == here | {'captions': str(tmp_path / 'c.txt')}
    monkeypatch.setenv('STORYTELLER_CACHE', '~/cache')
    assert files.cache_folder() == tmp_path / 'cache'
    Image.new('RGB', (8, 8), 'red').save(tmp_path / 'a.png')
    assert images.read_rgb('~/a.png').shape == (8, 8, 3)
    np.save(tmp_path / 'b.npy', np.ones(3, np.float32))
    assert style.choose({}, np.zeros(3), '~/b.npy').tolist() == [1, 1, 1]
    assert arguments.with_home(['--out=~/b', '~/c', '~']) == [
        f'--out={tmp_path}/b', f'{tmp_path}/c', str(tmp_path),
    ]  # fmt: skip
    assert results.find_photos(['-'], io.StringIO('~/a.png\n')).photos[0].path == tmp_path / 'a.png'


def test_a_file_that_is_called_like_a_home_folder_stays_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / '~').touch()
    assert files.at_home('~') == '~' and files.at_home('a~') == 'a~'


def test_other_keys_are_none():
    with pytest.raises(ValueError, match=r"'vgg_caffe' is none of .*vgg_model_caffe"):
        config.resolve({'vgg_caffe': 'a'})


def test_the_cpu_mode_is_what_the_device_says_otherwise(paths, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert layers.pick_device(None).type == 'cuda'
    monkeypatch.setattr(config, 'FLAG_CPU_MODE', True)
    assert layers.pick_device(None).type == 'cpu'
    assert layers.pick_device('meta').type == 'meta'


def test_a_cell_of_2015_runs_in_cpu_mode(paths, tmp_path, capsys):
    (tmp_path / 'captions.txt').write_text('A dog runs .\nA cat sleeps on a bed .\n')
    config.paths['captions'] = str(tmp_path / 'captions.txt')
    config.FLAG_CPU_MODE = True
    z = generate.load_all()
    assert z['net']['_device'].type == 'cpu'
    photo = np.tile(np.arange(240, dtype=np.uint8)[:, None, None], (1, 240, 3))
    generate.story(z, photo, 2, 2, False, maxlen=5)
    assert capsys.readouterr().out.startswith('NEAREST-CAPTIONS:')
