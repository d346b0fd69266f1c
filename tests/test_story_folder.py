from __future__ import annotations

import importlib.util
import io
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from conftest import REFERENCE
from PIL import Image

from storyteller import config, generate, loading
from storyteller.images import photo_name
from storyteller.io import bundle, picture_files
from storyteller.options import SearchSettings
from storyteller.story import Story, StoryError

SCRIPT = pathlib.Path(__file__).parent.parent / 'scripts' / 'story_folder.py'
TELLER = ['--bw', '5', '-k', '10', '--search-2015']  # whatever suits the bundle


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location('story_folder', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photos(tmp_path):
    """A folder with three photos, one of them broken, and things that are no photos."""
    folder = tmp_path / 'photos'
    (folder / 'more').mkdir(parents=True)
    for name in ('a.jpg', 'more/c.PNG'):
        Image.new('RGB', (40, 30), 'red').save(folder / name)
    (folder / 'b.jpg').write_text('no photo')
    (folder / 'notes.txt').write_text('no photo either')
    (folder / '.hidden.jpg').write_text('left behind by another program')
    return folder


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the library, answered without a model; photos called b fail."""
    asked = []

    def stories(z, images, *, on_error='raise', batch_size=16, **settings):
        if settings['style'] == 'gothic':
            raise ValueError("style 'gothic': no such file")
        images = [pathlib.Path(photo_name(image)) for image in images]
        if images:
            assert on_error == 'return' and len(images) <= batch_size
            asked.append([path.name for path in images])
        reading = ('telling', 'allow_truncated', 'max_pixels')
        settings = {k: v for k, v in settings.items() if k not in reading}
        settings['maxlen'] = 1000
        return [
            StoryError(str(path), 'not a picture of a known format')
            if path.name.startswith('b')
            else Story(str(path), [('a dog', 0.5)], f'the story of {path.name} .', settings)
            for path in images
        ]

    monkeypatch.setattr(generate, 'load_all', lambda paths=None, **_: {'from': paths, 'net': {}})
    monkeypatch.setattr(generate, 'stories', stories)
    return asked


def rows(out):
    return [json.loads(line) for line in (out / 'results.jsonl').read_text().splitlines()]


FAILED = [['b.jpg']]  # what is tried again


def test_a_row_for_each_photo_and_one_for_what_failed(script, photos, calls, tmp_path, capsys):
    out = tmp_path / 'new' / 'out'
    assert script.main([str(photos), '--out', str(out), *TELLER]) == 1
    told = {row['image']: row for row in rows(out)}
    assert list(told) == ['a.jpg', 'b.jpg', 'more/c.PNG']
    assert told['a.jpg']['passage'] == 'the story of a.jpg .'
    assert told['a.jpg']['captions'] == [['a dog', 0.5]]
    assert told['b.jpg']['error'] == 'not a picture of a known format'
    assert told['b.jpg']['settings']['bw'] == told['a.jpg']['settings']['bw'] == 5
    printed = capsys.readouterr()
    assert (
        printed.out == f'{out / "results.jsonl"}: 2 told, 1 failed (0 from before), 1 passed over\n'
    )
    assert 'Traceback' not in printed.err
    assert 'passed over 1 (hidden): .hidden.jpg' in printed.err


def test_all_told_is_a_success(script, photos, calls, tmp_path):
    (photos / 'b.jpg').unlink()
    assert script.main([str(photos), '--out', str(tmp_path)]) == 0


def test_photos_are_told_in_batches(script, photos, calls, tmp_path):
    script.main([str(photos), '--out', str(tmp_path), '--batch-size', '2'])
    assert calls == [['a.jpg', 'b.jpg'], ['c.PNG']]


def test_a_second_run_tells_only_what_is_new(script, photos, calls, tmp_path, capsys):
    command = [str(photos), '--out', str(tmp_path), *TELLER]
    script.main(command)
    before = (tmp_path / 'results.jsonl').read_bytes()
    calls.clear()
    assert script.main(command) == 1  # one had failed, and still has
    assert calls == FAILED
    assert (tmp_path / 'results.jsonl').read_bytes() == before

    Image.new('RGB', (40, 30)).save(photos / 'd.jpg')
    calls.clear()
    script.main(command)
    assert calls == [['b.jpg', 'd.jpg']]
    assert (tmp_path / 'results.jsonl').read_bytes().startswith(before)
    assert capsys.readouterr().out.endswith('3 told, 1 failed (2 from before), 1 passed over\n')


def test_a_photo_that_was_mended_is_told(script, photos, calls, tmp_path, monkeypatch):
    command = [str(photos), '--out', str(tmp_path), *TELLER]
    assert script.main(command) == 1
    before = rows(tmp_path)
    stories = generate.stories

    def mended(z, images, **options):
        paths = [pathlib.Path(photo_name(image)) for image in images]
        renamed = [path.with_name(path.name.replace('b', 'x')) for path in paths]
        return stories(z, renamed, **options)

    monkeypatch.setattr(generate, 'stories', mended)
    assert script.main(command) == 0
    assert [row['image'] for row in rows(tmp_path)] == ['a.jpg', 'b.jpg', 'more/c.PNG']
    assert [rows(tmp_path)[i] for i in (0, 2)] == [before[0], before[2]]
    assert rows(tmp_path)[1]['passage'] == 'the story of x.jpg .'


def test_a_failure_takes_no_story_s_place(script, photos, calls, tmp_path):
    command = [str(photos), '--out', str(tmp_path), *TELLER]
    script.main(command)
    whole = (tmp_path / 'results.jsonl').read_bytes()
    failed = json.dumps(
        {'image': 'a.jpg', 'error': 'gone', 'settings': rows(tmp_path)[0]['settings']}
    )
    (tmp_path / 'results.jsonl').write_bytes(whole + failed.encode() + b'\n')
    calls.clear()
    script.main(command)
    assert calls == FAILED and (tmp_path / 'results.jsonl').read_bytes() == whole


def test_when_killed_no_failure_is_lost_and_the_next_run_clears_up(
    script, photos, calls, tmp_path, monkeypatch
):
    command = [str(photos), '--out', str(tmp_path), *TELLER]
    script.main(command)
    whole = (tmp_path / 'results.jsonl').read_bytes()
    with monkeypatch.context() as killed:
        killed.setattr(script.results, 'drop_replaced', lambda *_: None)
        script.main(command)
    assert [row['image'] for row in rows(tmp_path)] == ['a.jpg', 'b.jpg', 'more/c.PNG', 'b.jpg']
    script.main(command)
    assert (tmp_path / 'results.jsonl').read_bytes() == whole


def test_a_folder_may_be_named_in_another_way(script, photos, calls, tmp_path, monkeypatch):
    script.main([str(photos), '--out', str(tmp_path)])
    calls.clear()
    monkeypatch.chdir(photos)
    script.main(['.', '--out', str(tmp_path)])
    assert calls == FAILED


def test_rows_are_written_before_the_next_batch(script, photos, calls, tmp_path, monkeypatch):
    original = generate.stories

    def stories(z, images, **options):
        if calls:
            raise KeyboardInterrupt
        return original(z, images, **options)

    monkeypatch.setattr(generate, 'stories', stories)
    command = [str(photos), '--out', str(tmp_path), '--batch-size', '1']
    assert script.main(command) == 130
    assert [row['image'] for row in rows(tmp_path)] == ['a.jpg']
    monkeypatch.setattr(generate, 'stories', original)
    assert script.main(command) == 1
    assert [row['image'] for row in rows(tmp_path)] == ['a.jpg', 'b.jpg', 'more/c.PNG']


@pytest.mark.parametrize('kept', [1, 20, -1])
def test_a_line_that_a_kill_cut_is_told_again(script, photos, calls, tmp_path, kept):
    command = [str(photos), '--out', str(tmp_path), *TELLER]
    script.main(command)
    results = tmp_path / 'results.jsonl'
    content = results.read_bytes()
    last = content[:-1].rfind(b'\n') + 1
    results.write_bytes(content[: last + kept] if kept > 0 else content[:kept])
    calls.clear()
    script.main(command)
    assert calls == [['b.jpg', 'c.PNG']]
    assert results.read_bytes() == content


@pytest.mark.parametrize(
    ('changed', 'name'),
    [
        (['--bw', '6'], 'bw 5, not 6'),
        (['-k', '11'], 'k 10, not 11'),
        (['--lyric'], 'lyric False, not True'),
        (['--strength', '0.5'], 'strength 1.0, not 0.5'),
        (['--seed', '3'], 'seed None, not 3'),
        (['--no-repeat', '3'], "telling None, not {'no_repeat': 3}"),
    ],
)
def test_rows_of_other_settings_are_refused(script, photos, calls, tmp_path, capsys, changed, name):
    command = [str(photos), '--out', str(tmp_path), *TELLER]
    script.main(command)
    before = (tmp_path / 'results.jsonl').read_bytes()
    capsys.readouterr()
    assert script.main([*command, *changed]) == 2
    printed = capsys.readouterr()
    assert printed.out == '' and printed.err.count('\n') == 1
    assert name in printed.err
    assert (tmp_path / 'results.jsonl').read_bytes() == before


def test_what_is_unusual_is_not_taken_for_what_is_usual(script, photos, calls, tmp_path, capsys):
    command = [str(photos), '--out', str(tmp_path), *TELLER]
    unusual = [*command, '--precision', 'bfloat16', '--no-repeat', '3']
    script.main(unusual)
    assert script.main(command) == 2
    assert 'was told with telling' in capsys.readouterr().err
    assert script.main([*command, '--no-repeat', '3']) == 2
    assert "was told with precision 'bfloat16', not None" in capsys.readouterr().err
    assert script.main(unusual) == 1
    assert {row['settings']['precision'] for row in rows(tmp_path)} == {'bfloat16'}


def test_rows_from_before_there_were_precisions_are_taken(script, photos, calls, tmp_path, capsys):
    command = [str(photos), '--out', str(tmp_path), *TELLER]
    script.main(command)
    path, old = tmp_path / 'results.jsonl', []
    for row in rows(tmp_path):
        del row['settings']['precision']
        old.append(json.dumps(row | {'settings': row['settings'] | {'telling': {}}}) + '\n')
    path.write_text(''.join(old))
    assert script.main(command) == 1
    assert '2 from before' in capsys.readouterr().out.splitlines()[-1]


def test_what_the_models_suggest_stands_in_the_rows(
    script, photos, calls, tmp_path, capsys, monkeypatch
):
    suiting = SearchSettings.read({'k': 7, 'bw': 6, 'maxlen': 30, 'banned': ['love']})
    monkeypatch.setattr(bundle, 'search_settings', lambda decoder: suiting)
    command = [str(photos), '--out', str(tmp_path)]
    script.main([*command, '--no-repeat', '3'])
    telling = {'no_repeat': 3, 'banned': ['love']}
    for row in rows(tmp_path):  # also of what failed
        found = {name: row['settings'][name] for name in ('k', 'bw', 'maxlen', 'telling')}
        assert found == {'k': 7, 'bw': 6, 'maxlen': 30, 'telling': telling}
    calls.clear()
    assert script.main([*command, '--no-repeat', '3']) == 1 and calls == FAILED
    for flags, name in (
        ([], 'telling'), (['--bw', '5', '--no-repeat', '3'], 'bw 6, not 5'),
        (['--search-2015', '--bw', '6', '--no-repeat', '3', '--banned', 'love'],
         'maxlen 30, not 1000'),
    ):  # fmt: skip
        assert script.main([*command, *flags]) == 2
        assert f'told with {name}' in capsys.readouterr().err


def test_rows_of_failures_from_before_have_the_usual_length(script, photos, calls, tmp_path):
    command = [str(photos), '--out', str(tmp_path), *TELLER]
    script.main(command)
    path, old = tmp_path / 'results.jsonl', rows(tmp_path)
    for row in old:
        if 'error' in row:
            del row['settings']['maxlen']
    path.write_text(''.join(json.dumps(row) + '\n' for row in old))
    calls.clear()
    assert script.main(command) == 1 and calls == FAILED


def test_rows_of_other_models_are_refused(script, photos, calls, tmp_path, capsys):
    command = [str(photos), '--out', str(tmp_path), *TELLER]
    script.main(command)
    (tmp_path / 'models').mkdir()
    assert script.main([*command, '--models', str(tmp_path / 'models')]) == 2
    assert 'models None, not ' in capsys.readouterr().err
    changed = (
        (tmp_path / 'results.jsonl')
        .read_text()
        .replace('"models_sha256": "', '"models_sha256": "0')
    )
    (tmp_path / 'results.jsonl').write_text(changed)
    assert script.main(command) == 2
    assert 'models_sha256' in capsys.readouterr().err


def test_several_styles_are_rows_of_their_own(script, photos, calls, tmp_path):
    command = [str(photos), '--out', str(tmp_path), '--style', 'romance']
    script.main(command)
    assert len(rows(tmp_path)) == 3
    calls.clear()
    script.main([*command, '--style', 'lyric'])
    assert calls == [*FAILED, ['a.jpg', 'b.jpg', 'c.PNG']]  # all in the new style alone
    told = {(row['image'], row['settings']['style']) for row in rows(tmp_path)}
    names = 'a.jpg', 'b.jpg', 'more/c.PNG'
    assert told == {(name, style) for name in names for style in ('romance', 'lyric')}


def test_files_patterns_and_lists(script, photos, calls, tmp_path, monkeypatch):
    monkeypatch.setattr('sys.stdin', io.StringIO(f'{photos / "more" / "c.PNG"}\n\n'))
    script.main([str(photos / 'a.jpg'), str(photos / '*.jpg'), '-', '--out', str(tmp_path)])
    names = [(photos / name).as_posix() for name in ('a.jpg', 'b.jpg', 'more/c.PNG')]
    assert [row['image'] for row in rows(tmp_path)] == names


def test_several_folders(script, photos, calls, tmp_path):
    script.main([str(photos / 'more'), str(photos), '--out', str(tmp_path)])
    names = [(photos / name).as_posix() for name in ('more/c.PNG', 'a.jpg', 'b.jpg')]
    assert [row['image'] for row in rows(tmp_path)] == names


def test_a_pattern_that_matches_nothing_is_named(script, photos, calls, tmp_path, capsys):
    assert script.main([str(photos / '*.gif'), '--out', str(tmp_path)]) == 2
    assert '*.gif: no file' in capsys.readouterr().err


def test_shards_tell_everything_once_and_merge(script, photos, calls, tmp_path):
    for i in (1, 2):
        script.main([str(photos), '--out', str(tmp_path), '--shard', f'{i}/2'])
    parts = [tmp_path / f'results.{i}-of-2.jsonl' for i in (1, 2)]
    merged = b''.join(part.read_bytes() for part in parts)
    names = [json.loads(line)['image'] for line in merged.splitlines()]
    assert sorted(names) == ['a.jpg', 'b.jpg', 'more/c.PNG'] and len(names) == 3
    (tmp_path / 'results.jsonl').write_bytes(merged)
    calls.clear()
    script.main([str(photos), '--out', str(tmp_path)])
    assert calls == FAILED  # what was merged is known


@pytest.mark.parametrize('shard', ['0/2', '3/2', '1', 'a/b', '1/0', '-1/2'])
def test_bad_shards_are_named(script, photos, calls, tmp_path, capsys, shard):
    assert script.main([str(photos), '--out', str(tmp_path), f'--shard={shard}']) == 2
    assert 'shard' in capsys.readouterr().err


def test_the_order_and_size_of_batches_are_no_setting(script, photos, calls, tmp_path):
    script.main([str(photos), '--out', str(tmp_path), '--batch-size', '1'])
    calls.clear()
    script.main([str(photos), '--out', str(tmp_path), '--batch-size', '7'])
    assert calls == FAILED


@pytest.mark.parametrize(
    'content', ['no json\n', '[1]\n', '{"image": "a.jpg"}\n', '\n', 'notes without an end', '[']
)
def test_a_file_of_something_else_is_left_alone(script, photos, calls, tmp_path, capsys, content):
    results = tmp_path / 'results.jsonl'
    results.write_text(content)
    assert script.main([str(photos), '--out', str(tmp_path)]) == 2
    assert 'results.jsonl, line 1' in capsys.readouterr().err
    assert results.read_text() == content and calls == []


@pytest.mark.parametrize(
    ('options', 'word'),
    [
        (['-k', '0'], 'k: expected 1 or more, found 0'),
        (['--bw', '0'], 'bw: expected 1 or more, found 0'),
        (['--batch-size', '-1'], 'batch_size'),
        (['--style', 'gothic'], 'gothic'),
    ],
)
def test_wrong_arguments_give_one_line(script, photos, calls, tmp_path, capsys, options, word):
    out = tmp_path / 'out'
    assert script.main([str(photos), '--out', str(out), *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == '' and printed.err.count('\n') == 1 and word in printed.err
    assert not out.exists()


@pytest.mark.parametrize('option', [['--banned', 'love'], ['--style', 'lyric'], ['--lyric']])
def test_photos_may_stand_between_the_options(script, photos, calls, tmp_path, option):
    names = [str(photos / name) for name in ('a.jpg', 'more/c.PNG', 'b.jpg')]
    command = [names[0], *option, names[1], '--out', str(tmp_path), names[2]]
    assert script.main(command) == 1
    assert calls == [['a.jpg', 'c.PNG', 'b.jpg']]


def test_a_photo_is_no_address_of_a_cluster(script, photos, calls, tmp_path, capsys):
    command = [str(photos / 'a.jpg'), '--ray', str(photos / 'b.jpg'), '--out', str(tmp_path)]
    assert script.main(command) == 2
    assert '--ray: expected auto' in capsys.readouterr().err and calls == []


def test_folders_without_photos_are_named(script, calls, tmp_path, capsys):
    missing, empty = tmp_path / 'missing', tmp_path / 'empty'
    empty.mkdir()
    for folder, words in ((missing, 'no such folder'), (empty, 'no photos')):
        assert script.main([str(folder), '--out', str(tmp_path / 'out')]) == 2
        error = capsys.readouterr().err
        assert error.count('\n') == 1 and str(folder) in error and words in error


def test_file_names_of_every_kind_come_back(script, photos, calls, tmp_path):
    name = 'caf\u00e9 \u2028 "x".jpg'
    Image.new('RGB', (40, 30)).save(photos / name)
    script.main([str(photos), '--out', str(tmp_path)])
    assert name in {row['image'] for row in rows(tmp_path)}
    calls.clear()
    script.main([str(photos), '--out', str(tmp_path)])
    assert calls == FAILED


def test_real_models_tell_the_stories_of_2015(script, tmp_path, monkeypatch):
    """Through the library itself, with the models of the reference and the features of its VGG."""
    story, recorded = REFERENCE / 'story', np.load(REFERENCE / 'vgg' / 'vgg.npz')
    paths = {
        'skmodels': REFERENCE / 'skipthoughts',
        'sktables': REFERENCE / 'skipthoughts',
        'decmodel': REFERENCE / 'decoder' / 'romance.npz',
        'dictionary': REFERENCE / 'decoder' / 'romance_dictionary.pkl',
        'vsemodel': REFERENCE / 'embedding' / 'coco_embedding.npz',
        'captions': story / 'captions.txt',
        'negbias': story / 'caption_style.npy',
        'posbias': story / 'romance_style.npy',
    }
    monkeypatch.setattr(config, 'paths', config.paths | {k: str(v) for k, v in paths.items()})
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(loading, 'build_convnet', lambda path, device=None: {'dim': 4096})

    def features(net, im):
        names = ('portrait', 'grey')
        close = lambda name, photo: np.abs(recorded[f'input_{name}'][0] - photo).max() < 0.01  # noqa: E731
        return np.stack(
            [recorded[f'fc7_{next(n for n in names if close(n, photo))}'] for photo in im]
        )

    monkeypatch.setattr(generate, 'compute_features', features)
    folder = tmp_path / 'photos'
    folder.mkdir()
    for name in ('portrait.png', 'grey.png'):
        shutil.copy(REFERENCE / 'vgg' / name, folder)
    (folder / 'half.jpg').write_bytes(b'\xff\xd8\xff')
    assert script.main([str(folder), '--out', str(tmp_path), *TELLER]) == 1
    told = {row['image']: row for row in rows(tmp_path)}
    expected = json.loads((story / 'story.json').read_text())['images']
    for name in ('portrait.png', 'grey.png'):
        assert told[name]['passage'] == expected[name]['passage']
        assert [caption for caption, _ in told[name]['captions']] == expected[name]['nearest']
    assert told['half.jpg']['error']


@pytest.mark.parametrize('named', ['folder', 'files'])
def test_a_gallery_of_what_was_told(script, photos, calls, tmp_path, capsys, named):
    given = [photos] if named == 'folder' else [photos / 'a.jpg', photos / 'more' / 'c.PNG']
    command = [*map(str, given), '--out', str(tmp_path), '--style', 'romance', '--gallery']
    script.main(command)
    page = (tmp_path / 'gallery.html').read_text(encoding='utf-8')
    assert 'the story of a.jpg' in page and 'the story of c.PNG' in page
    assert page.count('data:image/jpeg;base64,') == 2
    assert ('not a picture' in page) == (named == 'folder')  # b.jpg, which failed


@pytest.mark.slow
def test_a_cluster_tells_the_same_stories(script, photos, tmp_path, monkeypatch):
    pytest.importorskip('ray')
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    shutil.copy(SCRIPT.parent.parent / 'images' / 'ex5.jpg', photos)
    command = [str(photos), '-k', '5', '--bw', '3', '--style', 'romance', '--style', 'lyric']
    assert script.main([*command, '--out', str(tmp_path / 'here')]) == 1
    cluster = [*command, '--out', str(tmp_path / 'there'), '--ray', '--batch-size', '2']
    assert script.main(cluster) == 1

    def by_photo(out):
        told = {(row['image'], row['settings']['style']): row for row in rows(out)}
        return {key: (row.get('passage'), row.get('error')) for key, row in told.items()}

    assert len(by_photo(tmp_path / 'here')) == 8
    assert by_photo(tmp_path / 'there') == by_photo(tmp_path / 'here')
    before = (tmp_path / 'there' / 'results.jsonl').read_bytes()
    assert script.main(cluster) == 1  # nothing but what failed is left to tell
    assert (tmp_path / 'there' / 'results.jsonl').read_bytes() == before


def test_how_large_a_photo_may_be_is_an_option(script, photos, calls, tmp_path, monkeypatch):
    given, original = [], generate.stories

    def stories(z, images, **options):
        given.append(options['max_pixels'])
        return original(z, images, **options)

    monkeypatch.setattr(generate, 'stories', stories)
    script.main([str(photos), '--out', str(tmp_path), '--max-pixels', '123'])
    assert set(given) == {123}
    assert script.main([str(photos), '--out', str(tmp_path), '--max-pixels', '0']) == 2


def test_what_is_told_refused_and_passed_over_is_all_there_is(
    script, photos, calls, tmp_path, capsys, monkeypatch
):
    for name in ('d.heic', 'e.dng', 'f.jpg', 'g.svg', 'more/h.tif'):
        shutil.copy(photos / 'a.jpg', photos / name)
    monkeypatch.setattr(picture_files, 'known_formats', lambda: ['JPEG', 'PNG', 'TIFF'])
    for number in (1, 2, 3):
        script.main([str(photos), '--out', str(tmp_path), '--shard', f'{number}/3'])
    printed = capsys.readouterr()
    counts = [int(n) for n in re.findall(r'(\d+) (?:told|failed|passed over)', printed.out)]
    assert sum(counts) == sum(path.is_file() for path in photos.rglob('*')) - 1  # notes.txt
    named = ' '.join(re.findall(r'passed over \d+ \(.*?\): (.*)', printed.err)).replace(',', '')
    assert sorted(named.split()) == ['.hidden.jpg', 'd.heic', 'e.dng', 'g.svg']
