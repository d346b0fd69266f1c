"""Captions of photos in the formats of the common data sets."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ... import text
from ...formats import ModelFileError, PathLike
from ..process_state import say
from .text_files import TYPOGRAPHY, read_text

NAMES = 'image', 'image_name', 'file_name', 'filename', 'photo'  # of columns, in a first line
TEXTS = 'caption', 'comment', 'raw'
LOOKED_AT = 1000  # lines of a file that are judged
_STOPPED = re.compile(r'.*\w[.!?]')
_NUMBER = re.compile(r'(.+\.\w+)#\d+')


Written = Iterator[tuple[tuple[str, ...], str, bool]]


def read_captions(path: PathLike) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The captions of a file, each with its photo: names, and words.

    It is UTF-8 text, which may be ``.gz`` or ``.xz``. By what stands in it, it is one of

    - lines ``photo<TAB>caption``, as our own are: fields between are ignored, words stand between
      blanks. Of ``name.jpg#0``, as in Flickr8k and Flickr30k, the number is dropped;
    - CSV whose first line names the columns, such as ``image,caption`` or
      ``image_name| comment_number| comment``, as on Kaggle;
    - JSON as of COCO, with ``images`` and ``annotations``;
    - JSON as of Karpathy, with the ``sentences`` of each of its ``images``. Photos of the split
      ``test`` are left out.

    The names are those that the photo may go by, the best first: in Karpathy's with its folder,
    then without. Captions of CSV and JSON, which are written as people write, are parted here; so
    are lines if most of them end in a word with a full stop on it. A MissingFileError or
    ModelFileError says that there is no such file, or that it is none of these.
    """
    for names, caption, typed in as_written(path):
        yield names, _words(caption) if typed else caption.split()


def as_written(path: PathLike) -> Written:
    """The same, each caption as it stands there, and whether its words have yet to be parted."""
    lines = read_text(path)
    first = next(lines, '')
    if first.lstrip().startswith(('{', '[')):
        yield from _of_json(path, '\n'.join([first, *lines]))
    elif columns := _columns(first):
        yield from _of_table(path, lines, *columns)
    else:
        yield from _of_lines(path)


def _of_lines(path: PathLike) -> Written:
    typed = _are_typed(itertools.islice(read_text(path), LOOKED_AT))
    for number, line in enumerate(read_text(path), 1):
        name, tab, caption = line.partition('\t')
        if line.strip() and not tab:
            raise ModelFileError(
                f'{path}: line {number} is not photo<TAB>caption, and the file is neither CSV '
                f'with a first line such as "image,caption" nor JSON of COCO or Karpathy'
            )
        if caption.strip():
            numbered = _NUMBER.fullmatch(name)
            names = (numbered[1], name) if numbered else (name,)
            yield names, caption.rpartition('\t')[2].strip(), typed


def _are_typed(lines: Iterable[str]) -> bool:
    """Whether most captions end in a word with a stop on it, as in what somebody typed."""
    last = [line.split()[-1] for line in lines if line.strip()]
    return sum(bool(_STOPPED.fullmatch(word)) for word in last) > len(last) / 2


def _columns(line: str) -> tuple[str, int, int] | None:
    """What parts the columns, and which hold photo and caption; None if the line names none."""
    for mark in '\t' if '\t' in line else ',|;':
        names = [name.strip(' "').lower() for name in line.split(mark)]
        found = [[names.index(n) for n in known if n in names] for known in (NAMES, TEXTS)]
        if all(found):
            return mark, found[0][0], found[1][0]
    return None


def _of_table(path: PathLike, lines: Iterator[str], mark: str, photo: int, caption: int) -> Written:
    quoting: Any = csv.QUOTE_MINIMAL if mark in ',;' else csv.QUOTE_NONE
    rows = csv.reader(lines, delimiter=mark, quoting=quoting)
    short = 0
    try:
        for row in rows:
            if len(row) > max(photo, caption):
                yield (row[photo].strip(),), _one_line(row[caption]), True
            elif row:
                short += 1
    except csv.Error as error:
        raise ModelFileError(f'{path}: line {rows.line_num + 1}: not CSV: {error}') from None
    if short:
        say(f'{path}: {short} lines without a caption are passed over')


def _of_json(path: PathLike, content: str) -> Written:
    try:
        found = json.loads(content)
        if 'annotations' in found:
            texts: dict[Any, list[str]] = {image['id']: [] for image in found['images']}
            for each in found['annotations']:  # in any order; a photo's belong together
                texts[each['image_id']].append(each['caption'])
            for image in found['images']:
                for caption in texts[image['id']]:
                    yield (image['file_name'],), _one_line(caption), True
        else:
            yield from _of_karpathy(path, found['images'])
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f'{path}: not JSON: {error}') from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f'{path}: neither JSON of COCO (images, annotations) nor of Karpathy (images with '
            f'sentences): {type(error).__name__}: {error}'
        ) from None


def _of_karpathy(path: PathLike, images: list[dict[str, Any]]) -> Written:
    left_out = 0
    for image in images:
        if image.get('split') == 'test':
            left_out += 1
            continue
        folder, name = image.get('filepath'), image['filename']
        names = (f'{folder}/{name}', name) if folder else (name,)
        for sentence in image['sentences']:
            yield names, _one_line(sentence['raw']), True
    if left_out:
        say(f'{path}: {left_out} photos of the split "test" are left out')


def _words(caption: str) -> list[str]:
    """The words of a caption as somebody typed it."""
    return text.words(_one_line(caption.translate(TYPOGRAPHY)))


def _one_line(caption: str) -> str:
    return ' '.join(caption.split())
