"""Tell several stories of captions, for readers to mark: ``train_decoder.py --preferences``.

Each line is a caption and the stories that were told of it, a question mark before each, with tabs
between. Readers put a mark in the place of each question mark, from 1, nonsense, to 5, as a person
could have written it, and may add a better text with a 5. The same command goes on where it was
interrupted.

A photo of what a caption says lies near it, and is told of captions from around it: of the k that a
story is told of, one is the caption itself here, the others are drawn from the nearest ones.

With ``--photos`` stories are told of photos, and a line begins with the captions nearest to one,
with ``|`` between. Those of a photo that the joint space was trained on agree more than those of
others: ``--moved`` 0.6 moves photos of Flickr8k, in the joint space, by as much of what two other
photos differ by, and they are as new ones.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from storyteller import embedding, formats, generate, style
from storyteller.batch.results import find_photos
from storyteller.captions import nearest
from storyteller.cli.arguments import (
    add_models,
    add_search,
    add_threads,
    run,
    search_from,
)
from storyteller.errors import EmptyStoryError, ImageError
from storyteller.images import load_image
from storyteller.layers import unit_rows
from storyteller.options import StoryOptions
from storyteller.training.data.marked import BETWEEN
from storyteller.writing import texts_of

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_models(parser)
    add_threads(parser)
    parser.add_argument('--out', type=Path, required=True, metavar='FILE')
    parser.add_argument(
        '--count', type=int, default=1000, help='of captions or photos (%(default)s)'
    )
    parser.add_argument('--texts', type=int, default=4, help='stories of each (%(default)s)')
    parser.add_argument(
        '--around',
        type=int,
        default=36,
        help='captions around each, to draw from; k at least (%(default)s)',
    )
    parser.add_argument('--photos', type=Path, metavar='FOLDER', help='photos to tell of instead')
    parser.add_argument(
        '--moved',
        type=float,
        default=0.0,
        metavar='SHARE',
        help='how far photos are moved; 0.6 for those that were learned from (%(default)s)',
    )
    parser.add_argument('--seed', type=int, default=0, help='(%(default)s)')
    parser.add_argument('--style', help='name of a style, or a .npy file')
    add_search(parser)
    args = parser.parse_args()
    for name, least in (('count', 1), ('texts', 1), ('around', 1), ('moved', 0), ('seed', 0)):
        if not least <= getattr(args, name) < math.inf:  # nor is NaN
            raise ValueError(f'--{name}: expected {least} or more, found {getattr(args, name)}')
    if args.moved and not args.photos:
        raise ValueError('--moved: expected --photos too; captions are drawn from --around them')
    z = generate.load_all(args.models, threads=args.threads)
    settings = search_from(args, z['search'])
    if settings.telling.wanted < args.texts:
        raise ValueError(f'--texts {args.texts}: expected as many --candidates or more')
    every = replace(settings.telling, n_best=settings.telling.wanted)
    options = StoryOptions(**vars(settings) | {'telling': every})
    towards = style.choose(z['styles'], z['bpos'], args.style)
    places = (around_photos if args.photos else around_captions)(z, args, options.k)
    told_of = [[z['cap'][place] for place in row] for row in places]
    fields = [BETWEEN.join(row if args.photos else row[:1]) for row in told_of]
    told = lines_before(args.out, fields)
    with open(args.out, 'a', encoding='utf-8') as out, tqdm(total=len(fields)) as bar:
        bar.update(told)
        for first in range(told, len(fields), BATCH):
            here = slice(first, first + BATCH)
            texts = tell(z, places[here], told_of[here], options, towards, args.texts)
            for field, each in zip(fields[here], texts, strict=True):
                out.write('\t? '.join([field, *each]) + '\n')
            out.flush()
            bar.update(len(texts))


def around_captions(z: dict, args: argparse.Namespace, k: int) -> np.ndarray:
    """Captions of the pool, each with others from around it: (N, k) places in the pool."""
    rows = np.random.default_rng(args.seed).permutation(len(z['cap']))[: args.count]
    own = embedding.encode_sentences(z['vse'], [z['cap'][row] for row in rows])
    around, _ = nearest(own, z['cvec'], max(args.around, k))
    places = []
    for row, near in zip(rows, around, strict=True):
        others = np.random.default_rng([args.seed, row]).permutation(near[near != row])
        places.append([row, *others[: k - 1]])
    return np.array(places)


def around_photos(z: dict, args: argparse.Namespace, k: int) -> np.ndarray:
    """The captions nearest to photos, in any order: (N, k) places in the pool."""
    features = []
    for photo in tqdm(find_photos([args.photos]).photos, desc='photos'):
        try:
            _, seen = load_image(photo.path, side=z['net'].get('side'))
        except ImageError as error:
            tqdm.write(f'left out: {error}', file=sys.stderr)
            continue
        features.append(generate.compute_features(z['net'], seen)[0])
    if not features:
        raise ImageError(str(args.photos), 'no photo in it could be read')
    own = embedding.encode_images(z['vse'], unit_rows(np.stack(features)))
    rng = np.random.default_rng(args.seed)
    rows, one, other = (rng.permutation(len(own)) for _ in range(3))
    moved = unit_rows(own + args.moved * (own[one] - own[other]))
    places, _ = nearest(moved[rows[: args.count]], z['cvec'], k)
    return places


def lines_before(path: Path, fields: list[str]) -> int:
    """How many lines an earlier run has written; a ValueError if it was another."""
    if not path.exists() or not path.stat().st_size:
        return 0
    lines = formats.read_lines(path)
    for number, (line, field) in enumerate(zip(lines, fields, strict=False), 1):
        if line.split('\t')[0] != field:
            raise ValueError(
                f'{path}: line {number}: expected {field[:60]!r}, which --seed draws, '
                f'found {line[:60]!r}; to start afresh, remove the file'
            )
    if not path.read_bytes().endswith(b'\n'):
        raise ValueError(
            f'{path}: line {len(lines)}: expected an end of line, found none after '
            f'{lines[-1][-60:]!r}; if the line is whole, add it, else remove the line'
        )
    return len(lines)


def tell(
    z: dict,
    places: np.ndarray,
    told_of: list[list[str]],
    options: StoryOptions,
    towards: np.ndarray,
    count: int,
) -> list[list[str]]:
    """Different stories of each k captions, from the best to the least of the candidates."""
    thoughts = generate.mean_thoughts(z, places)
    shifted = style.shift(thoughts, z['bneg'], towards, options.strength)
    told = []
    for found in texts_of(z, shifted, options, towards, told_of):
        texts = [] if isinstance(found, EmptyStoryError) else [text for text, _ in found]
        ranks = np.linspace(0, max(0, len(texts) - 1), count).round().astype(int)
        told.append(list(dict.fromkeys(texts[rank] for rank in ranks if texts)))
    return told


if __name__ == '__main__':
    run(main)
