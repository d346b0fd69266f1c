"""Parts that mix: each row of the table of combinations in docs/files-of-2015.md."""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from storyteller import config, convert, convnet, embedding, formats, generate, skipthoughts
from storyteller.__main__ import main
from storyteller.formats import MismatchError, MissingFileError

ROOT = Path(__file__).parent.parent
PHOTOS = [str(ROOT / 'images' / f'ex{number}.jpg') for number in (1, 2)]
SKIP = 'uni_skip.*', 'bi_skip.*', '*table.npy', 'dictionary.txt'
TELLER = 'romance*', 'decoder*', '*_style.npy'
EYES = 'coco_*', 'embedding*', 'captions.txt'
NETWORK = 'vgg19.pkl', 'convnet.*'


@pytest.fixture(scope='module')
def models():
    """What makes models of random numbers."""
    folder = str(ROOT / 'scripts')
    sys.path.insert(0, folder)
    yield importlib.import_module('benchmark_models')
    sys.path.remove(folder)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('STORYTELLER_CACHE', str(tmp_path / 'cache'))


@pytest.fixture(scope='module')
def whole(models, tmp_path_factory):
    """All that was published, tiny."""
    folder = tmp_path_factory.mktemp('whole')
    models.make_models(folder, models.TINY, seed=1)
    return folder


@pytest.fixture(scope='module')
def ours(models, tmp_path_factory):
    """A bundle whose widths are others, and which reads the features of VGG-19 as well."""
    made, folder = (tmp_path_factory.mktemp(name) for name in ('made', 'models'))
    blocks = ((3,) * 2, (3,) * 2, (4,) * 4, (4,) * 4, (4,) * 4)
    sizes = replace(
        models.TINY,
        convnet=convnet.Architecture(blocks, (9, 10), 32),
        uni=6,
        bi=3,
        width=4,
        joint=7,
    )
    models.make_models(made, sizes, seed=2)
    list(convert.convert(made, folder, 'ours'))
    path = folder / 'embedding.safetensors'
    params, options = formats.read_model(path)
    params |= models.affine(np.random.default_rng(0), 'ff_image_vgg19', 16, 7)
    formats.write_model(path, params, options)
    return folder


@pytest.fixture
def have(whole, tmp_path):
    """Make a folder that has only some of what was published."""

    def made(*patterns, name='theirs', source=whole):
        folder = tmp_path / name
        folder.mkdir()
        for file in {file for pattern in patterns for file in source.glob(pattern)}:
            shutil.copyfile(file, folder / file.name)
        return folder

    return made


@pytest.fixture(scope='module')
def books(tmp_path_factory, models):
    """A novel of words that the tables know."""
    path, rng = tmp_path_factory.mktemp('books') / 'one.txt', np.random.default_rng(0)
    said = (' '.join(models.word(n) for n in rng.integers(0, 40, 8)) for _ in range(400))
    sentences = [f'{line.capitalize()}.' for line in said]
    lines = [' '.join(sentences[i : i + 10]) for i in range(0, 400, 10)]
    path.write_text('\n'.join(lines) + '\n')
    return path


def run(script, *arguments, code=0):
    command = [sys.executable, str(ROOT / 'scripts' / f'{script}.py'), *map(str, arguments)]
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def told(chosen):
    """Stories of two photos, and what they were told with."""
    z = generate.load_all(chosen, device='cpu')
    stories = generate.stories(z, PHOTOS, k=5, bw=3, maxlen=20, batch_size=2)
    assert all(story.passage and len(story.captions) == 5 for story in stories)
    return [story.passage for story in stories], [story.captions for story in stories], z


# --- the rows ------------------------------------------------------------------------------------


def test_all_three_parts(whole):
    passages, captions, z = told(whole)
    assert (z['net']['dim'], z['dec']['options']['dimctx']) == (16, 18) and len(set(passages)) == 2
    assert told([whole])[:2] == (passages, captions)


def test_encoders_and_decoder_of_2015_with_our_eyes(have, ours):
    theirs = have(*SKIP, *TELLER, *EYES[:1])
    eyes = have(*EYES, *NETWORK, name='eyes', source=ours)
    _, captions, z = told([eyes, theirs])
    assert (z['net']['dim'], z['dec']['options']['dimctx']) == (10, 18)
    assert captions == told(ours)[1]
    keys = 'skmodels', 'sktables', 'decmodel', 'dictionary', 'negbias', 'posbias'
    named = config.folder_paths(ours) | {key: config.folder_paths(theirs)[key] for key in keys}
    assert told(named)[:2] == told([eyes, theirs])[:2]


