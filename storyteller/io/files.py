"""Atomic writing of files, and the cache folder."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from ..errors import PathLike


@contextlib.contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, of the same suffix, that replaces it when the block succeeds.

    A reader sees the old file or the new one, never a part: the temporary file is flushed to disk
    before it is renamed, and removed if the block raises. Missing folders above are made.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp(), 'note.txt')
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text('whole')
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix comes last, since NumPy appends its own to names that lack it.
    handle, name = tempfile.mkstemp(
        prefix=f'.{path.name}.', suffix=''.join(path.suffixes[-1:]), dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, 'rb+') as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The process' file mask: ``mkstemp`` ignores it and makes files for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def at_home(path: PathLike) -> str:
    """A path with a leading ``~`` expanded to the home folder.

    A file that really is called so stays what it is.
    """
    name = os.fsdecode(path)
    return os.path.expanduser(name) if name[:1] == '~' and not os.path.lexists(name) else name


def cache_folder() -> Path | None:
    """The cache folder: ``STORYTELLER_CACHE``, else the user's own.

    None where there is neither, as for a user without a home.
    """
    if chosen := os.environ.get('STORYTELLER_CACHE'):
        return Path(at_home(chosen))
    try:
        folder = Path(platformdirs.user_cache_dir('storyteller'))
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None  # '~' that could not be expanded
