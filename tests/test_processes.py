"""Several processes tell what one does, in the same order, and end with it."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from small_models import write_models
from test_story_folder import script  # noqa: F401, a fixture

from storyteller.batch import processes
from storyteller.batch.results import Found, Plan
from storyteller.options import StoryOptions

OPTIONS = StoryOptions(k=5, bw=3, maxlen=20)


class Killed(Plan):
    """Whose models are too many for the system."""

    def load(self):
        os._exit(1)


@pytest.fixture(autouse=True)
def none_stays():
    before = multiprocessing.active_children()
    yield
    assert multiprocessing.active_children() == before


@pytest.fixture
def jobs(tmp_path):
    photos = []
    for number in range(5):
        photos.append(Found(f'{number}.png', tmp_path / f'{number}.png'))
        colour = (50 * number, 255 - 50 * number, 90)
        Image.new('RGB', (60, 40), colour).save(photos[-1].path)
    photos[3].path.write_text('no photo')
    return [(photos[:2], None), (photos[2:4], None), (photos[4:], None), (photos[:1], 'romance')]


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))
    return write_models(tmp_path)


def test_the_rows_are_those_of_one_process(paths, jobs):
    plan = Plan(paths, (None, 'romance'), OPTIONS, {'bw': 3})
    expected = list(plan.told(plan.load(), jobs))
    assert [row['image'] for row in expected] == [f'{n}.png' for n in (0, 1, 2, 3, 4, 0)]
    assert [number for number, row in enumerate(expected) if 'error' in row] == [3]
    assert list(processes.tell(plan, jobs, 2)) == expected


def test_what_is_wrong_comes_back(paths, jobs):
    with pytest.raises(ValueError, match='bw'):
        list(processes.tell(Plan(paths, (None,), replace(OPTIONS, bw=0), {}), jobs, 1))
    with pytest.raises(OSError, match='gothic'):
        list(processes.tell(Plan(paths, ('gothic',), OPTIONS, {}), jobs, 1))
    with pytest.raises(OSError, match='memory'):
        list(processes.tell(Killed(paths, (None,), OPTIONS, {}), jobs, 1))


def test_who_stops_listening_leaves_no_process(paths, jobs):
    rows = processes.tell(Plan(paths, (None,), OPTIONS, {}), jobs, 1)
    assert next(rows)['image'] == '0.png'
    with pytest.raises(KeyboardInterrupt):
        rows.throw(KeyboardInterrupt)


def test_the_folder_script_asks_for_them(script, jobs, tmp_path, monkeypatch, capsys):  # noqa: F811
    asked, out = [], ['--out', str(tmp_path / 'told')]
    monkeypatch.setattr(processes, 'cores', lambda: 7)
    monkeypatch.setattr(script, 'use_threads', asked.append)
    monkeypatch.setattr(
        processes, 'tell', lambda plan, jobs, count: asked.append(count) or iter(())
    )
    photo = str(Path(jobs[0][0][0].path))
    assert script.main([photo, *out, '--processes', '3']) == 0
    assert asked == [2, 3]
    assert script.main([photo, *out, '--processes', '3', '--threads', '1']) == 0
    assert asked[2:] == [1, 3]
    capsys.readouterr()
    for wrong in (['--processes', '0'], ['--processes', '2', '--ray']):
        assert script.main([photo, *out, *wrong]) == 2
        assert 'processes: ' in capsys.readouterr().err
