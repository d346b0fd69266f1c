"""The blind panel, from the texts that are drawn to the marks that come back."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest

from storyteller import generate, skipthoughts
from storyteller.evaluation import panel, panel_texts
from storyteller.evaluation.panel import Text
from storyteller.formats import MismatchError, MissingFileError
from storyteller.story import Story, StoryError

# --- sheets and marks ----------------------------------------------------------------------------


def made_up(**counts):
    return {
        source: [Text(source, f'Caption {i}.', f'{source} number {i}.') for i in range(count)]
        for source, count in counts.items()
    }


def filled_in(folder, name, marks):
    """A form with marks(number) in the row of each number."""
    rows = (folder / f'{name}.csv').read_text().splitlines()
    numbers = [int(row.split(',')[0]) for row in rows[1:]]
    path = folder / f'filled-{name}.csv'
    path.write_text('\n'.join([rows[0], *(f'{n},{marks(n)}' for n in numbers)]) + '\n')
    return path


def test_sheets_hold_each_text_once_and_do_not_say_whose_it_is(tmp_path):
    texts = made_up(ours=6, real=3, other=3)
    paths = panel.write_panel(tmp_path / 'new', panel.deal(texts, 3, seed=1))
    assert [path.name for path in paths] == ['panel-1.md', 'panel-2.md', 'panel-3.md']
    key, found = panel.read_key(tmp_path / 'new'), []
    for path in paths:
        own = key[path.stem]
        assert Counter(own.values()) == {'ours': 2, 'real': 1, 'other': 1}
        form = path.with_suffix('.csv').read_text().splitlines()
        assert form[0] == 'number,grammatical,sense,about,person'
        assert form[1:] == [f'{number},,,,' for number in own]
        body = path.read_text()
        assert path.with_suffix('.csv').name in body
        sections = re.findall(r'## (\d+)\n\nCaption: \*(.*)\*\n\n> (\w+)( .*)\n', body)
        assert {int(number): source for number, _, source, _ in sections} == own
        found += [Text(source, caption, source + rest) for _, caption, source, rest in sections]
    numbers = [number for each in key.values() for number in each]
    assert numbers == list(range(1, 13))
    everything = [text for each in texts.values() for text in each]
    assert sorted(found, key=str) == sorted(everything, key=str)


def test_the_same_seed_gives_the_same_sheets():
    texts = made_up(ours=20, real=10)
    assert panel.deal(texts, 2, seed=3) == panel.deal(texts, 2, seed=3)
    assert panel.deal(texts, 2, seed=3) != panel.deal(texts, 2, seed=4)


def test_one_reader_has_a_sheet_without_a_number_and_no_panel_is_written_over(tmp_path):
    dealt = panel.deal(made_up(ours=2, real=1))
    assert panel.write_panel(tmp_path, dealt) == [tmp_path / 'panel.md']
    assert {path.name for path in tmp_path.iterdir()} == {
        'panel.md', 'panel.csv', 'panel_key.json'
    }  # fmt: skip
    with pytest.raises(ValueError, match='is there already'):
        panel.write_panel(tmp_path, dealt)


def test_a_filled_in_panel_is_scored(tmp_path):
    panel.write_panel(tmp_path, panel.deal(made_up(ours=4, real=2), 2))
    key = panel.read_key(tmp_path)
    marks = {'ours': '2,1,3,no', 'real': '5,5,4,Yes'}
    sources = {number: source for each in key.values() for number, source in each.items()}
    one = filled_in(tmp_path, 'panel-1', lambda n: marks[sources[n]])
    other = filled_in(tmp_path, 'panel-2', lambda n: ' 4 , 4, 4, y')
    readers = [panel.read_marks(path, key) for path in (one, other)]
    found = panel.scores(key, readers)
    assert found == {
        'ours': {'grammatical': [2, 4], 'sense': [1, 4], 'about': [3, 4], 'person': [0, 100]},
        'real': {'grammatical': [5, 4], 'sense': [5, 4], 'about': [4, 4], 'person': [100, 100]},
    } and list(found['ours']) == list(panel.MARKS)
    assert panel.agreement(readers) is None  # nobody read what another read
    lines = panel.table(found).splitlines()
    assert len(lines) == 4 and len({line.count('|') for line in lines}) == 1
    assert '| ours | 3 (2, 4) | 2.5 (1, 4) | 3.5 (3, 4) | 50 (0, 100) |' in lines
    assert '| real | 5 | 5 | 4 | 100 |' in panel.table(panel.scores(key, readers[:1]))


def test_scores_against_the_slow_version(tmp_path):
    panel.write_panel(tmp_path, panel.deal(made_up(ours=8, real=4, other=4), 2))
    key, rng = panel.read_key(tmp_path), np.random.default_rng(0)

    def at_random(_):
        return ','.join([*map(str, rng.integers(1, 6, 3)), rng.choice(['yes', 'no'])])

    readers = [
        panel.read_marks(filled_in(tmp_path, f'panel-{place}', at_random), key)
        for place in (1, 2, 1)
    ]
    sheets = [key['panel-1'], key['panel-2'], key['panel-1']]
    for source, figures in panel.scores(key, readers).items():
        for mark, means in figures.items():
            for mean, marks, sheet in zip(means, readers, sheets, strict=True):
                values = [marks[n][mark] for n in sheet if sheet[n] == source]
                assert mean == pytest.approx(sum(values) / len(values))
    apart = panel.agreement(readers)
    for mark in panel.MARKS:
        differences = [abs(readers[0][n][mark] - readers[2][n][mark]) for n in sheets[0]]
        assert apart[mark] == pytest.approx(sum(differences) / len(differences))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (('2,3,3,3,no\n', ''), 'the row of number 2 is missing'),
        (('2,3,3,3,no', '2,3,6,3,no'), "number 2: sense: expected 1 to 5, found '6'"),
        (('2,3,3,3,no', '2,,3,3,no'), "number 2: grammatical: expected 1 to 5, found ''"),
        (('2,3,3,3,no', '2,3,3,2.5,no'), "about: expected 1 to 5, found '2.5'"),
        (('2,3,3,3,no', '2,3,3,3,maybe'), "number 2: person: expected yes or no, found 'maybe'"),
        (('2,3,3,3,no', '2,3,3'), "number 2: about: expected 1 to 5, found ''"),
        (('2,3,3,3,no', '1,3,3,3,no'), "line 3: a number twice: '1'"),
        (('2,3,3,3,no', 'two,3,3,3,no'), "no number: 'two'"),
        (('2,3,3,3,no', '2,3,3,3,no\n9,3,3,3,no'), 'the row of number 9 is not in the sheet'),
        (('2,3,3,3,no', '2,3,3,3,no\n5,3,3,3,no'), 'expected the numbers of one sheet'),
        ((',about', ''), "expected a column 'about'"),
    ],
)
def test_a_form_that_is_not_filled_in_well(tmp_path, change, message):
    panel.write_panel(tmp_path, panel.deal(made_up(ours=4, real=2), 2))
    path = filled_in(tmp_path, 'panel-1', lambda n: '3,3,3,no')
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        panel.read_marks(path, panel.read_key(tmp_path))
    assert str(path) in str(error.value)


def test_a_key_that_is_none(tmp_path):
    with pytest.raises(MissingFileError, match=r'panel_key\.json'):
        panel.read_key(tmp_path)
    for text in ('no', '[]', '{"a": {"one": "ours"}}'):
        (tmp_path / panel.KEY).write_text(text)
        with pytest.raises(ValueError, match='not the key of a panel'):
            panel.read_key(tmp_path)


# --- real passages -------------------------------------------------------------------------------

PLAIN = 'She went down to the sea .'  # six words
VOCABULARY = set(PLAIN.lower().split())


def test_passages_are_whole_sentences_as_long_as_a_story():
    paragraphs = [[PLAIN] * n for n in range(1, 40)]
    rng = np.random.default_rng(0)
    found = panel_texts.candidates(paragraphs, [60], VOCABULARY, 100, rng)
    lengths = Counter(text.count('sea') * 6 for text in found)
    assert lengths == {54: 1, 60: 30} and all(text.endswith('.') for text in found)
    few = panel_texts.candidates(paragraphs, [60], VOCABULARY, 5, np.random.default_rng(0))
    assert len(few) == 5


@pytest.mark.parametrize(
    'sentence',
    [
        "`` She went , '' down to the sea .",
        'she went down to the sea .',
        'She went down to the sea ,',
        'She went to Harriet by the sea .',
        'She went down 2 the sea .',
        'She went _down_ to the sea .',
        'Chapter to sea .',
    ],
)
def test_passages_that_quote_name_or_are_no_prose_are_left_out(sentence):
    def found(*sentences):
        rng = np.random.default_rng(0)
        return panel_texts.candidates([sentences], [18], VOCABULARY, 9, rng)

    assert found(PLAIN, PLAIN, PLAIN)
    assert not found(PLAIN, sentence, PLAIN)
    assert found(PLAIN, PLAIN, PLAIN, sentence)  # it is cut off


def made_up_encoder(model, texts, verbose=False, tokenised=False):
    """A vector that depends on the words only."""
    seeds = [sum(map(ord, text.replace(' ', ''))) for text in texts]
    return np.stack([np.random.default_rng(s).normal(size=8) for s in seeds]).astype(np.float32)


def test_fitting_captions_against_the_slow_version(monkeypatch):
    monkeypatch.setattr(skipthoughts, 'encode', made_up_encoder)
    monkeypatch.setattr(panel_texts, 'CAPTIONS_AT_ONCE', 7)
    rng = np.random.default_rng(0)
    pool, passages = [f'caption {i}' for i in range(30)], [f'passage {i}' for i in range(9)]
    z = {'stv': None, 'cap': pool, 'bneg': rng.normal(size=8), 'bpos': rng.normal(size=8)}
    captions, scores = panel_texts.fitting_captions(z, passages)
    c, v = made_up_encoder(None, pool) - z['bneg'], made_up_encoder(None, passages) - z['bpos']
    for row, passage in enumerate(v):
        cosines = [passage @ x / np.linalg.norm(passage) / np.linalg.norm(x) for x in c]
        assert captions[row] == np.argmax(cosines)
        assert scores[row] == pytest.approx(max(cosines), rel=1e-5)


def test_the_passages_that_fit_best_are_chosen_each_under_its_own_caption():
    passages = ['a ' * 50, 'b ' * 51, 'c ' * 52, 'd ' * 90]
    captions, scores = np.array([7, 7, 8, 9]), np.array([0.5, 0.9, 0.7, 0.1])
    found = panel_texts.choose(passages, captions, scores, [50, 50])
    assert found == [(passages[1], 7), (passages[2], 8)]
    assert panel_texts.choose(passages, captions, scores, [70]) == [(passages[2], 8)]  # nearest
    with pytest.raises(ValueError, match='expected 4 passages that have different captions'):
        panel_texts.choose(passages, captions, scores, [50] * 4)


# --- all texts -----------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    """Photos that are only numbers, and a shard of novels."""
    folder = tmp_path / 'data'
    for name in ('flickr8k', 'novels'):
        (folder / name).mkdir(parents=True)
    for i in range(20):
        (folder / 'flickr8k' / f'{i}.jpg').write_bytes(str(i).encode())
    (folder / 'flickr8k' / 'dev.txt').write_text(''.join(f'{i}.jpg\n' for i in range(18)))
    sentences = ['She went down to the sea.', 'The sea went down.', 'To the sea she went.']
    rng = np.random.default_rng(0)
    lines = [' '.join(rng.choice(sentences, 20)) for _ in range(60)]
    (folder / 'novels' / 'more-26.txt').write_text('\n'.join(['=== A book', *lines]) + '\n')
    return folder


@pytest.fixture
def models(monkeypatch):
    """What tells a number of a photo, and nothing of every fifth photo."""

    def stories(z, photos, on_error):
        numbers = [int(photo.read()) for photo in photos]
        captions = [[(f'A photo of {n} .', 1.0), ('worse', 0.5)] for n in numbers]
        text = ' '.join([PLAIN] * 5)
        return [
            StoryError(str(n), 'no') if n % 5 == 0 else Story(str(n), found, text, {'by': z['by']})
            for n, found in zip(numbers, captions, strict=True)
        ]

    monkeypatch.setattr(generate, 'stories', stories)
    monkeypatch.setattr(skipthoughts, 'encode', made_up_encoder)
    zero, words = np.zeros(8), dict.fromkeys(VOCABULARY, 2)
    pool = [f'A child number {i} .' for i in range(50)]
    common = {'stv': None, 'cap': pool, 'bneg': zero, 'bpos': zero, 'dec': {'worddict': words}}
    return [common | {'by': by} for by in ('us', 'them')]


def test_the_texts_of_a_panel(data, models, tmp_path):
    def drawn(seed):
        return panel_texts.panel_texts(models[0], data, tmp_path, 4, 2, models[1], seed)

    found = drawn(1)
    assert {source: len(texts) for source, texts in found.items()} == {
        'ours': 8, 'other': 4, 'real': 4
    }  # fmt: skip
    told = [text.caption for source in ('ours', 'other') for text in found[source]]
    assert len(set(told)) == 12  # different photos, all of them of the split
    numbers = {int(re.search(r'\d+', caption)[0]) for caption in told}
    assert all(n < 18 and n % 5 for n in numbers)
    assert all(re.fullmatch(r'A child number \d+\.', text.caption) for text in found['real'])
    assert all(27 <= len(text.prose.split()) <= 33 for text in found['real'])
    assert {text.prose for text in found['ours']} == {' '.join(['She went down to the sea.'] * 5)}
    assert drawn(1) == found and drawn(2) != found
    alone = panel_texts.panel_texts(models[0], data, tmp_path, 4)
    assert {source: len(texts) for source, texts in alone.items()} == {'ours': 4, 'real': 2}


def test_a_panel_that_cannot_be(data, models, tmp_path):
    with pytest.raises(ValueError, match='photos: expected 1 more to tell, found none'):
        panel_texts.panel_texts(models[0], data, tmp_path, 15)
    for arguments, name in (((1,), 'panel'), ((4, 0), 'readers')):
        with pytest.raises(ValueError, match=name):
            panel_texts.panel_texts(models[0], data, tmp_path, *arguments)
    (data / 'novels' / 'more-26.txt').rename(data / 'novels' / 'more-00.txt')
    with pytest.raises(MissingFileError, match='romance-13 or more-26'):
        panel_texts.panel_texts(models[0], data, tmp_path / 'other', 4)


def test_the_key_is_plain_json(tmp_path):
    panel.write_panel(tmp_path, panel.deal(made_up(ours=1)))
    assert json.loads((tmp_path / panel.KEY).read_text()) == {'panel': {'1': 'ours'}}


def test_paragraphs_of_other_novels_are_not_taken_up(tmp_path):
    novels = tmp_path / 'novels'
    novels.mkdir()
    file = novels / f'{panel_texts.SHARDS[0]}.txt'
    file.write_text('It rained all day.\n')
    found = panel_texts.held_out_paragraphs(tmp_path, tmp_path / 'run')
    assert found == [['It rained all day .']]
    assert panel_texts.held_out_paragraphs(tmp_path, tmp_path / 'run') == found
    file.write_text('It snowed all day.\n')
    with pytest.raises(MismatchError, match=rf'{file.name} differs'):
        panel_texts.held_out_paragraphs(tmp_path, tmp_path / 'run')
