from __future__ import annotations

import gzip
import lzma
import shutil
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storyteller import text
from storyteller.formats import MismatchError, MissingFileError, ModelFileError
from storyteller.training.data import documents
from storyteller.training.data.documents import (
    books,
    choose_words,
    count_words,
    photo_captions,
    read_text,
    text_files,
    titled_books,
    token_documents,
    tokenise,
    tokenise_files,
    verses,
)

NOVELS = """\
=== The Café
CHAPTER ONE
She sat at the café. “It’s late,” he said — and left…

He was cold.
III
=== Another Book

The sun had set; nobody came
A heading that goes on for more than eight words in a row
The End
"""


def save(folder, name, content):
    path = folder / name
    data = content.encode('utf-8') if isinstance(content, str) else content
    opener = {'.gz': gzip.open, '.xz': lzma.open}.get(path.suffix, open)
    with opener(path, 'wb') as file:
        file.write(data)
    return path


# --- files to documents --------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['a.txt', 'a.txt.gz', 'a.txt.xz'])
def test_text_is_read_plain_or_packed(tmp_path, name):
    path = save(tmp_path, name, '\ufeffcafé\r\n\r\nline \u2028 two\x0c\nlast')
    assert list(read_text(path)) == ['café', '', 'line \u2028 two\x0c', 'last']
    assert list(read_text(str(path))) == list(read_text(path))


def test_an_empty_text_has_no_lines(tmp_path):
    assert list(read_text(save(tmp_path, 'a.txt', ''))) == []


def test_a_missing_text_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / 'no.txt', tmp_path):
        with pytest.raises(MissingFileError, match='a text to train on') as caught:
            list(read_text(path))
        assert str(path) in str(caught.value)


@pytest.mark.parametrize('suffix', ['.gz', '.xz'])
def test_packed_text_that_is_broken_is_named(tmp_path, suffix):
    whole = save(tmp_path, f'whole.txt{suffix}', 'A line of text.\n' * 500).read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 0xFF
    for broken in (whole[: len(whole) // 2], b'not packed at all', bytes(changed)):
        path = tmp_path / f'broken.txt{suffix}'
        path.write_bytes(broken)
        with pytest.raises(ModelFileError, match=r'broken\.txt'):
            list(read_text(path))


def test_text_that_is_not_utf8_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r'a\.txt: not readable as UTF-8'):
        list(read_text(save(tmp_path, 'a.txt', b'caf\xe9\n')))


def test_the_texts_of_a_folder(tmp_path):
    for name in ('b.txt', 'a.txt.xz', 'c.txt.gz', 'notes.md', 'd.txt.bz2'):
        save(tmp_path, name, 'x')
    assert [path.name for path in text_files(tmp_path)] == ['a.txt.xz', 'b.txt', 'c.txt.gz']
    assert [path.name for path in text_files(tmp_path, 'b*')] == ['b.txt']
    assert text_files(tmp_path / 'notes.md') == [tmp_path / 'notes.md']  # a file asked for by name
    (tmp_path / 'empty').mkdir()
    for missing in (tmp_path / 'empty', tmp_path / 'none'):
        with pytest.raises(MissingFileError, match='found no'):
            text_files(missing)


@pytest.mark.parametrize('name', ['a.txt', 'a.txt.gz', 'a.txt.xz'])
def test_books_are_parted_by_titles_and_lose_their_headings(tmp_path, name):
    assert list(books(save(tmp_path, name, NOVELS))) == [
        ['She sat at the café. “It’s late,” he said — and left…', 'He was cold.'],
        ['A heading that goes on for more than eight words in a row'],
    ]


def test_a_file_without_titles_is_one_book(tmp_path):
    path = save(tmp_path, 'a.txt', 'PART ONE\nIt rained.\n\nIt rained again.\n')
    assert list(books(path)) == [['It rained.', 'It rained again.']]


def test_titles_without_text_are_no_books(tmp_path):
    path = save(tmp_path, 'a.txt', '=== One\n=== Two\nIt rained.\n=== Three\n')
    assert list(books(path)) == [['It rained.']]


def test_books_with_their_titles(tmp_path):
    found = list(titled_books(save(tmp_path, 'a.txt.xz', NOVELS)))
    assert [title for title, _ in found] == ['The Café', 'Another Book']
    assert [book for _, book in found] == list(books(tmp_path / 'a.txt.xz'))


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        ('PART ONE\nIt rained.\n\nIt rained again.\n', [('', ['It rained.', 'It rained again.'])]),
        ('It rained.\n=== One \nIt rained.', [('', ['It rained.']), ('One', ['It rained.'])]),
        ('=== One\n=== Two\nIt rained.\n=== Three\n', [('Two', ['It rained.'])]),
        ('=== A === B\nIt rained.\n', [('A === B', ['It rained.'])]),
        ('=== \nIt rained.\n', [('', ['It rained.'])]),
        ('===One\n', []),
        ('', []),
    ],
)
def test_what_has_a_title_and_what_has_none(tmp_path, content, expected):
    path = save(tmp_path, 'a.txt', content)
    assert list(titled_books(path)) == expected
    assert list(books(path)) == [book for _, book in expected]


