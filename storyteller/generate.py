"""The facade: load the models, tell the story of a photo.

    >>> from storyteller import generate
    >>> z = generate.load_all()                           # doctest: +SKIP
    >>> generate.story(z, './images/ex1.jpg')             # doctest: +SKIP

With :mod:`storyteller.loading`, which it calls, this is what knows all the other modules.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from PIL import Image

from . import captions as pool
from . import embedding, layers, skipthoughts
from . import style as styling
from .ahead import ahead
from .convnet import build_convnet, compute_features
from .formats import EmptyStoryError, ImageError
from .images import Photo, is_tensor, load_image, photo_name
from .loading import load_all
from .options import MAX_PIXELS, SearchSettings, Telling, check_count
from .story import Story, StoryError, captions_text, say
from .writing import texts_of

__all__ = [
    'Story',
    'StoryError',
    'Telling',
    'build_convnet',
    'compute_features',
    'load_all',
    'load_image',
    'stories',
    'story',
]

Read = tuple[np.ndarray, np.ndarray]  # a photo for the eye, and for the network


def story(
    z: Mapping[str, Any],
    image_loc: Photo,
    k: int | None = None,
    bw: int | None = None,
    lyric: bool = False,
    *,
    style: styling.Style | None = None,
    strength: float | None = None,
    seed: int | None = None,
    maxlen: int | None = None,
    telling: Telling | None = None,
    allow_truncated: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Story:
    """Tell the story of a photo: print its nearest captions and the story, and return both.

    The captions are printed as soon as they are known. In several threads, use :func:`stories`,
    which prints nothing.

    `k`, `bw`, `strength`, `maxlen` and `telling` default to the settings of the bundle
    (``z['search']``), else to those of 2015: 100, 50, 1.0, 1000, and a plain beam search.

    Parameters
    ----------
    z : dict
        From :func:`load_all`.
    image_loc : path, PIL image, binary file object, array or torch.Tensor
        The photo; see :func:`storyteller.images.load_image`.
    k : int, optional
        Number of captions whose vectors are averaged.
    bw : int, optional
        Beam width.
    lyric : bool
        Break the story into lines at commas.
    style : str, path, (D,) array, mapping or None
        A name in ``z['styles']``, a ``.npy`` file, a vector, or a mapping of names to weights. None
        is ``z['bpos']``.
    strength : float, optional
        s in F(x) = x - s (c - b): 0 keeps the style of captions, 1 is the formula of 2015.
    seed : int or None
        None searches for the most probable story. A number is the seed of a sampled one; settings
        of the bundle that only concern a search are ignored then.
    maxlen : int, optional
        Maximum number of words.
    telling : Telling, optional
        Search and sampling options, used as they are, without any of the bundle's.
        ``Telling.of_2015()`` is the search of 2015, `bw` and `maxlen` included.
    allow_truncated : bool
        Accept truncated image files.
    max_pixels : int
        Maximum number of pixels of a photo; see :func:`storyteller.images.load_image`.

    Returns
    -------
    Story

    Raises
    ------
    ImageError
        If the photo cannot be read.
    EmptyStoryError
        If the search finds nothing but the empty text.
    ValueError
        If an argument is out of range.
    """
    said = {'k': k, 'bw': bw, 'strength': strength, 'maxlen': maxlen, 'telling': telling}
    towards, settings = _way(z, lyric, style, seed, said)
    photo = _reader(z, allow_truncated, max_pixels)(image_loc)
    (told,) = _tell(z, [image_loc], [photo], towards, settings, 'raise', _show_captions)
    assert isinstance(told, Story)  # what failed was raised
    say(told.story_text)
    return told


def _show_captions(captions: Sequence[tuple[str, float]]) -> None:
    """Print the captions at once: the search for the story may take a while."""
    say(captions_text(captions), flush=True)


def stories(
    z: Mapping[str, Any],
    images: Iterable[Photo],
    *,
    k: int | None = None,
    bw: int | None = None,
    lyric: bool = False,
    style: styling.Style | None = None,
    strength: float | None = None,
    seed: int | None = None,
    maxlen: int | None = None,
    telling: Telling | None = None,
    allow_truncated: bool = False,
    max_pixels: int = MAX_PIXELS,
    on_error: str = 'raise',
    batch_size: int = 16,
) -> list[Story | StoryError]:
    """Tell the stories of many photos in batches, reading the next ones meanwhile. Prints nothing.

    Parameters
    ----------
    z, k, bw, lyric, style, strength, seed, maxlen, telling, allow_truncated, max_pixels
        As for :func:`story`.
    images : iterable of photos
    on_error : {'raise', 'return'}
        Whether a photo that fails raises an exception, or gives a :class:`StoryError` in its place.
    batch_size : int
        Number of photos per batch.

    Returns
    -------
    list of Story or StoryError
        One for each photo, in order.

    Raises
    ------
    ImageError, EmptyStoryError
        With ``on_error='raise'``.
    ValueError
        If an argument is out of range.
    """
    if on_error not in ('raise', 'return'):
        raise ValueError(f"on_error: expected 'raise' or 'return', found {on_error!r}")
    check_count('batch_size', batch_size)
    if _is_one_photo(images):
        raise TypeError(f'images: expected a list of photos, found one: {photo_name(images)}')
    said = {'k': k, 'bw': bw, 'strength': strength, 'maxlen': maxlen, 'telling': telling}
    towards, settings = _way(z, lyric, style, seed, said)
    photos, told = list(images), []
    reader = _reader(z, allow_truncated, max_pixels)

    def load(batch: list[Photo]) -> list[Any]:
        return [_loaded(reader, image, on_error) for image in batch]

    batches = [photos[i : i + batch_size] for i in range(0, len(photos), batch_size)]
    read = ahead(load, batches) if len(batches) > 1 else map(load, batches)
    for batch, loaded in zip(batches, read, strict=True):
        told += _tell(z, batch, loaded, towards, settings, on_error)
    return told


def _is_one_photo(images: Any) -> TypeGuard[Photo]:
    """Whether a photo was given where photos are expected; many in one array have four axes."""
    if is_tensor(images) or (isinstance(images, np.ndarray) and images.dtype.kind == 'f'):
        return images.ndim in (2, 3)  # none at all is an array of floats too, with one axis
    return (
        isinstance(images, (str, os.PathLike, Image.Image))
        or hasattr(images, 'read')
        or (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim < 4)
    )


def _way(
    z: Mapping[str, Any],
    lyric: bool,
    style: styling.Style | None,
    seed: int | None,
    said: Mapping[str, Any],
) -> tuple[np.ndarray, dict[str, Any]]:
    """Check the options of a story: the style's vector (D,), and all of them as plain values."""
    towards = styling.choose(z['styles'], z['bpos'], style)
    if seed is not None:
        check_count('seed', seed, least=0)
    chosen = z.get('search', SearchSettings()).chosen(seed is not None, **said)
    settings = {
        'k': int(chosen.k),
        'bw': int(chosen.bw),
        'lyric': bool(lyric),
        'style': styling.label(style),
        'strength': float(chosen.strength),
        'seed': None if seed is None else int(seed),
        'maxlen': int(chosen.maxlen),
    }
    telling = chosen.telling.changed()
    if telling or said['telling'] is not None:
        settings['telling'] = telling
    return towards, settings


