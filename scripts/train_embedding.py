"""Train an image-sentence embedding on your own captioned photos.

Features are one row a photo, as storyteller.convnet.compute_features gives them; captions are lines
photo<TAB>caption. An interrupted run goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from storyteller.formats import MismatchError, read_array, read_lines
from storyteller.layers import unit_rows
from storyteller.text import Vocabulary
from storyteller.training import documents, embedding
from storyteller.training.loop import TrainOptions
from storyteller.training.options import add_options, options_from, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--captions', type=Path, required=True, help='lines photo<TAB>caption')
    parser.add_argument('--photos', type=Path, required=True, help='names, one a line, in order')
    parser.add_argument('--features', type=Path, required=True, help='.npy, a row for each name')
    parser.add_argument('--run', type=Path, required=True, help='folder of in-between files')
    parser.add_argument('--out', type=Path, required=True, help='.safetensors, or .npz as in 2015')
    parser.add_argument('--min-count', type=int, default=1, help='rarer words become UNK')
    add_options(parser, embedding.EmbeddingOptions)
    add_options(parser, TrainOptions, clip=2.0)
    args = parser.parse_args()
    names = {name: row for row, name in enumerate(read_lines(args.photos))}
    features = unit_rows(read_array(args.features))
    if len(features) != len(names):
        raise MismatchError(
            f'{args.features}: {len(features)} rows, {args.photos}: {len(names)} photos'
        )
    args.dim_image = features.shape[1]
    options = options_from(embedding.EmbeddingOptions, args)

    lines = (line.split('\t') for line in documents.read_text(args.captions))
    pairs = [(names[name], caption.split()) for name, *_, caption in lines if name in names]
    counts = Counter(word for _, caption in pairs for word in caption)
    vocabulary = Vocabulary.from_counts(counts, min_count=args.min_count)
    captions = [np.array(vocabulary.encode(caption), np.int64) for _, caption in pairs]
    rows = np.array([row for row, _ in pairs])
    embedding.fit(
        [embedding.Pairs(captions, rows, features, options, args.seed)],
        options_from(TrainOptions, args),
        args.out,
        args.run / 'embedding.pt',
        vocabulary=vocabulary,
    )


if __name__ == '__main__':
    run(main)
