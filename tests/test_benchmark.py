"""The benchmark measures the same work twice: what it compares with gives the same results.

No time is looked at.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from storyteller import (
    captions,
    config,
    convnet,
    decoder,
    embedding,
    formats,
    generate,
    images,
    layers,
    skipthoughts,
)
from storyteller.cli import arguments
from storyteller.options import Telling

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / 'scripts'


pytestmark = pytest.mark.usefixtures('scripts')


@pytest.fixture(scope='module')
def models(scripts):
    return importlib.import_module('benchmark_models')


@pytest.fixture(scope='module')
def plain_work(scripts):
    return importlib.import_module('benchmark_plain')


@pytest.fixture(scope='module')
def machine(scripts):
    return importlib.import_module('benchmark_machine')


@pytest.fixture(scope='module')
def folder(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    models.make_models(folder, models.TINY, seed=1)
    return folder


@pytest.fixture(scope='module')
def paths(folder):
    return config.folder_paths(folder)


@pytest.fixture
def z(paths, tmp_path, monkeypatch):
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path))
    return generate.load_all(paths)


@pytest.fixture(scope='module')
def plain(plain_work, paths):
    return plain_work.Plain.load(paths)


@pytest.fixture(scope='module')
def photos(models, folder):
    return models.sample_photos(folder / 'photos', 8)


def hashes(folder):
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- the models ----------------------------------------------------------------------------------


def test_the_models_are_loaded_and_tell_stories(models, z, photos):
    sizes = models.TINY
    assert len(z['cap']) == sizes.captions and z['cvec'].shape == (sizes.captions, sizes.joint)
    assert len(z['stv']['utable']) == sizes.table and z['net']['dim'] == sizes.convnet.dim
    assert all(8 <= len(caption.split()) <= 14 for caption in z['cap'])
    told = generate.stories(z, photos, k=5, bw=4, maxlen=100)
    assert all(2 < len(story.passage.split()) < 100 for story in told)
    assert len({caption for story in told for caption, _ in story.captions}) > 20  # of 40


def test_words_of_captions_are_known_everywhere(z):
    used = {word for caption in z['cap'] for word in caption.split()}
    assert used <= set(z['stv']['utable'])
    assert all(z['vse']['worddict'][word] < z['vse']['options']['n_words'] for word in used)


def test_the_same_seed_gives_the_same_files(models, folder, tmp_path):
    models.make_models(tmp_path, models.TINY, seed=1)
    assert hashes(tmp_path) == hashes(folder)


def test_files_that_are_there_are_kept(models, tmp_path):
    models.make_models(tmp_path, models.TINY)
    before = hashes(tmp_path)
    (tmp_path / 'utable.npy').write_bytes(b'kept')
    (tmp_path / 'romance.npz.pkl').unlink()
    (tmp_path / 'romance_style.npy').unlink()
    models.make_models(tmp_path, models.TINY)
    assert (tmp_path / 'utable.npy').read_bytes() == b'kept'
    assert {**hashes(tmp_path), 'utable.npy': before['utable.npy']} == before


def test_models_of_other_sizes_are_not_mixed(models, folder):
    for sizes, seed in ((models.TINY, 2), (dataclasses.replace(models.TINY, units=17), 1)):
        with pytest.raises(ValueError, match='other sizes or of another seed'):
            models.make_models(folder, sizes, seed)


def test_words_differ(models):
    assert len(set(models.vocabulary(30_000))) == 30_000


def test_photos_differ(models, tmp_path):
    paths = models.sample_photos(tmp_path, 16)
    seen = {images.load_image(path)[0].tobytes() for path in paths}
    assert len(seen) == 16 and models.sample_photos(tmp_path, 16) == paths
    with pytest.raises(ValueError, match='at most 36'):
        models.sample_photos(tmp_path, 37)


# --- the plain work is the same work -------------------------------------------------------------


def test_the_network(plain, z, photos):
    inputs = np.concatenate([images.load_image(photo)[1] for photo in photos])
    ours = convnet.compute_features(z['net'], inputs)
    np.testing.assert_allclose(plain.features(inputs), ours, atol=1e-5 * ours.max())


def test_thoughts(plain, z):
    texts = [*z['cap'][:50], 'word that nobody knows']
    ours = skipthoughts.encode(z['stv'], texts, verbose=False)
    np.testing.assert_allclose(plain.thoughts.encode(texts, batch_size=20), ours, atol=1e-5)


def test_the_joint_space(plain, z):
    texts = [*z['cap'][:50], 'word that nobody knows']
    ours = embedding.encode_sentences(z['vse'], texts)
    np.testing.assert_allclose(plain.joint.encode_sentences(texts, 20), ours, atol=1e-5)
    features = layers.unit_rows(np.random.default_rng(0).random((3, z['net']['dim']), np.float32))
    ours = embedding.encode_images(z['vse'], features)
    np.testing.assert_allclose(plain.joint.encode_images(features), ours, atol=1e-5)


def test_nearest_captions(plain_work, z):
    queries = np.asarray(z['cvec'][:3])
    ours, _ = captions.nearest(queries, z['cvec'], 5)
    assert plain_work.nearest(queries, z['cvec'], 5).tolist() == ours.tolist()


@pytest.mark.parametrize('k', [1, 3, 7])
def test_the_search_of_2015(plain, plain_work, z, k):
    rng = np.random.default_rng(k)
    for context in rng.normal(size=(10, z['dec']['options']['dimctx'])).astype(np.float32):
        start = plain.teller.start(context[None])
        words, scores = plain_work.search_2015(plain.teller.next, start, k, maxlen=40)
        ours = decoder.gen_sample(z['dec'], context, k, maxlen=40)
        assert words == ours[0]
        np.testing.assert_allclose(scores, ours[1], rtol=1e-5)
        assert plain.teller.text(words, scores) == decoder.run_sampler(
            z['dec'], context, k, maxlen=40
        )


@pytest.mark.parametrize('use_unk', [True, False])
def test_the_search_of_2015_with_all_words_in_the_beam(plain_work, use_unk):
    """More hypotheses than words, ends among the first, and words of probability zero."""
    table = np.array([[0.1, 0.2, 0.7], [0.5, 0.0, 0.5], [0.3, 0.3, 0.4], [0.2, 0.3, 0.5]], 'f4')

    def step(words, states):
        return table[words], states

    def logarithms(words, states):
        return torch.from_numpy(table[words.numpy()]).log(), states

    search = importlib.import_module('storyteller.search')
    found = plain_work.search_2015(step, np.zeros((1, 1)), 5, 6, use_unk=use_unk)
    (ours,) = search.beam_search(logarithms, torch.zeros(1, 1), 5, 6, use_unk=use_unk)
    assert found[0] == [hypothesis.words for hypothesis in ours]
    np.testing.assert_allclose(found[1], [hypothesis.score for hypothesis in ours], rtol=1e-5)


def test_a_story(plain, z, photos):
    for photo in photos:
        (story,) = generate.stories(z, [photo], k=5, bw=4, maxlen=50)
        assert plain.story(photo, z['cap'], z['cvec'], 5, 4, 50) == story.passage


def test_the_default_bundle_is_read_alike(plain_work, photos, tmp_path, monkeypatch):
    """Another convnet, two image layers, and a hidden layer before the words."""
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path))
    paths = config.folder_paths(ROOT / 'models')
    few = captions.load_captions(paths['captions'])[::200]
    formats.write_text(tmp_path / 'captions.txt', '\n'.join(few))
    paths['captions'] = str(tmp_path / 'captions.txt')
    plain = plain_work.Plain.load(paths)
    z = generate.load_all(paths)
    asked = {'k': 3, 'bw': 3, 'maxlen': 20, 'telling': Telling.of_2015()}
    (story,) = generate.stories(z, photos[:1], **asked)
    assert plain.story(photos[0], z['cap'], z['cvec'], 3, 3, 20) == story.passage


# --- counting and measuring ----------------------------------------------------------------------


def test_products_of_vgg19_are_those_of_the_papers(machine):
    products = machine.convnet_products(convnet.VGG19.options(), 1)
    assert sum(product.flops for product in products) == pytest.approx(39.3e9, rel=0.01)


def test_products_of_a_step(machine):
    options = {'dim_word': 620, 'dim': 1600, 'n_words': 40_000, 'doutput': False}
    flops = 2 * (3 * (620 + 1600) * 1600 + 1600 * 40_000)
    for rows in ([50], [50, 49, 30]):
        products = machine.step_products(options, rows)
        assert sum(product.flops for product in products) == pytest.approx(sum(rows) * flops)


def test_products_of_a_gru(machine):
    """3 H (W + H) for each word, however they are batched."""
    products = machine.gru_products(words=1100, batch=100, width=620, hidden=2400)
    assert sum(p.flops for p in products) == pytest.approx(2 * 1100 * 3 * 2400 * (620 + 2400))


def test_peak_memory(machine):
    with machine.peak_memory() as peak:
        np.ones(10_000_000).sum()
    if peak:  # where the system tells
        assert 70e6 < peak[0] < 200e6


@pytest.mark.slow
def test_the_benchmark_runs_to_its_end(tmp_path):
    """On tiny models, which stand for the bundle as well."""
    command = [sys.executable, str(SCRIPTS / 'benchmark.py'), '--folder', str(tmp_path)]
    options = '--sizes', 'tiny', '--compare', '--threads', '1', '--json', str(tmp_path / 'a.json')
    done = subprocess.run(
        [*command, *options],
        capture_output=True,
        encoding='utf-8',
        timeout=300,
        env=os.environ | {'STORYTELLER_MODELS': str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'a.json').read_text(encoding='utf-8'))
    rows = importlib.import_module('benchmark').ROWS
    assert list(found['stages']) == list(rows)
    assert {'date', 'machine', 'sizes', 'scale'} < set(found)
    assert {'processor', 'threads', 'torch', 'sgemm_torch'} < set(found['machine'])
    assert found['stages']['bundle_search']['same_text'] is True
    assert all(stage['seconds'] > 0 for stage in found['stages'].values())
    compared = {name for name, stage in found['stages'].items() if 'plain_seconds' in stage}
    assert {'vgg_1', 'encode_100', 'embed_pool', 'nearest_1', 'step', 'search'} < compared
    lines = done.stdout.splitlines()
    table = [line for line in lines if ' | ' in line]
    assert len(table) == 1 + len(rows)
    assert {line.count(' | ') for line in table} == {table[0].count(' | ')}


def test_a_process_is_busy_for_as_long_as_it_should_be(scripts, monkeypatch):
    for name in arguments.WAITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('GOMP_SPINCOUNT', '5')
    module, seen = importlib.import_module('benchmark_busy'), []

    def noting(words):
        seen.append((words, *map(os.environ.get, arguments.WAITING)))
        return 0.1, 0.2

    monkeypatch.setattr(module.machine, 'command_line', noting)
    stages = importlib.import_module('benchmark_stages')
    scale = stages.Scale(k=5, bw=4, maxlen=30, part=1, stories=1, square=1, numbers=1)
    bench = stages.Bench({}, ['a.jpg'], scale)
    vars(bench)['first_load'] = 0.0
    stage = module.commanding(bench)
    assert stage.run().seconds == stage.plain().seconds == 0.2
    assert seen[0][0][0] == 'a.jpg' and seen[0][1:] == (
        None,
        None,
        None,
    )  # the command's own choice
    assert seen[1][1:] == (None, '300000', None)
    assert os.environ['GOMP_SPINCOUNT'] == '5'
    with module.busy() as process:
        assert process.poll() is None
    assert process.poll() is not None


def test_a_wrong_folder_is_said_in_a_line(tmp_path, models):
    formats.write_text(tmp_path / models.CARD, '{}')
    command = [sys.executable, str(SCRIPTS / 'benchmark.py'), '--folder', str(tmp_path)]
    done = subprocess.run(
        [*command, '--sizes', 'tiny'], capture_output=True, encoding='utf-8', timeout=300
    )
    assert done.returncode == 2 and 'another seed' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.slow
def test_precisions_are_compared(folder, tmp_path):
    command = [sys.executable, str(SCRIPTS / 'compare_precisions.py'), '--models', str(folder)]
    done = subprocess.run(
        [*command, '--count', '6', '-k', '3', '--bw', '2'],
        capture_output=True,
        encoding='utf-8',
        timeout=300,
        env=os.environ | {'STORYTELLER_CACHE': str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    first, _, *table = done.stdout.splitlines()
    assert first.startswith('bfloat16: thought vectors of 6 captions, cosine to float32: ')
    rows = [line.split(' | ') for line in table[2:]]
    assert [row[:2] for row in rows] == [['bfloat16', '6']]
    assert all(0 <= float(row[2].removesuffix(' %')) <= 100 for row in rows)
