"""Wrapped lines: told from a paragraph a line, and joined to the text that was there before."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storyteller.training.data import documents
from storyteller.training.data.wrapped import are_wrapped, unwrapped

WORDS = [
    'the',
    'sea',
    'was',
    'grey',
    'and',
    'a',
    'well-known',
    'captain',
    'walked',
    'along',
    'shores',
]


def prose(seed, paragraphs=40):
    """Paragraphs of sentences, long and short ones."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(paragraphs):
        sentences = [
            ' '.join(rng.choice(WORDS, rng.integers(3, 25))).capitalize() + '.'
            for _ in range(rng.integers(1, 9))
        ]
        found.append(' '.join(sentences))
    return found


def wrap(paragraphs, width=72, between='\n\n', indent=''):
    return between.join(textwrap.fill(p, width, initial_indent=indent) for p in paragraphs)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(50, 100),
    st.sampled_from([('\n\n', ''), ('\n', '   '), ('\n\n\n', '  ')]),
)
def test_wrapped_paragraphs_come_back(seed, width, layout):
    paragraphs = prose(seed)
    lines = wrap(paragraphs, width, *layout).split('\n')
    assert [line for line in unwrapped(lines, 'a.txt') if line] == paragraphs


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_a_paragraph_a_line_stays(seed, spaced):
    lines = [line for p in prose(seed) for line in ([p, ''] if spaced else [p])]
    assert list(unwrapped(lines, 'a.txt')) == lines


@pytest.mark.parametrize(
    'lines',
    [
        [],
        [''],
        ['He said nothing of it to her,', 'and she said nothing to him'] * 3,  # too few to tell
        [' '.join(WORDS[: 3 + i % 9]) for i in range(99)],  # verses
        [f'“{" ".join(WORDS)}.”' for _ in range(99)],  # speeches, a line each
        [' '.join(WORDS * 9)] * 99,  # paragraphs that end without a stop
    ],
)
def test_what_is_not_wrapped(lines):
    assert not are_wrapped(lines)
    assert list(unwrapped(lines, 'a.txt')) == lines


def test_titles_headings_and_words_parted_at_hyphens(tmp_path, capsys):
    book = ['=== One', 'CHAPTER I', '', 'A long walk', '', wrap(prose(1)), '=== Two']
    book += ['It was a well-', 'known sea--', 'and grey.', '', wrap(prose(2)), '']
    path = tmp_path / 'book.txt'
    path.write_text('\n'.join(book), encoding='utf-8')
    one, two = documents.books(path)
    assert one == prose(1)
    assert two == ['It was a well-known sea-- and grey.', *prose(2)]
    assert [title for title, _ in documents.titled_books(path)] == ['One', 'Two']
    assert f'{path}: the lines are wrapped' in capsys.readouterr().err


def test_tokens_are_those_of_a_paragraph_a_line(tmp_path):
    tokens = []
    for name, between in (('plain', '\n'), ('wrapped', None)):
        folder = tmp_path / name
        folder.mkdir()
        text = wrap(prose(3)) if between is None else between.join(prose(3))
        (folder / 'a.txt').write_text(text, encoding='utf-8')
        documents.tokenise_files([folder / 'a.txt'], folder / 'tokens.txt')
        tokens.append((folder / 'tokens.txt').read_text())
    assert tokens[0] == tokens[1]


def test_a_text_without_a_border_is_not_held_in_memory():
    """A paragraph ends at a sentence where it has got longer than paragraphs get."""
    read = 0

    def lines():
        nonlocal read
        block = wrap([' '.join(prose(4))]).split('\n')
        while True:
            for line in block:
                read += 1
                yield line

    joined = unwrapped(lines(), 'a.txt')
    assert next(joined).endswith('.') and read < 10_000


def test_a_letter_that_is_indented_is_one_paragraph():
    letter = wrap(prose(5)[:1], 60).split('\n')
    lines = [*wrap(prose(6)).split('\n'), '', *(f'   {line}' for line in letter)]
    assert [line for line in unwrapped(lines, 'a.txt') if line] == [*prose(6), prose(5)[0]]
