from __future__ import annotations

import dataclasses
import io
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import REFERENCE
from PIL import Image

from storyteller import config, decoder, generate, loading, skipthoughts
from storyteller.formats import ImageError, MismatchError, MissingFileError

EXPECTED = json.loads((REFERENCE / 'story' / 'story.json').read_text())['images']
VECTORS = np.load(REFERENCE / 'story' / 'vectors.npz')
PHOTOS = {
    'landscape': REFERENCE / 'vgg' / 'landscape_decoded.png',
    'portrait': REFERENCE / 'vgg' / 'portrait.png',
    'grey': REFERENCE / 'vgg' / 'grey.png',
}
PATHS = {
    'skmodels': REFERENCE / 'skipthoughts',
    'sktables': f'{REFERENCE / "skipthoughts"}/',
    'decmodel': REFERENCE / 'decoder' / 'romance.npz',
    'dictionary': REFERENCE / 'decoder' / 'romance_dictionary.pkl',
    'vsemodel': REFERENCE / 'embedding' / 'coco_embedding.npz',
    'captions': REFERENCE / 'story' / 'captions.txt',
    'negbias': REFERENCE / 'story' / 'caption_style.npy',
    'posbias': REFERENCE / 'story' / 'romance_style.npy',
}


def expected(name: str) -> dict:
    return next(value for key, value in EXPECTED.items() if key.startswith(name))


@pytest.fixture
def z(monkeypatch, tmp_path):
    """The models of the reference, with VGG-19 replaced by the features it gave."""
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path))
    inputs = np.load(REFERENCE / 'vgg' / 'vgg.npz')

    def known_features(net, im):
        rows = []
        for photo in im:
            name = next(n for n in PHOTOS if np.abs(inputs[f'input_{n}'][0] - photo).max() < 0.01)
            rows.append(inputs[f'fc7_{name}'])
        return np.stack(rows)

    monkeypatch.setattr(generate, 'compute_features', known_features)
    monkeypatch.setattr(loading, 'build_convnet', lambda path, device=None: {'dim': 4096})
    return generate.load_all(PATHS)


def test_load_all_has_the_keys_of_2015(z):
    keys = {'stv', 'dec', 'vse', 'net', 'cap', 'cvec', 'bneg', 'bpos'}
    assert set(z) == keys | {'styles', 'search'}
    np.testing.assert_allclose(z['cvec'], VECTORS['cvec'], atol=1e-5)
    np.testing.assert_allclose(z['bneg'], VECTORS['bneg'])
    assert set(z['styles']) == {'caption', 'romance'}


@pytest.mark.parametrize('name', PHOTOS)
@pytest.mark.parametrize('lyric', [False, True])
def test_printed_story_is_that_of_2015(z, capsys, name, lyric):
    told = generate.story(z, str(PHOTOS[name]), k=10, bw=5, lyric=lyric)
    printed = capsys.readouterr()
    assert printed.out == expected(name)['stdout_lyric' if lyric else 'stdout']
    assert printed.err == ''
    assert told.passage == expected(name)['passage']
    assert [caption for caption, _ in told.captions] == expected(name)['nearest']


@pytest.mark.parametrize('name', PHOTOS)
def test_vectors_on_the_way_are_those_of_2015(z, name):
    (told,) = generate.stories(z, [PHOTOS[name]], k=10, bw=5)
    np.testing.assert_allclose(told.vectors['joint'], VECTORS[f'im_{name}'][0], atol=1e-5)
    np.testing.assert_allclose(told.vectors['shifted'], VECTORS[f'shift_{name}'], atol=1e-5)


def test_many_photos_are_told_as_one_by_one_and_nothing_is_printed(z, capsys):
    photos = [*PHOTOS.values(), PHOTOS['grey']]
    many = generate.stories(z, photos, k=10, bw=5, batch_size=3)
    alone = [generate.stories(z, [photo], k=10, bw=5)[0] for photo in photos]
    assert [told.passage for told in many] == [told.passage for told in alone]
    assert [told.image for told in many] == [str(photo) for photo in photos]
    assert capsys.readouterr() == ('', '')


