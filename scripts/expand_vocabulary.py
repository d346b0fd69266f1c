"""Expand the vocabulary of an encoder by a file of word vectors (word2vec, GloVe).

A linear map is fitted to the words that both know. The result is a folder of skip-thoughts as
before, with longer tables. Needs the extra `expand`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from storyteller import config, formats, skipthoughts
from storyteller.cli.arguments import run
from storyteller.training import wordvectors

TABLES = ('utable.npy', 'btable.npy')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--models', required=True, help='folder of the skip-thoughts, or hf://OWNER/NAME'
    )
    parser.add_argument('--vectors', type=Path, required=True, help='.bin, .txt or .gz')
    parser.add_argument('--out', type=Path, required=True, help='output folder')
    parser.add_argument('--dtype', choices=['float32', 'float16'], default='float32')
    args = parser.parse_args()
    models = config.local(args.models)
    if args.out.resolve() == models.resolve():
        raise ValueError(f'{args.out}: expected another folder than the encoder is in')
    words = [line.strip() for line in formats.read_lines(models / 'dictionary.txt')]
    tables = {name: formats.open_table(models / name) for name in TABLES}
    size = wordvectors.expand(tables, words, args.vectors, args.out, dtype=args.dtype)
    for kind in ('uni_skip', 'bi_skip'):
        file = skipthoughts.model_file(models, kind)
        for path in {file, Path(f'{file}.pkl')}:
            if path.exists():
                shutil.copyfile(path, args.out / path.name)
    print(f'{args.out}: {len(words)} words before, {size} now')


if __name__ == '__main__':
    run(main)
