"""Train a skip-thought encoder on your own text.

Run it twice, without and with --bidirectional, into one folder: together the two make the encoder
that storyteller.skipthoughts.load_model(FOLDER, FOLDER) reads. An interrupted run goes on when the
same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from storyteller.cli.arguments import add_options, options_from, run, use_threads

if __name__ == '__main__':
    use_threads()  # before torch is loaded

from storyteller.io import bundle
from storyteller.text import Vocabulary
from storyteller.training import distributed, skipthoughts, wordvectors
from storyteller.training.data import documents, origins
from storyteller.training.data.corpus import Corpus
from storyteller.training.options import TrainOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--text', type=Path, required=True, help='text file (.txt, .gz, .xz) or folder'
    )
    parser.add_argument('--caption-file', type=Path, help='captions to train on as well')
    parser.add_argument('--held-out', type=Path, help='evaluation text: a file or a folder')
    parser.add_argument(
        '--vectors', type=Path, help='word2vec or GloVe vectors to initialise words with'
    )
    parser.add_argument(
        '--work', type=Path, required=True, help='folder of intermediate files and checkpoints'
    )
    parser.add_argument('--out', type=Path, required=True, help='output folder')
    parser.add_argument('--n-words', type=int, default=20_000, help='vocabulary size (%(default)s)')
    parser.add_argument('--dtype', choices=['float32', 'float16'], default='float32')
    add_options(parser, skipthoughts.SkipThoughtsOptions)
    add_options(parser, TrainOptions)
    args = parser.parse_args()
    options = options_from(skipthoughts.SkipThoughtsOptions, args)
    training = options_from(TrainOptions, args)

    documents.tokenise_files(documents.text_files(args.text), args.work / 'text.txt')
    files = [args.work / 'text.txt']
    if args.caption_file:
        files.append(args.work / 'captions.txt')
        documents.tokenise_files([args.caption_file], files[1], 'captions')
    vocabulary = read_or_choose(args.work, files, args.n_words)
    books, *captions = (Corpus.cached(file, vocabulary, file.with_suffix('')) for file in files)
    units = skipthoughts.Units(books, captions[0] if captions else None, options, training.seed)
    table = held_out = None
    if args.vectors:
        table = skipthoughts.initial_params(options, len(vocabulary), training.seed)['Wemb']
        table, known = wordvectors.start_from(table, vocabulary, args.vectors)
        print(f'{args.vectors}: knows {known} of {len(vocabulary)} words', file=sys.stderr)
    if args.held_out:
        tokens = args.work / 'held_out.txt'
        documents.tokenise_files(documents.text_files(args.held_out), tokens)
        text = Corpus.cached(tokens, vocabulary, args.work / 'held_out')
        held_out = skipthoughts.Units(text, None, replace(options, captions=0.0), seed=9)
    kind = 'bi' if options.bidirectional else 'uni'
    trained = args.work / f'{kind}_skip.npz'
    facts = origins.of_files([*files, args.work / 'dictionary.txt'])
    if args.vectors:
        facts['--vectors'] = origins.of_file(args.vectors)
    origins.is_made(args.work / f'{kind}.pt', facts)
    skipthoughts.fit(
        units,
        training,
        trained,
        args.work / f'{kind}.pt',
        n_words=len(vocabulary),
        counts=sum(corpus.counts(len(vocabulary)) for corpus in (books, *captions)),
        table=table,
        held_out=held_out,
    )
    names = f'{kind}_skip.safetensors', f'{kind[0]}table.npy', 'dictionary.txt'
    bundle.strike(*(args.out / name for name in names))
    skipthoughts.export(trained, args.out, vocabulary, args.dtype)
    if distributed.number() == 0:
        print(f'{args.out}: {kind}_skip of {len(vocabulary):,} words')


def read_or_choose(run: Path, files: list[Path], n_words: int) -> Vocabulary:
    """The vocabulary of the token files; both encoders share it."""
    path = run / 'dictionary.txt'
    if not origins.is_made(path, {'--n-words': str(n_words)} | origins.of_files(files)):
        counts, spread = documents.count_words(files)
        chosen = documents.choose_words(counts, spread, n_words - 2, books=1)
        Vocabulary(('<eos>', 'UNK', *chosen)).save(path)
    return Vocabulary.load(path)


if __name__ == '__main__':
    run(main)
