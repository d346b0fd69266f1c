"""The recipe of the default bundle takes up nothing that was made from something else."""

from __future__ import annotations

import importlib
import io
import lzma
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from storyteller import formats
from storyteller.nn import efficientnet
from storyteller.vocabulary import Vocabulary

pytestmark = pytest.mark.usefixtures('scripts')
SENTENCE = 'She left the old house in the morning and he never saw her again.'


def compress(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress('\n'.join(lines).encode()))


def write_photos(flickr, colour):
    with tarfile.open(flickr / 'images-00.tar', 'w') as tar:
        for name in ('a.jpg', 'b.jpg'):
            Image.new('RGB', (30, 20), colour).save(jpeg := io.BytesIO(), 'JPEG')
            member = tarfile.TarInfo(name)
            member.size = len(jpeg.getvalue())
            tar.addfile(member, io.BytesIO(jpeg.getvalue()))


@pytest.fixture
def data(tmp_path):
    data = tmp_path / 'data'
    compress(data / 'lyrics' / 'lyrics.txt.xz', ['The sea is wide , the night is long'] * 8)
    for name in ('flickr30k', 'flickr8k', 'coco_val2017', 'coco_karpathy_test5k'):
        compress(data / 'captions' / f'{name}.txt.xz', [f'{i}.jpg\tA dog runs .' for i in range(9)])
    for name, title in (('one-00', 'A -- Jane Doe (1900)'), ('romance-13', 'B -- Ann Roe (1901)')):
        compress(
            data / 'novels' / f'{name}.txt.xz', [f'=== {title}', *[' '.join([SENTENCE] * 9)] * 9]
        )
    flickr = data / 'flickr8k'
    flickr.mkdir()
    for split, name in (('train', 'a.jpg'), ('dev', 'b.jpg')):
        (flickr / f'{split}.txt').write_text(name + '\n', encoding='utf-8')
    (flickr / 'captions.txt').write_text('a.jpg\tA dog .\nb.jpg\tA cat .\n', encoding='utf-8')
    write_photos(flickr, 'red')
    return data


@pytest.fixture
def recipe(data, tmp_path, monkeypatch):
    """Makes a recipe as a new call of the script does, with few captions."""
    script = importlib.import_module('train_default_models')
    scenes = {'a dog': ['A dog runs .', 'A dog sleeps .'], 'a cat': ['A cat sleeps .']}

    class Few(script.Recipe):
        grammar = importlib.import_module('write_captions')

    monkeypatch.setattr(Few.grammar, 'generate', lambda seed=0: scenes)
    (tmp_path / 'out').mkdir()
    captions = tmp_path / 'out' / 'captions.txt'
    captions.write_text('A dog runs .\nA cat sleeps .\n', encoding='utf-8')
    passages = tmp_path / 'scenes.txt'
    told = ['The dog ran to her. She wept.', 'He slept. The cat woke him.', 'The cat slept.']
    lines = ('A dog runs .', 'A cat sleeps .', 'A cat sleeps .')
    passages.write_text(''.join(f'{a}\t{b}\n' for a, b in zip(lines, told, strict=True)), 'utf-8')
    songs = tmp_path / 'songs.txt'
    songs.write_text('A cat sleeps .\tO the cat sleeps, / And I. / Hush!\n', 'utf-8')
    monkeypatch.setattr(script, 'SCENES', {'romance': passages, 'lyric': songs})
    return lambda: Few(data, tmp_path / 'work', tmp_path / 'out', 1.0)


def test_texts_of_other_books_are_refused(data, recipe, tmp_path):
    first = recipe()
    first.tokens()
    words = list(first.words)
    again = recipe()
    again.tokens()
    assert list(again.words) == words
    compress(data / 'novels' / 'one-00.txt.xz', ['=== C -- Jim Poe (1902)', SENTENCE])
    with pytest.raises(
        formats.MismatchError, match=r'another input: one-00.* differs; to start af'
    ):
        recipe().tokens()


def test_texts_of_other_captions_are_refused(data, recipe, tmp_path):
    recipe().tokens()
    compress(data / 'captions' / 'flickr8k.txt.xz', ['1.jpg\tA bird .'])
    with pytest.raises(formats.MismatchError, match=r'captions\.txt: .* flickr8k.* differs'):
        recipe().tokens()


def test_words_of_another_pool_are_refused(recipe, tmp_path):
    first = recipe()
    first.tokens()
    assert 'dog' in first.words
    (tmp_path / 'out' / 'captions.txt').write_text('A bird sings .\n', encoding='utf-8')
    with pytest.raises(formats.MismatchError, match=r'dictionary\.txt: .* the pool differs'):
        _ = recipe().words


def test_what_the_network_saw_of_other_photos_is_refused(data, recipe, tmp_path, monkeypatch):
    class Net:
        def eval(self):
            return self

        def prepare(self, im):
            return im

        def see(self, im):
            return im.mean((2, 3)), im.amax((2, 3))

    monkeypatch.setattr(efficientnet, 'read_weights', dict)
    monkeypatch.setattr(efficientnet, 'EfficientNetLite2', lambda weights: Net())
    seen = recipe().seen('photo')
    assert seen['pooled'].shape == (2, 3)
    np.testing.assert_array_equal(recipe().seen('photo')['pooled'], seen['pooled'])
    write_photos(data / 'flickr8k', 'blue')
    with pytest.raises(formats.MismatchError, match=r'photo\.npz: .* images-00\.tar differs'):
        recipe().seen('photo')


