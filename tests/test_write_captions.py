from __future__ import annotations

import importlib.util
import pathlib
import re
import sys

import pytest
from nltk.tokenize import NLTKWordTokenizer

from storyteller.training.data.marked import GOOD, read_marked

ROOT = pathlib.Path(__file__).parent.parent

# Written out here, not taken from the script: the property is the reader's, not the writer's.
FUNCTION_WORDS = set(
    re.findall(r'\S+', 'a an the and of in on at by with from to into over is are . ,')
)
VOWEL_SOUND = re.compile(r'(?!one\b|uni|use|eu)[aeiou]|hour', re.IGNORECASE)


@pytest.fixture(scope='module')
def script():
    spec = importlib.util.spec_from_file_location(
        'write_captions', ROOT / 'scripts' / 'write_captions.py'
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules['write_captions'] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules['write_captions']


@pytest.fixture(scope='module')
def scenes(script):
    return script.generate(0)


@pytest.fixture(scope='module')
def pool(scenes):
    return [caption for captions in scenes.values() for caption in captions]


@pytest.fixture(scope='module')
def by_label(script):
    return {label: script.captions_for_label(label) for label in script.load_grammar().labels}


def content(caption):
    return frozenset(caption.lower().split()) - FUNCTION_WORDS


def test_there_are_enough_captions_of_enough_scenes(scenes, pool):
    assert 35_000 <= len(pool) <= 50_000
    assert sum(len(captions) >= 300 for captions in scenes.values()) >= 60
    assert min(map(len, scenes.values())) >= 40


def test_every_scene_yields_what_its_grammar_asks_for(script, scenes):
    wanted = script.load_grammar().counts
    assert {scene: len(captions) for scene, captions in scenes.items()} == wanted


def test_no_two_captions_share_their_content_words(pool):
    assert len({content(caption) for caption in pool}) == len(pool)


def test_captions_are_tokenised_as_nltk_does(pool, by_label):
    tokenise = NLTKWordTokenizer().tokenize
    for caption in [*pool[::4], *(c for captions in by_label.values() for c in captions)]:
        assert caption == ' '.join(tokenise(caption))


def test_captions_are_ascii_and_begin_with_a_capital(pool):
    assert all(caption.isascii() and caption[0].isupper() for caption in pool)


def test_lengths_are_those_of_photo_captions(pool):
    lengths = [len(caption.split()) for caption in pool]
    assert min(lengths) >= 5 and max(lengths) <= 18
    assert 10 <= sum(lengths) / len(lengths) <= 12


def test_most_captions_end_with_a_full_stop(pool):
    assert all('.' not in caption.split()[:-1] for caption in pool)
    assert 0.10 <= sum(not caption.endswith(' .') for caption in pool) / len(pool) <= 0.20


def test_articles_agree_with_the_next_word(pool, by_label):
    for caption in [*pool, *(c for captions in by_label.values() for c in captions)]:
        for article, word in re.findall(r'\b(an?) (\w+)', caption, re.IGNORECASE):
            assert (article.lower() == 'an') == bool(VOWEL_SOUND.match(word)), caption


def test_numbers_agree(pool):
    several = re.compile(r'(Two|Three|Four|Several|Some) (?:\w+ )*?(is|was|has) ')
    assert not [caption for caption in pool if several.match(caption)]
    assert not [c for c in pool if re.match(r'An? (?:\w+ )?(?:dog|man|woman|boy) are ', c)]


def test_a_verb_can_tell_how_many_it_is_said_of(script):
    """It agrees with a marked phrase alone: '(a cat/two cats) [lie]' would give 'two cats lies'."""
    several = re.compile(r'(?:\(|/)(?:two|three|four|several|some|many) [^()]*\) \[')
    templates = [t for each in script.load_grammar().scenes.values() for t, _ in each]
    assert len(templates) > 1000 and not list(filter(several.search, templates))


@pytest.mark.parametrize(
    ('template', 'forms'),
    [
        ('{a dog} [run]', {'A dog runs', 'A dog is running', 'A dog running'}),
        ('! {a dog} [run]', {'A dog runs', 'A dog is running'}),
        ('{+ dog} [run] and [play]', {'Dogs run and play', 'Dogs are running and playing',
                                      'Dogs running and playing'}),
        ('{a dog} [be] wet', {'A dog is wet', 'A dog wet'}),
        ('{+ dog} carrying {~ ox} in {its} {s mouth}', {'Dogs carrying oxen in their mouths'}),
        ('{a dog} carrying {~ ox} in {its} {s mouth}', {'A dog carrying an ox in its mouth'}),
        ('{a girl} and {his} {dog}', {'A girl and her dog'}),
        ('{& pair} [run]', {'A man and a boy run', 'A man and a boy are running',
                            'A man and a boy running'}),
    ],
)  # fmt: skip
def test_verbs_articles_and_possessives_follow_the_subject(script, template, forms):
    words = {'dog': ['dog'], 'ox': ['ox'], 'girl': ['girl'], 'pair': ['a man and a boy']}
    writer = script.Writer(script.Grammar(words=words), script.random.Random(0))
    written = {writer.write(template, []).removesuffix(' .') for _ in range(60)}
    assert written == forms


def test_no_notation_of_the_grammar_is_left_over(pool, by_label):
    text = '\n'.join([*pool, *(c for captions in by_label.values() for c in captions)])
    assert not set(text) & set('{}[]()/|~&+!>=#_"')
    assert '  ' not in text


def test_nearly_every_template_can_be_written(script):
    """A few say a word twice whatever is drawn, such as 'a golf ball on a golf course'."""
    grammar = script.load_grammar()
    avoid, written = set(grammar.words['avoid']), {}
    for scene, templates in grammar.scenes.items():
        writer = script.Writer(grammar, script.random.Random(1))
        for template, label in templates:
            things = [t for key, table in grammar.things[scene].items() for t in table
                      if key == label or label is None]  # fmt: skip
            tries = (writer.write(template, things) for _ in range(300))
            written[template] = any(script.acceptable(c, set(), avoid) for c in tries)
    never = [template for template, found in written.items() if not found]
    assert len(never) <= 0.01 * len(written), never


def test_every_image_class_has_captions(script, by_label):
    # Of the 1,000 classes two share the name 'maillot', and two 'crane', of which one is a bird.
    assert len(by_label) >= 999 and 'crane (bird)' in by_label
    for label, captions in by_label.items():
        assert len(captions) >= 12, label
        assert len({content(caption) for caption in captions}) == len(captions)


@pytest.mark.parametrize(
    ('words', 'noun'),
    [
        ('Egyptian cat', 'cat'),
        ('goose', 'geese|goose'),
        ('tabby, tabby cat', 'tabby|cat'),
        ('pizza, pizza pie', 'pizza'),
        ('school bus', 'bus'),
        ('suspension bridge', 'bridge'),
        ('crane', 'crane'),
        ('crane (bird)', 'bird|crane'),
    ],
)
def test_captions_of_a_class_name_its_thing(script, words, noun):
    captions = script.captions_for_label(words)
    assert sum(bool(re.search(noun, caption)) for caption in captions) >= 0.9 * len(captions)


def test_as_many_captions_of_a_class_as_are_asked_for(script, by_label):
    for label in list(by_label)[:: len(by_label) // 60]:
        captions = script.captions_for_label(label, count=12)
        assert len(captions) == len({content(caption) for caption in captions}) == 12, label
        assert captions == by_label[label][:12]


def test_captions_of_a_class_do_not_depend_on_its_other_names(script):
    assert script.captions_for_label('tabby, tabby cat') == script.captions_for_label('tabby')


def test_an_unknown_class_is_refused_by_name(script):
    with pytest.raises(ValueError, match=r"caption_scenes\.txt has no class 'unicorn'"):
        script.captions_for_label('unicorn, one-horned horse')


def test_a_line_that_fits_nowhere_is_refused_with_its_number(script, tmp_path):
    (tmp_path / 'grammar.txt').write_text('words color\n  red\nblue\n')
    with pytest.raises(ValueError, match='line 3'):
        script.load_grammar(tmp_path / 'grammar.txt')


def test_an_unknown_word_list_is_refused_by_name(script):
    grammar = script.Grammar(scenes={'s': [('a {nothing} [run]', None)]}, things={'s': {}})
    with pytest.raises(ValueError, match='nothing'):
        script.Writer(grammar, script.random.Random(0)).write('{a nothing} [run]', [])


@pytest.mark.parametrize(
    ('one', 'many'),
    [
        ('dog', 'dogs'),
        ('black and white dog', 'black and white dogs'),
        ('fisherman', 'fishermen'),
        ('German shepherd', 'German shepherds'),
        ('glass of water', 'glasses of water'),
        ('girl in red shoes', 'girls in red shoes'),
        ('baby', 'babies'),
        ('goldfish', 'goldfish'),
        ('wooden knife', 'wooden knives'),
        ('ox with long horns', 'oxen with long horns'),
    ],
)
def test_plural(script, one, many):
    assert script.plural(one) == many


@pytest.mark.parametrize(
    ('verb', 'third', 'ing'),
    [
        ('run', 'runs', 'running'),
        ('carry', 'carries', 'carrying'),
        ('ride', 'rides', 'riding'),
        ('lie', 'lies', 'lying'),
        ('catch', 'catches', 'catching'),
        ('play', 'plays', 'playing'),
        ('swim', 'swims', 'swimming'),
        ('look', 'looks', 'looking'),
        ('do', 'does', 'doing'),
        ('sew', 'sews', 'sewing'),
    ],
)
def test_verb_forms(script, verb, third, ing):
    assert (script.third_person(verb), script.participle(verb)) == (third, ing)


def test_the_same_seed_gives_the_same_captions(script):
    whole = script.load_grammar()
    names = list(whole.scenes)[:3]
    part = script.Grammar(
        words=whole.words,
        scenes={name: whole.scenes[name] for name in names},
        things={name: whole.things[name] for name in names},
        counts=dict.fromkeys(names, 50),
    )
    assert script.generate(3, part) == script.generate(3, part)
    assert script.generate(3, part) != script.generate(4, part)


# --- words ---------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def left_out():
    """The words that nobody should read in a caption."""
    lines = (ROOT / 'scripts' / 'words_to_leave_out.txt').read_text().splitlines()
    words = {line.strip().lower() for line in lines if not line.startswith('#')} - {''}
    assert len(words) > 100
    return words


def words_of(name):
    return set((ROOT / 'models' / name).read_text(encoding='utf-8').split())


def test_the_encoder_knows_all_words_of_the_pool(pool):
    known = words_of('dictionary.txt')
    assert not {word for caption in pool for word in caption.split()} - known


def test_no_caption_holds_a_word_to_leave_out(pool, by_label, left_out):
    for caption in [*pool, *(c for captions in by_label.values() for c in captions)]:
        assert left_out.isdisjoint(caption.lower().split()), caption


@pytest.mark.parametrize('name', ['scene_passages.txt', 'scene_songs.txt'])
def test_passages_are_written_for_captions_of_the_pool_and_hold_no_such_word(name, pool, left_out):
    path, known = ROOT / 'scripts' / name, set(pool)
    for line in path.read_text(encoding='utf-8').splitlines():
        caption, passage = line.split('\t')
        assert caption in known
        assert left_out.isdisjoint(re.findall(r"[\w'-]+", passage.lower())), passage
        assert '"' not in passage and passage[-1] in '.!?', passage
        verses = passage.split(' / ')
        assert all(verse.strip() for verse in verses), passage
        assert len(verses) > 1 or name == 'scene_passages.txt', passage


@pytest.mark.parametrize(('of', 'count'), [('scene', 1), ('photo', 8)])
def test_what_readers_marked_was_told_of_captions_of_the_pool(of, count, pool, left_out):
    known = set(pool)
    for captions, told in read_marked(ROOT / 'scripts' / f'{of}_preferences.txt'):
        assert known.issuperset(captions) and len(captions) == count
        marks = [mark for mark, _ in told]
        assert max(marks) >= GOOD and max(marks) > min(marks)
        for _, text in told:
            assert left_out.isdisjoint(text.lower().split()), text


@pytest.mark.parametrize(
    'name',
    ['captions.txt', 'dictionary.txt', 'embedding_dictionary.txt', 'decoder_dictionary.txt'],
)
def test_no_file_of_the_bundle_holds_a_word_to_leave_out(name, left_out):
    assert not {word for word in words_of(name) if word.lower() in left_out}


def test_the_pool_that_ships_is_what_the_script_writes(script, scenes, tmp_path):
    script.write_pool(tmp_path / 'captions.txt', scenes, seed=0)
    shipped = (ROOT / 'models' / 'captions.txt').read_bytes()
    assert (tmp_path / 'captions.txt').read_bytes() == shipped
