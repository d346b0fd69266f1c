"""Make a style vector from your own books: the mean thought of their long passages.

The result is what ``--style FILE`` of the main job takes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from storyteller import config, formats, skipthoughts, style
from storyteller.training import documents
from storyteller.training.corpus import Corpus, narrative_passages
from storyteller.training.options import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--text', type=Path, required=True, help='a .txt(.gz, .xz) or a folder')
    parser.add_argument('--kind', choices=['books', 'verses', 'captions'], default='books')
    parser.add_argument('--encoder', type=Path, help='folder of skip-thoughts; default: the bundle')
    parser.add_argument('--out', type=Path, required=True, help='NAME_style.npy')
    parser.add_argument('--shortest', type=int, default=101, help='words (%(default)s)')
    parser.add_argument('--longest', type=int, default=140, help='words (%(default)s)')
    parser.add_argument(
        '--most-quoted', type=float, default=0.1, help='share inside quotation marks (%(default)s)'
    )
    parser.add_argument('--passages', type=int, default=6000, help='at most (%(default)s)')
    args = parser.parse_args()
    folder = args.encoder or config.default_folder()
    encoder = skipthoughts.Encoder(skipthoughts.load_model(folder, folder))
    with tempfile.TemporaryDirectory() as run:
        tokens = Path(run) / 'text.txt'
        documents.tokenise_files(documents.text_files(args.text), tokens, args.kind)
        texts, vocabulary = Corpus.with_all_words(tokens, Path(run) / 'corpus')
        limits = {'most_quoted': args.most_quoted, 'wanted': args.passages}
        found = narrative_passages(texts, vocabulary, args.shortest, args.longest, **limits)
    vector = style.mean_vector(encoder, found)
    formats.write_array(args.out, vector)


if __name__ == '__main__':
    run(main)
