"""Downloading bundles from a model hub, and uploading them.

The address of a bundle is ``hf://OWNER/NAME``; ``hf://OWNER/NAME@REVISION`` is the bundle of a
branch, a tag or a commit. Its repository holds a folder of ours: `storyteller.io.bundle.CARD` and
the files that it lists. Fetched files lie in the cache of `huggingface_hub`, which is imported when
an address is asked for, and not before.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import MissingFileError, ModelFileError, PathLike
from . import bundle
from .extras import needed

ALLOWED = '.safetensors', '.npy', '.txt', '.json', '.md'  # none of them can hold code
_SCHEME = re.compile('hf:/')  # of the two strokes a `Path` keeps one
_ADDRESS = re.compile(r'hf://?([\w.-]+/[\w.-]+)(?:@([\w.-]+(?:/[\w.-]+)*))?/?')


@dataclass(frozen=True)
class Address:
    """Where a bundle is.

    Attributes
    ----------
    name : str
        ``OWNER/NAME``.
    revision : str or None
        A branch, a tag or a commit; None is what is newest.

    Examples
    --------
    >>> Address.read('hf://ada/seaside@v2')
    Address(name='ada/seaside', revision='v2')
    >>> str(Address.read('hf://ada/seaside'))
    'hf://ada/seaside'
    """

    name: str
    revision: str | None = None

    @classmethod
    def read(cls, text: PathLike) -> Address:
        """Parse ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``."""
        parts = _ADDRESS.fullmatch(os.fspath(text))
        if not parts:
            raise ValueError(
                f'{os.fspath(text)}: expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION'
            )
        return cls(*parts.groups())

    def __str__(self) -> str:
        return f'hf://{self.name}' + (f'@{self.revision}' if self.revision else '')


def is_address(chosen: PathLike) -> bool:
    """Whether this is an address of a bundle, not a folder."""
    return bool(_SCHEME.match(os.fspath(chosen)))


def fetch(chosen: PathLike) -> Path:
    """The folder of a bundle, downloaded if it is not cached.

    A commit that is in the cache is taken from there without a question to the server; of a branch
    or a tag the server is asked where it stands, and without a server it is taken to stand where
    it did.

    Parameters
    ----------
    chosen : str or path-like
        An address. The environment variable ``HF_ENDPOINT`` may name another server.

    Returns
    -------
    pathlib.Path
        Of one commit, with the card and the files that it lists, and no others that were fetched
        here.

    Raises
    ------
    ValueError
        If it is no address, or `huggingface_hub` is not installed.
    MissingFileError
        If the repository, the revision or a file is not to be had.
    ModelFileError
        If the card is none, or lists a file of another kind than `ALLOWED` (then none is fetched);
        if a file is not the one that the card describes.
    """
    address = Address.read(chosen)
    folder = Path(_get(address, bundle.CARD, address.revision)).parent
    try:
        _complete(address, folder)
    except (ModelFileError, MissingFileError) as error:
        if whole := _newest_whole(folder.parent):
            there = Address(address.name, whole)
            raise type(error)(f'{error}; the cache holds a whole one, {there}') from None
        raise
    return folder


def _complete(address: Address, folder: Path) -> None:
    """Fetch what the card of a commit lists and its folder lacks."""
    try:
        card = bundle.read_card(folder)
    except ModelFileError as error:
        raise ModelFileError(f'{address}: {error}') from None
    files = card['files'] if card else {}
    for name in files:
        if Path(name).suffix not in ALLOWED:
            raise ModelFileError(
                f'{address}: its {bundle.CARD} lists {name!r}, and only {" ".join(ALLOWED)} are '
                'taken from a hub; nothing else of it was fetched'
            )
    for name, facts in files.items():
        if not (folder / name).exists():
            # The folder is called by its commit: what is pushed meanwhile is not mixed in.
            _get(address, name, folder.name)
            if wrong := bundle.problem(folder, name, facts) or array_problem(folder / name):
                (folder / name).unlink()  # so that it is looked at again the next time
                raise ModelFileError(f'{address}: {name}: {wrong}')


def _newest_whole(commits: Path) -> str | None:
    """The commit that came last of those whose files are all there."""
    for folder in sorted(commits.iterdir(), key=lambda folder: -folder.stat().st_mtime):
        try:
            files = (bundle.read_card(folder) or {}).get('files', {})
        except ModelFileError:
            continue
        if files and all((folder / name).exists() for name in files):
            return folder.name
    return None


def array_problem(path: Path) -> str | None:
    """Why a ``.npy`` is not a plain array; None for other files."""
    if path.suffix == '.npy':
        try:
            np.load(path, mmap_mode='r', allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            return f'not a plain array: {error}'
    return None


def share(
    card: dict[str, Any],
    contents: dict[str, Path | bytes],
    name: str,
    *,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Upload a bundle, in one commit, whose address is returned.

    The repository is made if it is not there; what it holds and the bundle does not have, stays,
    and is not fetched with the bundle. Who uploads is known from ``hf auth login`` or the
    environment variable ``HF_TOKEN``.

    Parameters
    ----------
    card : dict
        As it stands in `bundle.CARD`.
    contents : dict of str to pathlib.Path or bytes
        Each file's name, and where it is or what it holds.
    name : str
        ``OWNER/NAME``.
    private : bool
        Of a repository that is made.
    revision : str, optional
        A branch; made if it is not there.

    Raises
    ------
    ValueError
        If `name` is none, or `huggingface_hub` is not installed.
    OSError
        If the server refuses.
    """
    address = Address.read(f'hf://{name}')
    hub, api = _client()
    operations = [
        hub.CommitOperationAdd(file, data if isinstance(data, bytes) else str(data))
        for file, data in contents.items()
    ]
    try:
        api.create_repo(name, private=private, exist_ok=True)
        if revision:
            api.create_branch(name, branch=revision, exist_ok=True)
        done = api.create_commit(
            name,
            operations,
            commit_message=f'A bundle of {len(card["files"])} files for storyteller',
            revision=revision,
        )
    except Exception as error:  # of three libraries
        raise OSError(f'{address}: not uploaded: {_line(error)}') from None
    return str(Address(name, done.oid))


def _get(address: Address, file: str, revision: str | None) -> str:
    """The path of a file in the cache, once it is there."""
    hub, api = _client()
    try:
        return api.hf_hub_download(address.name, file, revision=revision)
    except hub.errors.RepositoryNotFoundError:
        reason = 'no such repository, or one that is not for everybody (hf auth login)'
    except hub.errors.RevisionNotFoundError:
        reason = 'no such revision'
    except hub.errors.LocalEntryNotFoundError:
        reason = f'{file} is not in the cache, and the server cannot be reached'
    except hub.errors.EntryNotFoundError:
        reason = f'no {file} there'
    except Exception as error:  # of three libraries
        reason = f'{file}: {_line(error)}'
    raise MissingFileError(f'{address}: {reason}')


def _client() -> tuple[Any, Any]:
    """`huggingface_hub`, and what asks the server that is named now."""
    hub, endpoint = needed('huggingface_hub'), os.environ.get('HF_ENDPOINT')
    return hub, hub.HfApi(endpoint, library_name='storyteller', library_version=__version__)


def _line(error: Exception) -> str:
    """The first line of an error that may have many."""
    return next(iter(str(error).splitlines()), '') or type(error).__name__
