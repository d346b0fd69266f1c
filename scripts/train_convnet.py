"""Train the narrow VGG network of the default bundle."""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch

from storyteller.training import convnet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, required=True, help='holds tinyimagenet/, flickr8k/')
    parser.add_argument('--out', type=Path, required=True, help='the network, .safetensors')
    parser.add_argument('--run', type=Path, required=True, help='folder of checkpoints and log')
    parser.add_argument('--minutes', type=float, default=math.inf, help='stop after that time')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--stages', nargs='+', default=['labels', 'fold0', 'distil'])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.run.mkdir(parents=True, exist_ok=True)

    def log(record: dict) -> None:
        with open(args.run / 'log.jsonl', 'a', encoding='utf-8') as file:
            print(json.dumps(record), file=file)

    trainer = convnet.Trainer(
        args.data,
        args.run,
        convnet.TrainOptions(),
        log=log,
        deadline=time.monotonic() + 60 * args.minutes,
    )
    for stage in args.stages:
        if stage == 'labels':
            trainer.labels()
        elif stage == 'distil':
            convnet.export(trainer.distil(), args.out)
        else:
            fold = int(stage.removeprefix('fold'))
            convnet.export(trainer.distil(fold), args.run / f'{stage}.safetensors')


if __name__ == '__main__':
    main()
