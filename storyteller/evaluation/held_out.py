"""Held-out photos and books, and a bundle's results for the photos.

Dimension letters: P photos, F features, k nearest captions, D thought vectors.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import captions, embedding, generate, skipthoughts
from ..formats import MissingFileError
from ..images import load_image
from ..layers import unit_rows
from ..text import preprocess
from ..training.data import documents
from ..training.data.flickr8k import read_fc7, read_names, read_photos
from ..training.data.prose import read_words

OURS, REAL = 'ours', 'vgg19'  # whose features of the photos

LAYOUT = """\
DATA of captions, decoder and stories is a folder:
  flickr8k/      photos, or .tar files of them
    captions.txt   lines photo<TAB>caption
    dev.txt        the names of the photos to measure with, one a line
    fc7_dev.npz    if there is one: fc7, their features by VGG-19 in that order
  novels/        .txt(.gz, .xz); files named romance-13* and more-26* are those to measure with
  lyrics/        one file of songs, .txt(.gz, .xz)
DATA of sentences holds the published files of the tasks, SICK_train.txt and so on, each as it is
or in a folder of its task's name; storyteller.evaluation.sentence_sets lists them.
"""

SHARDS = ('romance-13', 'more-26')  # of novels, which are held out from training


class HeldOut:
    """The development photos of Flickr8k, a shard of novels, songs, and a loaded bundle.

    `data` is laid out as `LAYOUT` says, with one file of novels whose name begins with `shard`; `z`
    comes from `storyteller.generate.load_all`.
    """

    def __init__(self, data: Path, z: Mapping[str, Any], shard: str = 'romance-13'):
        self.data, self.z, self.shard = Path(data), z, shard

    @cached_property
    def names(self) -> list[str]:
        """The photos, P."""
        return read_names(self.data / 'flickr8k', 'dev')

    @cached_property
    def captions(self) -> list[list[str]]:
        """The reference captions of each photo."""
        found: dict[str, list[str]] = {name: [] for name in self.names}
        for line in documents.read_text(self.data / 'flickr8k' / 'captions.txt'):
            name, caption = line.split('\t')
            if name in found:
                found[name].append(caption.strip())
        return list(found.values())

    @cached_property
    def looked_at(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each photo its picture and the network's input."""
        return look_at(self.data / 'flickr8k', self.names, self.z['net']['side'])

    @cached_property
    def features(self) -> dict[str, np.ndarray]:
        """Unit rows (P, F): of the bundle's network, and of VGG-19 if the bundle takes these."""
        inputs = np.concatenate([pixels for _, pixels in self.looked_at])
        found = {OURS: unit_rows(generate.compute_features(self.z['net'], inputs))}
        real = self.data / 'flickr8k' / 'fc7_dev.npz'
        if 4096 in embedding.feature_widths(self.z['vse']) and real.exists():
            found[REAL] = read_fc7(real)
        return found

    def nearest(self, features: str, rows: np.ndarray | slice, k: int) -> np.ndarray:
        """The nearest captions (p, k) of some photos, as places in the pool."""
        joint = embedding.encode_images(self.z['vse'], self.features[features][rows])
        return captions.nearest(joint, self.z['cvec'], k)[0]

    def caption_thoughts(self) -> np.ndarray:
        """The mean thought vector of each photo's own captions, (P, D)."""
        texts = [caption for photo in self.captions for caption in photo]
        vectors = skipthoughts.encode(self.z['stv'], texts, verbose=False)
        starts = np.cumsum([0, *map(len, self.captions[:-1])])
        counts = np.array(list(map(len, self.captions)))
        return np.add.reduceat(vectors, starts) / counts[:, None]

    @cached_property
    def books(self) -> list[list[str]]:
        """Paragraphs of each held-out novel, tokens between blanks."""
        return self.novels(self.shard)

    def novels(self, which: str, most: int = 20) -> list[list[str]]:
        """Paragraphs of some novels, tokens between blanks.

        `which` is how the names of their files begin, or a file of authors, one per line, of whom
        `most` novels are enough.
        """
        if Path(which).is_file():
            authors, files = read_words(which), documents.text_files(self.data / 'novels')
            titled = (pair for path in files for pair in documents.titled_books(path))
            by = ((documents.author(title).lower(), book) for title, book in titled)
            found = list(itertools.islice((book for name, book in by if name in authors), most))
        else:
            files = documents.text_files(self.data / 'novels', f'{which}*')
            found = [book for path in files for book in documents.books(path)]
        return [[text.strip() for text in preprocess(book)] for book in found]

    def paragraphs(self, shortest: int, longest: int, wanted: int) -> list[str]:
        """So many paragraphs of these lengths in words at most, spread over the books."""
        rng, found = np.random.default_rng(0), []
        for book in self.books:
            fitting = [text for text in book if shortest <= len(text.split()) <= longest]
            share = -(-wanted // len(self.books))
            found += [fitting[i] for i in rng.permutation(len(fitting))[:share]]
        return found[:wanted]

    def songs(self) -> list[list[str]]:
        """Lines of each song, tokens between blanks."""
        (path,) = documents.text_files(self.data / 'lyrics')
        return [preprocess(song) for song in documents.verses(path)]


def look_at(
    folder: Path, names: Sequence[str], side: int | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Photos of a folder or of its ``.tar`` files: of each its picture and the network's input.

    `side` is that of the network, see :func:`storyteller.images.load_image`.
    """
    photos = read_photos(folder)
    missing = [name for name in names if name not in photos]
    if missing:
        raise MissingFileError(f'{folder}: {len(missing)} photos missing, such as {missing[0]}')
    files = (io.BytesIO(photos[name]) for name in tqdm(names, desc='photos'))
    return [load_image(file, side=side) for file in files]
