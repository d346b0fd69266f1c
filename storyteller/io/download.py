"""Downloading the files published in 2015, which ``generate.load_all`` loads unchanged.

Every source of a file is tried until one gives it. A download that is cut goes on where it stopped,
in this run or the next, at this source or another; what arrives is compared with its sum, where
that is known, before it takes its name.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pooch
import requests
from tqdm import tqdm

from ..errors import why
from ..formats import ModelFileError, PathLike, atomic_path, stand_in
from .published import PARTS, Part, Published

TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of a body
ATTEMPTS = 4  # at one source, if it cuts what it began to give
PIECE = 1 << 16  # what of a cut connection is lost at most
MOST_EXPANSION = 100  # of an archive: text shrinks to a quarter, bombs to a thousandth

# How answers begin that are not the file, whatever their code says. No file begins so.
_PAGES = {
    b'<!doctype html': 'a web page',
    b'<html': 'a web page',
    b'<?xml': 'a message in XML',
    b'<error': 'a message in XML',
}


class RefusedError(OSError):
    """A source does not provide the file; the message says why."""


def fetch_all(
    folder: PathLike,
    parts: Sequence[Part] = PARTS,
    mirror: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, list[str]]:
    """Download the files that a folder lacks.

    Gives the files that could not be had, by the name of their part; empty if all are there.

    Parameters
    ----------
    folder : path-like
        Made if it is not there.
    parts : sequence of Part
    mirror : str, optional
        A place that holds them all by name, instead of their own sources.
    tell : callable
        Called with a line for each source that was tried.

    Raises
    ------
    OSError
        If the disk has not the room, or the folder cannot be made.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    check_room(folder, parts)
    lacking = {part.name: _fetch_part(folder, part, mirror, tell) for part in parts}
    return {name: files for name, files in lacking.items() if files}


def _fetch_part(
    folder: Path, part: Part, mirror: str | None, tell: Callable[[str], None]
) -> list[str]:
    """Fetch a part, or one form of it; the names of the files that it lacks then."""
    for file in missing(folder, part):
        if _fetch_file(folder, file, mirror, tell) and part.one:
            for form in part.files:  # what was begun of others is of no more use
                _part(folder, form).unlink(missing_ok=True)
            break
    return [file.name for file in missing(folder, part)]


def _fetch_file(
    folder: Path, file: Published, mirror: str | None, tell: Callable[[str], None]
) -> bool:
    """Fetch a file from the first source that gives it; whether one did."""
    for url in file.addresses(mirror):
        try:
            fetch(url, folder, file)
        except (RefusedError, ModelFileError) as error:
            line = f'{file.name}: {url}: {error}'  # in it may be what a server says
            tell(''.join(char if char.isprintable() else ' ' for char in line))
        else:
            tell(f'{file.name}: {url}: fetched; {file.check}')
            return True
    return False


def missing(folder: PathLike, part: Part) -> list[Published]:
    """The missing files of a part; none, if any one of its alternatives is there."""
    found = [file for file in part.files if not is_there(Path(folder), file)]
    return [] if part.one and len(found) < len(part.files) else found


def is_there(folder: Path, file: Published) -> bool:
    """Whether a file, or the content of an archive, is in the folder with the expected size."""
    if file.holds:
        return all((folder / name).is_file() for name in file.holds)
    path = folder / file.name
    return path.is_file() and _has_size(file, path.stat().st_size)


def _has_size(file: Published, size: int) -> bool:
    """Whether a file may have that size; what an archive had is not known well enough."""
    if file.exact:
        return size == file.size
    return bool(file.holds) or 0.9 * file.size <= size <= 1.1 * file.size


def check_room(folder: Path, parts: Sequence[Part]) -> None:
    """Raise an error if the disk lacks space; archives need space for their content as well."""
    wanted = 0
    for part in parts:
        rooms = [_room(folder, file) for file in missing(folder, part)]
        wanted += max(rooms, default=0) if part.one else sum(rooms)
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise OSError(f'{folder}: {wanted / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free')


def _room(folder: Path, file: Published) -> int:
    """What a file will take on the disk, in bytes, beyond what is there of it."""
    part = _part(folder, file)
    have = part.stat().st_size if part.exists() else 0
    return file.size * (3 if file.holds else 1) - have


def fetch(url: str, folder: Path, file: Published) -> None:
    """Download a file from one source; an archive is unpacked.

    What an earlier attempt left beside it (``.part``) is gone on from, at whatever source it began.

    Raises
    ------
    ModelFileError
        If what arrived has not that size or sum, or is a damaged or hostile archive.
    RefusedError
        If the server cannot be reached, gives something else, or breaks off again and again.
    """
    part = _part(folder, file)
    if not file.digest and not file.holds:
        part.unlink(missing_ok=True)  # nothing would tell a mixture of two sources
    begun = part.exists()
    _receive_all(url, part, file)
    try:
        _check(part, file)
        if file.holds:
            unpack(part, folder, file.holds)
    except ModelFileError:
        part.unlink()  # to go on from wrong bytes would never end well
        if begun:  # and those may be another source's
            return fetch(url, folder, file)
        raise
    if file.holds:
        part.unlink()
    else:
        os.replace(part, folder / file.name)
    return None


def _part(folder: Path, file: Published) -> Path:
    return folder / f'{file.name}.part'


