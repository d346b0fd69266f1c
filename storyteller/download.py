"""Fetching the files published in 2015, which ``generate.load_all`` loads as they are.

A download that is cut goes on where it stopped, in this run or the next; what arrives is compared
with its hash, where that is known, before it takes its name.
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pooch
import requests
from tqdm import tqdm

from .formats import ModelFileError, PathLike, atomic_path, stand_in

TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of a body
ATTEMPTS = 4
PIECE = 1 << 16  # what of a cut connection is lost at most
MOST_EXPANSION = 100  # of an archive: text shrinks to a quarter, bombs to a thousandth


@dataclass(frozen=True)
class Published:
    """A file to fetch.

    Attributes
    ----------
    url : str
    size : int
        In bytes; where it is not known, about what it was.
    sha256 : str or None
        None where nobody has written it down.
    holds : tuple of str
        For an archive, the files that must come out of it.
    """

    url: str
    size: int
    sha256: str | None = None
    holds: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.url.rpartition('/')[2]


_TORONTO = 'http://www.cs.toronto.edu/~rkiros'

# The sums are those that users of the skip-thoughts files have published.
FILES = (
    Published(
        f'{_TORONTO}/neural_storyteller.zip',
        600_000_000,
        holds=(
            'romance.npz', 'romance.npz.pkl', 'romance_dictionary.pkl', 'caption_style.npy',
            'romance_style.npy', 'coco_train_caps.txt', 'coco_embedding.npz',
            'coco_embedding.npz.pkl', 'coco_embedding.npz.dictionary.pkl',
        ),
    ),
    Published(
        f'{_TORONTO}/models/dictionary.txt',
        7_996_547,
        '4dc5622978a30cddea8c975c871ea8b6382423efb107d27248ed7b6cfa490c7c',
    ),
    Published(
        f'{_TORONTO}/models/utable.npy',
        2_342_138_474,
        '790951d4b08e843e3bca0563570f4134ffd17b6bd4ab8d237d2e5ae15e4febb3',
    ),
    Published(
        f'{_TORONTO}/models/btable.npy',
        2_342_138_474,
        '4a4ed9d7560bb87f91f241739a8f80d8f2ba787a871da96e1119e913ccd61c53',
    ),
    Published(
        f'{_TORONTO}/models/uni_skip.npz',
        663_989_216,
        '7f40ff16ff5c54ce9b02bd1a3eb24db3e6adaf7712a7a714f160af3a158899c8',
    ),
    Published(
        f'{_TORONTO}/models/uni_skip.npz.pkl',
        693,
        'd58740d46cba28417cbc026af577f530c603d81ac9de43ffd098f207c7dc4411',
    ),
    Published(
        f'{_TORONTO}/models/bi_skip.npz',
        289_340_074,
        '8ab7965d2db5d146a907956d103badfa723b57e0acffb75e10198ba9f124edb0',
    ),
    Published(
        f'{_TORONTO}/models/bi_skip.npz.pkl',
        689,
        'd7e81430fcdcbc60b36b92b3f879200919c75d3015505ee76ae3b206634a0eb6',
    ),
    Published(
        'https://s3.amazonaws.com/lasagne/recipes/pretrained/imagenet/vgg19.pkl', 574_670_000
    ),
)  # fmt: skip


def fetch_all(
    folder: PathLike, files: Sequence[Published] = FILES, mirror: str | None = None
) -> dict[str, str]:
    """Fetch files that are not in a folder yet.

    Parameters
    ----------
    folder : path-like
        Made if it is not there.
    files : sequence of Published
    mirror : str, optional
        A place that holds them all by name, instead of where each was published.

    Returns
    -------
    dict of str to str
        Name -> why it could not be had; empty if all are there.

    Raises
    ------
    OSError
        If the disk has not the room, or the folder cannot be made.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [file for file in files if not is_there(folder, file)]
    check_room(folder, missing)
    failed = {}
    for file in missing:
        url = f'{mirror.rstrip("/")}/{file.name}' if mirror else file.url
        try:
            fetch(url, folder / file.name, file.sha256)
            if file.holds:
                unpack(folder / file.name, folder, file.holds)
                (folder / file.name).unlink()
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            failed[file.name] = f'{url}: {error}'
    return failed


