"""From a folder of books to a story in their style, and a joint space of one's own photos.

The scripts as a user runs them, on very little.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from storyteller import config, convnet, decoder, embedding, formats, skipthoughts
from storyteller.nn import efficientnet
from storyteller.vocabulary import Vocabulary

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / 'scripts'


TOGETHER = '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2'  # torchrun


def run(script, *arguments, code=0, launcher=()):
    """Run a script; its output."""
    command = [sys.executable, *launcher, str(SCRIPTS / f'{script}.py'), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, encoding='utf-8', timeout=300, env=os.environ
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def here(scripts, monkeypatch):
    """Run a script in this process, which has loaded torch: sooner than one of its own."""

    def run_here(script, *arguments):
        monkeypatch.setattr(sys, 'argv', [script, *map(str, arguments)])
        importlib.import_module(script).main()

    return run_here


@pytest.fixture
def refusal(here, capsys):
    """What a script says that refuses its input, or its arguments."""

    def refused(script, *arguments):
        with pytest.raises((ValueError, OSError, SystemExit)) as error:
            here(script, *arguments)
        said = capsys.readouterr().err
        return said if error.type is SystemExit else str(error.value)

    return refused


@pytest.fixture(scope='module')
def books(tmp_path_factory):
    """Two short novels, made from few words."""
    folder, rng = tmp_path_factory.mktemp('books'), np.random.default_rng(0)
    nouns, verbs = ['boat', 'river', 'garden', 'letter', 'window'], ['saw', 'loved', 'left']
    for name in ('one', 'two'):
        lines = []
        for _ in range(60):
            said = [
                f'She {rng.choice(verbs)} the {rng.choice(nouns)} by the old {rng.choice(nouns)}.'
                for _ in range(12)
            ]
            lines.append(' '.join(said))
        (folder / f'{name}.txt').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return folder


def tell(models):
    """The story of a sample photo, short."""
    arguments = 'images/ex1.jpg', '--bw', '2', '-k', '5', '--models', str(models)
    done = subprocess.run(
        [sys.executable, '-m', 'storyteller', *arguments],
        cwd=ROOT,
        capture_output=True,
        encoding='utf-8',
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.partition('OUTPUT:')[2].strip()


def last_metrics(path):
    return json.loads(path.read_text(encoding='utf-8').splitlines()[-1])


@pytest.mark.slow
def test_your_own_storyteller(tmp_path, books):
    """Encoder, style and decoder from books; a story that they tell."""
    mine = tmp_path / 'mine'
    sizes = '--dim-word', 8, '--dim', 10, '--epochs', 1, '--n-words', 60
    text = '--text', books, '--held-out', books / 'two.txt', '--work', tmp_path / 'run'
    for kind in ((), ('--bidirectional',)):
        said = run('train_skipthoughts', *text, '--out', mine, *sizes, *kind)
        assert said.startswith(f'{mine}: {"bi" if kind else "uni"}_skip of ')
    assert 'neighbour_cost' in last_metrics(tmp_path / 'run' / 'uni.jsonl')
    thoughts = skipthoughts.load_model(mine, mine)
    assert skipthoughts.encode(thoughts, ['She saw the boat.'], verbose=False).shape == (1, 30)

    run(
        'make_style', '--text', books, '--encoder', mine, '--out', mine / 'romance_style.npy',
        '--shortest', 20, '--few',
    )  # fmt: skip
    assert np.load(mine / 'romance_style.npy').shape == (30,)
    run(
        'train_decoder', *text[:4], '--work', tmp_path / 'dec', '--encoder', mine, *sizes,
        '--out', mine / 'decoder.safetensors', '--shortest', 5, '--longest', 30,
    )  # fmt: skip
    assert 'held_out_cost' in last_metrics(tmp_path / 'dec' / 'decoder.jsonl')
    assert 'truth:' in (tmp_path / 'dec' / 'decoder.txt').read_text(encoding='utf-8')
    told = decoder.load_model(mine / 'decoder.safetensors', mine / 'decoder_dictionary.txt')
    vector = np.load(mine / 'romance_style.npy')
    text = decoder.run_sampler(told, vector, beam_width=2, maxlen=20)
    assert set(text.split()) <= set(told['worddict'])


@pytest.mark.slow
def test_torchrun_trains_what_one_process_does(tmp_path, books):
    """From the text on: only one process makes the files in between that both read."""
    sizes = '--dim-word', 8, '--dim', 10, '--epochs', 1, '--n-words', 60
    trained = []
    for name, launcher in (('one', ()), ('two', TOGETHER)):
        out, where = tmp_path / name, ('--text', books, '--held-out', books / 'two.txt')
        for script, file in (('train_skipthoughts', out), ('train_decoder', out / 'decoder.npz')):
            encoder = ('--encoder', tmp_path / 'one') if script == 'train_decoder' else ()
            run(
                script, *where, *encoder, *sizes, '--work', out / script, '--out', file,
                launcher=launcher,
            )  # fmt: skip
            if script == 'train_skipthoughts':
                run(script, *where, *sizes, '--work', out / script, '--out', file,
                    '--bidirectional', launcher=launcher)  # fmt: skip
        files = ('uni_skip.safetensors', 'bi_skip.safetensors', 'decoder.npz')
        trained.append([formats.read_model(out / file)[0] for file in files])
    for one, two in zip(*trained, strict=True):
        for key, array in one.items():
            np.testing.assert_allclose(two[key], array, atol=1e-3, err_msg=key)


@pytest.mark.slow
def test_a_style_and_a_decoder_for_the_bundle(tmp_path, books):
    """What most people want: their own books, with the encoder that is there."""
    mine = tmp_path / 'mine'
    shutil.copytree(ROOT / 'models', mine)
    style = mine / 'romance_style.npy'
    run('make_style', '--text', books, '--out', style, '--shortest', 20, '--few')
    assert tell(mine)
    out = tmp_path / 'decoder.npz'
    sizes = '--dim-word', 8, '--dim', 10, '--epochs', 1, '--n-words', 60
    run('train_decoder', '--text', books, '--work', tmp_path / 'run', '--out', out, *sizes)
    told = decoder.load_model(out, tmp_path / 'decoder_dictionary.pkl')
    assert told['options']['dimctx'] == len(np.load(style))

    further = mine / 'decoder.safetensors'
    run(
        'train_decoder', '--text', books, '--work', tmp_path / 'further', '--out', further,
        '--start', out, '--n-words', 12, '--epochs', 1,
    )  # fmt: skip
    told = decoder.load_model(further, mine / 'decoder_dictionary.txt')
    assert told['options'] | {'n_words': 12, 'dim_word': 8, 'dim': 10} == told['options']
    assert tell(mine)


@pytest.mark.slow
def test_a_decoder_that_is_told_of_captions(tmp_path, books):
    """With all the passages, and with the half that could be seen in a photo."""
    captions, seen = tmp_path / 'captions.txt', []
    captions.write_text('\n'.join(f'a {size} {thing}' for size in ('big', 'red', 'old')
                                  for thing in ('boat', 'river', 'letter')))  # fmt: skip
    for name, best in (('all', ()), ('half', ('--best', 0.5))):
        run(
            'train_decoder', '--text', books, '--held-out', books / 'two.txt',
            '--work', tmp_path / name, '--out', tmp_path / name / 'decoder.safetensors',
            '--captions', captions, '--pairs', 0.5, '--k', 3, *best,
            '--dim-word', 8, '--dim', 10, '--epochs', 1, '--n-words', 60, '--batch-size', 4,
        )  # fmt: skip
        figures = last_metrics(tmp_path / name / 'decoder.jsonl')
        assert figures['perplexity_of_the_shifted_vector'] > 1
        (vectors,) = (tmp_path / name).glob('captions-*.npy')
        assert len(np.load(vectors)) == 9
        seen.append(figures['steps'])
    assert seen[1] < 0.7 * seen[0]
    told = decoder.load_model(
        tmp_path / 'half' / 'decoder.safetensors', tmp_path / 'half' / 'decoder_dictionary.txt'
    )
    assert told['options']['pairs'] == 0.5


def test_several_captions_are_told_of_their_mean_and_one_of_what_is_around(tmp_path, scripts):
    script = importlib.import_module('train_decoder')
    thoughts = {'a boat': [3, 1], 'a ship': [1, 5], 'a river': [1, 3], 'a dinghy': [5, 1]}
    encoder = SimpleNamespace(
        encode=lambda texts, **_: np.array([thoughts[text] for text in texts], np.float32)
    )
    (tmp_path / 'pool.txt').write_text('a boat\na ship\na river\n', encoding='utf-8')
    c, b = np.ones(2, np.float32), np.full((1, 2), 10, np.float32)
    pairs = script.back_translation.BackTranslation(
        np.zeros((1, 2), np.float16), np.ones(1, np.float32), c, b, np.zeros(1, np.int64)
    )
    told = [(5, 'It sank .'), (1, 'It .')]
    found = script.tell_marked(
        [(['a boat', 'a ship'], told), (['a dinghy'], told)],
        SimpleNamespace(pairs=pairs),
        Vocabulary(('<eos>', 'UNK', 'It', 'sank', '.')),
        encoder,
        'made up',
        SimpleNamespace(
            captions=tmp_path / 'pool.txt', work=tmp_path, k=1, preferences='marked.txt'
        ),
    )
    # Of both captions; of the boat, which is what the pool knows of dinghies.
    np.testing.assert_allclose(found.vectors, [[11, 12], [12, 10]])
    assert found.told_of.tolist() == [0, 0, 1, 1]


@pytest.mark.slow
def test_a_decoder_that_learns_from_what_readers_marked(tmp_path, books):
    captions, marked = tmp_path / 'captions.txt', tmp_path / 'marked.txt'
    captions.write_text('a big boat\na red river\nan old letter\n')
    marked.write_text('a small boat\t5 She saw the old boat .\t1 She left the river .\n')
    start, out = tmp_path / 'before.safetensors', tmp_path / 'decoder.safetensors'
    common = '--n-words', 60, '--batch-size', 4, '--text', books
    run(
        'train_decoder', *common, '--work', tmp_path / 'before', '--out', start,
        '--dim-word', 8, '--dim', 10, '--epochs', 1,
    )  # fmt: skip
    command = (
        'train_decoder', *common, '--work', tmp_path / 'run', '--start', start, '--out', out,
        '--captions', captions, '--k', 2, '--preferences', marked, '--preferences-weight', 2,
    )  # fmt: skip
    run(*command, '--epochs', 1)
    told = decoder.load_model(out, tmp_path / 'decoder_dictionary.txt')
    assert told['options']['preferences_weight'] == 2.0
    marked.write_text('a small boat\t5 She saw the boat .\t1 She left the river .\n')
    assert '--preferences differs' in run(*command, '--epochs', 2, code=2)


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        (('--pairs', 0.5), '--captions'),
        (('--preferences-weight', 0.5), '--preferences'),
        (('--preferences', 'marked.txt'), '--preferences'),
        (('--preferences', 'marked.txt', '--preferences-weight', 1), '--captions'),
        (
            ('--preferences', 'm.txt', '--preferences-weight', 1, '--captions', 'pool.txt'),
            '--start',
        ),
        (
            (
                '--preferences',
                'm.txt',
                '--preferences-weight',
                1,
                '--captions',
                'pool.txt',
                '--start',
                'b.npz',
                '--out',
                'b.npz',
            ),
            'must not be --out',
        ),
        (('--best', 0.5), '--captions'),
        (('--captions', 'pool.txt', '--best', 0), '--best'),
        (('--captions', 'pool.txt', '--k', 0), '--k'),
    ],
)
def test_captions_to_be_told_of_are_asked_for(tmp_path, refusal, books, given, said):
    where = '--text', books, '--work', tmp_path / 'run', '--out', tmp_path / 'a.npz'
    error = refusal('train_decoder', *where, *given)
    assert said in error.splitlines()[-1] and not (tmp_path / 'run').exists()


def test_vectors_for_words_that_have_theirs_are_refused(tmp_path, refusal, books):
    some = tmp_path / 'some'
    error = refusal(
        'train_decoder', '--text', books, '--work', tmp_path, '--out', tmp_path / 'a.npz',
        '--start', some, '--vectors', some,
    )  # fmt: skip
    assert '--vectors' in error


def test_few_passages_are_refused_unless_they_are_wanted(tmp_path, refusal, books):
    style = tmp_path / 'a_style.npy'
    error = refusal('make_style', '--text', books, '--out', style, '--shortest', 20)
    assert 'passages, expected at least 1000' in error and '--few' in error
    assert not style.exists()


@pytest.mark.slow
def test_a_joint_space_of_your_own_photos(tmp_path):
    folder, rng = tmp_path / 'photos', np.random.default_rng(0)
    folder.mkdir()
    lines = []
    for i in range(12):
        colour = ['red', 'green', 'blue'][i % 3]
        Image.new('RGB', (60, 40), colour).save(folder / f'{i}.png')
        lines += [f'{i}.png\ta {colour} wall {n}' for n in range(2)]
    (tmp_path / 'captions.txt').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    sizes = '--dim-word', 8, '--dim', 10, '--epochs', 2, '--batch-size', 4
    efficientnet.write_eyes(tmp_path / 'convnet.json', efficientnet.Eyes())
    captioned = '--captions', tmp_path / 'captions.txt', '--photo-folder', folder
    for name, where in (
        ('folder', captioned),
        ('network', (*captioned, '--network', tmp_path / 'convnet.json')),
        ('dataset', ('--dataset', tmp_path / 'f8k')),
    ):
        if name == 'dataset':
            for split in ('train', 'dev'):
                captions = [line.partition('\t')[2] for line in lines]
                (tmp_path / f'f8k_{split}_caps.txt').write_text('\n'.join(captions) + '\n')
                np.save(tmp_path / f'f8k_{split}_ims.npy', rng.random((12, 20)).astype('f4'))
        out = tmp_path / name / 'embedding.npz'
        held_out = () if name == 'dataset' else ('--held-out', 3)
        run('train_embedding', *where, *held_out, '--work', tmp_path / name, '--out', out, *sizes)
        assert 'sum_of_recalls' in last_metrics(tmp_path / name / 'embedding.jsonl')
        model = embedding.load_model(out)
        assert embedding.encode_sentences(model, ['a red wall']).shape == (1, 10)
    bundled = convnet.build_convnet(config.folder_paths(ROOT / 'models')['vgg'])['dim']
    for name, width in (('folder', bundled), ('network', 2280), ('dataset', 20)):
        kept = formats.read_model(tmp_path / name / 'embedding.npz')[1]
        assert kept['dim_image'] == width  # what the photos were seen through


@pytest.mark.slow
def test_in_between_files_of_another_input_are_refused(tmp_path, books):
    """Each trainer says what differs; what goes in again as it was is taken up."""
    own = tmp_path / 'books'
    shutil.copytree(books, own)
    sizes = '--dim-word', 8, '--dim', 10, '--epochs', 1, '--n-words', 60
    mine, work = tmp_path / 'mine', tmp_path / 'encoder'
    encoder = 'train_skipthoughts', '--text', own, '--work', work, '--out', mine, *sizes
    run(*encoder)
    run(*encoder, '--bidirectional')
    run(*encoder)
    assert 'dictionary.txt: made from another input: --n-words differs' in run(
        *encoder, '--n-words', 50, code=2
    )
    vectors = tmp_path / 'vectors.txt'
    vectors.write_text(f'boat{" 1" * 8}\nriver{" 2" * 8}\n')
    assert 'uni.pt: made from another input: --vectors is new' in run(
        *encoder, '--vectors', vectors, code=2
    )
    work = tmp_path / 'decoder'
    text = '--text', own, '--encoder', mine, '--shortest', 5, '--longest', 30, *sizes
    told = 'train_decoder', *text, '--work', work, '--out', mine / 'decoder.npz'
    run(*told)
    run(*told)  # into the folder that the encoder lies in
    assert 'told: made from another input: vocabulary differs' in run(
        *told, '--n-words', 10, code=2
    )
    table = np.load(mine / 'utable.npy')
    np.save(mine / 'utable.npy', table + 1)
    assert 'told_vectors: made from another input: encoder differs' in run(*told, code=2)
    np.save(mine / 'utable.npy', table)
    with open(own / 'two.txt', 'a', encoding='utf-8') as file:
        file.write('She left.\n')
    for command in (told, encoder):
        error = run(*command, code=2)
        assert 'text.txt: made from another input: two.txt differs; to start afresh' in error


def test_features_of_another_photo_are_refused(tmp_path, here, refusal):
    small = convnet.Architecture(blocks=((2,), (3,)), fc=(4, 5), input_size=32)
    rng = np.random.default_rng(0)
    params = {n: rng.normal(size=s).astype('f4') for n, s in small.shapes().items()}
    formats.write_model(tmp_path / 'net.safetensors', params, small.options())
    photos, captions, work = (tmp_path / name for name in ('photos', 'captions.csv', 'run'))
    photos.mkdir()
    for i in range(4):
        Image.new('RGB', (40, 30), (60 * i, 200, 30)).save(photos / f'{i}.png')
    captions.write_text('image,caption\n' + ''.join(f'{i}.png,A {i} field.\n' for i in range(4)))
    where = '--captions', captions, '--photo-folder', photos, '--epochs', 1, '--work', work
    where += '--network', tmp_path / 'net.safetensors', '--out', tmp_path / 'e.npz', '--dim', 4
    here('train_embedding', *where)
    here('train_embedding', *where)
    notes = {note: note.read_bytes() for note in work.glob('*.made_from.json')}
    assert {note.name.split('.')[0] for note in notes} == {'features', 'embedding'}
    Image.new('RGB', (40, 30), 'red').save(photos / '2.png')
    error = refusal('train_embedding', *where)
    assert 'features.npy: made from another input: 2.png differs; to start afresh' in error
    assert error.rstrip().endswith(f'or empty {work}')
    for note in notes:  # as an earlier version left it
        note.unlink()
    here('train_embedding', *where)


def test_a_checkpoint_of_other_features_is_refused(tmp_path, here, refusal):
    names, captions, features = (tmp_path / name for name in ('n.txt', 'c.txt', 'f.npy'))
    names.write_text('a\nb\nc\n')
    captions.write_text('a\ta dog\nb\ta cat\nc\tthe sea\n')
    np.save(features, np.eye(3, 5, dtype='f4'))
    where = '--captions', captions, '--photos', names, '--features', features, '--epochs', 1
    where += '--work', tmp_path / 'run', '--out', tmp_path / 'e.npz', '--dim', 4, '--dim-word', 3
    here('train_embedding', *where)
    here('train_embedding', *where, '--epochs', 2)
    np.save(features, np.eye(3, 5, 1, dtype='f4'))
    assert 'embedding.pt: made from another input: --features differs' in refusal(
        'train_embedding', *where
    )


@pytest.mark.parametrize(
    ('script', 'arguments', 'said'),
    [
        ('train_embedding', ('--out', 'a.npz', '--work', 'r'), 'expected --captions and'),
        ('train_decoder', ('--text', 'EMPTY', '--out', 'a.npz', '--work', 'r'), 'no .txt'),
        ('train_skipthoughts', ('--text', 'EMPTY', '--out', 'a', '--work', 'r'), 'no .txt'),
        ('convert_models', ('EMPTY', '--out', 'a', '--to', 'ours'), 'found no model'),
        ('expand_vocabulary', ('--models', 'EMPTY', '--vectors', 'v', '--out', 'a'), 'dictionary'),
    ],
)
def test_what_is_missing_is_said_in_a_line(tmp_path, monkeypatch, script, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'EMPTY').mkdir()
    error = run(script, *arguments, code=2)
    assert said in error and 'Traceback' not in error and len(error.splitlines()) == 1
