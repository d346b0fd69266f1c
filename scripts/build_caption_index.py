"""Build an index over a caption pool, and report its recall against the exact search.

    python scripts/build_caption_index.py --kind ivf --out captions.faiss
    z = generate.load_all(caption_index='captions.faiss')

Needs the extra `scale`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from storyteller import captions, config, embedding
from storyteller.captions import index as caption_index
from storyteller.cli.arguments import add_models, run
from storyteller.formats import open_table
from storyteller.io.extras import needed
from storyteller.layers import unit_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_models(parser)
    parser.add_argument('--vectors', type=Path, help='index these unit rows (N, E), .npy, instead')
    parser.add_argument('--kind', choices=caption_index.KINDS, default='ivf', help='(%(default)s)')
    parser.add_argument(
        '--effort', type=int, default=64, help='number of lists to probe (%(default)s)'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='FILE')
    parser.add_argument('--k', type=int, default=100, help='k of the recall (%(default)s)')
    parser.add_argument(
        '--queries', type=int, default=200, help='queries to measure with (%(default)s)'
    )
    args = parser.parse_args()
    if min(args.effort, args.queries, args.k) < 1:
        raise ValueError('effort, queries, k: expected 1 or more')
    needed('faiss')  # before the pool is embedded
    if args.vectors:
        vectors, made_of = open_table(args.vectors), None
    else:
        vectors, made_of = pool_vectors(args.models)
    begun = time.perf_counter()
    index = caption_index.build(vectors, args.kind, made_of=made_of)
    index.effort = args.effort
    index.save(args.out)
    print(f'{args.out}: {len(vectors)} captions, {args.out.stat().st_size / 1e6:.1f} MB, '
          f'built in {time.perf_counter() - begun:.1f} s')  # fmt: skip
    # Queries are captions, moved a little: photos lie near their captions, not on them.
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(vectors))[: args.queries])
    moved = rng.normal(size=(len(rows), vectors.shape[1])) / np.sqrt(vectors.shape[1])
    k = min(args.k, len(vectors))
    queries = unit_rows(np.asarray(vectors[rows], np.float32) + moved.astype(np.float32))
    print(f'recall at {k}: {caption_index.recall(index, queries, k):.3f}')
    for name, search in (
        ('index', lambda query: index.nearest(query, k)),
        ('exact', lambda query: captions.nearest(query, vectors, k)),
    ):
        times = []
        for query in queries[:50]:
            begun = time.perf_counter()
            search(query)
            times.append(time.perf_counter() - begun)
        print(f'{name}: {1000 * np.median(times):.2f} ms a photo')


def pool_vectors(models: str | list[str] | None) -> tuple[np.ndarray, dict[str, str]]:
    """The vectors of the models' pool, from the cache if they are there, and what they are of."""
    files = config.resolve(models)
    vse, texts = embedding.load_model(files['vsemodel']), captions.load_captions(files['captions'])
    return captions.caption_vectors(vse, texts, verbose=True), captions.made_of(vse, texts)


if __name__ == '__main__':
    run(main)