def is_there(folder: Path, file: Published) -> bool:
    """Whether a file, or what an archive holds, is in the folder, of the right size if known."""
    if file.holds:
        return all((folder / name).is_file() for name in file.holds)
    path = folder / file.name
    return path.is_file() and (file.sha256 is None or path.stat().st_size == file.size)


def check_room(folder: Path, files: Sequence[Published]) -> None:
    """Refuse to begin what the disk cannot hold; archives need their room and what they hold."""
    parts = [_part(folder / file.name) for file in files]
    wanted = sum(file.size * (3 if file.holds else 1) for file in files)
    wanted -= sum(part.stat().st_size for part in parts if part.exists())
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise OSError(f'{folder}: {wanted / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free')


def fetch(url: str, path: Path, sha256: str | None = None) -> None:
    """Fetch one file, going on from what an earlier attempt left beside it (``.part``).

    Raises
    ------
    ValueError
        If what arrived has not that hash, or is a web page.
    OSError
        If the server cannot be reached, or does not give the file.
    """
    for attempt in range(ATTEMPTS):
        try:
            _receive(url, _part(path))
            break
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ):
            if attempt == ATTEMPTS - 1:
                raise
    try:
        if what := stand_in(_part(path)):
            raise ModelFileError(f'found {what}')
        if sha256 and (found := pooch.file_hash(str(_part(path)))) != sha256:
            raise ModelFileError(f'its SHA-256 is {found}, not {sha256}')
    except ModelFileError:
        _part(path).unlink()  # to go on from wrong bytes would never end well
        raise
    os.replace(_part(path), path)


def _part(path: Path) -> Path:
    return path.with_name(f'{path.name}.part')


def _receive(url: str, part: Path) -> None:
    """Add what is missing to a part; all of it, if the server cannot begin in the middle."""
    have = part.stat().st_size if part.exists() else 0
    # Without compression, so that places in the body are places in the file.
    headers = {'Accept-Encoding': 'identity'} | ({'Range': f'bytes={have}-'} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # nothing comes after what is there
            if _whole(answer.headers) == have:
                return
            part.unlink()
            return _receive(url, part)
        answer.raise_for_status()
        begin = have if answer.status_code == 206 else 0
        length = answer.headers.get('Content-Length')
        whole = begin + int(length) if length else None
        with (
            open(part, 'r+b' if begin else 'wb') as file,
            tqdm(total=whole, initial=begin, unit='B', unit_scale=True, desc=part.stem) as progress,
        ):
            file.seek(begin)
            for piece in answer.iter_content(PIECE):
                file.write(piece)
                progress.update(len(piece))
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        found = part.stat().st_size
        if whole is not None and found < whole:
            raise requests.ConnectionError(f'the connection ended at {found} of {whole} bytes')
    return None


def _whole(headers: Mapping[str, str]) -> int | None:
    """The size of the file by an answer's ``Content-Range: bytes */SIZE``."""
    size = headers.get('Content-Range', '').rpartition('/')[2]
    return int(size) if size.isdigit() else None


def unpack(archive: Path, folder: Path, holds: Sequence[str]) -> None:
    """Unpack an archive into a folder, without its own folders; each file whole or not at all.

    Raises
    ------
    ModelFileError
        If a member would leave the folder, is no plain file, or expands beyond reason; if one of
        `holds` is not in it. Nothing is unpacked then.
    """
    with zipfile.ZipFile(archive) as content:
        members = {}
        for member in content.infolist():
            path, kind = PurePosixPath(member.filename), stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir() or path.name.startswith('.') or '__MACOSX' in path.parts:
                continue
            outside = path.is_absolute() or '..' in path.parts or '\\' in member.filename
            if outside or kind not in (0, stat.S_IFREG):
                raise ModelFileError(f'{archive}: {member.filename!r} is not a plain file in it')
            members[path.name] = member
        if missing := [name for name in holds if name not in members]:
            raise ModelFileError(f'{archive}: {", ".join(missing)} missing from the archive')
        whole = sum(member.file_size for member in members.values())
        if whole > MOST_EXPANSION * archive.stat().st_size:
            raise ModelFileError(f'{archive}: it would expand to {whole} bytes')
        if whole > shutil.disk_usage(folder).free:
            raise OSError(f'{folder}: no room for the {whole / 1e9:.1f} GB of {archive.name}')
        for name, member in members.items():
            with (
                atomic_path(folder / name) as temporary,
                content.open(member) as source,
                open(temporary, 'wb') as target,
            ):
                shutil.copyfileobj(source, target, PIECE)
