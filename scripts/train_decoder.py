"""Train a story decoder on books: passages are decoded from their thought vectors.

The encoder is read from a folder, ours or of 2015; the default is that of the bundle. With
``--captions`` and ``--pairs``, a share of the passages is told from what the style shift makes of
captions like them, with c the mean over these captions, and b over all passages of ``--text``. With
``--preferences`` it also learns from what readers say of stories: each line of the file is a
caption, and texts told of it with marks from 1 to 5 before them, with tabs between
(:mod:`storyteller.training.data.marked`). A run that was interrupted resumes when the same command
is given again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from storyteller.cli.arguments import add_encoder, add_options, options_from, run, use_threads

if __name__ == '__main__':
    use_threads()  # before torch is loaded

import numpy as np

from storyteller import config, skipthoughts
from storyteller.captions import load_captions
from storyteller.formats import MismatchError
from storyteller.io import bundle
from storyteller.search import UNK
from storyteller.style import shift
from storyteller.text import Vocabulary
from storyteller.training import (
    back_translation,
    decoder,
    distributed,
    fine_tuning,
    preferences,
    wordvectors,
)
from storyteller.training.data import corpus, documents, origins, passages
from storyteller.training.data.corpus import Corpus
from storyteller.training.data.marked import read_marked
from storyteller.training.decoder import DecoderOptions
from storyteller.training.options import TrainOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--text', type=Path, required=True, help='text file (.txt, .gz, .xz) or folder'
    )
    parser.add_argument('--held-out', type=Path, help='evaluation text: a file or a folder')
    parser.add_argument('--kind', choices=['books', 'verses'], default='books')
    add_encoder(parser)
    parser.add_argument('--start', type=Path, help='decoder to initialise from; it sets the sizes')
    parser.add_argument(
        '--vectors', type=Path, help='word2vec or GloVe vectors to initialise words with'
    )
    parser.add_argument('--captions', type=Path, help='captions, one per line, for --pairs')
    parser.add_argument(
        '--preferences', type=Path, help='texts that readers marked, for --preferences-weight'
    )
    parser.add_argument('--k', type=int, default=100, help='captions per passage (%(default)s)')
    parser.add_argument('--best', type=float, default=1.0, metavar='SHARE',
                        help='proportion to keep, most caption-like (%(default)s)')  # fmt: skip
    parser.add_argument(
        '--work', type=Path, required=True, help='folder of intermediate files and checkpoints'
    )
    parser.add_argument('--out', type=Path, required=True, help='.safetensors, or .npz as in 2015')
    parser.add_argument('--n-words', type=int, default=20_000, help='vocabulary size (%(default)s)')
    parser.add_argument(
        '--books', type=int, default=1, help='minimum books in which a name occurs (%(default)s)'
    )
    parser.add_argument('--shortest', type=int, default=1, help='minimum words (%(default)s)')
    parser.add_argument('--longest', type=int, default=100, help='maximum words (%(default)s)')
    add_options(parser, DecoderOptions)
    add_options(parser, TrainOptions)
    args = parser.parse_args()
    options, training = options_from(DecoderOptions, args), options_from(TrainOptions, args)
    if args.start and args.vectors:
        parser.error('--vectors: the words of a decoder to go on from have theirs')
    if (options.pairs or args.best != 1) and not args.captions:
        parser.error('--pairs, --best: expected --captions too, a pool to tell passages from')
    if bool(options.preferences_weight) != bool(args.preferences):
        parser.error('--preferences, --preferences-weight: expected both or neither')
    if args.preferences and not (args.captions and args.start):
        parser.error(
            '--preferences: expected --captions too, a pool to tell texts from, and --start, the '
            'decoder whose texts were marked'
        )
    if args.preferences and args.start.resolve() == args.out.resolve():
        parser.error('--start: with --preferences it is compared with, and must not be --out too')
    marked = list(read_marked(args.preferences)) if args.preferences else []
    if args.k < 1 or not 0 < args.best <= 1:
        parser.error(
            f'--k: expected 1 or more, found {args.k}; --best: above 0, at most 1, '
            f'found {args.best}'
        )

    tokens = args.work / 'text.txt'
    documents.tokenise_files(documents.text_files(args.text), tokens, args.kind)
    counts, spread = documents.count_words([tokens])
    chosen = documents.choose_words(counts, spread, args.n_words - 2, books=args.books)
    vocabulary = Vocabulary(('<eos>', 'UNK', *chosen))
    folder = config.local(args.encoder)
    encoder = skipthoughts.Encoder(skipthoughts.load_model(folder, folder))
    width = encoder.encode([], verbose=False).shape[1]
    facts = {'encoder': origins.of_encoder(folder)}
    table = params = held_out = preferred = None
    if args.start:
        counted = np.array([counts[word] for word in vocabulary])
        counted[UNK] = counts.total() - counted.sum()
        params, sizes = fine_tuning.start_from(args.start, vocabulary, counted, width)
        options = replace(options, **sizes)
    told = read_passages(tokens, 'told', vocabulary, encoder, options, training, args, facts)
    if args.held_out:
        tokens = args.work / 'held_out.txt'
        documents.tokenise_files(documents.text_files(args.held_out), tokens, args.kind)
        held_out = read_passages(
            tokens, 'held_out', vocabulary, encoder, options, training, args, facts
        )
    if args.captions:
        told = pair_with_captions(told, held_out, encoder, facts['encoder'], args)
    if args.preferences:
        preferred = tell_marked(marked, told, vocabulary, encoder, facts['encoder'], args)
    if args.vectors:
        table = decoder.initial_params(options, len(vocabulary), width, training.seed)['Wemb']
        table, known = wordvectors.start_from(table, vocabulary, args.vectors)
        print(f'{args.vectors}: knows {known} of {len(vocabulary)} words', file=sys.stderr)
    note_inputs(vocabulary, facts, args)
    bundle.strike(args.out, decoder.dictionary_path(args.out))
    decoder.fit(
        told,
        training,
        args.out,
        args.work / 'decoder.pt',
        n_words=len(vocabulary),
        counts=told.corpus.counts(len(vocabulary)),
        params=params,
        table=table,
        preferences=preferred,
        held_out=held_out,
        vocabulary=vocabulary,
    )
    if distributed.number() == 0:
        print(f'{args.out}: a decoder of {len(vocabulary):,} words')


def read_passages(
    tokens: Path,
    name: str,
    vocabulary: Vocabulary,
    encoder: skipthoughts.Encoder,
    options: DecoderOptions,
    training: TrainOptions,
    args: argparse.Namespace,
    facts: dict[str, str],
) -> passages.Passages:
    """The passages of a token file, and the vector of each."""
    told = Corpus.cached(tokens, vocabulary, args.work / name)
    rng = np.random.default_rng(training.seed)
    spans = corpus.passages(told, rng, args.shortest, args.longest)
    if not len(spans):
        raise ValueError(
            f'{tokens}: {len(told)} sentences, and not one passage of '
            f'{args.shortest} to {args.longest} words'
        )
    read, every_word = Corpus.with_all_words(tokens, args.work / f'{name}_read')
    vectors = passages.encode_passages(
        read,
        spans,
        every_word,
        encoder,
        args.work / f'{name}_vectors',
        made_from=facts | origins.of_files([tokens]),
    )
    return passages.Passages(told, spans, vectors, options, training.seed)


def note_inputs(vocabulary: Vocabulary, facts: dict[str, str], args: argparse.Namespace) -> None:
    """Refuse a checkpoint of other inputs; options may change from run to run."""
    facts = facts | origins.of_files([args.work / 'text.txt'])
    facts['words'] = origins.of_words(vocabulary)
    flags = 'captions', 'start', 'vectors', 'preferences'
    given = {f'--{flag}': getattr(args, flag) for flag in flags}
    for flag, path in given.items():
        if path and path.resolve() != args.out.resolve():  # which training itself exchanges
            facts[flag] = origins.of_file(path)
    origins.is_made(args.work / 'decoder.pt', facts)


def pair_with_captions(
    told: passages.Passages,
    held_out: passages.Passages | None,
    encoder: skipthoughts.Encoder,
    fingerprint: str,
    args: argparse.Namespace,
) -> passages.Passages:
    """Give the passages their captions; those to train on that match best.

    The style b is that of all passages, not of the best alone, since which these are hangs on it.
    """
    pool = load_captions(args.captions)
    pool = back_translation.encode_captions(pool, encoder, fingerprint, args.work)
    c, b = (np.mean(vectors, 0, dtype=np.float64) for vectors in (pool, told.vectors))
    for each in (told, held_out):
        if each is not None:
            each.pairs = back_translation.back_translate(each.vectors, pool, c, b, args.k)
    return told.take(back_translation.best_rows(told.pairs.match, args.best))


def tell_marked(
    marked: list[tuple[list[str], list[tuple[int, str]]]],
    told: passages.Passages,
    vocabulary: Vocabulary,
    encoder: skipthoughts.Encoder,
    fingerprint: str,
    args: argparse.Namespace,
) -> preferences.Preferences:
    """Texts that readers marked, told of their captions.

    One caption alone is told of those of the pool that are nearest to it.
    """
    every = sorted({caption for captions, _ in marked for caption in captions})
    thoughts = dict(zip(every, encoder.encode(every, verbose=False), strict=True))
    c, b = told.pairs.c, told.pairs.b[0]
    means = [np.mean([thoughts[caption] for caption in captions], 0) for captions, _ in marked]
    vectors = shift(np.stack(means), c, b)
    alone = [row for row, (captions, _) in enumerate(marked) if len(captions) == 1]
    if alone:
        pool = load_captions(args.captions)
        pool = back_translation.encode_captions(pool, encoder, fingerprint, args.work)
        shifted = back_translation.back_translate(vectors[alone], pool, c, b, args.k)
        vectors[alone] = shifted.vectors(np.arange(len(alone)))
    try:
        found = preferences.Preferences.of_marked(
            [texts for _, texts in marked], vectors, vocabulary
        )
    except MismatchError as error:
        raise MismatchError(f'{args.preferences}: {error}') from None
    given = sum(len(texts) for _, texts in marked)
    print(
        f'{args.preferences}: {len(found.texts)} of {given} texts in known words, '
        f'{len(found.pairs)} pairs',
        file=sys.stderr,
    )
    return found


if __name__ == '__main__':
    run(main)
