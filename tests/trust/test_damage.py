"""Damaged files and kills: what is read is sound or refused, what is written is whole."""

from __future__ import annotations

import importlib
import json
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storyteller import formats, generate
from storyteller.batch import results
from storyteller.formats import ImageError
from storyteller.images import load_image

ROOT = Path(__file__).parents[2]


def script(name):
    """A script as a module; it may import others."""
    sys.path.insert(0, str(ROOT / 'scripts'))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / 'scripts'))


fuzz = script('fuzz')


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Plain tables of what is read here are nothing to keep."""
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))


@pytest.mark.filterwarnings('ignore')  # of decoders and of headers that look like Python
@pytest.mark.parametrize('target', fuzz.TARGETS)
def test_changed_input_is_read_or_refused(tmp_path, target):
    chance, run = random.Random(0), fuzz.TARGETS[target]
    for seed in fuzz.seeds(target):
        run(seed, tmp_path)
        for _ in range(60):
            run(fuzz.changed(seed, chance), tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('target', fuzz.TARGETS)
def test_every_part_and_two_thousand_flips(tmp_path, target):
    chance, run = random.Random(1), fuzz.TARGETS[target]
    for seed in fuzz.seeds(target):
        for length in range(0, len(seed), 1 + len(seed) // 3000):
            run(seed[:length], tmp_path)
        for _ in range(2000):
            flipped = bytearray(seed)
            flipped[chance.randrange(len(seed))] ^= 1 << chance.randrange(8)
            run(bytes(flipped), tmp_path)


REFERENCE = [
    path
    for folder in ('reference', 'forms')
    for path in sorted((ROOT / 'tests' / folder).rglob('*'))
    if path.suffix in ('.npz', '.pkl', '.npy') and path.stat().st_size < 2_000_000
]


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('path', REFERENCE, ids=lambda path: path.name)
def test_files_of_2015_cut_and_flipped(tmp_path, path):
    whole, chance = path.read_bytes(), random.Random(2)
    target = fuzz.pickles if path.suffix == '.pkl' else fuzz.models
    cuts = [whole[: chance.randrange(len(whole))] for _ in range(100)]
    flips = []
    for _ in range(200):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        flips.append(bytes(flipped))
    for data in [*cuts, *flips]:
        target(data, tmp_path)


@pytest.mark.slow
def test_a_short_run_of_each_guided_target(tmp_path):
    pytest.importorskip('atheris')
    command = [sys.executable, str(ROOT / 'scripts' / 'fuzz.py'), '--seconds', '5']
    done = subprocess.run([*command, '--out', str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.count('no finding') == len(fuzz.TARGETS)


# --- a folder of odd photos ----------------------------------------------------------------------


def odd_photos(folder: Path) -> list[Path]:
    """Forty files that are called photos."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (300, 400, 3), np.uint8))
    for mode in ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'I', 'F', 'YCbCr', 'LAB'):
        suffix = 'tif' if mode not in ('PA',) else 'png'
        try:
            picture.convert('P' if mode == 'PA' else mode).save(folder / f'mode_{mode}.{suffix}')
        except (OSError, ValueError):  # not every pair of modes and formats is there
            picture.save(folder / f'mode_{mode}.png')
    for kind in ('gif', 'webp', 'bmp', 'ppm', 'tga', 'jpg', 'png', 'ico'):
        picture.resize((200, 150)).save(folder / f'kind.{kind}')
    whole = (folder / 'kind.jpg').read_bytes()
    for part in (1, 3, 5, 7, 9):
        (folder / f'cut{part}.jpg').write_bytes(whole[: len(whole) * part // 10])
    contents = {
        'empty': b'', 'zeros': bytes(1000), 'text': b'A photo of a dog.\n' * 50,
        'page': b'<!DOCTYPE html><html></html>', 'pointer': b'version https://git-lfs.github.com/spec/v1\n',
        'script': b'#!/bin/sh\necho run > marker\n', 'noise': rng.bytes(5000),
        'postscript': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n',
        'svg': b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"/>',
    }  # fmt: skip
    for name, content in contents.items():
        (folder / f'{name}.jpg').write_bytes(content)
    Image.new('1', (1, 50_000)).save(folder / 'sliver.png')
    Image.new('1', (50_000, 1)).save(folder / 'flat.png')
    Image.new('1', (30_000, 30_000)).save(folder / 'bomb.png')
    Image.new('L', (9_000, 9_000)).save(folder / 'large.png')
    Image.new('RGB', (1, 1)).save(folder / 'dot.png')
    frames = [Image.new('RGB', (90, 90), (i, 0, 0)) for i in range(40)]
    frames[0].save(folder / 'frames.gif', save_all=True, append_images=frames[1:])
    (folder / 'folder.jpg').mkdir()
    return sorted(folder.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_forty_odd_photos(tmp_path):
    paths, refused = odd_photos(tmp_path), []
    assert len(paths) >= 40
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in paths:
        try:
            rawim, im = load_image(path)
        except ImageError as error:
            assert error.path == str(path) and '\n' not in error.reason
            refused.append(path.stem)
        else:
            assert rawim.shape == (224, 224, 3) and np.isfinite(im).all()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) / 1024 < 400
    assert {'empty', 'page', 'bomb', 'sliver', 'folder', 'cut5', 'svg'} <= set(refused)
    assert not {'large', 'dot', 'frames', 'kind', 'mode_CMYK'} & set(refused)


# --- kills ---------------------------------------------------------------------------------------

WRITERS = {
    'checkpoint': """
import torch
from storyteller.training.loop import train
from storyteller.training.options import TrainOptions
model = torch.nn.Linear(200, 200)
x = torch.randn(8, 200)
options = TrainOptions(epochs=10**6, save_minutes=1e-9)
print('go', flush=True)
train(model, lambda epoch: [x], lambda b: (model(b).square().sum(), 8), options, folder + '/m.pt')
""",
    'cache': """
import numpy as np
from storyteller import captions, embedding
from storyteller.formats import atomic_path
print('go', flush=True)
number = 0
while True:
    number += 1
    block = np.full((500, 64), number, np.float32)
    captions._write_cached(pathlib.Path(folder, 'v.npy'), (500, 64), iter([block]))
""",
    'results': """
from storyteller.batch import results
print('go', flush=True)
settings = {'k': 3, 'style': None}
number = 0
while True:
    number += 1
    row = {'image': f'{number}.jpg', 'settings': settings, 'passage': 'a b c ' * 500}
    results.append_row(pathlib.Path(folder, 'results.jsonl'), row)
""",
    'table': f"""
from storyteller.io import pickle_2015_tables
source = {str(ROOT / 'tests' / 'reference' / 'skipthoughts' / 'utable_objects.npy')!r}
print('go', flush=True)
while True:
    pickle_2015_tables.write_plain(source, pathlib.Path(folder, 'table.npy'))
""",
    'bundle': """
import numpy as np
from storyteller import formats
print('go', flush=True)
number = 0
while True:
    number += 1
    array = np.full((300, 300), number, np.float32)
    formats.write_model(pathlib.Path(folder, 'm.safetensors'), {'W': array}, {'number': number})
    formats.write_array(pathlib.Path(folder, 'style.npy'), array)
    formats.write_pickle(pathlib.Path(folder, 'd.pkl'), {str(i): number for i in range(3000)})
""",
}


def check_checkpoint(folder):
    if (folder / 'm.pt').exists():
        import torch

        torch.load(folder / 'm.pt', weights_only=True)
    if (folder / 'm.jsonl').exists():
        lines = (folder / 'm.jsonl').read_text().split('\n')
        for line in lines[:-1]:
            json.loads(line)


def check_cache(folder):
    from storyteller import captions

    if (folder / 'v.npy').exists():
        vectors = captions._read_cached(folder / 'v.npy', (500, 64))
        assert vectors is not None and len(np.unique(vectors)) == 1


def check_results(folder):
    rows = results.read_rows(folder / 'results.jsonl', {'k': 3})
    assert list(rows) == [(f'{i}.jpg', None) for i in range(1, len(rows) + 1)]


def check_table(folder):
    if (folder / 'table.npy').exists():
        plain = ROOT / 'tests' / 'reference' / 'skipthoughts' / 'utable.npy'
        np.testing.assert_array_equal(np.load(folder / 'table.npy'), np.load(plain))


def check_bundle(folder):
    if (folder / 'm.safetensors').exists():
        params, options = formats.read_model(folder / 'm.safetensors')
        assert (params['W'] == options['number']).all()
    if (folder / 'style.npy').exists():
        assert len(np.unique(formats.read_array(folder / 'style.npy'))) == 1
    if (folder / 'd.pkl').exists():
        assert len(set(formats.load_dictionary(folder / 'd.pkl').values())) == 1


@pytest.mark.slow
@pytest.mark.parametrize('kind', WRITERS)
def test_twenty_five_kills_leave_nothing_broken(tmp_path, kind):
    chance = random.Random(3)
    code = f'import pathlib\nfolder = {str(tmp_path)!r}\n' + WRITERS[kind]
    for _ in range(25):
        writer = subprocess.Popen(
            [sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert writer.stdout.readline() == b'go\n', writer.stderr.read()
        time.sleep(chance.uniform(0, 0.3))
        assert writer.poll() is None, writer.stderr.read()
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        globals()[f'check_{kind}'](tmp_path)


# --- threads -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_threads_tell_the_same_stories_as_one(tmp_path, monkeypatch):
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path))
    z = generate.load_all()
    photos = sorted((ROOT / 'images').glob('ex*.jpg'))[:4]

    def told(photo):
        buffer = generate.stories(z, [photo], bw=8)
        return buffer[0].passage

    expected = {photo: told(photo) for photo in photos}
    found = []

    def work(number):
        for photo in photos[number % 4 :] + photos[: number % 4]:
            found.append((photo, told(photo)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 32 and all(expected[photo] == passage for photo, passage in found)
