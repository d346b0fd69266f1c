"""Captioned photos for the joint embedding: features, texts, batches and recalls.

Dimension letters: P photos, N captions, F width of the features, B batch, T time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ... import formats
from ...captions import ranking
from ...convnet import build_convnet, compute_features
from ...formats import ImageError, MismatchError, PathLike
from ...images import load_image
from ...layers import unit_rows
from ...vocabulary import Vocabulary
from .. import distributed
from . import documents, origins
from .caption_files import read_captions
from .corpus import batches_of_equal_length, padded
from .matching import Candidates

if TYPE_CHECKING:
    from ..embedding import EmbeddingOptions, JointEmbedding


@dataclass(frozen=True)
class CaptionedPhotos:
    """Photos as their features, and captions."""

    captions: list[list[str]]  # N, tokens; those of a photo together, in the order of the photos
    photos: np.ndarray  # (N,) int: the photo of each, a row of `features`
    features: np.ndarray  # (P, F) float32: unit rows
    mirrored: np.ndarray | None = None  # (M, F): of the first M photos mirrored left to right

    @classmethod
    def from_2015(cls, prefix: PathLike, split: str) -> CaptionedPhotos:
        """The layout of 2015: ``{prefix}_{split}_caps.txt`` and ``{prefix}_{split}_ims.npy``.

        Captions are lines, as many for each photo (five, in the data sets of 2015); features are
        rows, one a photo, or one a caption. A MismatchError says that their numbers do not fit,
        a MissingFileError or ModelFileError that a file is missing or not what it should be.
        """
        texts, rows = (Path(f'{prefix}_{split}_{end}') for end in ('caps.txt', 'ims.npy'))
        captions = [line.split() for line in documents.read_text(texts)]
        features = formats.read_array(rows)
        n = len(captions)
        if features.ndim != 2 or not n or not len(features) or n % len(features):
            shape = ' x '.join(map(str, features.shape))
            raise MismatchError(
                f'{rows}: features of shape {shape}, {texts}: {n} captions; expected a row for '
                f'each caption, or for each photo the same number of captions'
            )
        photos = np.repeat(np.arange(len(features)), n // len(features))
        if len(features) == n:  # a photo's row is repeated for each of its captions
            new = np.ones(n, bool)
            new[1:] = (features[1:] != features[:-1]).any(1)
            photos, features = np.cumsum(new) - 1, features[new]
        return cls(captions, photos, unit_rows(features))

    @classmethod
    def from_files(
        cls, captions: PathLike, names: Sequence[str], features: np.ndarray
    ) -> CaptionedPhotos:
        """A file of captions, the photos' names, and a row of features (P, F) for each name.

        Captions may be laid out in any way that :func:`caption_files.read_captions` reads. Those of
        other photos are passed over, and so are photos without a caption. A MismatchError says that
        there are not as many rows as names, or that no caption is of a named photo.
        """
        if features.ndim != 2 or len(features) != len(names):
            raise MismatchError(f'{len(names)} photos, but {len(features)} rows of features')
        by_name: dict[str, list[list[str]]] = {name: [] for name in names}
        for known, words in read_captions(captions):
            name = next((name for name in known if name in by_name), None)
            if name is not None and words:
                by_name[name].append(words)
        kept = [row for row, name in enumerate(names) if by_name[name]]
        if not kept:
            raise MismatchError(
                f'{captions}: not one caption is of the {len(names)} photos, '
                f'such as {names[0] if len(names) else "none"}'
            )
        texts = [by_name[names[row]] for row in kept]
        photos = np.repeat(np.arange(len(kept)), [len(t) for t in texts])
        return cls([c for t in texts for c in t], photos, unit_rows(np.asarray(features)[kept]))

    @classmethod
    def from_folder(
        cls, captions: PathLike, folder: PathLike, network: PathLike, cache: PathLike
    ) -> CaptionedPhotos:
        """Photos in a folder, seen through a network, with captions as for :meth:`from_files`.

        Photos that have no caption are not looked at; one that cannot be read is passed over, and
        said. The features are kept in the folder `cache`: a MismatchError says that those there are
        of other photos or another network, a MissingFileError that none of the photos is there.
        """
        found: dict[tuple[str, ...], str | None] = {}
        for known, _ in read_captions(captions):
            if known not in found:
                here = (name for name in known if (Path(folder) / name).is_file())
                found[known] = next(here, None)
        names = sorted({name for name in found.values() if name})
        if not names:
            raise formats.MissingFileError(f'{folder}: none of the photos of {captions} is here')
        kept, rows = Path(cache) / 'photos.txt', Path(cache) / 'features.npy'
        facts = {'the network': origins.of_file(network)}
        facts |= {name: origins.of_file(Path(folder) / name) for name in names}
        if not (origins.is_made(rows, facts) and kept.exists()):
            read, features = _features(Path(folder), names, network)
            formats.write_text(kept, ''.join(f'{name}\n' for name in read))
            formats.write_array(rows, features)  # last: its being there says that all is
        return cls.from_files(captions, formats.read_lines(kept), formats.read_array(rows))

    def part(self, photos: np.ndarray) -> CaptionedPhotos:
        """Some of the photos, in this order, with their captions."""
        groups = [np.flatnonzero(self.photos == photo) for photo in photos]
        captions = [self.captions[i] for group in groups for i in group]
        rows = np.repeat(np.arange(len(photos)), list(map(len, groups)))
        mirrored = self.mirrored
        if mirrored is not None:
            if (np.diff(photos) < 0).any():
                raise ValueError('photos: with mirrored features they must be in rising order')
            mirrored = mirrored[photos[photos < len(mirrored)]]
        return CaptionedPhotos(captions, rows, self.features[photos], mirrored)

    def with_mirrored(self, features: np.ndarray) -> CaptionedPhotos:
        """The same with features (M, F) of the first M photos mirrored.

        A MismatchError says that their width is another, or that there are more rows than photos.
        """
        if features.ndim != 2 or features.shape[1] != self.features.shape[1]:
            shape = ' x '.join(map(str, features.shape))
            raise MismatchError(
                f'mirrored features of shape {shape}, features of width {self.features.shape[1]}'
            )
        if len(features) > len(self.features):
            raise MismatchError(f'{len(features)} mirrored photos, but {len(self.features)} photos')
        return replace(self, mirrored=unit_rows(features))

    def hold_out(self, count: int, seed: int = 0) -> tuple[CaptionedPhotos, CaptionedPhotos]:
        """Sample a number of photos: the rest, and those; a ValueError if nothing would be left."""
        if not 0 < count < len(self.features):
            raise ValueError(f'of {len(self.features)} photos {count} cannot be held out')
        order = np.random.default_rng(seed).permutation(len(self.features))
        return self.part(np.sort(order[count:])), self.part(np.sort(order[:count]))

    def vocabulary(self, min_count: int = 1) -> Vocabulary:
        """The words of the captions."""
        counts = Counter(word for caption in self.captions for word in caption)
        return Vocabulary.from_counts(counts, min_count=min_count)

    def sources(self, vocabulary: Vocabulary, options: EmbeddingOptions, seed: int) -> list[Pairs]:
        """The sources of training batches: photos, and mirrored photos if there are any.

        With a cross entropy a batch takes a photo once at most, since its captions would otherwise
        stand against each other.
        """
        captions = [np.array(vocabulary.encode(caption), np.int64) for caption in self.captions]
        once = options.temperature > 0
        found = [Pairs(captions, self.photos, self.features, options, seed, once)]
        if self.mirrored is not None:
            known = np.flatnonzero(self.photos < len(self.mirrored))
            texts, photos = [captions[i] for i in known], self.photos[known]
            found.append(Pairs(texts, photos, self.mirrored, options, seed + 1, once))
        return found

    def recalls(self, model: JointEmbedding, vocabulary: Vocabulary) -> dict[str, float]:
        """Recalls and median ranks both ways, and the sum of recalls that decided in 2015."""
        device = next(model.parameters()).device
        features = torch.from_numpy(np.asarray(self.features, np.float32)).to(device)
        with torch.no_grad():
            images = unit_rows(model.images(features).cpu().numpy())
        vectors = encode(model, [vocabulary.encode(caption) for caption in self.captions])
        counts = np.bincount(self.photos, minlength=len(images))
        found: dict[str, float] = {}
        for way, measure in (('i2t', ranking.i2t), ('t2i', ranking.t2i)):
            figures = measure(images, vectors, captions_per_image=counts)
            found |= {f'{way}_r{n}': figures[i] for i, n in enumerate((1, 5, 10))}
            found[f'{way}_median'] = figures[3]
        total = sum(value for name, value in found.items() if '_r' in name)
        return found | {'sum_of_recalls': total}


class Pairs:
    """Captions with the features of their photos, in batches of equal caption length.

    Parameters
    ----------
    captions : list of int arrays
        Word indices.
    photos : (n,) int array
        For each caption, the row of `features`.
    features : (P, F) array
        Unit rows, as the image encoder takes them.
    once : bool
        Whether a batch takes a photo once at most. Where few photos have many captions, those of
        the same photo would otherwise stand against each other.
    candidates : Candidates, optional
        Captions of a pool, to choose among; needs a temperature.
    """

    def __init__(
        self,
        captions: Sequence[np.ndarray],
        photos: np.ndarray,
        features: np.ndarray,
        options: EmbeddingOptions,
        seed: int = 0,
        once: bool = False,
        candidates: Candidates | None = None,
    ):
        self.captions, self.photos, self.features = captions, np.asarray(photos), features
        self.options, self.seed, self.once = options, seed, once
        self.candidates = candidates
        if candidates is not None and not options.temperature:
            raise ValueError('candidates: need a temperature above 0')
        self.lengths = np.array([len(caption) for caption in captions])
        self.short = np.flatnonzero(self.lengths <= options.longest)
        if len(self.short) < 2:
            raise ValueError(
                f'{len(captions)} captions, {len(self.short)} of them of at most '
                f'{options.longest} words: expected two at least'
            )

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, as caption numbers; lone captions are left out."""
        rng = np.random.default_rng([self.seed, epoch])
        size = self.options.batch_size
        batches = batches_of_equal_length(self.lengths[self.short], rng, size, size * 1000)
        batches = [self.short[batch] for batch in batches]
        if self.once:
            batches = [b[np.unique(self.photos[b], return_index=True)[1]] for b in batches]
        return [batch for batch in batches if len(batch) > 1 and distributed.enough(batch)]

    def choices(
        self, batch: np.ndarray, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """The candidates of the photos of a batch; see :meth:`Candidates.draw`."""
        candidates = self.candidates
        return candidates.draw(self.photos[batch], device) if candidates else None

    def tensors(self, batch: np.ndarray, device: torch.device) -> list[Tensor]:
        """x (T, B), its mask (T, B), and the features (B, F)."""
        x, mask = padded([self.captions[i] for i in batch])
        features = np.asarray(self.features[self.photos[batch]], np.float32)
        return [torch.from_numpy(array).to(device) for array in (x, mask, features)]


def encode(model: JointEmbedding, captions: Sequence[Sequence[int]]) -> np.ndarray:
    """Unit vectors (n, E) of captions, word indices, by an embedding in training."""
    order = np.argsort([len(caption) for caption in captions], kind='stable')
    device, parts = next(model.parameters()).device, []
    for rows in np.array_split(order, -(-len(order) // 100)):
        x, mask = padded([np.asarray(captions[i], np.int64) for i in rows])
        with torch.no_grad():
            pair = (torch.from_numpy(array).to(device) for array in (x, mask))
            parts.append(model.sentences(*pair).cpu().numpy())
    vectors = np.concatenate(parts)
    return vectors[np.argsort(order)]


def _features(
    folder: Path, names: Sequence[str], network: PathLike
) -> tuple[list[str], np.ndarray]:
    """Names of the photos that could be read, and their features."""
    net, read, rows = build_convnet(network), [], []
    for name in tqdm(names, desc='features', unit=' photos'):
        try:
            _, im = load_image(folder / name, side=net['side'])
            rows.append(compute_features(net, im)[0])
        except ImageError as error:
            tqdm.write(f'passed over: {error}')
        else:
            read.append(name)
    if not rows:
        raise MismatchError(f'{folder}: not one of {len(names)} photos could be read')
    return read, np.stack(rows)
