"""Blind panels: sheets of texts for readers, and the evaluation of their marks.

A sheet mixes texts of several sources. It is a folder's ``panel.md`` to read and ``panel.csv`` to
fill in, or ``panel-1.md`` and so on for several readers; ``panel_key.json`` says which sheet holds
which numbers, and the source of each. Numbers run on from sheet to sheet.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..formats import PathLike, existing, read_lines, write_text

KEY = 'panel_key.json'
FIVE = ('grammatical', 'sense', 'about')  # marked 1 to 5
MARKS = (*FIVE, 'person')
PERSON = {'yes': 100.0, 'y': 100.0, 'no': 0.0, 'n': 0.0}  # so that a mean is in percent

HEAD = """# Which of these make sense?

Each number is a caption and a text. Some of the texts were written by a person, others by a
program. Read them in order, each once, and fill in its row of `{form}`:

- `grammatical`, 1 to 5: 1 is no English, 5 is without a mistake. Old-fashioned words are none.
- `sense`, 1 to 5: 1 is nonsense, 5 could happen as it is told. How the text begins or ends is not
  counted: it may be a piece of something longer.
- `about`, 1 to 5: 1 has nothing to do with the caption, 5 is about what the caption says. The text
  may add people and happenings.
- `person`, yes or no: was it written by a person?

