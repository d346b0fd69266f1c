"""The exception types. The modules that raise them export them too."""

from __future__ import annotations

import os

PathLike = str | os.PathLike


def why(error: Exception) -> str:
    """The message of an exception, in one line that is never empty and never a bare key."""
    text = ' '.join(str(error).split())
    if isinstance(error, EOFError):
        return text or 'it ends too soon'
    return (
        text
        if text and not isinstance(error, KeyError)
        else f'{type(error).__name__} {text}'.strip()
    )


class ModelFileError(ValueError):
    """A model file is invalid; the message names file, key and what was found."""


class MissingFileError(FileNotFoundError):
    """A required file is missing; the message names it and its purpose."""


class MismatchError(ValueError):
    """Two valid parts are incompatible (a dimension, a vocabulary)."""


class EmptyStoryError(ValueError):
    """The search found nothing but the empty text."""


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
