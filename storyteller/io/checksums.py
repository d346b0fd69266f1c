"""Sums of files that were reckoned before: a file is read again only when it is another.

Reading a bundle to compare its sums takes as long as loading it. So what was read is noted in the
cache, with the size, the times and the number of the file; where one of these has changed, or the
file is so new that it might still change unseen, its sum is reckoned anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from ..errors import PathLike
from .files import atomic_path, cache_folder

NAME = 'sums.json'
SETTLED = 2_000_000_000  # nanoseconds since a change after which the next one gets another time
MOST = 1000  # files that are kept in mind


def sha256(path: PathLike) -> str:
    """The hash of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class KnownSums:
    """The sums in the cache; without one, nothing is known. Use it as a context, which keeps it."""

    def __init__(self) -> None:
        folder = cache_folder()
        self.path = folder and folder / NAME
        self.known: dict[str, list] = {}
        if self.path:
            with contextlib.suppress(OSError, ValueError, RecursionError):
                read = json.loads(self.path.read_bytes())
                self.known = read if isinstance(read, dict) else {}
        self.changed = False

    def __enter__(self) -> KnownSums:
        return self

    def __exit__(self, *_: object) -> None:
        if not (self.changed and self.path):
            return
        last = dict(list(self.known.items())[-MOST:])
        with contextlib.suppress(OSError), atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(last), encoding='ascii')

    def sha256(self, path: PathLike) -> str:
        """The hash of a file, from what is known if it is still the same file."""
        name, state = os.path.abspath(path), os.stat(path)
        seen = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
        known = self.known.get(name)
        if isinstance(known, list) and known[:-1] == seen:
            return str(known[-1])
        digest = sha256(path)
        if time.time_ns() - max(seen[1:3]) > SETTLED:
            self.known.pop(name, None)
            self.known[name] = [*seen, digest]
            self.changed = True
        return digest


def forget() -> None:
    """Know nothing any more, so that each sum is reckoned once more."""
    folder = cache_folder()
    with contextlib.suppress(OSError):
        if folder:
            Path(folder, NAME).unlink(missing_ok=True)
