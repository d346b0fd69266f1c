"""Stories with and without the style shift; the script that measures a bundle, on very little."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storyteller import generate
from storyteller.evaluation import ablation
from storyteller.training.data.flickr8k import read_photos

ROOT = Path(__file__).parent.parent


def test_shifts_are_the_parts_of_the_formula():
    rng = np.random.default_rng(0)
    x, c, b, other = rng.normal(size=(3, 4)), *rng.normal(size=(3, 4))
    found = ablation.shifts({'bneg': c, 'bpos': b, 'styles': {'sea': other}}, x)
    expected = {
        'x': x,
        'x - c': x - c,
        'x + b': x + b,
        'x - c + b': x - c + b,
        'strength 0': x,
        'strength 0.5': x - (c - b) / 2,
        'strength 1': x - c + b,
        'style sea': x - c + other,
    }
    for name, vectors in expected.items():
        np.testing.assert_allclose(found[name], vectors, rtol=1e-5, atol=1e-5)


def figures(value):
    around = {'mean': value, 'low': value - 1, 'high': value + 1}
    return dict.fromkeys(ablation.COLUMNS.values(), around)


def test_the_table_has_a_row_for_each_setting():
    lines = ablation.table({'x': figures(1.0), 'x - c + b': figures(2.5)}).splitlines()
    assert len(lines) == 4 and len({line.count('|') for line in lines}) == 1
    assert lines[3].startswith('| x - c + b | 2.5 (1.5 to 3.5) |')


def test_the_picture(tmp_path):
    names = 'x', 'x - c', 'x + b', 'x - c + b', 'strength 0', 'strength 1'
    ablation.draw({name: figures(i) for i, name in enumerate(names)}, tmp_path / 'a.png')
    with Image.open(tmp_path / 'a.png') as picture:
        assert min(picture.size) > 500
    ablation.draw({'x': figures(1)}, tmp_path / 'one.png')  # no strengths
    assert (tmp_path / 'one.png').exists()


# --- the script ----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Photos, captions, books and songs in the layout of the training data, a few of each."""
    folder, rng = tmp_path_factory.mktemp('data'), np.random.default_rng(0)
    for name in ('flickr8k', 'novels', 'lyrics', 'tasks'):
        (folder / name).mkdir()
    names = [f'{i}.jpg' for i in range(12)]
    scenes = ['A dog runs on grass .', 'A man rides a bike .', 'Two girls sit on a beach .']
    lines = []
    for i, name in enumerate(names):
        source = ROOT / 'images' / f'ex{i % 6 + 1}.jpg'
        shutil.copyfile(source, folder / 'flickr8k' / name)
        lines += [f'{name}\t{scenes[(i + j) % 3]}\n' for j in range(5)]
    (folder / 'flickr8k' / 'captions.txt').write_text(''.join(lines))
    (folder / 'flickr8k' / 'dev.txt').write_text('\n'.join(names) + '\n')
    np.savez(folder / 'flickr8k' / 'fc7_dev.npz', fc7=rng.random((12, 4096)).astype(np.float16))
    words = [
        'she',
        'went',
        'down',
        'to',
        'the',
        'sea',
        'and',
        'saw',
        'him',
        'there',
        'with',
        'her',
        'mother',
        'before',
        'night',
    ]

    def paragraph(n):
        return ' '.join([*rng.choice(words, n), '.'])

    for shard in ('romance-00', 'romance-13'):
        text = [f'=== A book -- Somebody ({1850})', *(paragraph(n) for n in (9, 15, 30, 60) * 12)]
        text += [' '.join(paragraph(7).capitalize() for _ in range(25)) for _ in range(24)]
        (folder / 'novels' / f'{shard}.txt').write_text('\n'.join(text) + '\n')
    song = '\n'.join(paragraph(7) for _ in range(60))
    (folder / 'lyrics' / 'lyrics.txt').write_text(f'{song}\n\n{song}\n')
    for name, word in (('custrev.pos', 'good'), ('custrev.neg', 'bad')):
        text = ''.join(f'the {word} thing number {i}\n' for i in range(30))
        (folder / 'tasks' / name).write_text(text)
    return folder


def evaluate(*arguments, code=0):
    command = [sys.executable, str(ROOT / 'scripts' / 'evaluate.py'), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, encoding='utf-8', timeout=300)
    assert done.returncode == code, done.stderr
    if code:
        return done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]


@pytest.mark.slow
def test_ranking_by_the_script(data):
    flickr = data / 'flickr8k'
    photos = '--captions', flickr / 'captions.txt', '--photos', flickr / 'dev.txt'
    for source in (('--features', flickr / 'fc7_dev.npz'), ('--photo-folder', flickr)):
        i2t, t2i = evaluate('ranking', *photos, *source, '--folds', 2)
        assert (i2t['search'], t2i['search']) == ('i2t', 't2i') and 0 <= i2t['r1'] <= t2i[
            'r10'
        ] <= 100
    assert 'expected --dataset' in evaluate('ranking', code=2)
    maps = [str(path) for path in (flickr / 'dev.txt', flickr / 'fc7_dev.npz')]
    linear = evaluate(
        'linear-ranking', '--captions', flickr / 'captions.txt', '--epochs', 1,
        '--photos', *maps[:1] * 3, '--features', *maps[1:] * 3,
    )  # fmt: skip
    assert [row['search'] for row in linear] == ['i2t', 't2i']


