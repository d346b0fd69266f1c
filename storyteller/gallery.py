"""Self-contained HTML pages of photos and stories.

What stands on it is decided in `cards`, how it looks and works in ``data/gallery.html``; here the
pictures are made and both are put together.

A results file may come from anybody, so nothing in a row is trusted: every text is escaped, no
path of a row becomes an address, and only photos inside the given folder are read.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from . import images
from .batch.gallery_rows import Card, gather, writable
from .batch.gallery_rows import read_rows as read_rows
from .errors import ImageError, MissingFileError, PathLike
from .formats import atomic_path
from .io.extras import needed
from .options import MAX_PIXELS

SIDE = 480  # pixels of the longer side of a thumbnail: sharp in a card, also on a fine screen
QUALITY = 82
THUMBNAIL = re.compile(r'[0-9a-f]{32}\.jpg')  # what we name one that lies beside the page


@dataclass(frozen=True)
class Contents:
    """What a page contains: photos, stories, failed photos and omitted ones."""

    photos: int
    stories: int
    failed: int
    without_picture: int


def write_gallery(
    rows: Iterable[Mapping[str, Any]],
    photos_folder: PathLike,
    out: PathLike,
    *,
    title: str = 'Stories about photos',
    embed: bool = True,
    max_pixels: int = MAX_PIXELS,
    verbose: bool = False,
) -> Contents:
    """Write a page of photos and their stories, atomically.

    Parameters
    ----------
    rows : iterable of mapping
        As `read_rows` gives them, or ``Story.to_dict()`` and ``StoryError.to_dict()``. Rows of the
        same photo share a card; of rows with the same settings too, the last counts. A failure
        counts only for a photo that has no story.
    photos_folder : path-like
        Where the photos lie. One that is not there, not below it, or cannot be read gives a card
        without picture.
    out : path-like
        The page, a name in ``.html``.
    title : str
        Its heading.
    embed : bool
        Put the pictures into the page; else into a folder ``NAME_files`` beside ``NAME.html``,
        from which a browser reads them only as they come into view.
    max_pixels : int
        The most that a photo may have which is shown.
    verbose : bool
        Show progress on stderr.

    Returns
    -------
    Contents
        How many photos and stories stand there.

    Raises
    ------
    ValueError
        If there are no rows, one of them is none of ours, or `out` is no name of a page.
    MissingFileError
        If there is no such folder of photos.
    MissingExtraError
        If jinja2 is not installed.
    """
    folder, out = Path(photos_folder), Path(out)
    if out.suffix.lower() not in ('.html', '.htm') or out.is_dir():
        raise ValueError(f'{out}: expected the name of a page, ending in .html')
    if not folder.is_dir():
        raise MissingFileError(f'{folder}: no such folder of photos')
    template, cards = _template(), gather(rows)
    beside = None if embed else out.with_name(f'{out.stem}_files')
    told = [card for card in cards if card.versions]
    pictured: list[str] = []  # the addresses of the thumbnails that were made

    def pictures() -> Iterator[tuple[Card, tuple[str, int, int] | None]]:
        """Pictures one at a time, so that a thousand photos need no more memory than one."""
        for card in tqdm(told, unit='photo', disable=not verbose):
            picture = _picture(folder, card.image, beside, max_pixels)
            pictured.extend(picture[:1] if picture else ())
            yield card, picture

    stories = [version.label for card in told for version in card.versions]
    several = [card.versions for card in told if len(card.versions) > 1]
    page = template.generate(
        title=writable(title),
        cards=pictures(),
        failed=[card for card in cards if not card.versions],
        photos=len(cards),
        stories=len(stories),
        labels=list(dict.fromkeys(version.label for card in several for version in card)),
        embed=embed,
    )
    with (
        atomic_path(out) as temporary,
        open(temporary, 'w', encoding='utf-8', newline='\n') as file,
    ):
        file.writelines(page)
    if beside is not None:
        _sweep(beside, pictured)
    return Contents(len(cards), len(stories), len(cards) - len(told), len(told) - len(pictured))


def _picture(
    folder: Path, image: str, beside: Path | None, max_pixels: int
) -> tuple[str, int, int] | None:
    """The address of a photo's thumbnail, its width and height; None where there is no photo."""
    root = os.path.abspath(folder)
    path = os.path.abspath(os.path.join(root, image))
    if not path.startswith(os.path.join(root, '')):
        return None  # a row may name any file of this computer, and the page may be shared
    try:
        # Photos that are truncated may have been told too.
        pixels = images.read_rgb(path, allow_truncated=True, max_pixels=max_pixels)
        thumbnail = Image.fromarray(pixels)
    except ImageError:
        return None
    thumbnail.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    thumbnail.save(buffer, 'JPEG', quality=QUALITY, optimize=True)
    jpeg = buffer.getvalue()
    if beside is None:
        address = 'data:image/jpeg;base64,' + base64.b64encode(jpeg).decode('ascii')
    else:
        # Named after what it holds, so that the page before this one keeps its own pictures.
        file = beside / f'{hashlib.sha256(jpeg).hexdigest()[:32]}.jpg'
        with atomic_path(file) as temporary:
            temporary.write_bytes(jpeg)
        # With ./ in front, a page called 'a:b' is not read as an address of the protocol a.
        address = './' + urllib.parse.quote(f'{beside.name}/{file.name}')
    return address, *thumbnail.size


def _sweep(folder: Path, addresses: Sequence[str]) -> None:
    """Remove the thumbnails that an earlier page needed and this one does not."""
    needed = {address.rsplit('/', 1)[-1] for address in addresses}
    for path in folder.glob('*.jpg'):
        if THUMBNAIL.fullmatch(path.name) and path.name not in needed:
            path.unlink()


def _template() -> Any:
    jinja2 = needed('jinja2')
    surroundings = jinja2.Environment(
        autoescape=True,
        loader=jinja2.PackageLoader('storyteller', 'data'),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    surroundings.filters['hash'] = _hash
    surroundings.filters['writable'] = writable
    return surroundings.get_template('gallery.html')


def _hash(source: str) -> str:
    """How a content security policy names the one script, or style, that may run."""
    return 'sha256-' + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode('ascii')
