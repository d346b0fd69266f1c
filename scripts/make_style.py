"""Compute a style vector: the mean thought vector of long passages of books.

The result is what ``--style FILE`` of the main job takes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from storyteller import captions, config, formats, skipthoughts, style
from storyteller.cli.arguments import add_encoder, run
from storyteller.io import bundle
from storyteller.training.data import documents
from storyteller.training.data.corpus import Corpus, narrative_passages

FEWEST = 1000  # a mean of fewer is the mean of a few scenes, not a style


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('texts', type=Path, nargs='*', metavar='FILE', help='.txt(.gz, .xz)')
    parser.add_argument('--text', type=Path, help='a text file or a folder of them')
    parser.add_argument(
        '--captions', type=Path, metavar='POOL', help='compute the style of these captions instead'
    )
    parser.add_argument('--kind', choices=['books', 'verses', 'captions'], default='books')
    add_encoder(parser)
    parser.add_argument('--out', type=Path, required=True, help='NAME_style.npy')
    parser.add_argument(
        '--min-words',
        '--shortest',
        type=int,
        default=101,
        help='minimum words per passage (%(default)s)',
    )
    parser.add_argument(
        '--longest', type=int, default=140, help='maximum words per passage (%(default)s)'
    )
    parser.add_argument(
        '--most-quoted',
        type=float,
        default=0.1,
        help='maximum proportion of quoted text (%(default)s)',
    )
    parser.add_argument(
        '--passages', type=int, default=6000, help='maximum number of passages (%(default)s)'
    )
    parser.add_argument('--few', action='store_true', help=f'allow fewer than {FEWEST} passages')
    args = parser.parse_intermixed_args()
    if bool(args.texts) + (args.text is not None) + (args.captions is not None) != 1:
        raise ValueError('expected files of text, or --text FOLDER, or --captions POOL')
    found = captions.load_captions(args.captions) if args.captions else None
    folder = config.local(args.encoder)
    encoder = skipthoughts.Encoder(skipthoughts.load_model(folder, folder))
    texts = found or drawn_passages(args)
    vector = style.mean_vector(encoder, texts)
    bundle.strike(args.out)
    formats.write_array(args.out, vector)
    print(f'{args.out}: the mean of {len(texts):,} texts, {vector.size:,} numbers')


def drawn_passages(args: argparse.Namespace) -> list[str]:
    """Passages of the texts to average over, unless there are too few."""
    files = args.texts or documents.text_files(args.text)
    with tempfile.TemporaryDirectory() as run:
        tokens = Path(run) / 'text.txt'
        documents.tokenise_files(files, tokens, args.kind)
        texts, vocabulary = Corpus.with_all_words(tokens, Path(run) / 'corpus')
        limits = {'most_quoted': args.most_quoted, 'wanted': args.passages}
        found = narrative_passages(texts, vocabulary, args.min_words, args.longest, **limits)
    if not found or (len(found) < FEWEST and not args.few):
        raise ValueError(
            f'found {len(found)} passages, expected at least {FEWEST}: give more text, or shorter '
            'passages by --min-words, or take what there is by --few'
        )
    return found


if __name__ == '__main__':
    run(main)