@pytest.mark.parametrize('where', ['before', 'out'])
def test_a_bundle_to_start_from_gives_its_encoders_and_its_decoder(
    recipe, tmp_path, monkeypatch, where
):
    """Also where it lies in the folder that the new one takes the place of."""
    script, before = importlib.import_module('train_default_models'), tmp_path / where
    before.mkdir(exist_ok=True)
    names = [f'{kind}_skip.safetensors' for kind in ('uni', 'bi')]
    names += ['utable.npy', 'btable.npy', 'dictionary.txt']
    for name in names:
        (before / name).write_bytes(name.encode())
    rng = np.random.default_rng(0)
    options = script.decoder.DecoderOptions(dim_word=3, dim=4)
    params = script.decoder.initial_params(options, 4, 5, 0)
    params['Wemb'][2:] = rng.normal(size=(2, 3))
    sizes = {'n_words': 4, 'dim_word': 3, 'dim': 4, 'dimctx': 5, 'doutput': False}
    formats.write_model(before / 'decoder.safetensors', params, sizes)
    (before / 'decoder_dictionary.txt').write_text('<eos>\nUNK\ndog\nsea\n', encoding='utf-8')
    words = script.Vocabulary(('<eos>', 'UNK', 'sea', 'cat'))

    def fit(passages, training, out, checkpoint, *, params, **_):
        np.testing.assert_array_equal(params['Wemb'][2], old['Wemb'][3])  # of "sea"
        assert options_of == [(3, 4)]
        formats.write_model(out, params, sizes)

    old, options_of, parts = params, [], recipe()
    parts.start = before
    monkeypatch.setattr(script.decoder, 'fit', fit)
    parts.story_words = lambda: (words, np.array([9, 1, 5, 5]))
    parts.passages = lambda _, options: options_of.append((options.dim_word, options.dim))
    parts.held_out_passages = lambda *_: None
    parts.__dict__['pool_thoughts'] = np.zeros((2, 5), np.float32)
    parts.photo_preferences = lambda _: None
    for kind in ('uni', 'bi'):
        parts.encoder(kind)
    assert [(tmp_path / 'out' / name).read_bytes() for name in names] == [n.encode() for n in names]
    parts.decoder()
    written = (tmp_path / 'out' / 'decoder_dictionary.txt').read_text(encoding='utf-8')
    assert written.split() == list(words)


def test_names_are_pronouns_in_what_passages_are_cut_from(recipe, data):
    said = 'Peter walked and he sighed. He walked and they looked at him. '
    lines = ['=== A -- Jane Doe (1900)', *[said * 9] * 9, 'They looked at Peter. ' * 9]
    compress(data / 'novels' / 'one-00.txt.xz', lines)
    (parts := recipe()).tokens()
    named = (parts.text / 'novels.txt').read_text(encoding='utf-8')
    unnamed = (parts.text / 'novels_unnamed.txt').read_text(encoding='utf-8')
    assert 'Peter walked and he sighed .' in named
    assert 'He walked and he sighed .' in unnamed
    assert 'Peter walked' not in unnamed
    assert len(unnamed.strip().splitlines()) == len(named.strip().splitlines())


def test_a_passage_of_no_caption_of_the_pool_is_refused(recipe, tmp_path):
    scenes = tmp_path / 'scenes.txt'
    scenes.write_text('A dog runs .\tIt ran.\nA bird sings .\tIt sang.\n', encoding='utf-8')
    with pytest.raises(ValueError, match=r'scenes\.txt: line 2: expected a caption of the pool'):
        recipe().tokens()


def test_a_song_is_a_document_of_its_lines(recipe):
    (parts := recipe()).tokens()
    told = (parts.text / 'lyric_scenes.txt').read_text(encoding='utf-8')
    assert told == 'O the cat sleeps ,\nAnd I .\nHush !\n\n'


