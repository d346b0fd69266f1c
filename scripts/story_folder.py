"""Tell the stories of many photos: folders, files, patterns, or a list on stdin (-).

A line of JSON is added to results.jsonl in the output folder for each photo and style as it is
told. A story that is there is left alone, so the same command goes on after an interruption; what
failed is tried again, since the photo may have been mended.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from storyteller import config
from storyteller.batch import processes, results
from storyteller.cli.arguments import add_story, check_counts, run, story_from, use_threads
from storyteller.io import bundle, picture_files

ADDRESS = re.compile(r'auto|local|(ray://)?[^/]+:\d+')  # of a Ray cluster


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument(
        'photos', nargs='+', metavar='PHOTOS', help='folders, files, patterns, or - to read a list'
    )
    result.add_argument('--out', type=Path, required=True, metavar='DIR', help='output folder')
    add_story(result, several_styles=True)
    result.add_argument('--batch-size', type=int, default=16, help='photos per batch (%(default)s)')
    result.add_argument(
        '--gallery', action='store_true', help='also write an HTML page of all results'
    )
    result.add_argument('--shard', metavar='I/N', default='1/1', help='process part I of N only')
    result.add_argument(
        '--ray',
        nargs='?',
        const='',
        metavar='ADDRESS',
        help='run on a Ray cluster, or a local one',
    )
    result.add_argument(
        '--actors', type=int, default=1, help='with --ray: number of actors (%(default)s)'
    )
    result.add_argument(
        '--processes',
        type=int,
        default=1,
        metavar='N',
        help='number of processes, each with the models; one per core is fastest (%(default)s)',
    )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 if every photo was told, 1 if one failed, 2 for wrong arguments."""
    args = parser().parse_intermixed_args(arguments)  # photos may stand between the options
    warnings.showwarning = lambda message, *_: print(f'story_folder: {message}', file=sys.stderr)
    try:
        picture_files.register_plugins()
        check_counts(args, 'batch_size', 'actors', 'processes')
        several = args.processes > 1
        if several and args.ray is not None:
            raise ValueError('--processes: on a Ray cluster, say --actors')
        threads = max(1, processes.cores() // args.processes) if several else None
        use_threads(threads if args.threads is None else args.threads)
        if args.ray and not ADDRESS.fullmatch(args.ray):
            raise ValueError(
                f'--ray: expected auto, HOST:PORT or ray://HOST:PORT, found {args.ray!r}; if '
                'that is a photo, let it stand before --ray'
            )
        shard, plan = results.Shard.read(args.shard), plan_of(args)
        written = args.out / shard.file_name
        finds = results.find_photos(args.photos, sys.stdin)
        photos, passed = shard.of(finds.photos), dict(shard.of([*finds.passed_over.items()]))
        known = results.read_rows(written, plan.settings)
        wanted = {(photo.name, style) for photo in photos for style in plan.styles}
        told = {key: row for key, row in known.items() if 'error' not in row}
        rows = [told[key] for key in wanted if key in told]
        before = len(rows)
        if before < len(wanted):
            results.check_writable(args.out)
            jobs = plan.missing(photos, told, args.batch_size)
            if several:
                new = processes.tell(plan, jobs, args.processes)
            elif args.ray is None:
                new = plan.told(plan.load(), jobs)
            else:
                from storyteller.batch import ray_data

                new = ray_data.tell(plan, jobs, args.ray or None, args.actors)
            with tqdm(total=len(wanted), initial=before, unit='story') as progress:
                try:
                    for row in new:
                        results.append_row(written, row)
                        rows.append(row)
                        progress.update()
                finally:
                    results.drop_replaced(written, plan.settings)
    except (ValueError, OSError) as error:
        print(f'story_folder: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('story_folder: stopped; the same command goes on from here', file=sys.stderr)
        return 130
    if args.gallery and (status := make_gallery(args)):
        return status
    failed = sum('error' in row for row in rows)
    for line in results.said_of(passed):
        print(f'story_folder: {line}', file=sys.stderr)
    over = f', {len(passed)} passed over' if passed else ''
    print(f'{written}: {len(rows) - failed} told, {failed} failed ({before} from before){over}')
    return 1 if failed else 0


def make_gallery(args: argparse.Namespace) -> int:
    """Write gallery.html beside the results, of those of all shards that are there."""
    from storyteller.gallery import read_rows, write_gallery

    folder = Path(args.photos[0])  # names are paths from there, if it is the only one
    try:
        rows = [row for path in sorted(args.out.glob('results*.jsonl')) for row in read_rows(path)]
        if len(args.photos) > 1 or not folder.is_dir():
            names = [row['image'] for row in rows]
            absolute = names and all(map(os.path.isabs, names))
            folder = Path(os.path.commonpath(map(os.path.dirname, names)) if absolute else '')
        page = args.out / 'gallery.html'
        write_gallery(rows, folder, page, max_pixels=args.max_pixels, verbose=True)
    except (ValueError, OSError, ImportError) as error:
        print(f'story_folder: {error}', file=sys.stderr)
        return 2
    print(page)
    return 0


def plan_of(args: argparse.Namespace) -> results.Plan:
    """What the command line asks for."""
    files = config.resolve(args.models)
    options = story_from(args, bundle.search_settings(files['decmodel']))
    settings = options.settings | {
        'telling': json.loads(json.dumps(options.search.changed())) or None,  # as in a row
        'models': args.models,
        'precision': None if args.precision == 'float32' else args.precision,
        'models_sha256': bundle.fingerprint(config.folders(files)),
    }
    styles = tuple(args.style or [None])
    return results.Plan(args.models, styles, options, settings, args.precision)


if __name__ == '__main__':
    run(main)
