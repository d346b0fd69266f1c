"""Train an image-sentence embedding on your own captioned photos.

Give one of: a folder of photos and their captions; photos' features and their captions; or a data
set in the layout of 2015. An interrupted run resumes when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from storyteller.cli.arguments import add_options, options_from, run, use_threads

if __name__ == '__main__':
    use_threads()  # before torch is loaded

from storyteller import config
from storyteller.formats import read_array, read_lines
from storyteller.io import bundle, picture_files
from storyteller.training import distributed, embedding, wordvectors
from storyteller.training.data import origins
from storyteller.training.data.captioned import CaptionedPhotos
from storyteller.training.embedding import EmbeddingOptions
from storyteller.training.options import TrainOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--captions', type=Path, help='photo<TAB>caption lines, CSV, or JSON of COCO or Karpathy'
    )
    parser.add_argument('--photo-folder', type=Path, help='folder of the photos')
    parser.add_argument(
        '--network',
        '--models',
        metavar='FILE',
        help='image network, or a folder of models that has one (the bundle)',
    )
    parser.add_argument('--photos', type=Path, help='photo names, one per line, for --features')
    parser.add_argument('--features', type=Path, help='.npy with a row per name')
    parser.add_argument(
        '--mirrored-features', type=Path, help='.npy of the first photos mirrored, as augmentation'
    )
    parser.add_argument(
        '--dataset',
        metavar='PREFIX',
        help='PREFIX_train_caps.txt, PREFIX_train_ims.npy, and the same for dev',
    )
    parser.add_argument(
        '--held-out', type=int, default=0, help='number of photos to evaluate on, without dev'
    )
    parser.add_argument(
        '--vectors', type=Path, help='word2vec or GloVe vectors to initialise words with'
    )
    parser.add_argument(
        '--work', type=Path, required=True, help='folder of intermediate files and checkpoints'
    )
    parser.add_argument('--out', type=Path, required=True, help='.safetensors, or .npz as in 2015')
    parser.add_argument(
        '--min-count', type=int, default=1, help='minimum count of a word; rarer ones become UNK'
    )
    add_options(parser, EmbeddingOptions)
    add_options(parser, TrainOptions, clip=2.0)
    args = parser.parse_args()
    photos, held_out = read_photos(args)
    args.dim_image = photos.features.shape[1]
    options, training = options_from(EmbeddingOptions, args), options_from(TrainOptions, args)
    vocabulary = photos.vocabulary(args.min_count)
    params = embedding.initial_params(options, len(vocabulary), training.seed)
    if args.vectors:
        params['Wemb'], known = wordvectors.start_from(params['Wemb'], vocabulary, args.vectors)
        print(f'{args.vectors}: knows {known} of {len(vocabulary)} words', file=sys.stderr)
    note_inputs(args)
    bundle.strike(args.out, args.out.with_name(f'{args.out.stem}_dictionary.txt'))
    embedding.fit(
        photos.sources(vocabulary, options, training.seed),
        training,
        args.out,
        args.work / 'embedding.pt',
        vocabulary=vocabulary,
        params=params,
        report=held_out and (lambda model: held_out.recalls(model, vocabulary)),
    )
    if distributed.number() == 0:
        print(f'{args.out}: an embedding of {len(vocabulary):,} words')


def note_inputs(args: argparse.Namespace) -> None:
    """Refuse a checkpoint of other inputs; options may change from run to run."""
    facts = {'--held-out': str(args.held_out), '--min-count': str(args.min_count)}
    given = {
        '--captions': args.captions,
        '--photos': args.photos,
        '--features': args.features,
        '--mirrored-features': args.mirrored_features,
        '--vectors': args.vectors,
        'the photos': args.photo_folder and args.work / 'features.npy',
        '--dataset, captions': args.dataset and f'{args.dataset}_train_caps.txt',
        '--dataset, features': args.dataset and f'{args.dataset}_train_ims.npy',
    }
    facts |= {what: origins.of_file(path) for what, path in given.items() if path}
    origins.is_made(args.work / 'embedding.pt', facts)


def read_photos(args: argparse.Namespace) -> tuple[CaptionedPhotos, CaptionedPhotos | None]:
    """What to train on, and what to measure on."""
    picture_files.register_plugins()
    if args.dataset:
        photos = CaptionedPhotos.from_2015(args.dataset, 'train')
        if Path(f'{args.dataset}_dev_caps.txt').exists():
            return photos, CaptionedPhotos.from_2015(args.dataset, 'dev')
    elif args.captions and args.photo_folder:
        single = args.network and Path(args.network).is_file()
        network = args.network if single else config.resolve(args.network)['vgg']
        folder = args.photo_folder, Path(network), args.work
        photos = CaptionedPhotos.from_folder(args.captions, *folder)
    elif args.captions and args.photos and args.features:
        names, features = read_lines(args.photos), read_array(args.features)
        photos = CaptionedPhotos.from_files(args.captions, names, features)
        if args.mirrored_features:
            if len(photos.features) != len(names):  # rows would no longer fit
                raise ValueError('--mirrored-features: every photo must have a caption')
            photos = photos.with_mirrored(read_array(args.mirrored_features))
    else:
        raise ValueError(
            'expected --captions and --photo-folder, or --captions, --photos and --features, '
            'or --dataset'
        )
    return photos.hold_out(args.held_out) if args.held_out else (photos, None)


if __name__ == '__main__':
    run(main)
