"""Provenance of intermediate files: a note beside each, so that no stale file is used.

A note is a JSON object, a hash of content for each thing that went in. It is written before the
file that it speaks of, so that there is no whole file without one. A folder is noted as a file is.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...formats import MismatchError, ModelFileError, PathLike, existing, write_text
from ...io.bundle import HASHED_AT_LOAD, sha256
from ...skipthoughts import model_file
from ..process_state import say

NOTE = '.made_from.json'
SHOWN = 3  # differences that an error lists
BLOCK, BLOCKS = 1 << 20, 16  # of a large table that are hashed


def is_made(target: PathLike, facts: Mapping[str, str]) -> bool:
    """Whether a file is there already, made from this; if it is not there, note what it will be of.

    The target may be a folder. `facts` name what goes in, with a hash of its content, or what it
    is in a word. A file without a note, of an earlier version, is taken as it is; a line on stderr
    says so.

    Raises
    ------
    MismatchError
        If it is there but was made from something else; the message says what differs.
    ModelFileError
        If the note is not readable.
    """
    target = Path(target)
    note = target.with_name(target.name + NOTE)
    if not target.exists():
        write_text(note, json.dumps(facts, indent=1) + '\n')
    elif note.exists():
        compare(target, read_note(note), facts)
    else:
        say(f'{target}: taken as it is, since nothing says what it was made from')
    return target.exists()


def read_note(path: PathLike) -> dict[str, str]:
    """The facts of a note."""
    try:
        facts = json.loads(Path(path).read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f'{path}: not JSON: {error}') from None
    if not isinstance(facts, dict):
        raise ModelFileError(f'{path}: expected an object, found {type(facts).__name__}')
    return facts


def compare(target: PathLike, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise a MismatchError that lists the differences, if there are any."""
    changes = [f'{name} is not there any more' for name in before if name not in now]
    for name, fact in now.items():
        if name not in before:
            changes.append(f'{name} is new')
        elif before[name] != fact:
            changes.append(f'{name} differs')
    if not changes and list(before) != list(now):
        changes.append('the order differs')
    if changes:
        more = f', and {len(changes) - SHOWN} more' if len(changes) > SHOWN else ''
        raise MismatchError(
            f'{target}: made from another input: {", ".join(changes[:SHOWN])}{more}; to start '
            f'afresh, name another folder of in-between files, or empty {Path(target).parent}'
        )


def of_files(files: Iterable[PathLike]) -> dict[str, str]:
    """The provenance of files: name -> hash of the content, regardless of folders."""
    seen: Counter[str] = Counter()
    facts = {}
    for path in files:
        name = Path(path).name
        seen[name] += 1
        key = name if seen[name] == 1 else f'{name} ({seen[name]})'
        facts[key] = of_file(path)
    return facts


def of_words(words: Iterable[str]) -> str:
    """The hash of words or lines in order."""
    return hashlib.sha256('\n'.join(words).encode('utf-8', 'surrogatepass')).hexdigest()


def of_encoder(folder: PathLike) -> str:
    """The hash of a folder's skip-thought encoder and words, whatever else is there."""
    folder, digest = Path(folder), hashlib.sha256()
    for path in (model_file(folder, 'uni_skip'), model_file(folder, 'bi_skip')):
        digest.update(of_file(path).encode())
    for name in ('utable.npy', 'btable.npy', 'dictionary.txt'):
        digest.update(_of_table(folder / name).encode())
    return digest.hexdigest()


def of_file(path: PathLike) -> str:
    """The hash of a whole file."""
    return sha256(existing(path, 'an input of the training'))


def _of_table(path: Path) -> str:
    """The hash of a table: of all of it, or of its size and parts if it would take seconds."""
    if (size := path.stat().st_size) <= HASHED_AT_LOAD:
        return sha256(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, 'rb') as file:
        for part in range(BLOCKS + 1):
            file.seek(part * (size - BLOCK) // BLOCKS)
            digest.update(file.read(BLOCK))
    return digest.hexdigest()
