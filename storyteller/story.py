"""The result for a photo: a story, or the reason why there is none."""

from __future__ import annotations

import base64
import html
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import text
from .errors import PathLike
from .io.files import at_home, atomic_path

SHOWN = 5  # captions that are printed, however many were found
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
</head>
<body style="margin:2em;font-family:serif;line-height:1.5">
{body}
</body>
</html>
"""


def captions_text(captions: Sequence[tuple[str, float]]) -> str:
    """The first part of the printed output: the nearest captions, and an empty line."""
    return '\n'.join(['NEAREST-CAPTIONS: ', *(caption for caption, _ in captions[:SHOWN]), ''])


def say(words: str, flush: bool = False) -> None:
    """Print, replacing characters that stdout cannot encode."""
    try:
        print(words, flush=flush)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding  # the error names a kind of encoding, not this one
        print(words.encode(encoding, 'replace').decode(encoding), flush=flush)


@dataclass(frozen=True, repr=False, eq=False)
class Story:
    """A photo's story and everything that led to it.

    Attributes
    ----------
    image : str
        The photo, as it was given.
    captions : list of (str, float)
        The k nearest captions and their scores (dot products of unit vectors), best first.
    passage : str
        The story as 2015 printed it: tokens between blanks.
    settings : dict
        What it was told with: k, bw, lyric, style, strength, seed, maxlen, and of
        `SearchOptions` what is not as in 2015.
    vectors : dict of str to float32 array
        ``feature`` (F,), ``joint`` (E,), ``thought`` (D,) and ``shifted`` (D,).
    picture : (224, 224, 3) uint8 array
        The part of the photo that was looked at.
    others : list of (str, float)
        The next best texts and what they were compared by, where several were asked for.
    """

    image: str
    captions: list[tuple[str, float]]
    passage: str
    settings: dict[str, Any]
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    picture: np.ndarray | None = None
    others: list[tuple[str, float]] = field(default_factory=list)

    @property
    def prose(self) -> str:
        """The story with the usual spacing and punctuation."""
        return text.detokenise(self.passage)

    @property
    def lines(self) -> list[str]:
        """The printed lines of the story: one, or in lyric mode one per part between commas.

        As in 2015 a part loses one leading blank; parts with nothing in them are left out.
        """
        if not self.settings.get('lyric'):
            return [self.passage]
        return [part.removeprefix(' ') for part in self.passage.split(',') if part.strip()]

    def __str__(self) -> str:
        """What :func:`storyteller.generate.story` prints: exactly the text of 2015, then others."""
        return f'{captions_text(self.captions)}\n{self.story_text}'

    @property
    def story_text(self) -> str:
        """The second part of the printed output, from ``OUTPUT:`` on."""
        also = [line for other, _ in self.others for line in ('', 'ALSO: ', other)]
        return '\n'.join(['OUTPUT: ', *self.lines, *also])

    def __repr__(self) -> str:
        words = self.passage.split()
        start = ' '.join(words[:8]) + (' ...' if len(words) > 8 else '')
        return f'<Story of {self.image}: {start!r} ({len(words)} words)>'

    def _repr_html_(self) -> str:
        """Photo and text side by side, for notebooks."""
        prose = '<br>'.join(html.escape(text.detokenise(line)) for line in self.lines)
        captions = ''.join(f'<li>{html.escape(words)}</li>' for words, _ in self.captions[:SHOWN])
        return (
            '<div style="display:flex;gap:1.5em;align-items:flex-start">'
            f'{self._image_html()}<div style="max-width:40em"><p>{prose}</p>'
            f'<details><summary>nearest captions</summary><ul>{captions}</ul></details></div></div>'
        )

    def _image_html(self) -> str:
        if self.picture is None:
            return ''
        buffer = io.BytesIO()
        Image.fromarray(self.picture).save(buffer, 'JPEG', quality=85)
        data = base64.b64encode(buffer.getvalue()).decode()
        return f'<img alt="" width="224" src="data:image/jpeg;base64,{data}">'

    def to_dict(self) -> dict[str, Any]:
        """All but the vectors and the picture, as plain values for JSON."""
        row = {
            'image': self.image,
            'captions': [[caption, round(score, 6)] for caption, score in self.captions],
            'passage': self.passage,
            'prose': self.prose,
            'lines': self.lines,
            'settings': self.settings,
        }
        if self.others:
            row['others'] = [[text, round(score, 6)] for text, score in self.others]
        return row

    def save(self, path: PathLike) -> None:
        """Write the story to a file, whole or not at all, as its suffix says.

        Parameters
        ----------
        path : path-like
            ``.html`` is a page of its own, photo included, ``.json`` what `to_dict` returns, in one
            line, ``.txt`` what :func:`storyteller.generate.story` prints; all are UTF-8. Missing
            folders are made, and a file that is there is replaced.

        Raises
        ------
        ValueError
            If the suffix is none of the three.
        OSError
            If the file cannot be written.
        """
        path = Path(at_home(path))
        contents = {
            '.html': self._page,
            '.json': lambda: json.dumps(self.to_dict()) + '\n',
            '.txt': lambda: f'{self}\n',
        }
        if (suffix := path.suffix.lower()) not in contents:
            raise ValueError(
                f'{path}: expected a name that ends in {", ".join(contents)}, found {suffix!r}'
            )
        content = contents[suffix]()  # before there is any file
        with atomic_path(path) as temporary:
            temporary.write_bytes(content.encode('utf-8', 'replace'))

    def _page(self) -> str:
        # A bare name: where the photo lay concerns no reader of the page.
        title = f'A story of {Path(self.image).name}'
        return PAGE.format(title=html.escape(title), body=self._repr_html_())


@dataclass(frozen=True)
class StoryError:
    """The reason why a photo has no story.

    Attributes
    ----------
    path : str
        The photo.
    reason : str
        Why, in one line.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f'{self.path}: {self.reason}'

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {'image': self.path, 'error': self.reason}
