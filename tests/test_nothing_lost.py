"""Of five hundred files of all kinds, by a command that is killed again and again, none is lost."""

from __future__ import annotations

import collections
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('scripts'),
    pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='no SIGKILL here'),
]
ROOT = Path(__file__).parent.parent
HOW_MANY = {
    'good.jpg': 348, 'good.PNG': 30, 'good.webp': 10, 'good.gif': 10, 'lying.jpg': 20,
    'huge.jpg': 2, 'cut.jpg': 20, 'empty.jpg': 5, 'text.jpg': 10, 'larger.png': 5,
    'new.heic': 20, 'new_called.jpg': 5, 'new_called.bin': 5, '.hidden.jpg': 10,
}  # fmt: skip
UNREADABLE = 'cut.jpg', 'empty.jpg', 'text.jpg', 'larger.png'
# Plugins that are installed are registered, unless they cannot be imported.
COMMAND = """
import runpy, sys
if sys.argv[1] == 'without':
    sys.modules['pillow_heif'] = None
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def content(kind, rng, heif, folder):
    """The bytes of a file of a kind."""
    ending = Path(kind).suffix.lower().removeprefix('.')
    photo = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    if kind in ('empty.jpg', 'text.jpg'):
        return b'<html>not found</html>' if kind == 'text.jpg' else b''
    if kind.startswith('new'):
        heif.from_pillow(photo).save(folder / 'a.heic', quality=50)
        return (folder / 'a.heic').read_bytes()
    options = {}
    if kind == 'lying.jpg':
        options['exif'] = photo.getexif()
        options['exif'][0x0112] = 6
    elif kind == 'huge.jpg':
        photo = Image.linear_gradient('L').resize((12000, 9000))
    photo.save(folder / f'a.{ending}', **options)
    found = (folder / f'a.{ending}').read_bytes()
    if kind == 'larger.png':  # by its header alone
        found = found[:16] + (60_000).to_bytes(4, 'big') * 2 + found[24:]
    return found[: len(found) // 2] if kind == 'cut.jpg' else found


@pytest.fixture
def photos(tmp_path):
    """The folder, in which kinds are mixed: names begin with a number of their own."""
    heif = pytest.importorskip('pillow_heif')
    folder, made = tmp_path / 'photos', tmp_path / 'made'
    made.mkdir()
    rng = np.random.default_rng(0)
    kinds = rng.permutation([kind for kind, count in HOW_MANY.items() for _ in range(count)])
    huge = content('huge.jpg', rng, heif, made)
    for number, kind in enumerate(kinds.tolist()):
        hidden = '.' if kind.startswith('.') else ''
        path = folder / str(number % 7) / f'{hidden}{number:03d}_{kind.removeprefix(".")}'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(huge if kind == 'huge.jpg' else content(kind, rng, heif, made))
    return folder


def kind_of(name):
    file = name.rpartition('/')[2]
    return ('.' if file.startswith('.') else '') + file.partition('_')[2]


def start(photos, out, models, plugin):
    script = ROOT / 'scripts' / 'story_folder.py'
    options = '--out', out, '--models', models, '--bw', 2, '-k', 3, '--batch-size', 8
    return subprocess.Popen(
        [sys.executable, '-c', COMMAND, plugin, *map(str, (script, photos, *options))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8', cwd=ROOT,
    )  # fmt: skip


def written(results):
    return results.read_bytes().count(b'\n') if results.exists() else 0


def by_kind(results):
    """How many rows of each kind tell, and how many refuse, with a reason; no photo twice."""
    rows = [json.loads(line) for line in results.read_text(encoding='utf-8').splitlines()]
    assert len({row['image'] for row in rows}) == len(rows)
    assert all(row['error'].strip() if 'error' in row else row['passage'] for row in rows)
    told = collections.Counter(kind_of(row['image']) for row in rows if 'error' not in row)
    return told, collections.Counter(kind_of(row['image']) for row in rows if 'error' in row)


def test_none_is_lost(photos, tmp_path, monkeypatch):
    models = importlib.import_module('benchmark_models')
    models.make_models(tmp_path / 'models', models.TINY, seed=1)
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    out, results = tmp_path / 'out', tmp_path / 'out' / 'results.jsonl'
    assert sum(HOW_MANY.values()) == sum(path.is_file() for path in photos.rglob('*')) == 500

    for before_the_kill in (60, 170, 330):
        process = start(photos, out, tmp_path / 'models', 'without')
        with process:
            while written(results) < before_the_kill and process.poll() is None:
                time.sleep(0.02)
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
    summary = r': (\d+) told, (\d+) failed \((\d+) from before\), (\d+) passed over'
    for plugin in ('without', 'with'):
        before = {**by_kind(results)[0]} if plugin == 'with' else {}
        with start(photos, out, tmp_path / 'models', plugin) as process:
            printed, errors = process.communicate(timeout=300)
        assert process.returncode == 1, errors
        told, refused = by_kind(results)
        good = {kind for kind in HOW_MANY if kind.startswith(('good', 'lying', 'huge'))}
        good |= {'new.heic', 'new_called.jpg'} if plugin == 'with' else set()
        unread = {*UNREADABLE} | ({'new_called.jpg'} if plugin == 'without' else set())
        assert told == {kind: HOW_MANY[kind] for kind in good}
        assert refused == {kind: HOW_MANY[kind] for kind in unread}
        assert before.items() <= told.items()
        passed = {
            re.search(r'\((.*?)[;)]', line)[1]: int(re.search(r'passed over (\d+)', line)[1])
            for line in errors.splitlines() if 'passed over' in line
        }  # fmt: skip
        over = HOW_MANY.keys() - good - unread
        assert sum(passed.values()) == sum(HOW_MANY[kind] for kind in over), errors
        found = [int(number) for number in re.search(summary, printed).groups()]
        assert found[0] == told.total() and found[1] == refused.total()
        assert found[0] + found[1] + found[3] == 500
        print(plugin, found, passed)
    assert os.listdir(out) == ['results.jsonl']
