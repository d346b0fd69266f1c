"""Many photos: finding them, and keeping the rows of what was told so that a run can go on.

A row is one line of JSON for each photo and style, written as it is told. Files of rows merge by
being put one after the other.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ..errors import ModelFileError
from ..io.files import at_home, atomic_path
from ..io.picture_files import read_suffixes, why_passed_over
from ..options import StoryOptions

BEGIN = b'{"image": '  # how every row begins

Row = dict[str, Any]
Key = tuple[str, str | None]  # photo and style


@dataclass(frozen=True)
class Found:
    """A photo: what it is called in the rows, and where it is."""

    name: str
    path: Path


@dataclass(frozen=True)
class Finds:
    """Photos, and by their names, why files that look like photos are passed over."""

    photos: list[Found]
    passed_over: dict[str, str]


Job = tuple[list[Found], str | None]  # photos to tell together, and in which style

# --- photos --------------------------------------------------------------------------------------


def find_photos(inputs: Sequence[str | os.PathLike], listed: TextIO | None = None) -> Finds:
    """The photos that folders, files and patterns name, each once.

    Parameters
    ----------
    inputs : sequence of paths
        Folders are looked through with all that is below, hidden files apart; other paths are
        photos, or patterns such as ``'2015-*/*.jpg'``; ``'-'`` stands for the paths in `listed`
        (``'./-'`` is a file of that name).
    listed : text file, optional
        A path a line.

    Returns
    -------
    Finds
        Sorted by name within each input. In one folder alone, names are paths from there; else
        they are the paths as given. In folders, what is called like a photo is one.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If an input names nothing, or holds no photo.
    """
    given = [os.fspath(each) for each in inputs]
    alone = len(given) == 1 and given[0] != '-'
    alone = alone and not (Path(given[0]).is_file() or _is_pattern(given[0]))
    found: dict[str, Found] = {}
    over: dict[str, str] = {}
    for each in _expanded(given, listed):
        if alone or Path(each).is_dir():
            below, passed = _in_folder(Path(each))
            start = Path() if alone else Path(each)  # of the names
            paths = {(start / name).as_posix(): Path(each, name) for name in below}
            over |= {(start / name).as_posix(): reason for name, reason in passed.items()}
        else:
            paths = {name: Path(name) for name in _matching(each)}
        found |= {name: Found(name, path) for name, path in paths.items()}
    if not found:
        raise FileNotFoundError('no photos are named')
    return Finds(list(found.values()), {n: why for n, why in over.items() if n not in found})


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path) and not Path(path).exists()


def _expanded(inputs: Iterable[str], listed: TextIO | None) -> Iterator[str]:
    for each in inputs:
        if each == '-':
            if listed is None:
                raise FileNotFoundError('-: there is no list of photos, since stdin is closed')
            yield from (at_home(line) for line in map(str.rstrip, listed) if line)
        else:
            yield each


def _in_folder(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Photos below a folder, and what looks like one but is passed over, with the reason."""
    if not folder.is_dir():
        raise NotADirectoryError(f'{folder}: no such folder of photos')
    suffixes = read_suffixes()
    names: list[str] = []
    passed: dict[str, str] = {}
    for path in sorted(folder.rglob('*')):
        below, named = path.relative_to(folder), path.suffix.lower() in suffixes
        hidden = any(part[0] == '.' for part in below.parts)
        if named and not hidden and path.is_file():
            names.append(below.as_posix())
        elif reason := _why_not(path, named, hidden):
            passed[below.as_posix()] = reason
    names.sort()
    if not names:
        looked = f'{folder}: no photos there ({" ".join(sorted(suffixes))})'
        raise FileNotFoundError('; '.join([looked, *said_of(passed)]))
    return names, passed


def _why_not(path: Path, named: bool, hidden: bool) -> str | None:
    """Why a file, or what is in a folder, is passed over; None if no photo is missed by that."""
    if path.is_dir():
        if path.is_symlink() and not hidden:
            return 'a link to a folder; name it too to have its photos told'
        closed = not hidden and not os.access(path, os.R_OK | os.X_OK)
        return 'a folder that cannot be read' if closed else None
    if not path.is_file():
        return 'no regular file, or a link to none' if named else None
    return 'hidden' if named else why_passed_over(path)


def said_of(passed_over: Mapping[str, str]) -> list[str]:
    """A line for each reason why files were passed over, with their number and names."""
    names: dict[str, list[str]] = {}
    for name, reason in passed_over.items():
        names.setdefault(reason, []).append(name)
    return [f'passed over {len(n)} ({reason}): {", ".join(n)}' for reason, n in names.items()]


