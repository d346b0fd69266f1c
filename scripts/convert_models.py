"""Convert models from the format of 2015 to ours, or back.

The numbers stay the same. What a folder lacks is passed over, and so is a network that is no VGG-19
where files of 2015 are asked for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from storyteller import convert
from storyteller.cli.arguments import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('models', type=Path, help='the folder to read')
    parser.add_argument('--out', type=Path, required=True, help='output folder')
    parser.add_argument('--to', choices=['2015', 'ours'], required=True)
    args = parser.parse_args()
    for line in convert.convert(args.models, args.out, args.to):
        print(line)


if __name__ == '__main__':
    run(main)
