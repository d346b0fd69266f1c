"""The texts of a blind panel: stories of photos, and similar real passages with captions.

Dimension letters: n passages, N captions of the pool, D thought vectors.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .. import generate, skipthoughts
from ..formats import MissingFileError, PathLike
from ..layers import unit_rows
from ..options import check_count
from ..story import Story
from ..text import detokenise
from ..training.data import documents, origins
from ..training.data.flickr8k import read_names, read_photos
from .flaws import is_word, names
from .held_out import SHARDS
from .panel import Text

OURS, OTHER, REAL = 'ours', 'other', 'real'  # sources
AT_ONCE, CAPTIONS_AT_ONCE = 16, 4096
NEAR = 0.1  # share of a story's words by which a passage may be longer or shorter
CANDIDATES = 40  # for each passage that is chosen

# What a passage may consist of: words, and marks that do not quote.
_PLAIN = re.compile(r"[.,;:!?]|--|'?[A-Za-z][A-Za-z'-]*|[Oo]'")
_ENDS = frozenset('.!?')


def panel_texts(
    z: Mapping[str, Any],
    data: Path,
    work: PathLike,
    n: int,
    readers: int = 1,
    against: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, list[Text]]:
    """Draw `n` stories for each reader, half as many real passages, and as many stories of others.

    Parameters
    ----------
    z, against : dict
        From `storyteller.generate.load_all`. They tell different photos, with their default
        settings.
    data : Path
        Holds ``flickr8k/`` with its development photos, and ``novels/`` with one of :data:`SHARDS`.
    work : path-like
        Folder where the paragraphs of these novels are kept as tokens.
    n, readers, seed : int

    Returns
    -------
    dict of str to list of Text
        By source. A passage is about as long as one of the stories, says nobody's name and quotes
        nothing; its caption is that of the pool which is nearest to it in thought.
    """
    check_count('panel', n, least=2)
    check_count('readers', readers)
    rng = np.random.default_rng(seed)
    photos = read_photos(data / 'flickr8k')
    listed = [name for name in read_names(data / 'flickr8k', 'dev') if name in photos]
    drawn = iter([photos[listed[i]] for i in rng.permutation(len(listed))])
    told = {OURS: tell(z, drawn, n * readers)}
    if against is not None:
        told[OTHER] = tell(against, drawn, n // 2 * readers)
    lengths = [_length(story.passage) for story in told[OURS]]
    few = rng.choice(lengths, n // 2 * readers, replace=False)
    passages = candidates(
        held_out_paragraphs(data, work), few, z['dec']['worddict'], CANDIDATES * len(few), rng
    )
    found = {
        source: [Text(source, detokenise(story.captions[0][0]), story.prose) for story in each]
        for source, each in told.items()
    }
    captioned = choose(passages, *fitting_captions(z, passages), few)
    found[REAL] = [
        Text(REAL, detokenise(z['cap'][caption]), detokenise(passage))
        for passage, caption in captioned
    ]
    return found


def tell(z: Mapping[str, Any], photos: Iterator[bytes], wanted: int) -> list[Story]:
    """Generate a number of stories; photos that fail are skipped."""
    found: list[Story] = []
    while len(found) < wanted:
        batch = [io.BytesIO(photo) for photo in islice(photos, min(AT_ONCE, wanted - len(found)))]
        if not batch:
            raise ValueError(f'photos: expected {wanted - len(found)} more to tell, found none')
        told = generate.stories(z, batch, on_error='return')
        found += [story for story in told if isinstance(story, Story)]
    return found


# --- real passages -------------------------------------------------------------------------------


def held_out_paragraphs(data: Path, work: PathLike) -> list[list[str]]:
    """Paragraphs of the held-out novels: the sentences of each, tokens between blanks."""
    files = [f for f in documents.text_files(data / 'novels') if f.name.startswith(SHARDS)]
    if not files:
        shards = ' or '.join(SHARDS)
        raise MissingFileError(f'{data / "novels"}: expected a file that begins with {shards}')
    kept = Path(work) / f'paragraphs_{"_".join(file.name.split(".")[0] for file in files)}.txt'
    if not origins.is_made(kept, origins.of_files(files)):
        paragraphs = ([text] for file in files for book in documents.books(file) for text in book)
        documents.tokenise(paragraphs, kept, processes=os.cpu_count() or 1)
    return list(documents.token_documents(kept))


def candidates(
    paragraphs: Sequence[Sequence[str]],
    lengths: Sequence[int] | np.ndarray,
    vocabulary: Container[str],
    most: int,
    rng: np.random.Generator,
) -> list[str]:
    """Beginnings of paragraphs of about the length of a story.

    Parameters
    ----------
    paragraphs : sequence of sequences of str
        Sentences of each.
    lengths : sequence of int
        In words; each paragraph is cut to one of these, drawn anew.
    vocabulary : container of str
        See `storyteller.evaluation.flaws.names`.
    most : int
    rng : numpy.random.Generator

    Returns
    -------
    list of str
        Whole sentences without quotes, numbers, names and what no printed sentence begins or ends
        with.
    """
    found: list[str] = []
    for place in rng.permutation(len(paragraphs)):
        if len(found) == most:
            break
        cut = _cut(paragraphs[place], int(rng.choice(lengths)))
        if cut and all(map(_is_plain, cut)) and not names(' '.join(cut), vocabulary):
            found.append(' '.join(cut))
    return found


def _cut(sentences: Sequence[str], length: int) -> list[str]:
    """The first sentences, of about this many words in total, or none."""
    words = np.cumsum([_length(sentence) for sentence in sentences])
    best = int(np.abs(words - length).argmin())
    return list(sentences[: best + 1]) if _is_near(int(words[best]), length) else []


def _is_near(words: int, length: int) -> bool:
    return abs(words - length) <= max(2, NEAR * length)


def _is_plain(sentence: str) -> bool:
    tokens = sentence.split()
    whole = tokens[0][0].isupper() and tokens[-1] in _ENDS
    return whole and all(map(_PLAIN.fullmatch, tokens))


def _length(text: str) -> int:
    """In words, marks not counted."""
    return sum(map(is_word, text.split()))


# --- captions for them ---------------------------------------------------------------------------


def fitting_captions(
    z: Mapping[str, Any], passages: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The caption of the pool that is nearest to each passage in thought, style taken from both.

    Parameters
    ----------
    z : dict
    passages : sequence of n str
        Tokens between blanks.

    Returns
    -------
    captions : (n,) int array
        Places in the pool.
    scores : (n,) array
        The cosine of v - b with the caption's vector minus c.
    """
    vectors = skipthoughts.encode(z['stv'], list(passages), verbose=False, tokenised=True)
    matter = unit_rows(vectors - z['bpos'])  # (n, D)
    best: np.ndarray = np.zeros(len(matter), np.int64)
    scores: np.ndarray = np.full(len(matter), -np.inf)
    for start in range(0, len(z['cap']), CAPTIONS_AT_ONCE):
        texts = z['cap'][start : start + CAPTIONS_AT_ONCE]
        captions = skipthoughts.encode(z['stv'], texts, verbose=False)
        cosines = matter @ unit_rows(captions - z['bneg']).T
        top = cosines.argmax(1)
        score = cosines[np.arange(len(top)), top]
        best = np.where(score > scores, start + top, best)
        scores = np.maximum(score, scores)
    return best, scores


def choose(
    passages: Sequence[str],
    captions: np.ndarray,
    scores: np.ndarray,
    lengths: Sequence[int] | np.ndarray,
) -> list[tuple[str, int]]:
    """For each length, a passage of about that length with the best caption, and its index.

    No passage and no caption is taken twice. Where none is near, the nearest is taken.
    """
    counts, left = np.array([_length(text) for text in passages]), np.ones(len(passages), bool)
    found: list[tuple[str, int]] = []
    for length in lengths:
        if not left.any():
            expected = f'expected {len(lengths)} passages that have different captions'
            raise ValueError(f'novels: {expected}, found {len(found)}')
        rows = np.flatnonzero(left)
        near = rows[[_is_near(count, length) for count in counts[rows]]]
        if len(near):
            row = near[scores[near].argmax()]
        else:
            row = rows[np.abs(counts[rows] - length).argmin()]
        found.append((passages[row], int(captions[row])))
        left &= captions != captions[row]
    return found
