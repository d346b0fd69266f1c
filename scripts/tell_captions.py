"""Tell several stories of captions, for readers to mark: ``train_decoder.py --preferences``.

Each line is a caption and the stories that were told of it, a question mark before each, with tabs
between. Readers put a mark in the place of each question mark, from 1, nonsense, to 5, as a person
could have written it, and may add a better text with a 5. The same command goes on where it was
interrupted.

A photo of what a caption says lies near it, and is told of captions from around it: of the k that a
story is told of, one is the caption itself here, the others are drawn from the nearest ones.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from storyteller import embedding, formats, generate, style
from storyteller.captions import nearest
from storyteller.cli.arguments import (
    add_models,
    add_search,
    add_threads,
    run,
    search_from,
)
from storyteller.errors import EmptyStoryError
from storyteller.options import StoryOptions
from storyteller.writing import texts_of

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_models(parser)
    add_threads(parser)
    parser.add_argument('--out', type=Path, required=True, metavar='FILE')
    parser.add_argument('--count', type=int, default=1000, help='captions (%(default)s)')
    parser.add_argument('--texts', type=int, default=4, help='stories of each (%(default)s)')
    parser.add_argument(
        '--around',
        type=int,
        default=36,
        help='captions around each, to draw from; k at least (%(default)s)',
    )
    parser.add_argument('--seed', type=int, default=0, help='(%(default)s)')
    parser.add_argument('--style', help='name of a style, or a .npy file')
    add_search(parser)
    args = parser.parse_args()
    for name, least in (('count', 1), ('texts', 1), ('around', 1), ('seed', 0)):
        if getattr(args, name) < least:
            raise ValueError(f'--{name}: expected {least} or more, found {getattr(args, name)}')
    z = generate.load_all(args.models, threads=args.threads)
    settings = search_from(args, z['search'])
    if settings.telling.wanted < args.texts:
        raise ValueError(f'--texts {args.texts}: expected as many --candidates or more')
    every = replace(settings.telling, n_best=settings.telling.wanted)
    options = StoryOptions(**vars(settings) | {'telling': every})
    towards = style.choose(z['styles'], z['bpos'], args.style)
    chosen = np.random.default_rng(args.seed).permutation(len(z['cap']))[: args.count]
    captions = [z['cap'][row] for row in chosen]
    told = lines_before(args.out, captions)
    with open(args.out, 'a', encoding='utf-8') as out, tqdm(total=len(chosen)) as bar:
        bar.update(told)
        for first in range(told, len(chosen), BATCH):
            rows = chosen[first : first + BATCH]
            for row, texts in zip(rows, tell(z, rows, options, towards, args), strict=True):
                out.write('\t? '.join([z['cap'][row], *texts]) + '\n')
            out.flush()
            bar.update(len(rows))


def lines_before(path: Path, captions: list[str]) -> int:
    """How many captions an earlier run has told; a ValueError if it was another."""
    if not path.exists() or not path.stat().st_size:
        return 0
    lines = formats.read_lines(path)
    for number, (line, caption) in enumerate(zip(lines, captions, strict=False), 1):
        if line.split('\t')[0] != caption:
            raise ValueError(
                f'{path}: line {number}: expected {caption!r}, which --seed draws from the pool, '
                f'found {line[:60]!r}; to start afresh, remove the file'
            )
    if not path.read_bytes().endswith(b'\n'):
        raise ValueError(
            f'{path}: line {len(lines)}: expected an end of line, found none after '
            f'{lines[-1][-60:]!r}; if the line is whole, add it, else remove the line'
        )
    return len(lines)


def tell(
    z: dict, rows: np.ndarray, options: StoryOptions, towards: np.ndarray, args: argparse.Namespace
) -> list[list[str]]:
    """Different stories of each caption, from the best to the least of the candidates."""
    own = embedding.encode_sentences(z['vse'], [z['cap'][row] for row in rows])
    around, _ = nearest(own, z['cvec'], max(args.around, options.k))
    places = []
    for row, near in zip(rows, around, strict=True):
        others = np.random.default_rng([args.seed, row]).permutation(near[near != row])
        places.append([row, *others[: options.k - 1]])
    thoughts = generate.mean_thoughts(z, np.array(places))
    shifted = style.shift(thoughts, z['bneg'], towards, options.strength)
    told_of = [[z['cap'][place] for place in each] for each in places]
    told = []
    for found in texts_of(z, shifted, options, towards, told_of):
        texts = [] if isinstance(found, EmptyStoryError) else [text for text, _ in found]
        ranks = np.linspace(0, max(0, len(texts) - 1), args.texts).round().astype(int)
        told.append(list(dict.fromkeys(texts[rank] for rank in ranks if texts)))
    return told


if __name__ == '__main__':
    run(main)
