"""Train a story decoder on your own books: each passage is told from its own thought vector.

The encoder is read from a folder, ours or of 2015. An interrupted run goes on when the same command
is given again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from storyteller import formats, skipthoughts
from storyteller.text import Vocabulary
from storyteller.training import corpus, decoder, documents, passages
from storyteller.training.corpus import Corpus
from storyteller.training.loop import TrainOptions
from storyteller.training.options import add_options, options_from, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--text', type=Path, required=True, help='a .txt(.gz, .xz) or a folder')
    parser.add_argument('--encoder', type=Path, required=True, help='folder of the skip-thoughts')
    parser.add_argument('--run', type=Path, required=True, help='folder of in-between files')
    parser.add_argument('--out', type=Path, required=True, help='.safetensors, or .npz as in 2015')
    parser.add_argument('--n-words', type=int, default=20_000, help='vocabulary (%(default)s)')
    parser.add_argument('--books', type=int, default=1, help='a name must stand in so many books')
    parser.add_argument('--shortest', type=int, default=1, help='words in a passage (%(default)s)')
    parser.add_argument('--longest', type=int, default=100, help='words in a passage (%(default)s)')
    add_options(parser, decoder.DecoderOptions)
    add_options(parser, TrainOptions)
    args = parser.parse_args()
    options = options_from(decoder.DecoderOptions, args)
    training = options_from(TrainOptions, args)

    tokens = args.run / 'text.txt'
    documents.tokenise_files(documents.text_files(args.text), tokens)
    counts, spread = documents.count_words([tokens])
    chosen = documents.choose_words(counts, spread, args.n_words - 2, books=args.books)
    vocabulary = Vocabulary(('<eos>', 'UNK', *chosen))
    told = Corpus.cached(tokens, vocabulary, args.run / 'told')
    rng = np.random.default_rng(training.seed)
    spans = corpus.passages(told, rng, args.shortest, args.longest)
    read, every_word = Corpus.with_all_words(tokens, args.run / 'read')
    vectors = passages.encode_passages(
        read,
        spans,
        every_word,
        skipthoughts.Encoder(skipthoughts.load_model(args.encoder, args.encoder)),
        args.run / 'vectors',
    )
    decoder.fit(
        passages.Passages(told, spans, vectors, options, training.seed),
        training,
        args.out,
        args.run / 'decoder.pt',
        n_words=len(vocabulary),
        counts=told.counts(len(vocabulary)),
    )
    if args.out.suffix == '.npz':
        dictionary = args.out.with_name(f'{args.out.stem}_dictionary.pkl')
        formats.write_pickle(dictionary, {word: vocabulary[word] for word in vocabulary})
    else:
        vocabulary.save(args.out.with_name(f'{args.out.stem}_dictionary.txt'))


if __name__ == '__main__':
    run(main)