@pytest.mark.parametrize('end', ['.', '!', '?', ':', ';', ',', '"', "'", ')', '-', '. '])
def test_a_short_line_that_ends_like_a_sentence_is_none_of_the_headings(tmp_path, end):
    path = save(tmp_path, 'a.txt', f'The End{end}\nThe End\n')
    assert list(books(path)) == [[f'The End{end}']]


def test_verses_are_blocks_between_empty_lines(tmp_path):
    path = save(tmp_path, 'a.txt', '\n\nOh\nmy love\n  \n\nGoodbye\n')
    assert list(verses(path)) == [['Oh', 'my love'], ['Goodbye']]


CAPTIONS = """\
1000_abc.jpg\t0\tA dog runs .
1000_abc.jpg\t1\t A brown dog is running .\x20
2000_xyz.jpg\t0\tTwo people talk .
2000_xyz.jpg\t1\t
3000.jpg\tA boat at sea .
"""


def test_captions_of_a_photo_are_a_document(tmp_path):
    path = save(tmp_path, 'a.txt', CAPTIONS)
    assert list(photo_captions(path)) == [
        ['A dog runs .', 'A brown dog is running .'],
        ['Two people talk .'],
        ['A boat at sea .'],
    ]


@pytest.mark.parametrize('name', ['1000_other.png', '1000', '1000_abc.jpg', '1000.jpg'])
def test_photos_for_measuring_are_left_out_however_they_are_spelt(tmp_path, name):
    path = save(tmp_path, 'a.txt', CAPTIONS)
    found = list(photo_captions(path, leave_out=[name, '3000_b.jpg']))
    assert found == [['Two people talk .']]


def test_a_number_that_only_begins_alike_is_not_left_out(tmp_path):
    path = save(tmp_path, 'a.txt', CAPTIONS)
    assert len(list(photo_captions(path, leave_out=['100', '10000_abc.jpg', 'abc']))) == 3


def test_leave_out_may_be_a_generator(tmp_path):
    path = save(tmp_path, 'a.txt', CAPTIONS)
    assert len(list(photo_captions(path, (name for name in ['1000', '2000'])))) == 1


# --- documents to tokens -------------------------------------------------------------------------


def test_tokens_of_books(tmp_path):
    path = save(tmp_path, 'novels.txt.xz', NOVELS)
    tokenise(books(path), tmp_path / 'tokens.txt')
    documents_ = list(token_documents(tmp_path / 'tokens.txt'))
    assert documents_[0] == [
        'She sat at the café .',
        "`` It 's late , '' he said -- and left ...",
        'He was cold .',
    ]
    assert len(documents_) == 2
    data = (tmp_path / 'tokens.txt').read_bytes()
    assert data.endswith(b'\n\n') and b'\n\n\n' not in data


def test_captions_and_verses_are_not_split_into_sentences(tmp_path):
    tokenise([['A dog. It runs.', 'Hello, you!']], tmp_path / 'a.txt', split=False)
    assert list(token_documents(tmp_path / 'a.txt')) == [['A dog. It runs .', 'Hello , you !']]
    tokenise([['A dog. It runs.']], tmp_path / 'b.txt')
    assert list(token_documents(tmp_path / 'b.txt')) == [['A dog .', 'It runs .']]


def test_typography_is_set_in_ascii(tmp_path):
    tokenise([['„No…” she said—‘never’ – ever.']], tmp_path / 'a.txt', split=False)
    (document,) = token_documents(tmp_path / 'a.txt')
    assert document == [' '.join(text.words('"No..." she said--\'never\' - ever.'))]
    assert not set('“”„‘’—–…') & set(document[0])


