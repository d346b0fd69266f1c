"""The web page, with real clicks in a headless browser."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storyteller import generate

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


@pytest.mark.slow
def test_the_button_tells_what_the_library_tells(demo, z, photo):
    captions, story = demo.teller(z)(photo, 'lyric', 1.0, 5, 3, False, None)
    (told,) = generate.stories(z, [photo], k=5, bw=3, style='lyric')
    assert story == told.prose and captions.count('\n') == 4
    _, drawn = demo.teller(z)(photo, 'romance', 0.5, 5, 3, True, 7)
    (told,) = generate.stories(
        z, [photo], k=5, bw=3, style='romance', strength=0.5, seed=7, lyric=True
    )
    assert drawn.splitlines() == told.lines


@pytest.mark.slow
def test_errors_are_kind(demo, z, tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'no photo')
    for path, words in ((None, 'choose a photo'), (str(tmp_path / 'a.jpg'), 'not a picture')):
        with pytest.raises(gradio.Error, match=words) as caught:
            demo.teller(z)(path, 'romance', 1.0, 5, 3, False, None)
        assert str(tmp_path) not in str(caught.value)  # nobody's paths


@pytest.mark.slow
def test_a_photo_is_told_by_clicks(demo, z):
    playwright = pytest.importorskip('playwright.sync_api')
    chromium = shutil.which('chromium') or shutil.which('chromium-browser')
    if not chromium:
        pytest.skip('there is no chromium')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    blocks = demo.page(z)
    blocks.launch(server_name='127.0.0.1', server_port=port, prevent_thread_lock=True, quiet=True)
    try:
        with playwright.sync_playwright() as play:
            browser = play.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
            tab = browser.new_page()
            tab.goto(f'http://127.0.0.1:{port}')
            tab.get_by_role('button', name='Tell').click()
            tab.get_by_text('Please choose a photo first.').wait_for(timeout=60_000)
            tab.locator('input[type=file]').first.set_input_files(str(ROOT / 'images' / 'ex5.jpg'))
            tab.locator('img').first.wait_for(timeout=60_000)
            tab.get_by_role('button', name='Tell').click()
            tab.wait_for_function(
                "document.querySelector('#story textarea').value.length > 40", timeout=120_000
            )
            assert tab.locator('#captions li').count() == 5
            browser.close()
    finally:
        blocks.close()
