"""Download the models published in 2015 (6.8 GB).

    python scripts/download_models.py --list
    python scripts/download_models.py --out published
    python -m storyteller --models published PHOTO

Of each file, one source after the other is tried. What is there already is left alone, and a
download that was cut goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from storyteller.cli.arguments import run
from storyteller.io import download, published


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, metavar='DIR', help='output folder')
    names = ', '.join(part.name for part in published.PARTS)
    parser.add_argument(
        '--only',
        action='extend',
        nargs='+',
        metavar='NAME',
        help=f'parts ({names}), or files of --list',
    )
    parser.add_argument(
        '--mirror', metavar='URL', help='address under which all files are available by name'
    )
    parser.add_argument(
        '--list', action='store_true', help='print the files and their sources only'
    )
    args = parser.parse_args()
    parts = published.chosen(args.only) if args.only else published.PARTS
    if args.list:
        print(published.listing(parts, args.mirror))
        return
    if not args.out:
        parser.error('--out: expected a folder to fetch into')
    lacking = download.fetch_all(
        args.out, parts, args.mirror, tell=lambda line: print(line, file=sys.stderr)
    )
    report(args.out, parts, lacking)
    if lacking:
        sys.exit(1)


def report(
    folder: Path, parts: Sequence[published.Part], lacking: Mapping[str, Sequence[str]]
) -> None:
    """Print what is there, what could not be had, and what can be done with the former."""
    for part in parts:
        files = lacking.get(part.name, [])
        if part.one and files:
            print(f'{part.name}: not had, in none of its forms')
        elif part.one:
            there = [file.name for file in part.files if download.is_there(folder, file)]
            notes = [file.note for file in part.files if file.name == there[0]]
            print(f'{part.name}: {there[0]} ({notes[0]})')
        elif files:
            count = len(part.files) - len(files)
            print(f'{part.name}: {count} of {len(part.files)} files; not had: {", ".join(files)}')
        else:
            print(f'{part.name}: all there')
    if any(folder.glob('*.part')):
        print('What was begun goes on when this is run again.')
    had = [part.name for part in published.PARTS if not download.missing(folder, part)]
    print(f'With what is in {folder}:')
    print(published.uses(folder, had))


if __name__ == '__main__':
    run(main)
