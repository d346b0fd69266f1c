"""Train the narrow VGG network of the default bundle.

Stages are taken up where they stopped, so the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from storyteller import bundle, formats
from storyteller.command_line import add_options, options_from, run
from storyteller.convnet import Architecture
from storyteller.training import ranks
from storyteller.training.convnet import NARROW
from storyteller.training.folds import Stages
from storyteller.training.recipe import Recipe


def widths(text: str) -> tuple[int, ...]:
    """The convolutions of a block: '256,256'."""
    return tuple(int(width) for width in text.split(','))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='holds tinyimagenet/, flickr8k/')
    parser.add_argument('--out', type=Path, required=True, help='the network, .safetensors')
    parser.add_argument('--work', type=Path, required=True, help='folder of checkpoints, metrics')
    parser.add_argument('--minutes', type=float, help='time for all stages together')
    parser.add_argument('--targets', type=Path, help="training photos' joint vectors, .npy (N, E)")
    parser.add_argument('--threads', type=int, help='default: all')
    parser.add_argument(
        '--without-folds', action='store_true', help='only the network, no features of folds'
    )
    parser.add_argument(
        '--blocks',
        nargs='+',
        type=widths,
        default=NARROW.blocks,
        metavar='WIDTHS',
        help='widths of the convolutions, a comma between those of a block '
        f'({" ".join(",".join(map(str, block)) for block in NARROW.blocks)})',
    )
    parser.add_argument('--fc', nargs=2, type=int, default=NARROW.fc, help='of fc6, fc7')
    parser.add_argument('--input-size', type=int, default=NARROW.input_size, help='pixels')
    parser.add_argument(
        '--average',
        type=float,
        default=0.0,
        help='see TrainOptions; of the second stage (%(default)s)',
    )
    add_options(parser, Recipe)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = options_from(Recipe, args)
    second = {
        name: replace(getattr(recipe, name), average=args.average) for name in ('distil', 'fold')
    }
    recipe = replace(recipe, **second)
    recipe = recipe if args.minutes is None else recipe.within(args.minutes)
    architecture = Architecture(tuple(args.blocks), tuple(args.fc), args.input_size)
    stages = Stages(args.data, args.work, recipe, architecture, targets=args.targets)
    stages.distil()
    if ranks.number() == 0:
        bundle.strike(args.out)
        with formats.atomic_path(args.out) as temporary:
            shutil.copyfile(args.work / 'distil.safetensors', temporary)
    if args.without_folds:
        return
    for k in range(recipe.folds):
        stages.fold(k)
    if ranks.number() == 0:
        features = stages.features()
        for name, array in features.items():
            formats.write_array(args.work / f'features_{name}.npy', array)
        print(json.dumps(stages.probe(features), indent=1))


if __name__ == '__main__':
    run(main)
