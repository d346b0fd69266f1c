"""Make an HTML page of photos and stories from the results of story_folder.py."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from storyteller import gallery
from storyteller.cli.arguments import add_max_pixels, run
from storyteller.io import picture_files


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__)
    result.add_argument(
        'results',
        type=Path,
        nargs='+',
        metavar='RESULTS',
        help='results.jsonl; several are merged',
    )
    result.add_argument(
        '--photos', type=Path, required=True, metavar='FOLDER', help='folder of the photos'
    )
    result.add_argument(
        '--out', type=Path, required=True, metavar='PAGE', help='output file, ending in .html'
    )
    result.add_argument('--title', default='Stories about photos', help='its heading (%(default)s)')
    result.add_argument(
        '--beside', action='store_true', help='keep the pictures in a folder beside the page'
    )
    add_max_pixels(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 if the page was made, 2 if the results or arguments are wrong."""
    options = parser().parse_intermixed_args(arguments)
    warnings.showwarning = lambda message, *_: print(f'make_gallery: {message}', file=sys.stderr)
    picture_files.register_plugins()
    try:
        rows = [row for path in options.results for row in gallery.read_rows(path)]
        made = gallery.write_gallery(
            rows,
            options.photos,
            options.out,
            title=options.title,
            embed=not options.beside,
            max_pixels=options.max_pixels,
            verbose=True,
        )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f'make_gallery: {error}', file=sys.stderr)
        return 2
    print(
        f'{options.out}: {made.photos} photos, {made.failed} of them not told; {made.stories} '
        f'stories, {made.without_picture} of the photos told without picture'
    )
    return 0


if __name__ == '__main__':
    run(main)
