"""The next thing is done while the last one is used, and nothing else changes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from PIL import Image

from storyteller.ahead import ahead, photos_ahead
from storyteller.images import Loaded, load_image


def test_the_next_is_begun_before_the_last_is_used():
    begun = {item: threading.Event() for item in range(4)}

    def work(item):
        begun[item].set()
        return item

    for result in ahead(work, range(4)):
        if result < 3:
            assert begun[result + 1].wait(60)
        if result < 2:
            assert not begun[result + 2].is_set()


def test_an_error_comes_in_its_place():
    found = []
    with pytest.raises(ZeroDivisionError):
        found.extend(ahead(lambda item: 1 / item, [1, 2, 0, 4]))
    results = ahead(lambda item: 1 / item, [1, 2, 0, 4])
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_no_thread_stays_behind():
    before = threading.active_count()
    next(ahead(str, range(9)))  # and no more is asked for
    assert list(ahead(str, [])) == []
    assert threading.active_count() == before


@pytest.fixture
def paths(tmp_path):
    for number in range(3):
        Image.new('RGB', (40, 30), (90 * number, 0, 0)).save(tmp_path / f'{number}.png')
    (tmp_path / 'broken.png').write_text('no photo')
    return [*(tmp_path / f'{number}.png' for number in range(3)), tmp_path / 'broken.png']


def test_photos_are_read_as_they_are_elsewhere(paths):
    batches = [(paths[:2], 'a'), ([*paths[2:]], 'b')]
    (first, a), (second, b) = photos_ahead(batches, 24, {'bw': 3})
    assert (a, b) == ('a', 'b') and second[1] == paths[3]
    for path, photo in zip(paths, [*first, second[0]], strict=False):
        rawim, im = load_image(path, side=24)
        np.testing.assert_array_equal(photo.rawim, rawim)
        np.testing.assert_array_equal(photo.im, im)
        assert photo.name == str(path)


def test_what_a_style_was_told_of_is_not_read_for_the_next(paths):
    batches = [(paths[:2], 1), (paths[1:2], 2), (paths[:1], 3)]
    (first, _), (second, _), (third, _) = photos_ahead(batches, None, {})
    assert second[0] is first[1] and third[0] is not first[0]


def test_options_of_reading_count(paths):
    ((photos, _),) = photos_ahead([(paths[:1], None)], None, {'max_pixels': 1199})
    assert photos == paths[:1]
    ((photos, _),) = photos_ahead([(paths[:1], None)], None, {'max_pixels': 1200})
    assert isinstance(photos[0], Loaded)
