"""Fetch the models published in 2015 (6.8 GB) into a folder that load_all takes.

    python scripts/download_models.py --out published
    python -m storyteller --models published PHOTO

What is there already is left alone, and a download that was cut goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from storyteller import download
from storyteller.command_line import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='where to')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='of the files below')
    parser.add_argument('--mirror', metavar='URL', help='a place that holds all files by name')
    parser.add_argument('--list', action='store_true', help='print the files and fetch nothing')
    args = parser.parse_args()
    files = download.FILES
    if args.only:
        known = {file.name: file for file in files}
        if unknown := [name for name in args.only if name not in known]:
            raise ValueError(f'--only: {unknown[0]!r} is none of {", ".join(known)}')
        files = tuple(known[name] for name in args.only)
    if args.list:
        for file in files:
            print(f'{file.url}  {file.size:,} bytes  sha256 {file.sha256 or "not known"}')
        return
    failed = download.fetch_all(args.out, files, args.mirror)
    for why in failed.values():
        print(f'not had: {why}', file=sys.stderr)
    print(f'{args.out}: {len(files) - len(failed)} of {len(files)} files are there')
    if failed:
        sys.exit(1)


if __name__ == '__main__':
    run(main)