def test_many_processes_write_the_same_file_as_one(tmp_path):
    stories = [[f'Story {i} begins. It ends.', 'Nobody came.'] for i in range(20)]
    tokenise(stories, tmp_path / 'one.txt')
    tokenise(iter(stories), tmp_path / 'two.txt', processes=2)
    assert (tmp_path / 'one.txt').read_bytes() == (tmp_path / 'two.txt').read_bytes()


def test_a_token_file_is_whole_or_not_there(tmp_path):
    def broken():
        yield ['It rained.']
        raise ModelFileError('b.txt: broken')

    with pytest.raises(ModelFileError):
        tokenise(broken(), tmp_path / 'a.txt')
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.text('ab .,"\'-…“\n\r\t\u2028\x0c\x1c\x85', max_size=12), max_size=4)),
    st.booleans(),
)
def test_documents_come_back_as_documents(tmp_path_factory, stories, split):
    """Whatever stands in the lines: as many documents as have words, and no line is empty."""
    path = tmp_path_factory.getbasetemp() / 'tokens.txt'
    tokenise(stories, path, split=split)
    found = list(token_documents(path))
    told = [story for story in stories if any(text.words(line) for line in story)]
    assert len(found) == len(told)
    for document, story in zip(found, told, strict=True):
        assert all(sentence == ' '.join(sentence.split()) != '' for sentence in document)
        if not split:
            assert len(document) == sum(bool(text.words(line)) for line in story)


@pytest.mark.parametrize(
    ('kind', 'content', 'expected'),
    [
        ('books', NOVELS, [3, 1]),
        ('verses', 'One. Two.\nThree\n\nFour\n', [2, 1]),
        ('captions', CAPTIONS, [2, 1, 1]),
    ],
)
def test_files_of_each_kind(tmp_path, kind, content, expected):
    path = save(tmp_path, 'a.txt', content)
    tokenise_files([path, path], tmp_path / 'tokens.txt', kind)
    lengths = [len(document) for document in token_documents(tmp_path / 'tokens.txt')]
    assert lengths == 2 * expected
    if kind == 'captions':
        tokenise_files([path], tmp_path / 'fewer.txt', kind, leave_out=['1000_abc'])
        assert len(list(token_documents(tmp_path / 'fewer.txt'))) == 2


def test_a_token_file_that_nothing_is_known_of_stays_and_is_named(tmp_path, capsys):
    out = save(tmp_path, 'tokens.txt', 'as it was\n')
    tokenise_files([save(tmp_path, 'a.txt', 'It rains.\n')], out)
    assert out.read_text() == 'as it was\n'
    assert 'tokens.txt: taken as it is' in capsys.readouterr().err


def test_a_token_file_of_other_texts_is_not_taken_for_it(tmp_path):
    one, two = save(tmp_path, 'one.txt', 'It rains.\n'), save(tmp_path, 'two.txt', 'It snows.\n')
    out = tmp_path / 'run' / 'tokens.txt'
    tokenise_files([one, two], out)
    moved = tmp_path / 'moved'
    moved.mkdir()
    again = [shutil.copy(path, moved / path.name) for path in (one, two)]
    made = out.stat().st_mtime_ns
    tokenise_files(again, out)
    assert out.stat().st_mtime_ns == made  # the content counts, not where it lies
    for files, said in (
        ([one], 'two.txt is not there any more'),
        ([two, one], 'the order differs'),
        ([one, two, one], r'one.txt \(2\) is new'),
    ):
        with pytest.raises(MismatchError, match=said):
            tokenise_files(files, out)
    with pytest.raises(MismatchError, match='kind differs'):
        tokenise_files([one, two], out, 'verses')
    save(tmp_path, 'two.txt', 'It shone.\n')
    with pytest.raises(MismatchError, match=r'two.txt differs; to start .* or empty .*run$'):
        tokenise_files([one, two], out)


def test_an_unknown_kind_of_text(tmp_path):
    with pytest.raises(ValueError, match='expected one of books, verses, captions'):
        tokenise_files([], tmp_path / 'a.txt', 'poems')


# --- words ---------------------------------------------------------------------------------------


def test_words_and_the_documents_that_hold_them(tmp_path):
    first = save(tmp_path, 'a.txt', 'a dog .\na cat .\n\na bird .\n\n')
    second = save(tmp_path, 'b.txt', 'a dog .\n\n')
    counts, spread = count_words([first, second])
    assert counts == Counter({'a': 4, '.': 4, 'dog': 2, 'cat': 1, 'bird': 1})
    assert spread == Counter({'a': 3, '.': 3, 'dog': 2, 'cat': 1, 'bird': 1})


