"""The web page: what its choices ask for, what it says, and real clicks in a browser."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storyteller import generate
from storyteller.images import load_image
from storyteller.options import SearchSettings, Telling
from storyteller.story import Story

gradio = pytest.importorskip('gradio')
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope='module')
def demo():
    spec = importlib.util.spec_from_file_location('demo', ROOT / 'scripts' / 'demo.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def z(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('STORYTELLER_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield generate.load_all()


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    return str(tmp_path / 'a.png')


@pytest.fixture
def asked(monkeypatch):
    """What the library is asked for, answered without a model."""
    given = []

    def stories(z, photos, **options):
        load_image(photos[0])
        given.append(options)
        return [Story(str(photos[0]), [('a dog', 0.5)] * 6, 'a story , in lines .', {})]

    monkeypatch.setattr(generate, 'stories', stories)
    return given


STYLES = {'lyric': 0, 'romance': 1, 'caption': 2}
SUITING = SearchSettings(8, 6, 30, 0.9, Telling(no_repeat=3, groups=2, top_p=0.8, banned=('love',)))


def pressed(demo, z, photo, **changes):
    """The button pressed with some choices changed."""
    return demo.teller(z)(photo, *(demo.defaults(z) | changes).values())


# --- what is asked for ---------------------------------------------------------------------------


def test_nothing_touched_asks_for_what_suits_the_models(demo, photo, asked):
    assert pressed(demo, {'styles': STYLES, 'search': SUITING}, photo)[1] == 'a story, in lines.'
    telling = Telling(no_repeat=3, groups=2, banned=('love',))
    expected = {'style': 'romance', 'strength': 0.9, 'k': 8, 'bw': 6, 'maxlen': 30}
    (given,) = asked
    assert given == given | expected | {'seed': None, 'telling': telling, 'lyric': False}
    pressed(demo, {'styles': STYLES}, photo)
    assert asked[1]['bw'] == 20 and asked[1]['telling'] == Telling()


def test_a_draw_is_a_choice_and_its_number_alone_is_none(demo, photo, asked):
    z = {'styles': STYLES, 'search': SUITING}
    for changes, seed in (({'seed': 5}, None), ({'draw': True}, 0), ({'draw': True, 'seed': 5}, 5)):
        pressed(demo, z, photo, **changes)
        assert asked[-1]['seed'] == seed
        drawn = seed is not None
        asked[-1]['telling'].check_for(drawn, 6)
        assert asked[-1]['telling'].top_p == (0.8 if drawn else 1)


def test_search_options_and_mixtures_reach_the_library(demo, photo, asked):
    z = {'styles': STYLES}
    changes = {'no_echo': 4, 'length_penalty': 1, 'required': 'sea  sand', 'banned': 'love'}
    _, story = pressed(demo, z, photo, second='lyric', share=0.25, lyric=True, bw=3, **changes)
    (given,) = asked
    assert given['style'] == {'romance': 0.75, 'lyric': 0.25} and given['bw'] == 3
    told = Telling(no_echo=4, length_penalty=1.0, required=('sea', 'sand'), banned=('love',))
    assert given['telling'] == told and given['lyric'] and story == 'a story , in lines .'
    pressed(demo, z, photo, second='romance')
    assert asked[-1]['style'] == 'romance'
    with pytest.raises(gradio.Error, match='cannot be told: required, banned'):
        pressed(demo, z, photo, required='sea', banned='sea')


def test_there_is_a_control_for_every_choice(demo):
    z = {'styles': STYLES, 'search': SUITING}
    blocks = demo.page(z)
    (told,) = [each for each in blocks.config['dependencies'] if each['api_name'] == 'tell']
    parts = {part['id']: part['props'] for part in blocks.config['components']}
    values = [parts[number].get('value') for number in told['inputs']]
    assert values == [None, *demo.defaults(z).values()]  # untouched, open or closed


# --- photos that cannot be read ------------------------------------------------------------------


def test_the_page_reads_the_photo_itself_and_says_what_is_wrong(demo, tmp_path, photo):
    preview = demo.looker()(photo)
    assert preview.size == (160, 120) and demo.looker()(None) is None
    Image.new('L', (3000, 1500)).save(tmp_path / 'large.png')
    assert demo.looker()(str(tmp_path / 'large.png')).size == (1024, 512)
    (tmp_path / 'a.heic').write_bytes(b'\0\0\0\x1cftypheic' + bytes(9))
    (tmp_path / 'a.txt').write_text('no photo')
    for name, words in (('a.heic', 'This photo cannot be read: '), ('a.txt', 'not a picture')):
        with pytest.raises(gradio.Error, match=words) as caught:
            demo.looker()(str(tmp_path / name))
        assert str(tmp_path) not in str(caught.value) and not caught.value.print_exception
    with pytest.raises(gradio.Error, match='more than 9 pixels'):
        demo.looker(9)(photo)
    assert 'JPEG, PNG' in demo.takes()


def test_the_message_reaches_who_asks_over_the_network(demo, asked, tmp_path, photo):
    client = pytest.importorskip('gradio_client')
    (tmp_path / 'a.jpg').write_bytes(b'no photo')
    blocks = demo.page({'styles': STYLES})
    port = free_port()
    blocks.launch(server_name='127.0.0.1', server_port=port, prevent_thread_lock=True, quiet=True)
    try:
        page = client.Client(f'http://127.0.0.1:{port}', verbose=False)
        values = demo.defaults({'styles': STYLES}).values()
        given = client.handle_file(photo)
        captions, story = page.predict(given, *values, api_name='/tell')
        assert captions.count('a dog') == 5 and story == 'a story, in lines.'
        with pytest.raises(Exception, match='cannot be told: not a picture'):
            page.predict(client.handle_file(str(tmp_path / 'a.jpg')), *values, api_name='/tell')
        with pytest.raises(Exception, match='choose a photo'):
            page.predict(None, *values, api_name='/tell')
    finally:
        blocks.close()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


# --- with the bundle, and in a browser -----------------------------------------------------------


@pytest.mark.slow
def test_the_button_tells_what_the_library_tells(demo, z, photo):
    captions, story = pressed(demo, z, photo, style='lyric', k=5, bw=3)
    (told,) = generate.stories(z, [photo], k=5, bw=3, style='lyric')
    assert story == told.prose and captions.count('\n') == 4
    chosen = {'k': 5, 'bw': 3, 'strength': 0.5, 'lyric': True}
    _, drawn = pressed(demo, z, photo, draw=True, seed=7, **chosen)
    (told,) = generate.stories(z, [photo], style='romance', seed=7, **chosen)
    assert drawn.splitlines() == told.lines


@pytest.mark.slow
def test_a_photo_is_told_by_clicks(demo, z, tmp_path):
    playwright = pytest.importorskip('playwright.sync_api')
    chromium = shutil.which('chromium') or shutil.which('chromium-browser')
    if not chromium:
        pytest.skip('there is no chromium')
    (tmp_path / 'a.jpg').write_bytes(b'no photo')
    port, blocks = free_port(), demo.page(z)
    blocks.launch(
        server_name='127.0.0.1', server_port=port, prevent_thread_lock=True, quiet=True,
        allowed_paths=[str(path) for path in demo.EXAMPLES],
    )  # fmt: skip
    try:
        with playwright.sync_playwright() as play:
            browser = play.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
            tab = browser.new_page()
            tab.goto(f'http://127.0.0.1:{port}')
            button, story = tab.get_by_role('button', name='Tell'), tab.locator('#story textarea')

            def told():
                button.click()
                tab.wait_for_function(
                    "document.querySelector('#story textarea').value.length > 40", timeout=120_000
                )
                return story.input_value()

            button.click()
            tab.get_by_text('Please choose a photo first.').wait_for(timeout=60_000)
            tab.locator('input[type=file]').first.set_input_files(str(tmp_path / 'a.jpg'))
            tab.get_by_text('not a picture of a known format').first.wait_for(timeout=60_000)
            tab.reload()
            tab.locator('#examples .thumbnail-item').first.click()
            tab.locator('#preview img').wait_for(timeout=60_000)
            first = told()
            assert tab.locator('#captions li').count() == 5
            tab.get_by_role('button', name='More').click()  # and touch nothing
            assert told() == first
            with tab.expect_download() as saved:
                tab.get_by_role('button', name='Save').click()
            assert first in Path(saved.value.path()).read_text(encoding='utf-8')
            browser.close()
    finally:
        blocks.close()
