"""Captions in the layouts of public data sets: one content, read alike from all of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from storyteller.formats import MissingFileError, ModelFileError
from storyteller.training.data import documents
from storyteller.training.data.caption_files import read_captions
from storyteller.training.data.captioned import CaptionedPhotos

TAB = 'a.jpg\tA dog runs .\na.jpg\tTwo dogs , one black .\nb.jpg\tThe sea .\n'
FLICKR = 'a.jpg#0\tA dog runs .\na.jpg#1\tTwo dogs , one black .\nb.jpg#0\tThe sea .\n'
KAGGLE = 'image,caption\na.jpg,A dog runs.\na.jpg,"Two dogs, one black ."\nb.jpg,The sea .\n'
BARS = (
    'image_name| comment_number| comment\na.jpg| 0| A dog runs .\n'
    'a.jpg| 1| Two dogs , one black .\nb.jpg| 4   Its comment is cut\nb.jpg| 0| The sea .\n'
)
COCO = json.dumps(
    {
        'images': [{'id': 7, 'file_name': 'a.jpg'}, {'id': 3, 'file_name': 'b.jpg'}],
        'annotations': [
            {'image_id': 7, 'caption': 'A dog runs.'},
            {'image_id': 3, 'caption': 'The sea.\n'},
            {'image_id': 7, 'caption': 'Two dogs, one black.'},
        ],
    },
    indent=1,
)


def karpathy(**facts):
    texts = {'a.jpg': ['A dog runs.', 'Two dogs, one black.'], 'b.jpg': ['The sea.']}
    images = [
        {'filename': n, 'split': 'train', 'sentences': [{'raw': c} for c in texts[n]]} | facts
        for n in texts
    ]
    other = {'filename': 'c.jpg', 'split': 'test', 'sentences': [{'raw': 'A cat.'}]}
    return json.dumps({'images': [*images, other], 'dataset': 'own'})


LAYOUTS = {
    'tab.txt': TAB,
    'Flickr8k.token.txt': FLICKR,
    'captions.txt': KAGGLE,
    'results.csv': BARS,
    'captions_train2014.json': COCO,
    'dataset_own.json': karpathy(),
    'dataset_coco.json': karpathy(filepath='train2014'),
}


@pytest.fixture(params=LAYOUTS)
def file(tmp_path, request):
    path = tmp_path / request.param
    path.write_text('\ufeff' * (request.param == 'tab.txt') + LAYOUTS[request.param])
    return path


def test_every_layout_is_read_alike(file):
    read = CaptionedPhotos.from_files(file, ['b.jpg', 'a.jpg'], np.eye(2))
    said = [' '.join(caption) for caption in read.captions]
    assert said == ['The sea .', 'A dog runs .', 'Two dogs , one black .']
    assert read.photos.tolist() == [0, 1, 1]


def test_text_for_encoders_too_has_the_captions_of_a_photo_together(file):
    documents.tokenise_files([file], file.with_name('tokens'), 'captions')
    found = list(documents.token_documents(file.with_name('tokens')))
    assert found == [['A dog runs .', 'Two dogs , one black .'], ['The sea .']]


def test_quotes_are_parted_once(tmp_path):
    path = tmp_path / 'captions.txt'
    path.write_text('a.jpg\tA cat "reading" it.\n')
    documents.tokenise_files([path], tmp_path / 'tokens', 'captions')
    said = "A cat `` reading '' it ."
    assert list(documents.token_documents(tmp_path / 'tokens')) == [[said]]
    assert [' '.join(words) for _, words in read_captions(path)] == [said]


def test_photos_lie_in_the_folder_that_karpathy_names_or_beside_each_other(tmp_path):
    path = tmp_path / 'dataset_coco.json'
    path.write_text(karpathy(filepath='train2014'))
    assert next(read_captions(path))[0] == ('train2014/a.jpg', 'a.jpg')
    read = CaptionedPhotos.from_files(path, ['train2014/a.jpg', 'b.jpg'], np.eye(2))
    assert read.photos.tolist() == [0, 0, 1]


def test_a_number_is_no_part_of_a_name_unless_it_is(tmp_path):
    path = tmp_path / 'captions.txt'
    path.write_text('a.jpg#0\tone\nb#1\ttwo\nc.jpg\t0\tthree\n')
    assert list(read_captions(path)) == [
        (('a.jpg', 'a.jpg#0'), ['one']),
        (('b#1',), ['two']),
        (('c.jpg',), ['three']),
    ]


@pytest.mark.parametrize('said', ['b.jpg\tA photo, image, caption', 'b.jpg\tA dog'])
def test_a_caption_is_no_head_of_columns(tmp_path, said):
    path = tmp_path / 'captions.txt'
    path.write_text(said + '\n')
    assert [names for names, _ in read_captions(path)] == [('b.jpg',)]


def test_stops_on_words_are_parted_where_most_captions_have_them(tmp_path):
    path = tmp_path / 'captions.txt'
    path.write_text("a.jpg\tA dog on a sofa.\na.jpg\tIt's red!\nb.jpg\tThe sea\n")
    said = [' '.join(words) for _, words in read_captions(path)]
    assert said == ['A dog on a sofa .', "It 's red !", 'The sea']
    path.write_text('a.jpg\tA dog on a sofa .\na.jpg\tOn St.\nb.jpg\tThe sea\n')  # tokens
    assert [words[-1] for _, words in read_captions(path)] == ['.', 'St.', 'sea']


def test_what_is_left_out_is_said(tmp_path, capsys):
    for content, said in ((karpathy(), '1 photos of the split "test"'), (BARS, '1 lines without')):
        (tmp_path / 'c.json').write_text(content)
        list(read_captions(tmp_path / 'c.json'))
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ('a.jpg: a dog\n', 'line 1 is not photo<TAB>caption, and the file is neither CSV'),
        ('a\tdogs\nno tab here\n', 'line 2 is not photo<TAB>caption'),
        ('{"images": ', 'not JSON'),
        ('{"photos": []}', 'neither JSON of COCO .*KeyError'),
        ('[1, 2]', 'neither JSON of COCO'),
        ('{"images": [{"id": 1}], "annotations": [{"image_id": 2, "caption": "a"}]}', 'KeyError'),
        ('{"images": [], "annotations": 3}', 'TypeError'),
    ],
)
def test_what_is_no_file_of_captions(tmp_path, content, said):
    path = tmp_path / 'c.txt'
    path.write_text(content)
    with pytest.raises(ModelFileError, match=rf'c\.txt: .*{said}'):
        list(read_captions(path))


def test_no_file():
    with pytest.raises(MissingFileError, match='nowhere'):
        list(read_captions('nowhere.json'))
