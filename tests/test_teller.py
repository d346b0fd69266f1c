"""The facade as an object: the same stories as by the functions, and nothing is printed."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from small_models import PHOTO

import storyteller
from storyteller import Storyteller, generate
from storyteller.errors import ImageError
from storyteller.story import Story, StoryError

CHECKOUT = pathlib.Path(__file__).parent.parent
FAST = {'k': 5, 'bw': 4, 'maxlen': 30}


@pytest.fixture(scope='module')
def teller(small_paths):
    return Storyteller(small_paths, device='cpu')


def test_a_story_is_that_of_the_functions_and_nothing_is_printed(teller, capsys):
    told = teller.tell(PHOTO, style='caption', lyric=True, **FAST)
    (same,) = generate.stories(teller.z, [PHOTO], style='caption', lyric=True, **FAST)
    assert isinstance(told, Story) and told.to_dict() == same.to_dict()
    assert capsys.readouterr() == ('', '')


def test_many_photos_are_told_in_order_and_may_fail(teller, capsys):
    photos = [PHOTO, 'nowhere.jpg', PHOTO[::-1]]
    first, failed, last = teller.tell_many(iter(photos), on_error='return', batch_size=2, **FAST)
    assert failed == StoryError('nowhere.jpg', 'no such file')
    assert [first.passage, last.passage] == [teller.tell(photos[i], **FAST).passage for i in (0, 2)]
    assert capsys.readouterr() == ('', '')
    with pytest.raises(ImageError, match=r'nowhere\.jpg: no such file'):
        teller.tell_many(photos, **FAST)


@pytest.mark.parametrize(
    ('photo', 'options', 'error', 'words'),
    [
        ('nowhere.jpg', {}, ImageError, 'no such file'),
        (['a.jpg', 'b.jpg'], {}, TypeError, 'not list'),
        (PHOTO, {'style': 'gothic'}, FileNotFoundError, 'gothic'),
        (PHOTO, {'colour': 'red'}, TypeError, 'colour'),
        (PHOTO, {'on_error': 'return'}, TypeError, 'on_error'),
    ],
)
def test_what_cannot_be_told_is_named(teller, photo, options, error, words):
    with pytest.raises(error, match=words):
        teller.tell(photo, **options)


def test_it_says_what_it_holds(teller):
    assert teller.styles == ['caption', 'romance']
    count = len(teller.z['cap'])
    assert repr(teller) == f'<Storyteller: {count} captions; styles: caption, romance>'


def test_it_is_loaded_as_by_load_all(monkeypatch):
    given = []
    monkeypatch.setattr(generate, 'load_all', lambda *a, **k: given.append((a, k)) or {})
    Storyteller()
    Storyteller('f', device='cpu', threads=2, precision='bfloat16', caption_index='i')
    usual = {'caption_index': None, 'precision': 'float32', 'threads': None}
    said = {'caption_index': 'i', 'precision': 'bfloat16', 'threads': 2}
    assert given == [((None, None), usual), (('f', 'cpu'), said)]


def test_the_package_is_imported_without_what_the_object_needs():
    program = """
import sys, storyteller
assert 'Storyteller' in dir(storyteller) and 'torch' not in sys.modules
from storyteller import Storyteller
assert 'torch' in sys.modules and storyteller.Storyteller is Storyteller
"""
    environment = os.environ | {'PYTHONPATH': str(CHECKOUT)}
    subprocess.run([sys.executable, '-c', program], env=environment, timeout=300, check=True)


def test_other_names_of_the_package_are_not_there():
    with pytest.raises(AttributeError, match="'storyteller' has no attribute 'Teller'"):
        storyteller.Teller  # noqa: B018
