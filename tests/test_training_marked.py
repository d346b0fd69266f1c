from __future__ import annotations

import pytest

from storyteller.formats import MissingFileError, ModelFileError
from storyteller.training.data.marked import read_marked


def test_texts_come_with_their_marks(tmp_path):
    path = tmp_path / 'marked.txt'
    path.write_text(
        'A dog .\t5 The dog ran .\t1 A 5 ran .\nA cat . | A pet .\t3 It ran .\nA fish .\n',
        encoding='utf-8',
    )
    assert list(read_marked(path)) == [
        (['A dog .'], [(5, 'The dog ran .'), (1, 'A 5 ran .')]),
        (['A cat .', 'A pet .'], [(3, 'It ran .')]),
        (['A fish .'], []),
    ]


@pytest.mark.parametrize(
    'line', ['\t5 It ran .', 'A dog .\t6 It ran .', 'A dog .\tIt ran .', 'A dog .\t5 ', '']
)
def test_a_line_of_another_form_is_refused(tmp_path, line):
    path = tmp_path / 'marked.txt'
    path.write_text(f'A cat .\t3 It ran .\n{line}\n', encoding='utf-8')
    with pytest.raises(ModelFileError, match=r'marked\.txt: line 2: expected captions and texts'):
        list(read_marked(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r'none\.txt'):
        list(read_marked(tmp_path / 'none.txt'))