def _tell(
    z: Mapping[str, Any],
    images: list[Photo],
    told: list[Any],
    towards: np.ndarray,
    settings: dict[str, Any],
    on_error: str,
    show: Callable[[list[tuple[str, float]]], None] | None = None,
) -> list[Story | StoryError]:
    """Put the stories of one batch in the places of its loaded photos; errors stay.

    `show` is given each photo's nearest captions as soon as they are known.
    """
    rows = [row for row, item in enumerate(told) if not isinstance(item, StoryError)]
    if not rows:
        return told
    pictures, inputs = zip(*(told[row] for row in rows), strict=True)
    features = layers.unit_rows(compute_features(z['net'], np.concatenate(inputs)))  # (B, F)
    joint = embedding.encode_images(z['vse'], features)  # (B, E)
    nearest, scores = pool.nearest(joint, z['cvec'], settings['k'])  # (B, k)
    captions = [
        [(z['cap'][j], float(score)) for j, score in zip(*found, strict=True)]
        for found in zip(nearest, scores, strict=True)
    ]
    if show is not None:
        for found in captions:
            show(found)
    thoughts = mean_thoughts(z, nearest)  # (B, D)
    shifted = styling.shift(thoughts, z['bneg'], towards, settings['strength'])
    told_texts = texts_of(
        z, shifted, settings, towards, [[text for text, _ in found] for found in captions]
    )
    for i, (row, texts) in enumerate(zip(rows, told_texts, strict=True)):
        name = photo_name(images[row])
        if isinstance(texts, EmptyStoryError):
            if on_error == 'raise':
                raise EmptyStoryError(f'{name}: {texts}')
            told[row] = StoryError(name, str(texts))
            continue
        vectors = (features[i], joint[i], thoughts[i], shifted[i])
        told[row] = Story(
            image=name,
            captions=captions[i],
            passage=texts[0][0],
            others=[(other, score) for other, score in texts[1:] if score is not None],
            settings=dict(settings),
            vectors=dict(zip(('feature', 'joint', 'thought', 'shifted'), vectors, strict=True)),
            picture=pictures[i],
        )
    return told


def _reader(z: Mapping[str, Any], allow_truncated: bool, max_pixels: int) -> Callable[..., Read]:
    """What reads a photo as the network of `z` sees it."""
    return functools.partial(
        load_image,
        side=z['net'].get('side'),
        allow_truncated=allow_truncated,
        max_pixels=max_pixels,
    )


def _loaded(read: Callable[..., Read], image: Photo, on_error: str) -> Read | StoryError:
    try:
        return read(image)
    except ImageError as error:
        if on_error == 'raise':
            raise
        return StoryError(error.path, error.reason)


def mean_thoughts(z: Mapping[str, Any], nearest: np.ndarray) -> np.ndarray:
    """The vector x of each photo: the mean over its nearest captions.

    Parameters
    ----------
    z : dict
        From :func:`load_all`.
    nearest : (B, k) int array
        For each photo, places in ``z['cap']``.

    Returns
    -------
    (B, D) float32 array
    """
    used, where = np.unique(nearest, return_inverse=True)
    vectors = skipthoughts.encode(z['stv'], [z['cap'][i] for i in used], verbose=False)
    return vectors[where.reshape(nearest.shape)].mean(axis=1)
