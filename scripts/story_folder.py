"""Tell the story of every photo in a folder.

The stories are appended to results.jsonl in the output folder, one line of JSON for each photo as
it is told. Photos that have a line are left alone, so the same command goes on after an
interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

SUFFIXES = (
    '.avif', '.bmp', '.gif', '.jfif', '.jp2', '.jpe', '.jpeg', '.jpg', '.mpo', '.png', '.ppm',
    '.tga', '.tif', '.tiff', '.webp',
)  # fmt: skip
ROW = b'{"image": '  # how every row begins
SETTINGS = ('k', 'bw', 'lyric', 'style', 'strength', 'seed', 'models')


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument('folder', type=Path, metavar='FOLDER', help='photos, also in sub-folders')
    result.add_argument('--out', type=Path, required=True, metavar='DIR', help='for results.jsonl')
    result.add_argument('-k', type=int, default=100, help='captions to average (%(default)s)')
    result.add_argument('--bw', type=int, default=50, help='beam width (%(default)s)')
    result.add_argument(
        '--lyric', action='store_true', help='note in each row that it is to be set in lines'
    )
    result.add_argument('--style', help='a style of the models, or a .npy file of your own')
    result.add_argument(
        '--strength', type=float, default=1.0, help='how far to shift the style (%(default)s)'
    )
    result.add_argument('--models', metavar='DIR', help='a folder of models to use instead')
    result.add_argument('--seed', type=int, help='sample stories by this number')
    result.add_argument(
        '--allow-truncated', action='store_true', help='take photos whose files are cut short'
    )
    result.add_argument(
        '--batch-size', type=int, default=16, help='photos told at once (%(default)s)'
    )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 if every photo of the folder was told, 1 if one failed, 2 for wrong arguments."""
    options = parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_: print(f'story_folder: {message}', file=sys.stderr)
    results = options.out / 'results.jsonl'
    settings = {name: getattr(options, name) for name in SETTINGS}
    try:
        for name in ('k', 'bw', 'batch_size'):
            if getattr(options, name) < 1:
                raise ValueError(f'{name}: expected 1 or more, found {getattr(options, name)}')
        photos = find_photos(options.folder)
        known = read_results(results, settings)
        new = [name for name in photos if name not in known]
        if new:
            check_writable(options.out)
        rows = [known[name] for name in photos if name in known]
        before = len(rows)
        reading = {'batch_size': options.batch_size, 'allow_truncated': options.allow_truncated}
        for row in tell(options.folder, new, settings, reading) if new else ():
            append(results, row)
            rows.append(row)
    except (ValueError, OSError) as error:
        print(f'story_folder: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('story_folder: stopped; the same command goes on from here', file=sys.stderr)
        return 130
    failed = sum('error' in row for row in rows)
    print(f'{results}: {len(rows) - failed} told, {failed} failed ({before} from before)')
    return 1 if failed else 0


def find_photos(folder: Path) -> list[str]:
    """The photos in a folder and below, as paths from there, sorted; hidden files are left out."""
    if not folder.is_dir():
        raise NotADirectoryError(f'{folder}: no such folder of photos')
    paths = (path.relative_to(folder) for path in folder.rglob('*') if path.is_file())
    photos = sorted(
        path.as_posix()
        for path in paths
        if path.suffix.lower() in SUFFIXES and not any(part[0] == '.' for part in path.parts)
    )
    if not photos:
        raise FileNotFoundError(f'{folder}: no photos there ({" ".join(SUFFIXES)})')
    return photos


def read_results(path: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows that an earlier run wrote, by photo.

    A last line without its end was cut by a kill: it is taken off the file, and its photo told
    again. Rows that were told with other settings are refused, since nobody could tell them apart
    later.
    """
    if not path.exists():
        return {}
    *lines, cut = path.read_bytes().split(b'\n')
    rows = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            image, told_with = row['image'], dict(row['settings'])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f'{path}, line {number}: not a row that this script wrote') from None
        for name, value in settings.items():
            if told_with.get(name) != value:
                raise ValueError(
                    f'{path}: {image} was told with {name} {told_with.get(name)!r}, not {value!r}; '
                    'choose another --out'
                )
        rows[image] = row
    if not (cut.startswith(ROW) or ROW.startswith(cut)):
        raise ValueError(f'{path}, line {len(lines) + 1}: not a row that this script wrote')
    if cut:
        with open(path, 'rb+') as file:
            file.truncate(path.stat().st_size - len(cut))
    return rows


def check_writable(folder: Path) -> None:
    """Refuse an output folder that cannot be made or written, before anything is told."""
    folder = folder.absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise OSError(f'--out {folder}: {nearest} is not a folder that can be written')


def tell(
    folder: Path, names: list[str], settings: Mapping[str, Any], reading: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Tell photos batch by batch, and yield the row of each."""
    from storyteller import generate  # after the arguments are known to be right: it takes seconds

    told_with = {name: value for name, value in settings.items() if name != 'models'}
    z = generate.load_all(settings['models'])
    generate.stories(z, [], **told_with)  # refuses wrong options before the progress begins
    with tqdm(total=len(names), unit='photo') as progress:
        for first in range(0, len(names), reading['batch_size']):
            batch = names[first : first + reading['batch_size']]
            photos = [folder / name for name in batch]
            stories = generate.stories(z, photos, **told_with, **reading, on_error='return')
            for name, told in zip(batch, stories, strict=True):
                row = told.to_dict() | {'image': name}
                yield row | {'settings': row.get('settings', {}) | settings}
                progress.update()


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row to a file, and hand it to the system at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a', encoding='ascii', newline='\n') as file:
        file.write(json.dumps(row) + '\n')


if __name__ == '__main__':
    sys.exit(main())