@pytest.mark.slow
def test_sentences_by_the_script(data):
    rows = evaluate('sentences', '--data', data / 'tasks', '--folds', 3, '--ngrams')
    assert {row['task'] for row in rows} == {'CR'} and len(rows) == 6
    assert all(row['accuracy'] > 90 for row in rows)
    missing = evaluate('sentences', '--data', data / 'tasks', '--task', 'SICK', code=2)
    assert 'SICK_train.txt' in missing


@pytest.mark.slow
def test_captions_and_decoder_by_the_script(data, tmp_path):
    rows = evaluate('captions', '--data', data, '--photos', 7, '--sheet', tmp_path / 'sheet.png')
    assert sum('photo' in row for row in rows) == 7 and (tmp_path / 'sheet.png').exists()
    assert {row['features'] for row in rows if 'features' in row} == {'ours', 'vgg19'}
    rows = evaluate('decoder', '--data', data, '--passages', 4)
    assert [row['words'] for row in rows] == ['8-20', '20-50', '50-140']
    assert all(row['perplexity'] > 1 and row['passages'] == 4 for row in rows)


@pytest.mark.slow
def test_stories_by_the_script_are_the_same_again(data, tmp_path):
    def told(run):
        return evaluate(
            'stories', '--data', data, '--work', tmp_path / 'work', '--photos', 4, '--bw', 2,
            '--features', 'ours', '--setting', 'x', 'style romance', '--style', 'other', 'romance-',
            '--picture', tmp_path / f'{run}.png', '--told', tmp_path / f'{run}.jsonl',
        )  # fmt: skip

    rows = told('a')
    assert rows == told('b')
    assert [row['setting'] for row in rows[1:]] == ['x', 'style romance']
    assert 0 <= rows[0]['flaws_of_novels']['run_again']['mean'] <= 100
    for row in rows[1:]:
        assert row['named'].keys() == {'novel', 'caption', 'lyric', 'other'}
        assert row['median_copied'] <= row['copied_95'] and row['cut_off']['mean'] <= 100
    lines = (tmp_path / 'a.jsonl').read_text().splitlines()
    assert len(lines) == 8 and lines == (tmp_path / 'b.jsonl').read_text().splitlines()
    assert (tmp_path / 'a.png').exists()


@pytest.mark.slow
def test_what_is_measured_is_what_users_are_told(data, tmp_path):
    told = tmp_path / 'told.jsonl'
    evaluate(
        'stories', '--data', data, '--work', tmp_path / 'work', '--photos', 2,
        '--features', 'ours', '--setting', 'x - c + b', '--told', told,
    )  # fmt: skip
    rows = [json.loads(line) for line in told.read_text(encoding='utf-8').splitlines()]
    photos = read_photos(data / 'flickr8k')
    shown = [io.BytesIO(photos[row['photo']]) for row in rows]
    z = generate.load_all(ROOT / 'models')
    assert [row['story'] for row in rows] == [s.passage for s in generate.stories(z, shown)]


@pytest.mark.slow
def test_a_panel_by_the_script(data, tmp_path):
    out = tmp_path / 'panel'
    asked = ('stories', '--data', data, '--work', tmp_path / 'work', '--panel', 2, '--readers', 2)
    told = evaluate(*asked, '--against', ROOT / 'models', '--out', out)
    assert [Path(row['sheet']).name for row in told] == ['panel-1.md', 'panel-2.md']
    key = json.loads((out / 'panel_key.json').read_text())
    for place, row in enumerate(told, 1):
        assert sorted(key[f'panel-{place}'].values()) == ['other', 'ours', 'ours', 'real']
        form = Path(row['form'])
        form.write_text(form.read_text().replace(',,,,', ',4,3,2,yes'))
    found = evaluate('panel', out, *(row['form'] for row in told))
    assert {row['source']: row['about'] for row in found} == dict.fromkeys(
        ('ours', 'other', 'real'), 2
    )
    assert 'is there already' in evaluate(*asked, '--out', out, code=2)
    assert '--out' in evaluate(*asked, code=2)


def test_how_data_are_laid_out_is_told():
    script = str(ROOT / 'scripts' / 'evaluate.py')
    said = subprocess.run([sys.executable, script, '--help'], capture_output=True, text=True).stdout
    for name in ('flickr8k', 'captions.txt', 'dev.txt', 'novels', 'lyrics', 'photo<TAB>caption'):
        assert name in said
