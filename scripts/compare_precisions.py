"""Measure the effect of a lower precision on vectors, stories and scores.

The cases are captions of the pool, sampled at random: each is decoded like a photo at that point,
from its k nearest captions. With --random also stories of random decoders, whose words are less
certain than those of a trained one. The table goes to stdout.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_models import TINY, make_models
from tqdm import tqdm

from storyteller import captions, decoder, generate, search, skipthoughts, style
from storyteller.command_line import add_models, run

BATCH = 16  # stories searched at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_models(parser)
    parser.add_argument('--count', type=int, default=1000, help='number of captions (%(default)s)')
    parser.add_argument(
        '--random', type=int, default=0, help='number of stories by random decoders'
    )
    parser.add_argument(
        '-k', type=int, default=100, help='number of captions to average (%(default)s)'
    )
    parser.add_argument('--bw', type=int, default=50, help='beam width (%(default)s)')
    args = parser.parse_args()
    search.check_count('count', args.count)
    plain, coarse, screened = (
        generate.load_all(args.models, 'cpu', precision=p)  # a GPU has none of these
        for p in ('float32', 'bfloat16', 'int8')
    )

    nearest = neighbours(plain, args.count, args.k)
    exact, thoughts = (generate.mean_thoughts(z, nearest) for z in (plain, coarse))
    vectors = [skipthoughts.encode(z['stv'], plain['cap'][: args.count], verbose=False)
               for z in (plain, coarse)]  # fmt: skip
    print(f'bfloat16: thought vectors of {args.count} captions, cosine to float32: '
          f'{cosines(*vectors).mean():.5f} on average, {cosines(*vectors).min():.5f} at least; '
          f'of the means of {args.k}: {cosines(exact, thoughts).min():.6f} at least')  # fmt: skip

    print('\nprecision | cases | the same story | seconds a story | float32\n---|---|---|---|---')
    told = style.shift(exact, plain['bneg'], plain['bpos'])
    shifted = style.shift(thoughts, plain['bneg'], plain['bpos'])
    stories, seconds = tell(plain['dec'], told, args.bw)
    report('bfloat16', stories, tell(plain['dec'], shifted, args.bw))  # searched as ever
    report('int8', stories, tell(screened['dec'], told, args.bw), seconds)
    if args.random:
        stories, found, seconds = [], [], np.zeros(2)
        for dec, other, contexts in random_decoders(args.random):
            results = [tell(which, contexts, args.bw) for which in (dec, other)]
            stories, found = stories + results[0][0], found + results[1][0]
            seconds += [result[1] for result in results]
        report('int8, random', stories, (found, seconds[1]), seconds[0])


def neighbours(z: dict[str, Any], count: int, k: int) -> np.ndarray:
    """The k nearest captions (count, k) of captions sampled at random."""
    drawn = np.random.default_rng(0).choice(len(z['cap']), count, replace=count > len(z['cap']))
    return captions.nearest(np.asarray(z['cvec'][drawn]), z['cvec'], k)[0]


def tell(dec: dict[str, Any], contexts: np.ndarray, bw: int) -> tuple[list[str], float]:
    """Stories, or why there is none, and the seconds that they took."""
    begun, stories = time.perf_counter(), []
    for first in tqdm(range(0, len(contexts), BATCH), unit=f'x{BATCH}', desc='stories'):
        stories += map(str, decoder.run_samplers(dec, contexts[first : first + BATCH], bw))
    return stories, time.perf_counter() - begun


def random_decoders(count: int) -> Iterator[tuple[dict[str, Any], dict[str, Any], np.ndarray]]:
    """Pairs of a decoder and the same one screened, and contexts, 50 for each pair."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range((count + 49) // 50):
            paths = make_models(Path(folder, str(seed)), TINY, seed)
            files = paths['decmodel'], paths['dictionary']
            dec, other = (
                decoder.load_model(*files, device='cpu', precision=p) for p in ('float32', 'int8')
            )
            rng, left = np.random.default_rng(seed), min(50, count - 50 * seed)
            yield dec, other, rng.normal(size=(left, dec['options']['dimctx']))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the rows of two (N, D) arrays."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def report(
    name: str,
    expected: Sequence[str],
    found: tuple[Sequence[str], float],
    seconds: float | None = None,
) -> None:
    """A row; with the seconds of float32, where the search is not the same, also those of both."""
    same = sum(a == b for a, b in zip(expected, found[0], strict=True))
    n = len(expected)
    times = ' | ' if seconds is None else f'{found[1] / n:.3f} | {seconds / n:.3f}'
    print(f'{name} | {n} | {100 * same / n:.1f} % | {times}', flush=True)


if __name__ == '__main__':
    run(main)