def test_a_photo_that_fails_leaves_the_others(z, tmp_path):
    broken = tmp_path / 'broken.jpg'
    broken.write_text('no photo')
    photos = [PHOTOS['grey'], broken, PHOTOS['portrait']]
    told = generate.stories(z, photos, k=10, bw=5, on_error='return')
    assert isinstance(told[1], generate.StoryError)
    assert str(told[1]) == f'{told[1].path}: {told[1].reason}'
    assert told[1].path == str(broken) and told[1].reason
    assert told[0].passage == expected('grey')['passage']
    assert told[2].passage == expected('portrait')['passage']
    with pytest.raises(ImageError, match=r'broken\.jpg'):
        generate.stories(z, photos, k=10, bw=5)
    assert generate.stories(z, [], k=10) == []


def test_style_by_name_path_vector_and_weights(z):
    def passage(**options):
        return generate.stories(z, [PHOTOS['grey']], k=10, bw=5, **options)[0].vectors['shifted']

    plain = passage()
    path = REFERENCE / 'story' / 'romance_style.npy'
    for style in ('romance', str(path), z['bpos'], z['bpos'][None], {'romance': 2.0}):
        np.testing.assert_allclose(passage(style=style), plain, atol=1e-6)
    np.testing.assert_allclose(passage(style='caption'), passage(strength=0), atol=1e-6)
    half = passage(style={'romance': 1, 'caption': 1})
    np.testing.assert_allclose(half, (plain + passage(style='caption')) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ('options', 'error', 'words'),
    [
        ({'k': 0}, ValueError, 'k'),
        ({'bw': 0}, ValueError, 'bw'),
        ({'bw': True}, ValueError, 'bw'),
        ({'maxlen': 0}, ValueError, 'maxlen'),
        ({'strength': float('nan')}, ValueError, 'strength'),
        ({'style': 'gothic'}, MissingFileError, 'gothic'),
        ({'style': {'gothic': 1.0}}, ValueError, 'gothic'),
        ({'style': np.zeros(3)}, MismatchError, '48'),
        ({'on_error': 'ignore'}, ValueError, 'on_error'),
    ],
)
def test_bad_arguments_are_named(z, options, error, words):
    with pytest.raises(error, match=words):
        generate.stories(z, [PHOTOS['grey']], **{'k': 10, 'bw': 5, **options})


def test_one_photo_where_a_list_is_expected(z):
    pixels = torch.zeros(3, 40, 40)
    for photo in (str(PHOTOS['grey']), pixels, pixels.numpy(), pixels.byte().numpy()):
        with pytest.raises(TypeError, match='list of photos'):
            generate.stories(z, photo)
    assert generate.stories(z, np.array([])) == []


def test_photos_may_be_tensors_and_arrays_of_floats(z):
    picture = np.asarray(Image.open(PHOTOS['landscape']).convert('RGB'))
    batch = torch.from_numpy(picture / 255).permute(2, 0, 1)[None]
    told = generate.stories(z, [picture, picture / 255, *batch], k=10, bw=5)
    assert len({story.passage for story in told}) == 1
    assert [story.image for story in told] == ['<array>', '<array>', '<tensor>']
    (same,) = generate.stories(z, batch, k=10, bw=5)
    assert same.passage == told[0].passage


def test_sampled_stories_depend_on_the_seed_alone(z):
    def sampled(seed):
        return generate.stories(z, [PHOTOS['landscape']], k=10, seed=seed, maxlen=50)[0].passage

    assert sampled(3) == sampled(3)
    assert len({sampled(seed) for seed in range(8)}) > 1


def test_story_shows_itself(z):
    told = generate.stories(z, [PHOTOS['landscape']], k=10, bw=5)[0]
    assert '\n' not in repr(told) and 'landscape_decoded.png' in repr(told)
    page = told._repr_html_()
    assert 'data:image/jpeg;base64,' in page
    assert 'skis going down' not in page.split('<details>')[0]
    assert json.loads(json.dumps(told.to_dict()))['passage'] == told.passage


@pytest.fixture
def unseen():
    """A story with what HTML and ASCII would stumble over."""
    caption, settings = 'a <b>cat</b> & a caf\u00e9', {'k': 1, 'lyric': True}
    picture = np.zeros((224, 224, 3), np.uint8)
    name = 'photos/a<b> & \u00e9.jpg'
    return generate.Story(
        name, [(caption, 0.5)], 'He <i>said</i> , \u00e9 .', settings, {}, picture
    )