def test_passages_of_scenes_are_told_of_the_captions_around_their_own(
    recipe, tmp_path, monkeypatch
):
    script, parts = importlib.import_module('train_default_models'), recipe()
    parts.tokens()
    monkeypatch.setattr(script, 'AROUND', 2)
    monkeypatch.setattr(script, 'NEAREST', 2)
    monkeypatch.setattr(script, 'MEASURED_SCENES', 2)
    monkeypatch.setattr(script, 'load_embedding', lambda *_, **__: None)
    monkeypatch.setattr(script.origins, 'of_encoder', lambda _: 'an encoder')

    class Encoder:
        def encode(self, texts, **_):
            return np.array([[len(text), 1.0] for text in texts], np.float32)

    # Dogs lie to the right, cats above; of four captions those of one kind are the nearest two.
    pool = ['A dog runs .', 'A dog sleeps .', 'A cat sleeps .', 'A cat runs .']
    joint = {text: [1.0, 0.0] if 'dog' in text else [0.0, 1.0] for text in pool}
    monkeypatch.setattr(script, 'encode_sentences', lambda _, x: np.array([joint[t] for t in x]))
    c, b = np.array([1.0, 1.0], np.float32), np.array([[5.0, 5.0]], np.float32)
    romance = script.back_translation.BackTranslation(
        np.zeros((1, 2), np.float16), np.ones(1, np.float32), c, b, np.zeros(1, np.int64)
    )
    lyric = replace(romance, b=b + 10)
    parts.__dict__ |= {
        'pool': pool,
        'thoughts': Encoder(),
        'pool_thoughts': np.array([[2, 1], [4, 1], [1, 2], [1, 4]], np.float16),
        'all_pairs': {'romance': (None, None, romance), 'lyric': (None, None, lyric)},
    }
    spans, vectors, found, measured = parts.scene_pairs('romance')
    assert len(spans) == len(vectors) == len(measured) == 3 * script.PHOTOS_OF_SCENE
    np.testing.assert_array_equal(spans[:3], [[0, 2], [2, 4], [4, 5]])
    dog, cat = [2.0, 0.0], [0.0, 2.0]  # the means of their captions, less c
    np.testing.assert_allclose(found.content, [dog, cat, cat] * script.PHOTOS_OF_SCENE)
    np.testing.assert_allclose(found.vectors(np.array([0])), [[7.0, 5.0]])
    kept = {(2, 4), (4, 5)}  # both of the cat that sleeps, whatever other captions there are
    assert {tuple(each) for each in spans[measured]} == kept
    _, _, found, _ = parts.scene_pairs('lyric')  # a song of the cat that sleeps
    np.testing.assert_allclose(found.vectors(np.arange(2)), [[15.0, 17.0]] * 2)


MARKED = """\
A dog . | A dog sleeps .\t5 The dog ran .\t4 The dog ran on .\t4 The dog slept .\t2 The cat ran .
A dog .\t3 The cat slept .\t2 The cat ran .
A cat sleeps . | A cat runs .\t5 The cat slept .\t1 The zebra slept .\t1 The dog ran .
"""


@pytest.fixture
def marked(recipe, tmp_path, monkeypatch):
    script, parts = importlib.import_module('train_default_models'), recipe()
    path = tmp_path / 'marked.txt'
    path.write_text(MARKED, encoding='utf-8')
    monkeypatch.setattr(script, 'PREFERENCES', path)
    monkeypatch.setattr(script, '_is_measured', lambda caption: False)
    c, b = np.array([1.0, 1.0], np.float32), np.array([[5.0, 5.0]], np.float32)
    romance = script.back_translation.BackTranslation(
        np.zeros((1, 2), np.float16), np.ones(1, np.float32), c, b, np.zeros(1, np.int64)
    )
    parts.__dict__ |= {
        'pool': ['A dog .', 'A dog sleeps .', 'A cat sleeps .', 'A cat runs .'],
        'pool_thoughts': np.array([[2, 1], [4, 1], [1, 2], [1, 4]], np.float16),
        'all_pairs': {'romance': (None, None, romance)},
    }
    return parts


def known_words(words):
    return Vocabulary(('<eos>', 'UNK', *words.split()))


def test_what_readers_marked_better_is_preferred(marked):
    words = known_words('The A dog cat ran slept on .')
    found = marked.photo_preferences(words)
    told = [' '.join(words.decode(text)) for text in found.texts]
    # What is preferred is good, and marked better than the other; nobody says zebra.
    assert {(told[better], told[worse]) for better, worse in found.pairs} == {
        ('The dog ran .', 'The dog ran on .'),
        ('The dog ran .', 'The dog slept .'),
        ('The dog ran .', 'The cat ran .'),
        ('The dog ran on .', 'The cat ran .'),
        ('The dog slept .', 'The cat ran .'),
        ('The cat slept .', 'The dog ran .'),
    }
    assert all(found.told_of[better] == found.told_of[worse] for better, worse in found.pairs)
    # Of the mean of the captions, in the style of romance.
    dogs, dog, cats = [7.0, 5.0], [6.0, 5.0], [5.0, 7.0]
    expected = [dogs] * 4 + [dog] * 2 + [cats] * 2
    np.testing.assert_allclose(found.vectors[found.told_of], expected)


def test_what_is_measured_is_not_learned(marked, monkeypatch):
    script = importlib.import_module('train_default_models')
    monkeypatch.setattr(script, '_is_measured', lambda caption: 'cat' in caption)
    found = marked.photo_preferences(known_words('The dog cat ran slept on .'))
    assert len(found.vectors) == 2 and len(found.texts) == 6


def test_marks_of_another_pool_are_refused(marked, tmp_path):
    with open(tmp_path / 'marked.txt', 'a', encoding='utf-8') as file:
        file.write('A bird sings .\t5 It sang .\n')
    with pytest.raises(
        ValueError, match=r"marked\.txt: expected captions .*, found 'A bird sings ."
    ):
        marked.photo_preferences(known_words(''))
