"""Measure the effect of a lower precision on vectors, stories and scores.

The cases are captions of the pool, sampled at random: each is decoded like a photo at that point,
from its k nearest captions. The table goes to stdout.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from tqdm import tqdm

from storyteller import captions, decoder, generate, skipthoughts, style
from storyteller.cli.arguments import add_models, run
from storyteller.options import check_count

BATCH = 16  # stories searched at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_models(parser)
    parser.add_argument('--count', type=int, default=1000, help='number of captions (%(default)s)')
    parser.add_argument(
        '-k', type=int, default=100, help='number of captions to average (%(default)s)'
    )
    parser.add_argument('--bw', type=int, default=50, help='beam width (%(default)s)')
    args = parser.parse_args()
    check_count('count', args.count)
    plain, coarse = (
        generate.load_all(args.models, 'cpu', precision=p)  # a GPU has none of these
        for p in ('float32', 'bfloat16')
    )

    nearest = neighbours(plain, args.count, args.k)
    exact, thoughts = (generate.mean_thoughts(z, nearest) for z in (plain, coarse))
    vectors = [skipthoughts.encode(z['stv'], plain['cap'][: args.count], verbose=False)
               for z in (plain, coarse)]  # fmt: skip
    print(f'bfloat16: thought vectors of {args.count} captions, cosine to float32: '
          f'{cosines(*vectors).mean():.5f} on average, {cosines(*vectors).min():.5f} at least; '
          f'of the means of {args.k}: {cosines(exact, thoughts).min():.6f} at least')  # fmt: skip

    told = [style.shift(x, plain['bneg'], plain['bpos']) for x in (exact, thoughts)]
    expected, found = (tell(plain['dec'], contexts, args.bw) for contexts in told)
    same = sum(a == b for a, b in zip(expected, found, strict=True))
    n = len(expected)
    print('\nprecision | cases | the same story\n---|---|---')
    print(f'bfloat16 | {n} | {100 * same / n:.1f} %')


def neighbours(z: dict[str, Any], count: int, k: int) -> np.ndarray:
    """The k nearest captions (count, k) of captions sampled at random."""
    drawn = np.random.default_rng(0).choice(len(z['cap']), count, replace=count > len(z['cap']))
    return captions.nearest(np.asarray(z['cvec'][drawn]), z['cvec'], k)[0]


def tell(dec: dict[str, Any], contexts: np.ndarray, bw: int) -> list[str]:
    """Stories, or why there is none."""
    stories = []
    for first in tqdm(range(0, len(contexts), BATCH), unit=f'x{BATCH}', desc='stories'):
        stories += map(str, decoder.run_samplers(dec, contexts[first : first + BATCH], bw))
    return stories


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the rows of two (N, D) arrays."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


if __name__ == '__main__':
    run(main)
