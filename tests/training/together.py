"""A short training of one kind, as one of several processes; a program, not a test.

Arguments: the trainer, the folder for what it writes, and how many epochs.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from storyteller.training import decoder, embedding, skipthoughts
from storyteller.training.back_translation import back_translate
from storyteller.training.data.corpus import Corpus
from storyteller.training.data.passages import Passages
from storyteller.training.data.sentence_windows import Units
from storyteller.training.options import TrainOptions
from storyteller.vocabulary import Vocabulary

WORDS = Vocabulary(('<eos>', 'UNK', *(f'word{i}' for i in range(30))))


def corpus(seed: int) -> Corpus:
    """Twelve documents of ten sentences, of three to six words."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 7, 120)
    tokens = rng.integers(1, len(WORDS), lengths.sum()).astype(np.int32)
    return Corpus(tokens, np.concatenate([[0], np.cumsum(lengths)]), np.arange(0, 121, 10))


def train_skipthoughts(folder: Path, training: TrainOptions) -> None:
    options = skipthoughts.SkipThoughtsOptions(
        dim_word=5, dim=6, bidirectional=True, own_words=0.5, frequent=3, batch_size=9
    )
    units = Units(corpus(0), None, options, seed=1)
    skipthoughts.fit(units, training, folder / 'out.npz', folder / 'a.pt', n_words=len(WORDS))


def train_decoder(folder: Path, training: TrainOptions) -> None:
    options = decoder.DecoderOptions(dim_word=5, dim=6, doutput=True, batch_size=7)
    spans = np.stack([np.arange(0, 118), np.arange(2, 120)], 1)
    vectors = np.random.default_rng(2).normal(size=(len(spans), 7)).astype(np.float32)
    told = Passages(corpus(0), spans, vectors, options)
    decoder.fit(told, training, folder / 'out.npz', folder / 'a.pt', n_words=len(WORDS))


def train_decoder_from_captions(folder: Path, training: TrainOptions) -> None:
    """As :func:`train_decoder`, half of it told from what the style shift makes of captions."""
    options = decoder.DecoderOptions(
        dim_word=5, dim=6, word_dropout=0.2, towards_mean=0.5, pairs=0.5, repeats=1.0, batch_size=7
    )
    spans, rng = np.stack([np.arange(0, 118), np.arange(2, 120)], 1), np.random.default_rng(2)
    vectors, captions = (rng.normal(size=(n, 7)).astype(np.float32) for n in (len(spans), 40))
    pairs = back_translate(vectors, captions, captions.mean(0), vectors.mean(0), k=5)
    told = Passages(corpus(0), spans, vectors, options, pairs=pairs)
    decoder.fit(
        told, training, folder / 'out.npz', folder / 'a.pt', n_words=len(WORDS), held_out=told
    )


def train_embedding(folder: Path, training: TrainOptions, **changes) -> None:
    options = embedding.EmbeddingOptions(dim_image=7, dim_word=5, dim=6, batch_size=9, **changes)
    captions, rng = corpus(0), np.random.default_rng(2)
    texts = [captions.words(i, i + 1) for i in range(120)]
    features = rng.normal(size=(40, 7)).astype(np.float32)
    pairs = embedding.Pairs(texts, np.arange(120) // 3, features, options)
    out, checkpoint = folder / 'out.npz', folder / 'a.pt'
    embedding.fit([pairs], training, out, checkpoint, vocabulary=WORDS)


def train_contrastive(folder: Path, training: TrainOptions) -> None:
    train_embedding(folder, training, unit_images=True, temperature=0.1)


def train_averaged(folder: Path, training: TrainOptions) -> None:
    train_embedding(folder, replace(training, average=0.9))


if __name__ == '__main__':
    name, folder, epochs = sys.argv[1:]
    training = TrainOptions(epochs=int(epochs), lr=0.01, clip=5.0, decay=True, minutes=60)
    globals()[f'train_{name}'](Path(folder), training)
