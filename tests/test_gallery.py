from __future__ import annotations

import html
import importlib.util
import json
import pathlib
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from counting import calls_below
from PIL import Image

from storyteller import gallery
from storyteller.batch import gallery_rows
from storyteller.formats import MissingFileError, ModelFileError
from storyteller.story import Story, StoryError

pytest.importorskip('jinja2')
SCRIPT = pathlib.Path(__file__).parent.parent / 'scripts' / 'make_gallery.py'
SETTINGS = {
    'k': 100, 'bw': 5, 'lyric': False, 'style': None, 'strength': 1.0, 'seed': None, 'maxlen': 1000,
}  # fmt: skip
HOSTILE = '<script>alert(1)</script>"\'><img src=x onerror=alert(2)> & {{ 7 * 7 }} \u202e'


def row(image='a.jpg', passage='once there was a dog , he said .', caption='a dog', **settings):
    return Story(image, [(caption, 0.5)], passage, SETTINGS | settings).to_dict()


def error(image='b.jpg', reason='not a picture of a known format'):
    return StoryError(image, reason).to_dict() | {'settings': {'k': 100}}


class Page(HTMLParser):
    """What a browser would make of a page: tags, their attributes, and the text outside scripts."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.inside = [], '', ''
        self.source = path.read_text(encoding='utf-8')
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside not in ('script', 'style'):
            self.text += data

    def all(self, tag, css=None):
        return [a for name, a in self.tags if name == tag and css in (None, a.get('class'))]

    def policy(self):
        return next(a['content'] for a in self.all('meta') if 'http-equiv' in a)


@pytest.fixture
def photos(tmp_path):
    """A wide photo, an upright one that lies down, a broken one."""
    folder = tmp_path / 'photos'
    (folder / 'sub').mkdir(parents=True)
    Image.new('RGB', (960, 640), 'teal').save(folder / 'a.jpg')
    Image.new('RGB', (30, 20), 'red').save(folder / 'sub' / 'small.png')
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new('RGB', (600, 300), 'blue').save(folder / 'turned.jpg', exif=turned)
    (folder / 'broken.jpg').write_bytes(b'\xff\xd8\xff no photo')
    return folder


@pytest.fixture
def made(photos, tmp_path):
    def make(*rows, name='page.html', **options):
        contents = gallery.write_gallery(rows, photos, tmp_path / name, **options)
        return Page(tmp_path / name), contents

    return make


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location('make_gallery', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_results(path, rows):
    path.write_text(''.join(json.dumps(one) + '\n' for one in rows))
    return path


# --- what stands on the page ---------------------------------------------------------------------


def test_a_card_has_photo_story_and_captions(made):
    page, contents = made(row(), title='Our summer')
    assert contents == gallery.Contents(photos=1, stories=1, failed=0, without_picture=0)
    assert 'once there was a dog, he said.' in page.text
    assert 'Our summer' in page.text and '1 photo, 1 story' in page.text
    (picture,) = page.all('img')
    assert picture['alt'] == 'a dog' and picture['loading'] == 'lazy'
    assert (picture['width'], picture['height']) == ('480', '320')
    assert picture['src'].startswith('data:image/jpeg;base64,')
    assert '0.50' in page.text and len(page.all('details')) == 1
    assert not page.all('div', 'switch scripted')


def test_thumbnails_are_upright_and_never_enlarged(made):
    page, _ = made(row('turned.jpg'), row('sub/small.png'))
    sizes = [(picture['width'], picture['height']) for picture in page.all('img')]
    assert sizes == [('240', '480'), ('30', '20')]


def test_a_photo_that_is_cut_short_is_shown(made, photos):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / 'cut.jpg')
    whole = (photos / 'cut.jpg').read_bytes()
    (photos / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    page, _ = made(row('cut.jpg'))
    assert [(i['width'], i['height']) for i in page.all('img')] == [('300', '200')]


def test_nothing_hostile_becomes_markup(made):
    rows = [
        row(HOSTILE, HOSTILE, HOSTILE, style=HOSTILE),
        row(HOSTILE, 'plain .', HOSTILE, lyric=True),
        row('a.jpg', 'plain .', HOSTILE),
        error(HOSTILE + '2', HOSTILE),
    ]
    rows[0]['prose'] = rows[1]['lines'][0] = HOSTILE
    page, _ = made(*rows, title=HOSTILE)
    harmless, _ = made(row(), row('a.jpg', style='x'), name='harmless.html')
    assert len(page.all('script')) == len(page.all('style')) == 1
    assert not any(name.startswith('on') for _, attrs in page.tags for name in attrs)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in harmless.tags} | {
        'section', 'ul', 'strong',
    }  # fmt: skip
    assert page.policy() == harmless.policy()
    assert HOSTILE in page.text and page.all('img')[0]['alt'].startswith('<script>')
    assert html.escape('<script>alert(1)') in page.source


@pytest.mark.parametrize(
    'image', ['javascript:alert(1)', 'https://example.org/a.jpg', '//example.org/a.jpg', 'a\0.jpg']
)
@pytest.mark.parametrize('embed', [True, False])
def test_no_path_becomes_an_address(made, image, embed):
    page, contents = made(row(image), embed=embed)
    assert contents.without_picture == 1 and not page.all('img') and not page.all('a')
    addresses = [attrs[name] for _, attrs in page.tags for name in ('src', 'href') if name in attrs]
    assert addresses == ['data:,']


def test_photos_outside_the_folder_are_not_read(made, photos, tmp_path):
    shutil.copy(photos / 'a.jpg', tmp_path / 'private.jpg')
    (tmp_path / 'photos-2').mkdir()
    shutil.copy(photos / 'a.jpg', tmp_path / 'photos-2')
    _, contents = made(
        row('../private.jpg'), row(str(tmp_path / 'private.jpg')), row('../photos-2/a.jpg')
    )
    assert contents.without_picture == 3
    _, contents = made(row(str(photos / 'a.jpg')), row('sub/../a.jpg'))
    assert contents.without_picture == 0


@pytest.mark.parametrize('image', ['gone.jpg', 'broken.jpg', 'sub', ''])
def test_a_photo_that_cannot_be_shown_keeps_its_story(made, image):
    page, contents = made(row(image))
    assert contents.without_picture == 1 and not page.all('img')
    assert 'once there was a dog' in page.text


def test_failed_photos_show_name_and_reason(made):
    page, contents = made(row(), error(), error('b.jpg', 'no such file'), error('b.jpg'))
    assert (contents.photos, contents.failed) == (2, 1)
    assert 'b.jpg' in page.text and 'no such file' in page.text
    assert '2 photos, 1 story; 1 photo not told' in page.text  # and of two the search tells
    assert page.text.count('2 photos') == 2
    assert page.text.count('not a picture of a known format') == 1


def test_the_next_best_texts_are_there(made):
    page, _ = made(row() | {'others': [['the cat , said he .', 1.5], ['a <b>bird</b>', 2.0]]})
    assert 'Other texts' in page.text and 'the cat, said he.' in page.text
    assert 'a <b>bird</b>' in page.text and ('b', {}) not in page.tags
    assert 'Other texts' not in made(row())[0].text


@pytest.mark.parametrize('others', [3, 'text', [['a']], [['a', 'b']], [[1, 2.0]]])
def test_other_texts_that_are_none_are_refused(made, others):
    with pytest.raises(ValueError, match="row 1: 'others': expected a list of pairs"):
        made(row() | {'others': others})


def test_a_failure_beside_a_story_does_not_count(made):
    page, contents = made(error('a.jpg', 'no memory'), row())
    assert (contents.photos, contents.failed) == (1, 0)
    assert 'no memory' not in page.text


def test_only_failures_make_a_page_too(made):
    page, contents = made(error())
    assert (contents.photos, contents.failed) == (1, 1) and '1 photo, 0 stories' in page.text


def test_styles_of_a_photo_share_a_card(made):
    page, contents = made(
        row(), row('sub/small.png'), row(passage='a song , a tune', style='lyric', lyric=True)
    )
    assert (contents.photos, contents.stories) == (2, 2 + 1)
    assert len(page.all('article')) == 2 and len(page.all('div', 'switch scripted')) == 1
    assert len(page.all('details')) == 2  # the captions are those of both
    assert [len(page.all('p', f'story {kind}')) for kind in ('prose', 'verse')] == [2, 1]
    assert re.search(r'<span>a song</span>\s*<span>a tune</span>', page.source)


def test_captions_that_differ_stay_with_their_stories(made):
    page, _ = made(row(), row(caption='a cat', models='other'))
    assert len(page.all('details')) == 2 and 'a cat' in page.text


@pytest.mark.parametrize(
    ('changes', 'labels'),
    [
        ([{}, {'style': 'lyric'}], ['usual style', 'lyric']),
        ([{}, {'style': '/home/me/gothic.npy'}], ['usual style', 'gothic']),
        ([{'style': 'a/x.npy'}, {'style': 'b/x.npy'}], ['x', 'x (2)']),
        ([{}, {'style': {'romance': 0.5, 'b/x.npy': 1.0}}], ['usual style', 'romance 0.5 + x 1']),
        ([{}, {'strength': 0.5}], ['usual', 'strength 0.5']),
        ([{}, {'seed': 3}], ['likeliest', 'seed 3']),
        ([{}, {'lyric': True}], ['in prose', 'in verse']),
        ([{}, {'bw': 50}], ['beam 5', 'beam 50']),
        ([{}, {'telling': {'patience': 2}}], ['usual', 'patience 2']),
        (
            [{}, {'style': 'lyric', 'strength': 0.5, 'seed': 1}],
            ['usual style', 'lyric, strength 0.5, seed 1'],
        ),
    ],
)
def test_a_button_says_what_differs(changes, labels):
    (card,) = gallery_rows.gather([row(**change) for change in changes])
    assert [version.label for version in card.versions] == labels


def test_of_rows_told_alike_the_last_counts():
    (card,) = gallery_rows.gather([row(passage='first .'), row(passage='last .')])
    assert [version.lines for version in card.versions] == [['last.']]


def test_an_empty_story_says_so(made):
    page, _ = made(row(passage=''), row('sub/small.png', passage=' , ,', lyric=True))
    assert page.text.count('An empty story.') == 2


def test_names_of_no_known_encoding_are_written(made, photos):
    name = 'caf\udce9.jpg'
    try:
        shutil.copy(photos / 'a.jpg', photos / name)
    except (OSError, UnicodeError):
        pytest.skip('this system has no such names')
    page, contents = made(row(name), error('\udcff.jpg', 'no \ud800'))
    assert contents.without_picture == 0 and 'caf?.jpg' in page.text


# --- the file ------------------------------------------------------------------------------------


def test_a_page_needs_nothing_from_elsewhere(made):
    page, _ = made(row(), row('sub/small.png'), error())
    policy = page.policy()
    assert policy.startswith("default-src 'none'; img-src data:;") and 'unsafe' not in policy
    assert not re.search(r'https?:|//[a-z]|@import|url\(', page.source)
    assert {name for name, _ in page.tags if name in ('iframe', 'object', 'base', 'form')} == set()
    assert not [attrs for _, attrs in page.tags if 'style' in attrs]  # the policy forbids them


def test_pictures_beside_the_page(made, tmp_path, photos):
    page, contents = made(row(), row('sub/small.png'), name='a: b#1.html', embed=False)
    files = {file.name for file in (tmp_path / 'a: b#1_files').iterdir()}
    assert contents.without_picture == 0 and len(files) == 2
    addresses = [picture['src'] for picture in page.all('img')]
    assert {address.rsplit('/', 1)[1] for address in addresses} == files
    assert all(address.startswith('./a%3A%20b%231_files/') for address in addresses)
    assert 'base64' not in page.source and "img-src data: 'self' file:;" in page.policy()


def test_pictures_that_are_no_longer_needed_go(made, tmp_path):
    made(row(), row('sub/small.png'), embed=False)
    files = tmp_path / 'page_files'
    (files / 'mine.jpg').write_text('put there by somebody')
    made(row(), embed=False)
    assert sorted(len(file.name) for file in files.iterdir()) == [len('mine.jpg'), 32 + 4]


def test_how_large_a_photo_may_be_is_a_choice(made, photos):
    Image.new('L', (30, 20)).save(photos / 'small.png')
    assert made(row('small.png'), max_pixels=599)[1].without_picture == 1
    assert made(row('small.png'), max_pixels=600)[1].without_picture == 0


def test_the_same_rows_give_the_same_bytes(made):
    rows = [row(), row(style='lyric'), error()]
    assert made(*rows)[0].source == made(*rows)[0].source


def test_a_page_is_written_whole_or_not_at_all(made, tmp_path, monkeypatch):
    before, _ = made(row())

    def fails(path, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gallery.images, 'read_rgb', fails)
    with pytest.raises(KeyboardInterrupt):
        made(row(), row('sub/small.png'))
    assert (tmp_path / 'page.html').read_text(encoding='utf-8') == before.source
    assert {path.name for path in tmp_path.iterdir()} == {'photos', 'page.html'}


def test_wrong_places_are_refused(photos, tmp_path):
    for out in ('page', 'results.jsonl'):
        with pytest.raises(ValueError, match=r'ending in \.html'):
            gallery.write_gallery([row()], photos, tmp_path / out)
    (tmp_path / 'folder.html').mkdir()
    with pytest.raises(ValueError, match=r'folder\.html'):
        gallery.write_gallery([row()], photos, tmp_path / 'folder.html')
    with pytest.raises(MissingFileError, match='nowhere'):
        gallery.write_gallery([row()], tmp_path / 'nowhere', tmp_path / 'page.html')


def test_wrong_rows_are_refused_by_number(photos, tmp_path):
    with pytest.raises(ValueError, match='no rows'):
        gallery.write_gallery([], photos, tmp_path / 'page.html')
    with pytest.raises(ValueError, match='row 2: not a row'):
        gallery.write_gallery([row(), {}], photos, tmp_path / 'page.html')


def test_without_jinja2_the_extra_is_named(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'jinja2', None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'storyteller\[gallery\]'"):
        gallery.write_gallery([row()], photos, tmp_path / 'page.html')


def test_a_thousand_photos_take_a_thousand_times_the_work(made, photos):
    story = row(passage='once there was a dog , he said . ' * 12)
    for i in range(1000):
        (photos / f'{i}.png').symlink_to(photos / 'sub' / 'small.png')
    with calls_below(4_000_000):
        page, contents = made(*(story | {'image': f'{i}.png'} for i in range(1000)))
    assert contents == gallery.Contents(1000, 1000, 0, 0) and '1,000 photos' in page.text


# --- results files -------------------------------------------------------------------------------


def test_results_come_back(tmp_path):
    rows = [row(), error(), row('caf\u00e9 \u2028.jpg')]
    assert gallery.read_rows(write_results(tmp_path / 'results.jsonl', rows)) == rows


@pytest.mark.parametrize('kept', [1, 5, 30, -20])
def test_a_cut_last_line_is_left_out(tmp_path, kept):
    path = write_results(tmp_path / 'results.jsonl', [row(), row('last.jpg')])
    content = path.read_bytes()
    start = content[:-1].rindex(b'\n') + 1
    path.write_bytes(content[: start + kept] if kept > 0 else content[:kept])
    with pytest.warns(UserWarning, match=r'results\.jsonl: the last line is cut'):
        assert gallery.read_rows(path) == [row()]


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path):
    path = write_results(tmp_path / 'results.jsonl', [row()])
    path.write_bytes(path.read_bytes().removesuffix(b'\n'))
    assert gallery.read_rows(path) == [row()]


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('no json', 'not a line of JSON'),
        ('', 'not a line of JSON'),
        ('[' * 100_000, 'not a line of JSON'),
        ('[1]', "not a row of results: expected an object with a text 'image'"),
        ('{"image": 3}', "not a row of results: expected an object with a text 'image'"),
        ('{"image": "a.jpg"}', "'prose': expected a text"),
        ('{"image": "a.jpg", "error": 3}', "'error': expected a text"),
        (json.dumps(row() | {'settings': None}), "'settings': expected an object"),
        (json.dumps(row() | {'lines': 'text'}), "'lines': expected a list of texts"),
        (json.dumps(row() | {'captions': {'ab': 1}}), "'captions': expected a list of pairs"),
        (json.dumps(row() | {'captions': [['a', 'b']]}), "'captions': expected a list of pairs"),
        (json.dumps(row() | {'captions': [['a', np.nan]]}), "'captions': expected a list of pairs"),
        (json.dumps(row() | {'captions': [['a', 1, 2]]}), "'captions': expected a list of pairs"),
    ],
)
def test_other_lines_are_named(tmp_path, line, words):
    path = tmp_path / 'results.jsonl'
    path.write_text(json.dumps(row()) + '\n' + line + '\n')
    with pytest.raises(ModelFileError, match=re.escape(f'results.jsonl, line 2: {words}')):
        gallery.read_rows(path)


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = tmp_path / 'results.jsonl'
    path.write_bytes(b'\xff\xfe\x00 a picture, say')
    with pytest.raises(ModelFileError, match='line 1'):
        gallery.read_rows(path)
    with pytest.raises(MissingFileError, match='nowhere'):
        gallery.read_rows(tmp_path / 'nowhere')


# --- the script ----------------------------------------------------------------------------------


def test_the_script_joins_results_and_prints_counts(script, photos, tmp_path, capsys):
    first = write_results(tmp_path / '1.jsonl', [row(), row('gone.jpg')])
    second = write_results(tmp_path / '2.jsonl', [row(style='lyric'), error()])
    out = tmp_path / 'new' / 'page.html'
    command = [str(first), str(second), '--photos', str(photos), '--out', str(out)]
    assert script.main([*command, '--title', 'Ours']) == 0
    printed = capsys.readouterr()
    counts = '3 photos, 1 of them not told; 3 stories, 1 of the photos told without picture'
    assert printed.out == f'{out}: {counts}\n'
    assert 'Ours' in Page(out).text and [path.name for path in out.parent.iterdir()] == [out.name]
    assert script.main([*command, '--beside']) == 0
    assert (out.parent / 'page_files').is_dir()


def test_the_script_says_what_is_wrong_in_one_line(script, photos, tmp_path, capsys):
    good, broken = write_results(tmp_path / 'good.jsonl', [row()]), tmp_path / 'broken.jsonl'
    broken.write_text('{"image": "a.jpg"}\n')
    out, missing = tmp_path / 'page.html', tmp_path / 'missing'
    for arguments, words in (
        ([broken, '--photos', photos, '--out', out], 'broken.jsonl, line 1'),
        ([missing, '--photos', photos, '--out', out], f'{missing}: no such file'),
        ([good, '--photos', missing, '--out', out], f'{missing}: no such folder'),
        ([good, '--photos', photos, '--out', good], 'ending in .html'),
    ):
        assert script.main([str(argument) for argument in arguments]) == 2
        printed = capsys.readouterr()
        assert printed.out == '' and printed.err.count('\n') == 1 and words in printed.err
    assert not out.exists()


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def browser():
    """Headless Chromium: that of the system, else the one that playwright has."""
    api = pytest.importorskip('playwright.sync_api')
    found = shutil.which('chromium') or shutil.which('chromium-browser')
    with api.sync_playwright() as playwright:
        try:
            running = playwright.chromium.launch(executable_path=found, args=['--no-sandbox'])
        except api.Error as problem:
            pytest.skip(f'no Chromium can be started: {str(problem).splitlines()[0]}')
        yield running
        running.close()


@pytest.fixture
def opened(browser, made, tmp_path):
    """Make a page and open it; at the end nothing was fetched and nothing had gone wrong."""
    faults, contexts = [], []

    def open_page(*rows, width=1400, scheme='light', javascript=True, **options):
        made(*rows, **options)
        context = browser.new_context(
            viewport={'width': width, 'height': 900},
            color_scheme=scheme,
            java_script_enabled=javascript,
        )
        contexts.append(context)
        page = context.new_page()
        page.on('console', lambda message: faults.append(message.text))
        page.on('pageerror', lambda problem: faults.append(str(problem)))
        page.on('dialog', lambda dialog: (faults.append('a dialog'), dialog.dismiss()))
        page.on('request', lambda asked: asked.url.startswith('http') and faults.append(asked.url))
        page.goto((tmp_path / 'page.html').as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def expect_shown(page, names, count):
    """Wait for the search, which waits for more letters."""
    expect = pytest.importorskip('playwright.sync_api').expect
    expect(page.locator('.card:not([hidden]) .name, .failed li:not([hidden]) strong')).to_have_text(
        names
    )
    expect(page.locator('.count')).to_have_text(count)


@pytest.mark.slow
def test_search_filters_cards(opened):
    page = opened(
        row('a.jpg', 'the Dogs of my caf\u00e9 .', caption='a hound'),
        row('sub/small.png', 'a cat .', caption='a kitten'),
        row('sub/small.png', "she didn't sing .", caption='a kitten', style='lyric'),
        error('broken.jpg', 'not a picture'),
    )
    expect_shown(page, ['a.jpg', 'sub/small.png', 'broken.jpg'], '3 photos')
    for words, found in (
        ('dog', ['a.jpg']),  # without regard to case, also a part of a word
        ('CAFE', ['a.jpg']),
        ('hound the', ['a.jpg']),  # every word, in any order, of story and captions
        ('hound cat', []),
        ('small.png', ['sub/small.png']),
        ('picture', ['broken.jpg']),
        ('didn\u2019t', ['sub/small.png']),
    ):
        page.fill('input', words)
        expect_shown(page, found, f'{len(found)} of 3 photos')
        assert page.locator('.none').is_visible() == (not found)
    assert page.locator('.failed').is_hidden()
    # The version that has the word has come into sight.
    assert page.locator('.card:not([hidden]) .version:visible').inner_text() == "she didn't sing."
    page.fill('input', '')
    expect_shown(page, ['a.jpg', 'sub/small.png', 'broken.jpg'], '3 photos')


@pytest.mark.slow
def test_keys_reach_and_clear_the_search(opened):
    page = opened(row('a.jpg', 'a dog .'), row('sub/small.png', 'a cat .', caption='fur'))
    page.keyboard.press('/')
    page.keyboard.type('cat')
    expect_shown(page, ['sub/small.png'], '1 of 2 photos')
    page.keyboard.press('Escape')
    expect_shown(page, ['a.jpg', 'sub/small.png'], '2 photos')
    assert page.input_value('input') == ''


@pytest.mark.slow
def test_buttons_switch_styles(opened):
    rows = [row(image, f'{style} tale .', style=style) for image in ('a.jpg', 'sub/small.png')
            for style in ('romance', 'lyric')]  # fmt: skip
    page = opened(*rows)
    visible = lambda: page.locator('.version:visible').all_inner_texts()  # noqa: E731
    assert visible() == ['romance tale.', 'romance tale.']
    first = page.locator('.card').first
    first.get_by_role('button', name='lyric').focus()
    page.keyboard.press('Enter')
    assert visible() == ['lyric tale.', 'romance tale.']
    assert first.get_by_role('button', name='lyric').get_attribute('aria-pressed') == 'true'
    assert first.get_by_role('button', name='romance').get_attribute('aria-pressed') == 'false'
    everywhere = page.locator('.all').get_by_role('button', name='lyric')
    assert everywhere.get_attribute('aria-pressed') == 'false'
    everywhere.click()
    assert visible() == ['lyric tale.', 'lyric tale.']
    assert everywhere.get_attribute('aria-pressed') == 'true'


@pytest.mark.slow
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_colours_follow_the_system_until_chosen(opened, scheme):
    page = opened(row(), scheme=scheme)
    brightness = lambda: page.evaluate(  # noqa: E731
        'getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]'
    )
    dark = brightness() < 128
    assert dark == (scheme == 'dark')
    toggle = page.get_by_role('button', name='Dark colours')
    assert toggle.get_attribute('aria-pressed') == str(dark).lower()
    toggle.click()
    page.wait_for_timeout(1000)  # colours fade
    assert (brightness() < 128) != dark
    assert toggle.get_attribute('aria-pressed') == str(not dark).lower()
    page.reload()
    assert (brightness() < 128) != dark


@pytest.mark.slow
def test_captions_open(opened):
    page = opened(row())
    caption = page.locator('details li').first
    assert caption.is_hidden()
    page.locator('summary').press('Enter')
    assert caption.is_visible() and caption.inner_text().split('\n')[0] == 'a dog'


@pytest.mark.slow
def test_hostile_texts_do_nothing_in_a_browser(opened):
    page = opened(row('a.jpg', HOSTILE, HOSTILE), row('a.jpg', HOSTILE, style=HOSTILE),
                  error(HOSTILE, HOSTILE), title=HOSTILE)  # fmt: skip
    assert page.locator('h1').text_content() == HOSTILE
    assert page.locator('img').count() == 1


@pytest.mark.slow
@pytest.mark.parametrize('embed', [True, False])
def test_pictures_are_seen(opened, embed):
    page = opened(row(), embed=embed)
    width = page.evaluate(
        '(async (img) => (await img.decode(), img.naturalWidth))(document.querySelector("img"))'
    )
    assert width == 480


@pytest.mark.slow
def test_a_phone_has_one_column_that_fits(opened):
    long = 'a_name_without_any_blank_' * 12 + '.jpg'
    page = opened(row(long), row(), row(style='x' * 120), error('y' * 200), width=390)
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    lefts = page.evaluate(
        '[...document.querySelectorAll(".card")].map(card => card.getBoundingClientRect().left)'
    )
    assert len(set(lefts)) == 1


@pytest.mark.slow
def test_without_scripts_all_stories_are_there(opened):
    page = opened(row(), row(style='lyric'), javascript=False)
    assert page.locator('.version:visible').count() == 2
    assert page.locator('.bar, .switch').first.is_hidden()


@pytest.mark.slow
def test_a_thousand_cards_are_searched_at_once(opened, photos):
    page = opened(*(row(f'{i}.jpg', f'tale number {i} of a dog . ' * 20) for i in range(1000)))
    took = page.evaluate("""async () => {
        const input = document.querySelector('input');
        const count = document.querySelector('.count');
        const start = performance.now();
        input.value = '777.jpg';
        input.dispatchEvent(new Event('input'));
        while (!count.textContent.startsWith('1 of')) await new Promise(requestAnimationFrame);
        return performance.now() - start;
    }""")
    expect_shown(page, ['777.jpg'], '1 of 1,000 photos')
    assert took < 3000  # 150 of them are the wait for more letters
