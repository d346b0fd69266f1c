"""The facade as an object, for programs: it holds the models, and prints nothing.

    >>> from storyteller import Storyteller
    >>> teller = Storyteller()                                      # doctest: +SKIP
    >>> teller.tell('images/ex1.jpg', style='lyric').prose          # doctest: +SKIP

It is a name for what :func:`storyteller.generate.load_all` and :func:`storyteller.generate.stories`
do; the dict of 2015 is its `z`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import generate
from .errors import PathLike
from .images import Photo
from .story import Story, StoryError


class Storyteller:
    """The models, loaded once, and what tells stories with them.

    Parameters
    ----------
    models : path-like, sequence of path-like, mapping or None
        A folder of models, or the address of a bundle; the `paths` of
        :func:`storyteller.generate.load_all`. None is the bundle that comes along.
    device, threads, precision, caption_index
        As for :func:`storyteller.generate.load_all`, which also says what is raised.

    Attributes
    ----------
    z : dict
        What :func:`storyteller.generate.load_all` returns, for all that takes it.
    """

    def __init__(
        self,
        models: PathLike | Sequence[PathLike] | Mapping[str, PathLike] | None = None,
        *,
        device: Any = None,
        threads: int | None = None,
        precision: str = 'float32',
        caption_index: PathLike | None = None,
    ):
        self.z: dict[str, Any] = generate.load_all(
            models, device, caption_index=caption_index, precision=precision, threads=threads
        )

    @property
    def styles(self) -> list[str]:
        """The names that `style` may be, in alphabetical order."""
        return sorted(self.z['styles'])

    def tell(self, photo: Photo, **options: Any) -> Story:
        """Tell the story of a photo.

        Parameters
        ----------
        photo : path, PIL image, binary file object, array or torch.Tensor
        **options
            Those of :func:`storyteller.generate.story`, by name: `style`, `strength`, `k`, `bw`,
            `lyric`, `seed`, `maxlen`, `telling`, `allow_truncated`, `max_pixels`; with the same
            errors (ImageError, EmptyStoryError, ValueError).
        """
        (told,) = generate.stories(self.z, [photo], on_error='raise', **options)
        assert isinstance(told, Story)  # what failed was raised
        return told

    def tell_many(
        self, photos: Iterable[Photo], *, on_error: str = 'raise', **options: Any
    ) -> list[Story | StoryError]:
        """Tell the stories of many photos, in batches.

        Parameters
        ----------
        photos : iterable of photos
        on_error : {'raise', 'return'}
            Whether a photo that fails raises an exception, or gives a `StoryError` in its place.
        **options
            The others of :func:`storyteller.generate.stories`, with the same errors: those of
            `tell`, and `batch_size`.

        Returns
        -------
        list of Story or StoryError
            One for each photo, in order.
        """
        return generate.stories(self.z, photos, on_error=on_error, **options)

    def __repr__(self) -> str:
        styles = ', '.join(self.styles) or 'none by name'
        return f'<Storyteller: {len(self.z["cap"]):,} captions; styles: {styles}>'