Do not go back to change what you marked, and do not look texts up.
"""

Marks = dict[int, dict[str, float]]  # number -> mark -> value; `person` is 100 or 0
Key = dict[str, dict[int, str]]  # sheet -> number -> source


@dataclass(frozen=True)
class Text:
    """A text as it is presented to readers, under a caption; who wrote it, they are not told."""

    source: str
    caption: str
    prose: str


# --- sheets --------------------------------------------------------------------------------------


def deal(texts: Mapping[str, Sequence[Text]], readers: int = 1, seed: int = 0) -> list[list[Text]]:
    """Distribute the texts of each source evenly among the readers, and shuffle each sheet."""
    rng, dealt = np.random.default_rng(seed), []
    for reader in range(readers):
        own = [text for each in texts.values() for text in each[reader::readers]]
        dealt.append([own[i] for i in rng.permutation(len(own))])
    return dealt


def check_free(folder: PathLike) -> None:
    """Refuse a folder in which there is a panel: its key would not fit the forms that come back."""
    if (Path(folder) / KEY).exists():
        raise ValueError(f'{folder}: a panel is there already ({KEY}); choose another --out')


def write_panel(folder: PathLike, dealt: Sequence[Sequence[Text]]) -> list[Path]:
    """Write the sheets, one for each reader, a form for each, and the key; gives the sheets.

    A ValueError says that a panel is there already.
    """
    check_free(folder)
    folder, numbers = Path(folder), itertools.count(1)
    folder.mkdir(parents=True, exist_ok=True)
    key: dict[str, dict[int, str]] = {}
    for place, texts in enumerate(dealt, 1):
        name = f'panel-{place}' if len(dealt) > 1 else 'panel'
        numbered = list(zip(texts, numbers))  # noqa: B905 (numbers go on)
        key[name] = {number: text.source for text, number in numbered}
        body = [f'## {n}\n\nCaption: *{t.caption}*\n\n> {t.prose}\n' for t, n in numbered]
        write_text(folder / f'{name}.md', '\n'.join([HEAD.format(form=f'{name}.csv'), *body]))
        rows = [','.join(['number', *MARKS]), *(f'{n}{"," * len(MARKS)}' for _, n in numbered)]
        write_text(folder / f'{name}.csv', '\n'.join(rows) + '\n')
    write_text(folder / KEY, json.dumps(key, indent=1) + '\n')
    return [folder / f'{name}.md' for name in key]


# --- marks ---------------------------------------------------------------------------------------


def read_key(folder: PathLike) -> Key:
    """The source of each numbered text of each sheet."""
    path = existing(Path(folder) / KEY, 'the key of a panel')
    try:
        sheets = json.loads(path.read_text(encoding='utf-8'))
        return {name: {int(n): str(s) for n, s in each.items()} for name, each in sheets.items()}
    except (ValueError, AttributeError) as error:
        raise ValueError(f'{path}: not the key of a panel: {error}') from None


def read_marks(path: PathLike, key: Key) -> Marks:
    """The validated marks of a reader, from a form that was filled in, under any name.

    A ValueError names what is wrong: if a column or a row of the sheet is missing, a number is not
    of it (by the key, see :func:`read_key`) or there twice, or a mark is none.
    """
    reader = csv.DictReader(read_lines(path), skipinitialspace=True)
    if missing := [name for name in ('number', *MARKS) if name not in (reader.fieldnames or ())]:
        raise ValueError(f'{path}: expected a column {missing[0]!r}, found {reader.fieldnames}')
    found: Marks = {}
    for row in reader:
        text = (row['number'] or '').strip()
        number = int(text) if text.isdecimal() else None
        if number is None or number in found:
            wrong = 'a number twice' if number in found else 'no number'
            raise ValueError(f'{path}, line {reader.line_num}: {wrong}: {text!r}')
        found[number] = {name: _mark(path, number, name, row[name] or '') for name in MARKS}
    numbers = {name: each for name, each in key.items() if set(each) & set(found)}
    if len(numbers) != 1:
        sheet = ' and '.join(numbers) or 'none'
        raise ValueError(f'{path}: expected the numbers of one sheet, found those of {sheet}')
    (wanted,) = numbers.values()
    for number in sorted(set(wanted) ^ set(found)):
        wrong = 'missing' if number in wanted else 'not in the sheet'
        raise ValueError(f'{path}: the row of number {number} is {wrong}')
    return found


def _mark(path: PathLike, number: int, name: str, text: str) -> float:
    text = text.strip().lower()
    if name in FIVE and text in tuple('12345'):
        return float(text)
    if name == 'person' and text in PERSON:
        return PERSON[text]
    expected = '1 to 5' if name in FIVE else 'yes or no'
    raise ValueError(f'{path}, number {number}: {name}: expected {expected}, found {text!r}')


# --- what comes of them --------------------------------------------------------------------------


def scores(key: Key, readers: Sequence[Marks]) -> dict[str, dict[str, list[float]]]:
    """Source -> mark -> the mean of each reader; ``person`` in percent.

    A reader whose sheet has no text of a source is not in its lists.
    """
    sources = {number: source for each in key.values() for number, source in each.items()}
    found: dict[str, dict[str, list[float]]] = {}
    for source in dict.fromkeys(sources.values()):
        own = [[row for n, row in marks.items() if sources[n] == source] for marks in readers]
        found[source] = {
            name: [float(np.mean([row[name] for row in rows])) for rows in own if rows]
            for name in MARKS
        }
    return {source: each for source, each in found.items() if each['person']}


def agreement(readers: Sequence[Marks]) -> dict[str, float] | None:
    """Mark -> the mean difference between two readers of the same text, over all such pairs.

    Of ``person`` it is the percentage of the pairs that differ. None if no two readers share texts.
    """
    pairs = [
        (one[number], other[number])
        for one, other in itertools.combinations(readers, 2)
        for number in one.keys() & other.keys()
    ]
    if not pairs:
        return None
    return {name: float(np.mean([abs(a[name] - b[name]) for a, b in pairs])) for name in MARKS}


def table(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Scores as a Markdown table: the mean over the readers, and the mean of each."""
    heads = ['source', *FIVE, "taken for a person's, %"]
    rows = [heads, ['---'] * len(heads)]
    for source, figures in found.items():
        rows.append([source, *(_cell(figures[name]) for name in MARKS)])
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def _cell(means: Iterable[float]) -> str:
    means = list(means)
    every = f' ({", ".join(f"{mean:.3g}" for mean in means)})' if len(means) > 1 else ''
    return f'{np.mean(means):.3g}{every}'