COUNTS = Counter({'the': 90, 'Emma': 80, 'London': 70, 'I': 60, 'sea': 50, 'Then': 50, 'ox': 2})
SPREAD = Counter({'the': 9, 'Emma': 1, 'London': 6, 'I': 2, 'sea': 1, 'Then': 5, 'ox': 1})


def test_names_of_few_books_are_left_out():
    chosen = choose_words(COUNTS, SPREAD, 10)
    assert chosen == ['the', 'London', 'I', 'Then', 'sea', 'ox']  # 'I' is short enough to be none
    assert 'Emma' in choose_words(COUNTS, SPREAD, 10, books=1)
    assert choose_words(COUNTS, SPREAD, 10, books=6) == ['the', 'London', 'I', 'sea', 'ox']


def test_the_most_frequent_come_first_and_ties_by_alphabet():
    assert choose_words(COUNTS, SPREAD, 3) == ['the', 'London', 'I']
    assert choose_words({'b': 1, 'a': 1, 'c': 2}, {'b': 1, 'a': 1, 'c': 1}, 3) == ['c', 'a', 'b']


def test_words_that_are_always_chosen_count_too():
    chosen = choose_words(COUNTS, SPREAD, 3, always=['Emma', 'unheard', 'UNK', '<eos>'])
    assert chosen == ['the', 'Emma', 'unheard']


@given(
    st.dictionaries(st.text('abAB<', min_size=1, max_size=3), st.integers(1, 9)),
    st.integers(0, 12),
)
def test_never_more_words_than_asked_for(counts, n_words):
    chosen = choose_words(counts, Counter(), n_words, books=1)
    capitals = {word for word in counts if word[0].isupper() and len(word) > 1}
    assert len(chosen) == min(n_words, len(counts) - len(capitals))
    assert len(set(chosen)) == len(chosen) and not capitals & set(chosen)
    assert [counts[word] for word in chosen] == sorted((counts[w] for w in chosen), reverse=True)


def test_special_words_of_a_text_are_not_chosen():
    counts = {'<eos>': 9, 'UNK': 9, 'a': 1}
    assert choose_words(counts, dict.fromkeys(counts, 9), 5) == ['a']


def test_readers_by_name():
    assert set(documents.READERS) == {'books', 'verses', 'captions'}


# --- texts of any size ---------------------------------------------------------------------------


def test_a_long_book_is_tokenised_in_pieces_and_stays_one_document(tmp_path):
    count = 3 * documents.LINES_IN_A_PIECE + 5
    (tmp_path / 'a.txt').write_text(''.join(f'It was day {i}.\n' for i in range(count)))
    documents.tokenise_files([tmp_path / 'a.txt'], tmp_path / 'tokens.txt')
    (document,) = token_documents(tmp_path / 'tokens.txt')
    assert document == [f'It was day {i} .' for i in range(count)]


def test_files_are_not_read_ahead_of_what_is_written(tmp_path):
    """As many pieces as there is work for, and no more, are in memory."""
    read = 0

    def endless():
        nonlocal read
        for read in range(10**9):
            yield [f'line {read}']

    mapped = documents._mapped(len, endless(), 2)
    assert next(mapped) == 1 and read <= 2 * 4
    mapped.close()


def test_the_rarest_words_are_forgotten_when_there_are_too_many(tmp_path):
    lines = [f'the sea and number{i} the' for i in range(3000)]
    (tmp_path / 'a.txt').write_text('\n'.join(lines[:1500]) + '\n\n' + '\n'.join(lines[1500:]))
    counts, spread = count_words([tmp_path / 'a.txt'], most=1000)
    assert counts['the'] == 6000 and counts['sea'] == counts['and'] == 3000
    assert spread['the'] == spread['sea'] == 2
    assert len(counts) <= 1000 and len(spread) <= 1000
    whole, _ = count_words([tmp_path / 'a.txt'])
    assert len(whole) == 3003


def test_files_without_a_sentence_are_an_error(tmp_path):
    (tmp_path / 'a.txt').write_text('=== A title\n\n \n')
    with pytest.raises(ModelFileError, match=r'a\.txt: expected text to train on'):
        documents.tokenise_files([tmp_path / 'a.txt'], tmp_path / 'tokens.txt')
    assert not (tmp_path / 'tokens.txt').exists()
