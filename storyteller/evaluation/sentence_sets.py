"""Reading the data sets of sentence tasks in their published formats.

==========  ===============================================================  ======================
task        files                                                            what is predicted
==========  ===============================================================  ======================
SICK        ``SICK_train.txt``, ``SICK_trial.txt``,                          relatedness, 1 to 5
            ``SICK_test_annotated.txt``
MSRP        ``msr_paraphrase_train.txt``, ``msr_paraphrase_test.txt``        paraphrase or not
TREC        ``train_5500.label``, ``TREC_10.label``                          kind of question, of 6
MR          ``rt-polarity.pos``, ``rt-polarity.neg``                         praise or blame
CR          ``custrev.pos``, ``custrev.neg``                                 praise or blame
SUBJ        ``subj.subjective``, ``subj.objective``                          opinion or fact
MPQA        ``mpqa.pos``, ``mpqa.neg``                                       praise or blame
==========  ===============================================================  ======================

Files are looked for in the given folder, then in its folder of the task's name (of MSRP also
``MRPC``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..formats import MissingFileError, ModelFileError, PathLike

POLARITY = {
    'MR': ('rt-polarity.pos', 'rt-polarity.neg'),
    'CR': ('custrev.pos', 'custrev.neg'),
    'SUBJ': ('subj.subjective', 'subj.objective'),
    'MPQA': ('mpqa.pos', 'mpqa.neg'),
}
TASKS = ('SICK', 'MSRP', 'TREC', *POLARITY)


@dataclass(frozen=True)
class Sentences:
    """Labelled sentences: N str and (N,) labels."""

    texts: list[str]
    labels: np.ndarray


@dataclass(frozen=True)
class PairsOfSentences:
    """Sentence pairs with values: N str, N str and (N,) values."""

    a: list[str]
    b: list[str]
    values: np.ndarray


def read_task(folder: PathLike, task: str) -> Any:
    """Read the data set of a task, one of :data:`TASKS`."""
    readers = {'SICK': read_sick, 'MSRP': read_msrp, 'TREC': read_trec}
    return readers[task](folder) if task in readers else read_polarity(folder, task)


def training_texts(data: Any) -> list[str]:
    """The sentences of a data set that may be used for training."""
    part = data['train'] if isinstance(data, dict) else data
    return part.texts if isinstance(part, Sentences) else part.a + part.b


def read_sick(folder: PathLike) -> dict[str, PairsOfSentences]:
    """SICK (Marelli et al. 2014): ``train``, ``trial`` and ``test``; values are 1 to 5."""
    names = {'train': 'SICK_train', 'trial': 'SICK_trial', 'test': 'SICK_test_annotated'}
    columns = 'sentence_A', 'sentence_B', 'relatedness_score'
    found = {}
    for split, name in names.items():
        path = _find(folder, 'SICK', f'{name}.txt')
        found[split] = pairs = _pairs(path, columns, float)
        if ((pairs.values < 1) | (pairs.values > 5)).any():
            raise ModelFileError(f'{path}: a relatedness is not from 1 to 5')
    return found


def read_msrp(folder: PathLike) -> dict[str, PairsOfSentences]:
    """Microsoft's paraphrases (Dolan et al. 2004): ``train`` and ``test``; values are 0 or 1."""
    columns = '#1 String', '#2 String', 'Quality'
    return {
        split: _pairs(_find(folder, 'MSRP', f'msr_paraphrase_{split}.txt'), columns, int)
        for split in ('train', 'test')
    }


def read_trec(folder: PathLike) -> dict[str, Sentences]:
    """Questions (Li and Roth 2002): ``train`` and ``test``; labels are the six coarse kinds."""
    found = {}
    for split, name in (('train', 'train_5500.label'), ('test', 'TREC_10.label')):
        path = _find(folder, 'TREC', name)
        labels, texts = [], []
        for number, line in enumerate(_lines(path, 'latin-1'), 1):
            kind, colon, rest = line.partition(':')
            _, blank, question = rest.partition(' ')
            if not (colon and blank and question.strip()):
                raise ModelFileError(f'{path}: line {number} is not KIND:detail question')
            labels.append(kind)
            texts.append(question.strip())
        found[split] = Sentences(texts, np.array(labels))
    return found


def read_polarity(folder: PathLike, task: str) -> Sentences:
    """MR (Pang and Lee 2005), CR (Hu and Liu 2004), SUBJ (Pang and Lee 2004), MPQA (Wiebe 2005).

    A file for each class, a sentence a line; labels are 1 for the first file and 0 for the other.
    """
    sides = [_lines(_find(folder, task, name), 'latin-1') for name in POLARITY[task]]
    labels = np.repeat([1, 0], [len(side) for side in sides])
    return Sentences([line.strip() for side in sides for line in side], labels)


def _find(folder: PathLike, task: str, name: str) -> Path:
    folders = [Path(folder), Path(folder) / task]
    if task == 'MSRP':
        folders.append(Path(folder) / 'MRPC')
    for place in folders:
        if (place / name).is_file():
            return place / name
    places = ', '.join(map(str, folders))
    raise MissingFileError(f'{task}: {name} is in none of the folders {places}')


def _lines(path: Path, encoding: str) -> list[str]:
    """The lines of a file that hold something."""
    try:
        content = path.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        raise ModelFileError(f'{path}: not {encoding}: {error}') from error
    lines = [line.rstrip('\r') for line in content.split('\n')]
    found = [line for line in lines if line.strip()]
    if not found:
        raise ModelFileError(f'{path}: no sentence in it')
    return found


def _pairs(
    path: Path, columns: tuple[str, str, str], number: Callable[[str], float]
) -> PairsOfSentences:
    """Three named columns of a table parted by tabs, quotes being letters like others."""
    head, *rows = (line.split('\t') for line in _lines(path, 'utf-8-sig'))
    missing = [column for column in columns if column not in head]
    if missing:
        raise ModelFileError(f'{path}: columns {", ".join(missing)} missing (found {head})')
    chosen = [head.index(column) for column in columns]
    found: list[tuple[str, str, float]] = []
    for i, row in enumerate(rows, 2):
        try:
            a, b, value = (row[column] for column in chosen)
            found.append((a, b, number(value)))
        except (IndexError, ValueError):
            raise ModelFileError(f'{path}: line {i} is not a row of {len(head)} columns') from None
    if not found:
        raise ModelFileError(f'{path}: no row under its head')
    firsts, seconds, values = zip(*found, strict=True)
    return PairsOfSentences(list(firsts), list(seconds), np.array(values))
