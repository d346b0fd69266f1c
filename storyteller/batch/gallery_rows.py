"""Rows of results as the cards of a gallery: reading, validation and labels.

The rows are those that ``scripts/story_folder.py`` writes. All rows of a photo share one card,
with a version for each way in which it was told.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import text
from ..errors import MissingFileError, PathLike
from ..story import SHOWN
from .results import parse

FIRST_SETTINGS = ('style', 'lyric', 'strength', 'seed')  # the order on a button; others follow


@dataclass(frozen=True)
class Version:
    """One story of a photo, as it is displayed."""

    label: str
    lines: list[str]  # one, but in lyric mode one for each line
    verse: bool
    captions: list[tuple[str, float]]
    others: list[str]  # the next best texts, where several were asked for


@dataclass(frozen=True)
class Card:
    """A photo and its stories, or the reasons why it has none."""

    image: str
    versions: list[Version]
    errors: list[str]

    @property
    def nearest(self) -> str:
        """Alternative text of the photo: the caption that describes it best."""
        return next((words for version in self.versions for words, _ in version.captions), '')

    @property
    def shared_captions(self) -> list[tuple[str, float]] | None:
        """The captions if they are those of every version, as they are for one set of models."""
        first, *others = (version.captions for version in self.versions)
        return first if all(captions == first for captions in others) else None


def read_rows(path: PathLike) -> list[dict[str, Any]]:
    """Read a results file, as ``scripts/story_folder.py`` writes it: one row of JSON per line.

    A last line that was cut while it was written is left out, with a warning.

    Raises
    ------
    MissingFileError, ModelFileError
        If the file is not there, or a line is no such row; the message names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f'{path}: no such file of results')
    rows, last, line = parse(path, _fault)
    if line and not last:
        warnings.warn(f'{path}: the last line is cut, and left out', stacklevel=2)
    return rows + last


def gather(rows: Iterable[Mapping[str, Any]]) -> list[Card]:
    """The cards of a page, in order of the first row of each photo.

    A ValueError says that there are no rows, or which one is none of ours.
    """
    told: dict[str, dict[str, Mapping[str, Any]]] = {}  # photo -> settings -> row
    errors: dict[str, dict[str, None]] = {}
    for number, row in enumerate(rows, 1):
        if reason := _fault(row):
            raise ValueError(f'row {number}: {reason}')
        versions = told.setdefault(row['image'], {})
        if 'error' in row:
            errors.setdefault(row['image'], {})[writable(row['error'])] = None
        else:
            versions[json.dumps(row.get('settings'), sort_keys=True, default=str)] = row
    if not told:
        raise ValueError('there are no rows, so there is nothing to show')
    named = _differing(told.values())
    return [
        Card(image, _versions(list(versions.values()), named), list(errors.get(image, ())))
        for image, versions in told.items()
    ]


def _fault(row: Any) -> str | None:
    """What keeps a value from being a row of ours, or None."""
    if not isinstance(row, Mapping) or not isinstance(row.get('image'), str):
        return "not a row of results: expected an object with a text 'image'"
    if 'error' in row:
        return None if isinstance(row['error'], str) else "'error': expected a text"
    settings, lines, captions = (row.get(name) for name in ('settings', 'lines', 'captions'))
    if not isinstance(row.get('prose'), str):
        return "'prose': expected a text"
    if not isinstance(settings, Mapping):
        return "'settings': expected an object"
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        return "'lines': expected a list of texts"
    for name, pairs in (('captions', captions), ('others', row.get('others', []))):
        if not _are_scored(pairs):
            return f'{name!r}: expected a list of pairs [text, score]'
    return None


def _are_scored(pairs: Any) -> bool:
    """Whether a value is a list of texts with their scores."""
    try:
        right = all(isinstance(words, str) and abs(score) < 1e6 for words, score in pairs)
    except (TypeError, ValueError):
        return False
    return right and isinstance(pairs, list)


def _differing(photos: Iterable[Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """The settings that tell versions of a photo apart, on the whole page, in a fixed order."""
    found = set()
    for versions in photos:
        settings = [row['settings'] for row in versions.values()]
        for name in {name for one in settings for name in one}:
            if any(one.get(name) != settings[0].get(name) for one in settings):
                found.add(name)
    return [name for name in FIRST_SETTINGS if name in found] + sorted(found - {*FIRST_SETTINGS})


def _versions(rows: list[Mapping[str, Any]], named: list[str]) -> list[Version]:
    result, labels = [], [_label(row['settings'], named) for row in rows]
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        if label in labels[:index]:  # styles of the same name in two folders, say
            label = f'{label} ({labels[: index + 1].count(label)})'
        verse = bool(row['settings'].get('lyric'))
        lines = [text.detokenise(line) for line in row['lines']] if verse else [row['prose']]
        captions = [(_tidy(words), score) for words, score in row['captions'][:SHOWN]]
        lines = [writable(line) for line in lines if line.strip()]
        others = [writable(text.detokenise(other)) for other, _ in row.get('others', [])]
        result.append(Version(writable(label), lines, verse, captions, others))
    return result


def _label(settings: Mapping[str, Any], named: Sequence[str]) -> str:
    """What the button of a version says; the usual (no verse, full strength) goes unsaid."""
    parts = filter(None, (_words(name, settings.get(name)) for name in named))
    silent = {'lyric': 'in prose', 'seed': 'likeliest'}  # with no seed the search takes the best
    return ', '.join(parts) or next((silent.get(name, 'usual') for name in named), '')


def _words(name: str, value: Any) -> str:
    """One setting as a button says it."""
    if name == 'style':
        return _style(value)
    if value is None or (name == 'strength' and value == 1):
        return ''
    if name == 'lyric':
        return 'in verse' if value else ''
    if isinstance(value, Mapping):
        return ', '.join(f'{key} {_number(inner)}' for key, inner in value.items())
    return f'{"beam" if name == "bw" else name} {_number(value)}'


def _style(value: Any) -> str:
    if value is None:
        return 'usual style'
    if isinstance(value, Mapping):
        return ' + '.join(f'{_style(name)} {_number(weight)}' for name, weight in value.items())
    return re.split(r'[\\/]', str(value))[-1].removesuffix('.npy') or str(value)


def _number(value: Any) -> str:
    return f'{value:g}' if isinstance(value, float) else str(value)


def _tidy(caption: str) -> str:
    return writable(text.detokenise(caption))


def writable(words: str) -> str:
    """Without the halves of characters that a file name of no known encoding is read as."""
    return words.encode('utf-8', 'replace').decode()