def test_the_eyes_of_2015_with_our_decoder(have, ours, whole):
    theirs = have(*NETWORK, *TELLER, *EYES)
    tale = have(*SKIP, *TELLER, name='tale', source=ours)
    _, captions, z = told([tale, theirs])
    assert (z['net']['dim'], z['dec']['options']['dimctx']) == (16, 12)
    assert captions == told(whole)[1]
    entries = config.folder_paths(theirs)
    named = config.folder_paths(ours) | {
        key: entries[key] for key in ('vgg', 'vsemodel', 'captions')
    }
    assert told(named)[:2] == told([tale, theirs])[:2]


@pytest.mark.parametrize('form', ['lasagne', 'caffe', 'keras', 'torch_older', 'torchvision'])
def test_vgg_19_alone_with_our_models(have, ours, whole, forms, form):
    theirs = have()
    names = dict(zip(('lasagne', 'caffe', 'keras', 'torch_older', 'torchvision'),
                     ('vgg19.pkl', *config._ALSO['vgg']), strict=True))  # fmt: skip
    getattr(forms, form)(theirs / names[form], convnet.read_params(whole / 'vgg19.pkl')[1])
    _, _, z = told([theirs, ours])
    assert (z['net']['dim'], z['dec']['options']['dimctx']) == (16, 12)


def test_the_archive_alone_gives_sentences_and_captions_in_one_space(have):
    entries = config.folder_paths(have(*TELLER, *EYES))
    vse = embedding.load_model(entries['vsemodel'])
    lines = formats.read_lines(entries['captions'])[:3]
    assert embedding.encode_sentences(vse, lines).shape == (3, 12)


