"""The card of a bundle, ``bundle.json``: files, sizes, checksums and search settings.

A folder without a card, such as one of the files of 2015, is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..formats import ModelFileError, PathLike, existing, write_text
from ..options import SearchSettings
from .checksums import KnownSums
from .checksums import sha256 as sha256

CARD = 'bundle.json'
FACTS = 'bytes', 'sha256'
SUFFIXES = '.safetensors', '.npz', '.npy', '.pkl', '.txt', '.json'  # of models
HASHED_AT_LOAD = 1 << 26  # bytes of a file; larger ones would take seconds, and are mapped


def read_card(folder: PathLike) -> dict[str, Any] | None:
    """The validated card of a folder, or None if it has none.

    Returns
    -------
    dict
        ``format`` (1), ``files``: name -> ``bytes`` and ``sha256``, and whatever else the card
        says.

    Raises
    ------
    ModelFileError
        If it is not such a card. Names must be plain: no path leaves the folder.
    """
    path = Path(folder) / CARD
    if not path.exists():
        return None
    try:
        card = json.loads(existing(path, 'the card of a bundle').read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f'{path}: not JSON: {error}') from None
    if not isinstance(card, dict) or card.get('format') != 1:
        found = card.get('format') if isinstance(card, dict) else type(card).__name__
        raise ModelFileError(f"{path}: expected a card with 'format': 1, found {found!r}")
    files = card.get('files')
    if not isinstance(files, dict) or not files:
        raise ModelFileError(f"{path}: expected 'files', name -> bytes and sha256")
    for name, facts in files.items():
        plain = re.fullmatch(r'[\w][\w.-]*', name) and name != CARD
        if not plain:
            raise ModelFileError(f'{path}: {name!r} is not the plain name of a file')
        size, digest = (facts.get(k) if isinstance(facts, dict) else None for k in FACTS)
        right = type(size) is int and size >= 0
        if not right or not re.fullmatch('[0-9a-f]{64}', str(digest)):
            raise ModelFileError(f"{path}: {name}: expected 'bytes' and a 'sha256' of 64 digits")
    return card


def search_settings(decoder: PathLike) -> SearchSettings:
    """The search settings of a decoder, from ``search`` in the card beside it.

    They are taken only if the card lists that very file; else they are those of 2015.

    Raises
    ------
    ModelFileError
        If the card is none, or a setting is unknown or out of range.
    """
    path = Path(decoder)
    card = read_card(path.parent)
    if card is None or path.name not in card['files']:
        return SearchSettings()
    try:
        return SearchSettings.read(card.get('search', {}))
    except ValueError as error:
        raise ModelFileError(f'{path.parent / CARD}: search: {error}') from None


def problem(
    folder: PathLike, name: str, facts: dict[str, Any], sums: KnownSums | None = None
) -> str | None:
    """What is wrong with a file of a card, in one line, or None.

    With `sums`, what is known is not read again, and large files are not hashed.
    """
    path = Path(folder) / name
    if not path.is_file():
        return 'missing'
    if (size := path.stat().st_size) != facts['bytes']:
        return f'{size} bytes, expected {facts["bytes"]}'
    hashed = sums is None or size <= HASHED_AT_LOAD
    if hashed and (sums.sha256 if sums else sha256)(path) != facts['sha256']:
        return 'its SHA-256 is not that of the card'
    return None


def check(folders: Iterable[PathLike]) -> None:
    """Verify the files of bundles before they are loaded; missing ones are left to the loaders.

    Raises
    ------
    ModelFileError
        If a card is none, or a file is not the one it describes.
    """
    with KnownSums() as sums:
        for folder in sorted({str(folder) for folder in folders}):
            for name, facts in (read_card(folder) or {'files': {}})['files'].items():
                path = Path(folder) / name
                if path.is_file() and (wrong := problem(folder, name, facts, sums)):
                    raise ModelFileError(
                        f'{existing(path, "a file of the bundle")}: {wrong} '
                        f'(a broken copy? if you changed it, take its entry out of {CARD})'
                    )


def strike(*paths: PathLike) -> None:
    """Remove files that are about to be overwritten from the cards beside them.

    What a card knows of the vectors that its models give goes too.

    Raises
    ------
    ModelFileError
        If a card is none.
    """
    for path in map(Path, paths):
        if not (card := read_card(path.parent)) or path.name not in card['files']:
            continue
        del card['files'][path.name]
        card.pop('known', None)
        if card['files']:
            write_text(path.parent / CARD, json.dumps(card, indent=1) + '\n')
        else:
            (path.parent / CARD).unlink(missing_ok=True)


def fingerprint(folders: Iterable[PathLike]) -> str:
    """A hexadecimal fingerprint of the models in folders.

    Made from the sums in their cards; without a card, from the files' names, sizes and beginnings,
    since whole tables take long to read.
    """
    digest = hashlib.sha256()
    for folder in sorted(map(Path, folders)):
        if card := read_card(folder):
            facts = [(name, facts['sha256']) for name, facts in card['files'].items()]
        else:
            facts = [(p.name, _beginning(p)) for p in folder.glob('*') if p.suffix in SUFFIXES]
        digest.update(json.dumps(sorted(facts)).encode())
    return digest.hexdigest()


def _beginning(path: Path) -> str:
    with open(path, 'rb') as file:
        return f'{path.stat().st_size} {hashlib.sha256(file.read(1 << 20)).hexdigest()}'
