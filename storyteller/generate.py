"""The facade: load the models, tell the story of a photo.

    >>> from storyteller import generate
    >>> z = generate.load_all()                           # doctest: +SKIP
    >>> generate.story(z, './images/ex1.jpg')             # doctest: +SKIP

With :mod:`storyteller.loading`, which it calls, this is what knows all the other modules.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from PIL import Image

from . import captions as pool
from . import embedding, layers, skipthoughts
from . import style as styling
from .ahead import ahead
from .convnet import build_convnet, compute_features
from .formats import EmptyStoryError, ImageError
from .images import Loaded, Photo, is_tensor, load_image, photo_name
from .loading import load_all
from .options import MAX_PIXELS, SearchOptions, SearchSettings, StoryOptions, Telling, check_count
from .story import Story, StoryError, captions_text, say
from .writing import texts_of

__all__ = [
    'SearchOptions',
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
    telling: SearchOptions | None = None,
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
    telling : SearchOptions, optional
        Search and sampling options, used as they are, without any of the bundle's.
        ``SearchOptions.of_2015()`` is the search of 2015, `bw` and `maxlen` included.
    allow_truncated : bool
        Accept truncated image files.
    max_pixels : int
        Maximum number of pixels of a photo; see :func:`storyteller.images.load_image`.

    Raises
    ------
    ImageError
        If the photo cannot be read.
    EmptyStoryError
        If the search finds nothing but the empty text.
    ValueError
        If an argument is out of range.
    """
    options, towards = _asked(
        z, k=k, bw=bw, lyric=lyric, style=style, strength=strength, seed=seed, maxlen=maxlen,
        telling=telling, allow_truncated=allow_truncated, max_pixels=max_pixels,
    )  # fmt: skip
    (told,) = _tell(z, [_read(z, image_loc, options)], options, towards, 'raise', aloud=True)
    assert isinstance(told, Story)  # what failed was raised
    say(told.story_text)
    return told


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
    telling: SearchOptions | None = None,
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
    options, towards = _asked(
        z, k=k, bw=bw, lyric=lyric, style=style, strength=strength, seed=seed, maxlen=maxlen,
        telling=telling, allow_truncated=allow_truncated, max_pixels=max_pixels,
    )  # fmt: skip

    def read(image: Photo) -> Loaded | StoryError:
        try:
            return _read(z, image, options)
        except ImageError as error:
            if on_error == 'raise':
                raise
            return StoryError(error.path, error.reason)

    def load(batch: list[Photo]) -> list[Loaded | StoryError]:
        return [read(image) for image in batch]

    photos = list(images)
    batches = [photos[i : i + batch_size] for i in range(0, len(photos), batch_size)]
    results: list[Story | StoryError] = []
    for loaded in ahead(load, batches) if len(batches) > 1 else map(load, batches):
        sound = [each for each in loaded if isinstance(each, Loaded)]
        told = iter(_tell(z, sound, options, towards, on_error))
        results += [each if isinstance(each, StoryError) else next(told) for each in loaded]
    return results


def _is_one_photo(images: Any) -> TypeGuard[Photo]:
    """Whether a photo was given where photos are expected; many in one array have four axes."""
    if is_tensor(images) or (isinstance(images, np.ndarray) and images.dtype.kind == 'f'):
        return images.ndim in (2, 3)  # none at all is an array of floats too, with one axis
    return (
        isinstance(images, (str, os.PathLike, Image.Image))
        or hasattr(images, 'read')
        or (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim < 4)
    )


def _asked(z: Mapping[str, Any], **said: Any) -> tuple[StoryOptions, np.ndarray]:
    """The arguments of a caller, and the vector (D,) of their style."""
    options = StoryOptions.of(z.get('search', SearchSettings()), **said)
    return options, styling.choose(z['styles'], z['bpos'], options.style)


def _read(z: Mapping[str, Any], image: Photo, options: StoryOptions) -> Loaded:
    """A photo as the network of `z` sees it."""
    seen = load_image(image, side=z['net'].get('side'), **options.reading)
    return Loaded(photo_name(image), *seen)


def _tell(
    z: Mapping[str, Any],
    photos: Sequence[Loaded],
    options: StoryOptions,
    towards: np.ndarray,
    on_error: str,
    aloud: bool = False,
) -> list[Story | StoryError]:
    """Tell one batch of photos in the style `towards` (D,); `aloud` prints their captions."""
    if not photos:
        return []
    features = compute_features(z['net'], np.concatenate([photo.im for photo in photos]))
    features = layers.unit_rows(features)  # (B, F)
    joint = embedding.encode_images(z['vse'], features)  # (B, E)
    nearest, scores = pool.nearest(joint, z['cvec'], options.k)  # (B, k)
    captions = [
        [(z['cap'][j], float(score)) for j, score in zip(*found, strict=True)]
        for found in zip(nearest, scores, strict=True)
    ]
    for shown in captions if aloud else ():
        say(captions_text(shown), flush=True)  # at once: the search may take a while
    thoughts = mean_thoughts(z, nearest)  # (B, D)
    shifted = styling.shift(thoughts, z['bneg'], towards, options.strength)
    texts = texts_of(z, shifted, options, towards, [[text for text, _ in c] for c in captions])
    vectors = {'feature': features, 'joint': joint, 'thought': thoughts, 'shifted': shifted}
    told: list[Story | StoryError] = []
    for i, (photo, found) in enumerate(zip(photos, texts, strict=True)):
        if isinstance(found, EmptyStoryError):
            if on_error == 'raise':
                raise EmptyStoryError(f'{photo.name}: {found}')
            told.append(StoryError(photo.name, str(found)))
            continue
        (passage, _), *others = found
        story = Story(
            image=photo.name,
            captions=captions[i],
            passage=passage,
            others=[(other, score) for other, score in others if score is not None],
            settings=options.settings | {'style': styling.label(options.style)},
            vectors={name: rows[i] for name, rows in vectors.items()},
            picture=photo.rawim,
        )
        told.append(story)
    return told


def mean_thoughts(z: Mapping[str, Any], nearest: np.ndarray) -> np.ndarray:
    """The vectors x (B, D), float32: the mean over the captions `nearest` (B, k) to each photo.

    `z` comes from :func:`load_all`; captions are given as places in ``z['cap']``.
    """
    used, where = np.unique(nearest, return_inverse=True)
    vectors = skipthoughts.encode(z['stv'], [z['cap'][i] for i in used], verbose=False)
    return vectors[where.reshape(nearest.shape)].mean(axis=1)