def _check(part: Path, file: Published) -> None:
    """Refuse what is not the file: a stand-in for it, a wrong size, a wrong sum."""
    if what := stand_in(part):
        raise ModelFileError(f'found {what}')
    if not _has_size(file, size := part.stat().st_size):
        raise ModelFileError(f'found {size:,} bytes, expected {file.size:,}')
    if file.digest:
        algorithm, _, digits = file.digest.partition(':')
        found = pooch.file_hash(str(part), algorithm)
        if not found.startswith(digits):
            raise ModelFileError(f'its {algorithm} is {found}, not {digits}')


def _receive_all(url: str, part: Path, file: Published) -> None:
    """Add what is missing to a part, in several attempts if the connection is cut."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _receive(url, part, file)
        except requests.RequestException as error:
            if attempt == ATTEMPTS:
                raise RefusedError(f'broke off, {ATTEMPTS} times: {_why(error)}') from None
    return None


def _receive(url: str, part: Path, file: Published) -> None:
    """Add what is missing to a part; all of it, if the server cannot begin in the middle."""
    have = part.stat().st_size if part.exists() else 0
    # Without compression, so that places in the body are places in the file.
    headers = {'Accept-Encoding': 'identity'} | ({'Range': f'bytes={have}-'} if have else {})
    with _ask(url, headers) as answer:
        if answer.status_code == 416:  # nothing comes after what is there
            if _whole(answer.headers) == have:
                return
            part.unlink()
            return _receive(url, part, file)
        if not answer.ok:
            raise RefusedError(f'{answer.status_code} {answer.reason}')
        begin = have if answer.status_code == 206 else 0
        length = answer.headers.get('Content-Length', '')
        whole = begin + int(length) if length.isdecimal() else None
        pieces = answer.iter_content(PIECE)
        first = next(pieces, b'')
        if not begin:  # before anything that is there is written over
            _refuse_page(first)
        if whole is not None and not _has_size(file, whole):
            raise RefusedError(f'offers {whole:,} bytes, expected {file.size:,}')
        with (
            open(part, 'r+b' if begin else 'wb') as target,
            tqdm(total=whole, initial=begin, unit='B', unit_scale=True, desc=part.stem) as progress,
        ):
            target.seek(begin)
            for piece in itertools.chain((first,), pieces):
                target.write(piece)
                progress.update(len(piece))
            target.truncate()
            target.flush()
            os.fsync(target.fileno())
        found = part.stat().st_size
        if whole is not None and found < whole:
            raise requests.ConnectionError(f'the connection ended at {found} of {whole} bytes')
    return None


def _ask(url: str, headers: Mapping[str, str]) -> requests.Response:
    """What a server answers, its body still to come; a RefusedError if it does not."""
    try:
        return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.RequestException as error:
        raise RefusedError(f'no answer: {_why(error)}') from None


def _why(error: Exception) -> str:
    """What is at the bottom of an error of requests, without what it is wrapped in."""
    inner = error.args[0] if error.args else error
    if isinstance(inner, Exception) and not (reason := getattr(inner, 'reason', None)):
        reason = inner.args[0] if inner.args else inner
    return str(reason if isinstance(inner, Exception) else error)


def _refuse_page(begins: bytes) -> None:
    """Refuse an answer that says something, in HTML or XML, instead of giving the file."""
    begins = begins[:64].removeprefix(b'\xef\xbb\xbf').lstrip().lower()
    for start, what in _PAGES.items():
        if begins.startswith(start):
            raise RefusedError(f'gives {what} instead of the file')


def _whole(headers: Mapping[str, str]) -> int | None:
    """The size of the file by an answer's ``Content-Range: bytes */SIZE``."""
    size = headers.get('Content-Range', '').rpartition('/')[2]
    return int(size) if size.isdecimal() else None


def unpack(archive: Path, folder: Path, holds: Sequence[str]) -> None:
    """Unpack an archive into a folder, without its own folders; each file atomically.

    Raises
    ------
    ModelFileError
        If it is damaged; if a member would leave the folder, is no plain file, or expands beyond
        reason; if one of `holds` is not in it. Nothing is unpacked then.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = _members(content, archive, holds)
            if broken := content.testzip():
                raise ModelFileError(f'{archive}: {broken!r} in it is damaged')
            for name, member in members.items():
                with (
                    atomic_path(folder / name) as temporary,
                    content.open(member) as source,
                    open(temporary, 'wb') as target,
                ):
                    shutil.copyfileobj(source, target, PIECE)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(f'{archive}: not a readable archive: {why(error)}') from None


def _members(
    content: zipfile.ZipFile, archive: Path, holds: Sequence[str]
) -> dict[str, zipfile.ZipInfo]:
    """Name -> member, of those to unpack, once it is known that they may be."""
    members = {}
    for member in content.infolist():
        path, kind = PurePosixPath(member.filename), stat.S_IFMT(member.external_attr >> 16)
        if member.is_dir() or path.name.startswith('.') or '__MACOSX' in path.parts:
            continue
        outside = path.is_absolute() or '..' in path.parts or '\\' in member.filename
        if outside or kind not in (0, stat.S_IFREG):
            raise ModelFileError(f'{archive}: {member.filename!r} is not a plain file in it')
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ModelFileError(f'{archive}: {member.filename!r} is packed in an unusual way')
        members[path.name] = member
    if lacking := [name for name in holds if name not in members]:
        raise ModelFileError(f'{archive}: {", ".join(lacking)} missing from the archive')
    whole = sum(member.file_size for member in members.values())
    if whole > MOST_EXPANSION * archive.stat().st_size:
        raise ModelFileError(f'{archive}: it would expand to {whole} bytes')
    if whole > (free := shutil.disk_usage(archive.parent).free):
        raise OSError(f'{archive}: {whole / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free')
    return members
