"""Search settings that travel with a decoder: what is taken, from where, and what wins."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from storyteller import config, generate
from storyteller.__main__ import main
from storyteller.cli import check
from storyteller.cli.arguments import add_options, add_search, options_from, search_from
from storyteller.formats import ModelFileError
from storyteller.io import bundle
from storyteller.options import SearchSettings, StoryOptions, Telling

MODELS = config.default_folder()
PHOTO = np.tile(np.arange(240, dtype=np.uint8)[:, None, None], (1, 240, 3))
SUITING = {'k': 7, 'bw': 6, 'maxlen': 25, 'strength': 0.5, 'no_repeat': 3, 'groups': 2, 'top_k': 9}
OLD = SearchSettings()
OURS = SearchSettings.read(SUITING)


def described(chosen):
    """As plain values, the telling as its changed fields."""
    return vars(chosen) | {'telling': chosen.telling.changed()}


# --- what wins -----------------------------------------------------------------------------------


def test_by_default_all_is_as_in_2015():
    assert OLD.chosen() == OLD.chosen(telling=Telling.of_2015()) == OLD
    assert described(OLD) == {'k': 100, 'bw': 50, 'maxlen': 1000, 'strength': 1.0, 'telling': {}}


SAID = {'k': 3, 'bw': 4, 'maxlen': 20, 'strength': 2.0}


@pytest.mark.parametrize('name', SAID)
def test_an_argument_takes_the_place_of_one_setting(name):
    usual = described(OURS.chosen())
    assert usual == {'k': 7, 'bw': 6, 'maxlen': 25, 'strength': 0.5,
                     'telling': {'no_repeat': 3, 'groups': 2}}  # fmt: skip
    assert described(OURS.chosen(**{name: SAID[name]})) == usual | {name: SAID[name]}
    assert OLD.chosen(**{name: SAID[name]}) == SearchSettings(**{name: SAID[name]})


@pytest.mark.parametrize('name', ['required', 'banned'])
def test_who_says_one_word_is_told_how(name):
    with pytest.raises(ValueError, match=rf"{name}: .* did you mean \('sea',\)\?$"):
        Telling(**{name: 'sea'})
    with pytest.raises(ValueError, match=r'found 3$'):
        Telling(**{name: 3})


def test_a_telling_is_taken_as_it_is():
    chosen = OURS.chosen(telling=Telling(min_words=5))
    assert described(chosen) == described(OURS) | {'telling': {'min_words': 5}}


def test_the_old_search_has_its_beam_and_its_length_unless_they_are_said():
    old = OURS.chosen(telling=Telling.of_2015())
    assert described(old) == {'k': 7, 'bw': 50, 'maxlen': 1000, 'strength': 0.5, 'telling': {}}
    assert OURS.chosen(telling=Telling.of_2015(), bw=3).bw == 3


def test_what_concerns_only_the_other_way_is_left_out():
    assert described(OURS.chosen(drawn=True))['telling'] == {'no_repeat': 3, 'top_k': 9}
    assert OURS.chosen(drawn=True).k == 7
    with pytest.raises(ValueError, match='top_k=9 has no effect'):
        OURS.chosen(telling=OURS.telling)
    with pytest.raises(ValueError, match='groups=2 has no effect'):
        OURS.chosen(drawn=True, telling=OURS.telling)


@pytest.mark.parametrize(('bw', 'groups'), [(8, 4), (10, 2), (5, 1), (3, 1)])
def test_there_are_as_many_groups_as_part_the_beam(bw, groups):
    chosen = SearchSettings(bw=8, telling=Telling(groups=4)).chosen(bw=bw)
    assert (chosen.bw, chosen.telling.groups) == (bw, groups)
    with pytest.raises(ValueError, match='groups: 4 do not part'):
        OLD.chosen(bw=9, telling=Telling(groups=4))


@pytest.mark.parametrize(
    ('wrong', 'words'),
    [
        ({'k': 0}, 'k: .*found 0'), ({'seed': -1}, 'seed: .*found -1'), ({'seed': True}, 'seed'),
        ({'max_pixels': 0}, 'max_pixels'), ({'strength': None}, 'strength'),
        ({'telling': {}}, 'telling: expected SearchOptions'),
        ({'seed': 3, 'telling': Telling(groups=2)}, 'groups=2 has no effect'),
        ({'bw': 3, 'telling': Telling(groups=2)}, 'groups: 2 do not part'),
    ],
)  # fmt: skip
def test_options_of_a_story_are_checked_when_they_are_made(wrong, words):
    with pytest.raises(ValueError, match=words):
        StoryOptions(**wrong)


def test_settings_of_a_story_are_plain_values():
    options = StoryOptions.of(OURS, k=np.int64(3), seed=np.int32(4), lyric=1, bw=None)
    json.dumps(options.settings)
    assert options.settings['telling'] == {'no_repeat': 3, 'top_k': 9}
    assert (options.k, options.bw, options.maxlen) == (3, 6, 25)
    assert 'telling' not in StoryOptions.of(OLD).settings
    assert StoryOptions.of(OLD, telling=Telling.of_2015()).settings['telling'] == {}
    assert StoryOptions.of(OURS, **vars(options)).settings == options.settings


# --- the card ------------------------------------------------------------------------------------


def linked(folder, search=None, **changes):
    """The default bundle, by links, with a card of its own and few captions."""
    for path in MODELS.iterdir():
        if path.suffix in bundle.SUFFIXES and path.name not in ('captions.txt', bundle.CARD):
            (folder / path.name).symlink_to(path.absolute())
    captions = (MODELS / 'captions.txt').read_text(encoding='utf-8').splitlines()[::100]
    (folder / 'captions.txt').write_text('\n'.join(captions), encoding='utf-8')
    card = json.loads((MODELS / bundle.CARD).read_text())
    del card['files']['captions.txt']
    card.pop('search', None)
    card |= {} if search is None else {'search': search}
    (folder / bundle.CARD).write_text(json.dumps(card | changes))
    return folder


@pytest.mark.parametrize(
    ('search', 'words'),
    [
        ({'beam': 5}, 'beam: expected one of .*bw.*no_repeat'),
        ({'n_best': 2}, 'n_best: expected one of'),
        ({'telling': {}}, 'telling: expected one of'),
        ({'k': 0}, 'k: .*found 0'), ({'bw': '8'}, "bw: .*'8'"), ({'maxlen': True}, 'maxlen: '),
        ({'k': None}, 'k: .*None'), ({'strength': float('nan')}, 'strength: .*nan'),
        ({'strength': '1'}, 'strength'), ({'strength': True}, 'strength'),
        ({'no_repeat': -1}, 'no_repeat: .*-1'), ({'length_penalty': 'a'}, 'length_penalty'),
        ({'temperature': True}, 'temperature'), ({'top_p': 2}, 'top_p'),
        ({'banned': 'love'}, 'banned'), ({'banned': 3}, 'banned'), ({'banned': {'a': 1}}, 'banned'),
        ({'required': [['sea']]}, 'required'), ({'closeness': [1]}, 'closeness'),
        ({'groups': 3, 'bw': 8}, 'groups: 3 do not part a beam width of 8'),
        ([8], r'expected settings by name, found \[8\]'), (None, 'expected settings by name'),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_by_name_and_file(tmp_path, search, words):
    files = {'decoder.safetensors': {'bytes': 1, 'sha256': '0' * 64}}
    path = tmp_path / bundle.CARD
    path.write_text(json.dumps({'format': 1, 'files': files, 'search': search}))
    with pytest.raises(ModelFileError, match=f'bundle.json: search: {words}') as refused:
        bundle.search_settings(tmp_path / 'decoder.safetensors')
    assert str(refused.value).startswith(str(path))


def test_settings_belong_to_the_file_that_the_card_lists(tmp_path):
    folder = linked(tmp_path, SUITING)
    assert bundle.search_settings(folder / 'decoder.safetensors') == OURS
    for other in (folder / 'romance.npz', tmp_path / 'nowhere' / 'decoder.safetensors'):
        assert bundle.search_settings(other) == OLD
    bundle.strike(folder / 'decoder.safetensors')  # as before another one is trained there
    assert bundle.search_settings(folder / 'decoder.safetensors') == OLD


def test_a_card_without_settings_leaves_all_as_in_2015(tmp_path):
    assert bundle.search_settings(linked(tmp_path) / 'decoder.safetensors') == OLD


# --- stories -------------------------------------------------------------------------------------


@pytest.fixture(scope='module', autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('STORYTELLER_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return linked(tmp_path_factory.mktemp('models'), SUITING)


@pytest.fixture(scope='module')
def z(folder):
    return generate.load_all(folder)


def settings_of(z, **options):
    (told,) = generate.stories(z, [PHOTO], **options)
    assert told.passage
    return told.settings


def test_stories_are_told_with_the_settings_of_the_bundle(z):
    assert z['search'] == OURS
    usual = {'k': 7, 'bw': 6, 'maxlen': 25, 'strength': 0.5, 'seed': None, 'lyric': False,
             'style': None, 'telling': {'no_repeat': 3, 'groups': 2}}  # fmt: skip
    assert settings_of(z) == usual
    (told,), (same,) = (
        generate.stories(z, [PHOTO], **options)
        for options in ({}, described(OURS) | {'telling': Telling(no_repeat=3, groups=2)})
    )
    assert told.passage == same.passage and told.to_dict() == same.to_dict()
    assert settings_of(z, k=2, bw=5) == usual | {'k': 2, 'bw': 5, 'telling': {'no_repeat': 3}}
    own = Telling(min_words=4)
    assert settings_of(z, telling=own) == usual | {'telling': {'min_words': 4}}
    drawn = {'seed': 3, 'telling': {'no_repeat': 3, 'top_k': 9}}
    assert settings_of(z, seed=3) == usual | drawn


def test_the_old_search_can_be_had_from_any_bundle(z):
    bare = {name: part for name, part in z.items() if name != 'search'}  # of before
    old = generate.stories(bare, [PHOTO], k=7, strength=0.5, maxlen=30)[0]
    assert 'telling' not in old.settings and old.settings['bw'] == 50
    told = generate.stories(z, [PHOTO], telling=Telling.of_2015(), maxlen=30)[0]
    assert told.passage == old.passage and told.settings == old.settings | {'telling': {}}


def test_story_takes_them_too_and_its_arguments_have_their_old_places(z, capsys):
    assert generate.story(z, PHOTO).settings['bw'] == 6
    told = generate.story(z, PHOTO, 4, 3, True)
    assert [told.settings[name] for name in ('k', 'bw', 'lyric')] == [4, 3, True]
    capsys.readouterr()


def test_a_required_word_that_the_decoder_lacks_is_refused_at_load(tmp_path):
    folder = linked(tmp_path, {'required': ['zzzz']})
    with pytest.raises(ModelFileError, match=rf"{bundle.CARD}: search: required: .*'zzzz'"):
        generate.load_all(folder)


def test_another_decoder_is_searched_as_in_2015(folder, tmp_path):
    for name in ('decoder.safetensors', 'decoder_dictionary.txt'):
        shutil.copyfile(folder / name, tmp_path / name)
    paths = config.folder_paths(folder)
    paths['decmodel'] = str(tmp_path / 'decoder.safetensors')
    assert generate.load_all(paths)['search'] == OLD


def test_the_self_check_says_what_suits(z, folder):
    assert check._described(OLD) == 'as in 2015'
    said = check._described(OURS)
    assert 'bw 6' in said and 'no_repeat 3' in said
    assert check._story(z).fine


# --- the command line ----------------------------------------------------------------------------


def asked(*flags):
    parser = argparse.ArgumentParser()
    parser.add_argument('--seed', type=int)
    add_search(parser)
    return parser.parse_args(list(flags))


@pytest.mark.parametrize(
    ('flags', 'changes', 'telling'),
    [
        ((), {}, {'no_repeat': 3, 'groups': 2}),
        (('-k', '5', '--strength', '1'), {'k': 5, 'strength': 1.0}, {'no_repeat': 3, 'groups': 2}),
        (('--bw', '5'), {'bw': 5}, {'no_repeat': 3}),
        (('--banned', 'love', '--banned', 'sea'), {},
         {'no_repeat': 3, 'groups': 2, 'banned': ('love', 'sea')}),
        (('--no-repeat', '0'), {}, {'groups': 2}),
        (('--search-2015',), {'bw': 50, 'maxlen': 1000}, {}),
        (('--search-2015', '--bw', '9', '--no-echo', '8'), {'bw': 9, 'maxlen': 1000},
         {'no_echo': 8}),
        (('--seed', '3'), {}, {'no_repeat': 3, 'top_k': 9}),
        (('--seed', '3', '--candidates', '4', '--closeness', '2'), {},
         {'no_repeat': 3, 'top_k': 9, 'candidates': 4, 'closeness': 2.0}),
    ],
)  # fmt: skip
def test_flags_change_single_fields(flags, changes, telling):
    arguments = asked(*flags)
    found = described(search_from(arguments, OURS, arguments.seed))
    assert found == described(OURS) | changes | {'telling': telling}


def test_a_seed_of_something_else_samples_nothing():
    found = described(search_from(asked('--seed', '3'), OURS))
    assert found == described(search_from(asked(), OURS))


def test_flags_out_of_range_and_without_effect_are_refused(folder, capsys):
    with pytest.raises(ValueError, match='no_echo'):
        search_from(asked('--no-echo', '-1'), OURS)
    assert main(['none.jpg', '--models', str(folder), '--seed', '3', '--n-best', '2']) == 2
    assert 'n_best=2 has no effect' in capsys.readouterr().err


def test_the_main_job_uses_them(folder, tmp_path, capsys, monkeypatch):
    given, story = [], generate.story

    def noting(z, photo, **options):
        given.append(story(z, photo, **options).settings)

    monkeypatch.setattr(generate, 'story', noting)
    photo = str(Path(__file__).parent.parent / 'images' / 'ex1.jpg')
    assert main([photo, '--models', str(folder), '--no-repeat', '4']) == 0
    assert main([photo, '--models', str(folder), '--search-2015', '--bw', '2']) == 0
    assert given[0]['telling'] == {'no_repeat': 4, 'groups': 2} and given[0]['bw'] == 6
    assert given[1]['telling'] == {} and (given[1]['bw'], given[1]['k']) == (2, 7)
    capsys.readouterr()


# --- numbers of NumPy ----------------------------------------------------------------------------


def test_numbers_of_numpy_are_taken_and_become_plain():
    telling = Telling(
        n_best=np.int64(2), length_penalty=np.float32(0.5), banned=np.array(['sea'])
    )  # fmt: skip
    said = {'k': np.int64(3), 'bw': np.uint8(200), 'strength': np.float32(0.5)}
    options = StoryOptions.of(OLD, telling=telling, **said)
    assert options.bw * 2 == 400
    assert json.loads(json.dumps(options.settings))['telling'] == {
        'n_best': 2, 'length_penalty': 0.5, 'banned': ['sea'],
    }  # fmt: skip


def test_a_flag_of_several_takes_the_place_of_the_default():
    parser = argparse.ArgumentParser()
    add_options(parser, Telling, banned=('dawn',))
    assert options_from(Telling, parser.parse_args([])) == Telling(banned=('dawn',))
    said = parser.parse_args(['--banned', 'sea', '--banned', 'sky'])
    assert options_from(Telling, said) == Telling(banned=('sea', 'sky'))