def test_a_story_is_saved_as_text_as_it_is_printed(z, capsys, tmp_path):
    told = generate.story(z, PHOTOS['landscape'], k=10, bw=5)
    told.save(tmp_path / 'new' / 'told.txt')
    told.save(str(tmp_path / 'again.TXT'))
    printed = capsys.readouterr().out.encode()
    assert (tmp_path / 'new' / 'told.txt').read_bytes() == printed
    assert (tmp_path / 'again.TXT').read_bytes() == printed


def test_a_story_is_saved_as_json(unseen, tmp_path):
    unseen.save(tmp_path / 'told.json')
    content = (tmp_path / 'told.json').read_text(encoding='ascii')
    assert content.count('\n') == 1 and json.loads(content) == unseen.to_dict()


def test_a_story_is_saved_as_a_page_of_its_own(unseen, tmp_path):
    unseen.save(tmp_path / 'told.html')
    page = (tmp_path / 'told.html').read_bytes().decode('utf-8')
    assert page.startswith('<!DOCTYPE html>') and '<meta charset="utf-8">' in page
    assert '<title>A story of a&lt;b&gt; &amp; \u00e9.jpg</title>' in page
    assert unseen._repr_html_() in page and 'a &lt;b&gt;cat&lt;/b&gt; &amp; a caf\u00e9' in page
    assert re.findall(r'src="([^"]{10})', page) == ['data:image'] and 'http' not in page


@pytest.mark.parametrize('name', ['told.pdf', 'told', 'told.txt.gz', '.html'])
def test_another_suffix_is_refused_naming_those_that_there_are(unseen, tmp_path, name):
    with pytest.raises(ValueError, match=r'\.html, \.json, \.txt, found'):
        unseen.save(tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_written_leaves_what_was_there(unseen, tmp_path):
    unseen.save(tmp_path / 'told.json')
    before = (tmp_path / 'told.json').read_bytes()
    unseen.settings['style'] = object()  # no JSON
    with pytest.raises(TypeError):
        unseen.save(tmp_path / 'told.json')
    assert [path.name for path in tmp_path.iterdir()] == ['told.json']
    assert (tmp_path / 'told.json').read_bytes() == before


def test_a_name_that_is_no_unicode_is_saved_too(unseen, tmp_path):
    told = dataclasses.replace(unseen, image=os.fsdecode(b'a\xff.jpg'))
    for suffix in ('html', 'json', 'txt'):
        told.save(tmp_path / f'told.{suffix}')
    assert json.loads((tmp_path / 'told.json').read_bytes())['image'] == told.image
    assert b'a?.jpg' in (tmp_path / 'told.html').read_bytes()


def test_parts_that_do_not_fit_are_refused_naming_both(monkeypatch, tmp_path):
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path))
    monkeypatch.setattr(loading, 'build_convnet', lambda path, device=None: {'dim': 512})
    with pytest.raises(MismatchError, match=r'(?s)512.*coco_embedding'):
        generate.load_all({**PATHS, 'vgg': 'narrow.safetensors'})


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_a_precision_is_that_of_the_encoder(z, monkeypatch, precision):
    asked, load = [], skipthoughts.load_model

    def noting(*files, **how):
        asked.append(how['precision'])
        return load(*files, **how)

    monkeypatch.setattr(skipthoughts, 'load_model', noting)
    told = generate.load_all(PATHS, 'cpu', precision=precision)
    assert asked == [precision]
    (story,) = generate.stories(told, [str(PHOTOS['grey'])], k=10, bw=5)
    wanted, near = VECTORS['svecs_grey'].mean(0), 1e-5 if precision == 'float32' else 0.02
    np.testing.assert_allclose(story.vectors['thought'], wanted, atol=near)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"precision: expected one of .*, found 'float64'"):
        generate.load_all(PATHS, precision='float64')
    with pytest.raises(ValueError, match=r"found 'int8', which is there no more"):
        generate.load_all(PATHS, precision='int8')