@pytest.mark.slow
def test_a_decoder_and_styles_for_the_encoders_of_2015(have, ours, books):
    theirs = have(*SKIP)
    text = '--models', theirs, '--text', books
    run('make_style', *text, '--out', theirs / 'romance_style.npy', '--shortest', 20, '--few')
    pool = '--models', theirs, '--captions', ours / 'captions.txt'
    said = run('make_style', *pool, '--out', theirs / 'caption_style.npy')
    assert said.startswith(f'{theirs / "caption_style.npy"}: the mean of ')
    run(
        'train_decoder', *text, '--work', theirs / 'work', '--out', theirs / 'decoder.safetensors',
        '--dim-word', 8, '--dim', 10, '--epochs', 1, '--n-words', 30, '--longest', 40,
    )  # fmt: skip
    _, captions, z = told([theirs, ours])
    assert z['dec']['options']['dimctx'] == z['bneg'].size == 18
    assert captions == told(ours)[1]
    encoder = skipthoughts.Encoder(skipthoughts.load_model(theirs, theirs))
    mean = encoder.encode(formats.read_lines(ours / 'captions.txt'), verbose=False).mean(0)
    np.testing.assert_allclose(z['bneg'], mean, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('form', ['lasagne', 'caffe'])
def test_a_joint_space_for_vgg_19(have, ours, whole, forms, form, tmp_path):
    theirs = have()
    name = {'lasagne': 'vgg19.pkl', 'caffe': 'VGG_ILSVRC_19_layers.caffemodel'}[form]
    getattr(forms, form)(theirs / name, convnet.read_params(whole / 'vgg19.pkl')[1])
    captions = [f'{Path(photo).name}\ta photo {n}' for photo in PHOTOS for n in range(2)]
    (tmp_path / 'captions.txt').write_text('\n'.join(captions) + '\n')
    for number, network in enumerate((theirs, theirs / name)):  # both ways to say it
        run(
            'train_embedding', '--models' if number else '--network', network,
            '--captions', tmp_path / 'captions.txt', '--photo-folder', ROOT / 'images',
            '--work', tmp_path / f'work{number}', '--out', theirs / 'embedding.safetensors',
            '--dim-word', 8, '--dim', 10, '--epochs', 1, '--batch-size', 2,
        )  # fmt: skip
    assert formats.read_model(theirs / 'embedding.safetensors')[1]['dim_image'] == 16
    assert told([theirs, ours])[2]['cvec'].shape[1] == 10


# --- one folder ----------------------------------------------------------------------------------


def test_one_folder_may_hold_parts_of_both(have, ours, whole):
    """Our bundle, but the network: in its place one of 2015."""
    mixed = have('*', name='mixed', source=ours)
    (mixed / 'convnet.safetensors').unlink()
    shutil.copyfile(whole / 'vgg19.pkl', mixed / 'vgg19.pkl')
    assert told(mixed)[:2] == told([have('vgg19.pkl'), ours])[:2]


# --- several -------------------------------------------------------------------------------------


def test_each_part_is_taken_from_the_first_that_has_it(have, ours, whole):
    first = have(*SKIP, 'romance_style.npy', name='first')
    second = have('decoder*', name='second', source=ours)
    found = config.resolve([first, second, whole])
    places = {key: Path(path) for key, path in found.items()}
    assert {key: place if place.is_dir() else place.parent for key, place in places.items()} == {
        'skmodels': first, 'sktables': first, 'posbias': first, 'negbias': whole,
        'decmodel': second, 'dictionary': second, 'vsemodel': whole, 'vgg': whole,
        'captions': whole,
    }  # fmt: skip
    assert config.resolve([ours]) == config.resolve(ours) == config.folder_paths(ours)


def test_what_none_has_is_named(have, tmp_path):
    folders = [have(*SKIP, name='first'), have(*TELLER, name='second')]
    with pytest.raises(MissingFileError, match=r'second.(coco_)?(embedding|convnet|vgg|captions)'):
        generate.load_all(folders)
    with pytest.raises(MissingFileError, match='third: no such folder'):
        generate.load_all([*folders, tmp_path / 'third'])
    with pytest.raises(ValueError, match='at least one folder'):
        generate.load_all([])


def test_the_command_line_takes_several(have, ours, whole, capsys):
    printed = []
    for chosen in ([have('vgg19.pkl'), ours], [have(name='none'), ours], [ours]):
        models = [part for each in chosen for part in ('--models', str(each))]
        assert main([PHOTOS[0], '-k', '5', '--bw', '3', *models]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[1] == printed[2] != printed[0]


def test_a_run_over_a_folder_keeps_what_it_was_told_with(
    have, ours, scripts, tmp_path, capsys, monkeypatch
):
    folder = importlib.import_module('story_folder')
    monkeypatch.setattr(warnings, 'showwarning', warnings.showwarning)  # which it sets
    asked = [PHOTOS[0], '--out', str(tmp_path / 'told'), '-k', '5', '--bw', '2', '--models']
    both = [str(have('vgg19.pkl')), '--models', str(ours)]
    for models, code, words in ((both, 0, '1 told'), (both, 0, '1 from before')):
        assert folder.main([*asked, *models]) == code
        assert words in capsys.readouterr().out
    assert folder.main([*asked, str(ours)]) == 2
    assert 'models' in capsys.readouterr().err


# --- refusals ------------------------------------------------------------------------------------


def refused(chosen):
    """What is said, and the command in it as its words."""
    with pytest.raises(MismatchError) as error:
        generate.load_all(chosen)
    said = str(error.value)
    return said, shlex.split(said[said.index('python scripts/') :])


def test_a_decoder_for_other_encoders_names_what_makes_one(have, ours):
    said, command = refused([have(*SKIP), ours])
    for words in ('decoder.safetensors', 'width 12', 'theirs', '18'):
        assert words in said
    assert command[1] == 'scripts/train_decoder.py' and (ROOT / command[1]).is_file()
    assert command[command.index('--models') + 1].endswith('theirs')


@pytest.mark.parametrize(('name', 'option'), [('caption', '--captions'), ('romance', '--text')])
def test_a_style_for_other_encoders_names_what_makes_one(have, ours, name, option):
    other = have(f'{name}_style.npy', source=ours)
    said, command = refused([other, have('*', name='all')])
    assert f'{name}_style.npy' in said and '12' in said and '18' in said
    assert command[1] == 'scripts/make_style.py' and option in command
    assert command[-1].endswith(f'{name}_style.npy')


def test_an_embedding_for_another_network_names_what_makes_one(have, ours):
    said, command = refused([have(*EYES), ours])
    for words in ('convnet.safetensors', 'width 10', 'coco_embedding.npz', '16'):
        assert words in said
    assert command[1] == 'scripts/train_embedding.py'
    assert command[command.index('--models') + 1].endswith('convnet.safetensors')
