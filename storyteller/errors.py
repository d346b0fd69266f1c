"""The kinds of trouble, one exception type each. The modules that raise them export them too."""

from __future__ import annotations

import os

PathLike = str | os.PathLike


def why(error: Exception) -> str:
    """What an exception says, in a line that is never empty and never a bare key."""
    text = ' '.join(str(error).split())
    if isinstance(error, EOFError):
        return text or 'it ends too soon'
    return (
        text
        if text and not isinstance(error, KeyError)
        else f'{type(error).__name__} {text}'.strip()
    )


class ModelFileError(ValueError):
    """A model file is not what it should be; the message names file, key and what was found."""


class MissingFileError(FileNotFoundError):
    """A file that was asked for is not there; the message names it and what it is for."""


class MismatchError(ValueError):
    """Two parts, each sound by itself, do not fit together (a width, a vocabulary)."""


class EmptyStoryError(ValueError):
    """The search ended with nothing but the empty text."""


class ImageError(ValueError):
    """A photo cannot be used.

    Attributes
    ----------
    path : str
        The photo, as it was given.
    reason : str
        What is wrong with it, in one line.
    """

    def __init__(self, path: PathLike, reason: str):
        super().__init__(f'{path}: {reason}')
        self.path, self.reason = str(path), reason