def test_a_story_is_not_lost_to_a_terminal_of_few_letters(z, monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding='cp1252')
    monkeypatch.setattr('sys.stdout', stdout)
    captions = [f'\u20ac \U0001f436 {caption}' for caption in z['cap']]
    told = generate.story(z | {'cap': captions}, PHOTOS['grey'], k=10, bw=5)
    stdout.flush()
    printed = stdout.buffer.getvalue().decode('cp1252')
    assert printed.replace('\r\n', '\n') == str(told).replace('\U0001f436', '?') + '\n'


def test_captions_are_printed_before_the_search(z, monkeypatch, capsys):
    def broken(*_args, **_kwargs):
        raise RuntimeError(capsys.readouterr().out)

    monkeypatch.setattr(decoder, 'run_samplers', broken)
    with pytest.raises(RuntimeError) as found:
        generate.story(z, str(PHOTOS['grey']), k=10, bw=5)
    whole = expected('grey')['stdout']
    assert str(found.value) == whole[: whole.index('OUTPUT: ')] != ''


def test_eight_threads_print_whole_stories(z, capsys):
    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(lambda name: generate.story(z, str(PHOTOS[name]), k=10, bw=5),
                                [*PHOTOS] * 3))  # fmt: skip
    for name, story in zip([*PHOTOS] * 3, told, strict=True):
        assert str(story) + '\n' == expected(name)['stdout']
    assert capsys.readouterr().out.count('OUTPUT: ') == len(told)


def test_paths_are_read_when_loading(monkeypatch, tmp_path):
    monkeypatch.setitem(config.paths, 'decmodel', str(tmp_path / 'nowhere.npz'))
    with pytest.raises(MissingFileError, match=r'nowhere\.npz'):
        generate.load_all({k: v for k, v in PATHS.items() if k != 'decmodel'})
    with pytest.raises(ValueError, match='decmodle'):
        generate.load_all({'decmodle': 'x'})
    with pytest.raises(MissingFileError, match='no such folder'):
        generate.load_all(tmp_path / 'missing')


def test_styles_beside_the_models_that_cannot_be_used_are_left_out(z, tmp_path):
    for name in ('caption', 'romance'):
        np.save(tmp_path / f'{name}_style.npy', z['styles'][name])
    (tmp_path / 'folder_style.npy').mkdir()
    (tmp_path / 'gone_style.npy').symlink_to(tmp_path / 'nothing')
    np.save(tmp_path / 'wide_style.npy', np.zeros(4800, np.float32))
    beside = {'negbias': 'caption_style.npy', 'posbias': 'romance_style.npy'}
    paths = PATHS | {key: tmp_path / name for key, name in beside.items()}
    with pytest.warns(UserWarning, match='left out') as warned:
        loaded = generate.load_all(paths)
    assert set(loaded['styles']) == {'caption', 'romance'}
    told = ' '.join(str(w.message) for w in warned)
    assert all(name in told for name in ('folder_style', 'gone_style', 'wide_style'))


def test_what_is_missing_from_a_folder_of_2015_has_its_name_of_2015(tmp_path):
    (tmp_path / 'romance.npz').touch()
    entries = config.folder_paths(tmp_path)
    assert entries['vgg'].endswith('vgg19.pkl')
    assert entries['vsemodel'].endswith('coco_embedding.npz')
    (tmp_path / 'decoder.safetensors').touch()
    assert config.folder_paths(tmp_path)['vgg'].endswith('convnet.json')


def test_a_folder_may_hold_a_network_of_earlier_bundles(tmp_path):
    for name in ('vgg19.pkl', 'convnet.safetensors', 'convnet.json'):
        (tmp_path / name).touch()
        assert config.folder_paths(tmp_path)['vgg'] == str(tmp_path / name)  # the latest wins


def test_a_folder_may_hold_files_of_2015(tmp_path):
    for name in ('romance.npz', 'romance_dictionary.pkl', 'vgg19.pkl', 'captions.txt'):
        (tmp_path / name).touch()
    entries = config.folder_paths(tmp_path)
    assert entries['decmodel'].endswith('romance.npz')
    assert entries['vgg'].endswith('vgg19.pkl')
    assert entries['vsemodel'].endswith('embedding.safetensors')
    assert entries['skmodels'] == str(tmp_path)