def _matching(pattern: str) -> list[str]:
    """A file itself, also one that is not there and will be a row with its error; or a pattern."""
    if not _is_pattern(pattern):
        return [pattern]
    names = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    if not names:
        raise FileNotFoundError(f'{pattern}: no file is called so')
    return names


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of a list, as array jobs take them: '2/10' is the second of ten.

    Examples
    --------
    >>> Shard.read('2/3').of(list('abcdefg'))
    ['b', 'e']
    """

    number: int
    count: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """From ``'i/n'``, 1 <= i <= n."""
        number, _, count = text.partition('/')
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ValueError(f"shard: expected 'i/n' with i from 1 to n, found {text!r}")
        return cls(int(number), int(count))

    def of(self, items: Sequence[Any]) -> list[Any]:
        """What belongs to this part."""
        return list(items[self.number - 1 :: self.count])

    @property
    def file_name(self) -> str:
        """``results.jsonl``, or with the part in its name if there are several."""
        part = f'.{self.number}-of-{self.count}' if self.count > 1 else ''
        return f'results{part}.jsonl'


# Settings that rows need not have, and what they are then.
USUAL = {'telling': None, 'precision': None, 'maxlen': 1000}

# --- rows ----------------------------------------------------------------------------------------


def read_rows(path: Path, settings: Mapping[str, Any]) -> dict[Key, Row]:
    """The rows that an earlier run wrote, by photo and style; none if there is no such file.

    All rows must have been told with the `settings`, style apart. Of several rows of a photo in a
    style the last one counts, but a story before any failure. A last line without its end was cut
    by a kill: it is taken off the file, and its photo told again.

    Raises
    ------
    ValueError
        If a line is no such row, or was told with other settings: nobody could tell them apart.
    """
    if not path.exists():
        return {}
    written, _, cut = parse(path, _fault)
    rows: dict[Key, Row] = {}
    for row in written:
        image, told_with = row['image'], row['settings']
        for name, value in settings.items():
            before = told_with.get(name) or USUAL.get(name, told_with.get(name))
            if name != 'style' and before != value:
                raise ValueError(
                    f'{path}: {image} was told with {name} {before!r}, not {value!r}; '
                    'choose another --out'
                )
        key = image, told_with.get('style')
        if 'error' not in row or 'error' in rows.get(key, row):
            rows[key] = row
    if cut:
        with open(path, 'rb+') as file:
            file.truncate(path.stat().st_size - len(cut))
    return rows


def parse(path: Path, fault: Callable[[Any], str | None]) -> tuple[list[Row], list[Row], bytes]:
    """The rows of a file; a last one whose line lacks its end; and that line, whole or cut.

    `fault` says what keeps a value from being a row.
    """
    *lines, last = path.read_bytes().split(b'\n')
    rows = []
    for number, line in enumerate([*lines, last], 1):
        try:
            row = json.loads(line)
            reason = fault(row)
        except (ValueError, RecursionError):  # the second for brackets in brackets in brackets
            reason = 'not a line of JSON'
        if reason is None:
            rows.append(row)
        elif number <= len(lines) or not (line.startswith(BEGIN) or BEGIN.startswith(line)):
            raise ModelFileError(f'{path}, line {number}: {reason}')
    return rows[: len(lines)], rows[len(lines) :], last


def _fault(row: Any) -> str | None:
    ours = isinstance(row, Mapping) and isinstance(row.get('image'), str)
    return None if ours and isinstance(row.get('settings'), Mapping) else 'not a row of results'


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row to a file, and hand it to the system at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a', encoding='ascii', newline='\n') as file:
        file.write(json.dumps(row) + '\n')


def drop_replaced(path: Path, settings: Mapping[str, Any]) -> None:
    """Take off a file what :func:`read_rows` leaves out, as failures that were tried again.

    What remains keeps the order in which photos came first.
    """
    lines = [json.dumps(row) + '\n' for row in read_rows(path, settings).values()]
    if lines and len(lines) < path.read_bytes().count(b'\n'):
        with atomic_path(path) as temporary:
            temporary.write_text(''.join(lines), encoding='ascii', newline='\n')


def check_writable(folder: Path) -> None:
    """Refuse an output folder that cannot be made or written, before anything is told."""
    folder = folder.absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise OSError(f'--out {folder}: {nearest} is not a folder that can be written')


# --- telling -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What to process, and how.

    Attributes
    ----------
    models, precision
        As for `storyteller.generate.load_all`.
    styles : tuple of str or None
        None is the models' own.
    options : StoryOptions
        Style apart.
    settings : dict
        What each row says it was told with.
    """

    models: str | list[str] | None
    styles: tuple[str | None, ...]
    options: StoryOptions
    settings: dict[str, Any]
    precision: str = 'float32'

    def load(self) -> dict[str, Any]:
        """The models; wrong options are refused here, before the first photo."""
        from .. import generate  # torch is loaded once it is known that there is something to do

        z = generate.load_all(self.models, precision=self.precision)
        for style in self.styles:
            generate.stories(z, [], **vars(self.options) | {'style': style})
        return z

    def rows(
        self, z: Mapping[str, Any], names: Sequence[str], photos: Sequence[Any], style: str | None
    ) -> Iterator[Row]:
        """Tell photos in one style: a row for each, in order, also for what failed."""
        from .. import generate

        asked = vars(self.options) | {'style': style}
        told = generate.stories(z, photos, on_error='return', batch_size=len(photos), **asked)
        for name, story in zip(names, told, strict=True):
            yield self.row(name, story, style)

    def told(self, z: Mapping[str, Any], jobs: Iterable[Job]) -> Iterator[Row]:
        """Tell batches: a row for each photo. The next batch is read while one is told."""
        from ..ahead import photos_ahead

        batches = (([photo.path for photo in found], (found, style)) for found, style in jobs)
        side, reading = z['net'].get('side'), self.options.reading
        for photos, (found, style) in photos_ahead(batches, side, reading):
            yield from self.rows(z, [photo.name for photo in found], photos, style)

    def row(self, name: str, told: Any, style: str | None) -> Row:
        """The row of a `Story` or a `StoryError`."""
        row = told.to_dict() | {'image': name}
        kept = row.get('settings', {}) | self.settings | {'style': style}
        return row | {'settings': kept}

    def missing(
        self, photos: Sequence[Found], known: Mapping[Key, Any], size: int
    ) -> Iterator[Job]:
        """Batches of photos, each with a style, that have no row yet."""
        for first in range(0, len(photos), size):
            for style in self.styles:
                batch = [p for p in photos[first : first + size] if (p.name, style) not in known]
                if batch:
                    yield batch, style
