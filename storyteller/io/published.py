"""The files published in 2015: their sources, checksums and uses."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..config import folder_paths


@dataclass(frozen=True)
class Published:
    """A file to download."""

    name: str
    sources: tuple[str, ...]  # addresses, in the order in which they are tried
    size: int  # in bytes
    digest: str | None = None  # ALGORITHM:DIGITS, of which the first may do; None if none is known
    exact: bool = True  # whether `size` is what it has, and not about that
    holds: tuple[str, ...] = ()  # of an archive: the files that must come out of it
    note: str = ''  # what a user should know of it

    def __post_init__(self):
        if not self.name or not self.sources:
            raise ValueError(f'{self.name or "a file"}: expected a name and at least one source')
        if self.digest and not re.fullmatch(r'(sha256|md5):[0-9a-f]{8,64}', self.digest):
            raise ValueError(f'{self.name}: digest: expected ALGORITHM:DIGITS, {self.digest!r}')

    def addresses(self, mirror: str | None = None) -> tuple[str, ...]:
        """Addresses to try; a mirror of all files replaces the sources."""
        return (f'{mirror.rstrip("/")}/{self.name}',) if mirror else self.sources

    @property
    def check(self) -> str:
        """How it is known to be the right file, in words."""
        if not self.digest:
            looked = 'only the sums inside the archive are' if self.holds else 'only its size is'
            return f'no sum of it is known, {looked} looked at'
        algorithm, _, digits = self.digest.partition(':')
        name = {'sha256': 'SHA-256', 'md5': 'MD5'}[algorithm]
        part = ' (only the first digits are known)' if len(digits) not in (32, 64) else ''
        return f'{name} {digits}{part}'


@dataclass(frozen=True)
class Part:
    """Files that are used together."""

    name: str
    about: str
    files: tuple[Published, ...]
    one: bool = False  # whether one of the files is enough: forms of the same, the best first

    @property
    def size(self) -> int:
        """Approximate download size in bytes."""
        sizes = [file.size for file in self.files]
        return max(sizes) if self.one else sum(sizes)


@dataclass(frozen=True)
class Use:
    """Something that can be done with some of the parts."""

    needs: tuple[str, ...]  # names of parts
    what: str
    how: str = ''  # a line to run or to write, for `str.format` with the `folder` and its `entries`
    keys: tuple[str, ...] = ()  # instead of `how`: entries of `config.paths` to take from there


_TORONTO = 'http://www.cs.toronto.edu/~rkiros'
_MIRROR = 'https://mirror.nubenum.de/www.cs.toronto.edu/~rkiros'  # of a user, known since 2019
_ARCHIVE = 'https://web.archive.org/web/2016id_'  # what it kept about then, as it was
_RELEASES = 'https://github.com/fchollet/deep-learning-models/releases/download/v0.1'
_BUCKET = 'https://storage.googleapis.com/tensorflow/keras-applications/vgg19'
_KERAS = 'vgg19_weights_tf_dim_ordering_tf_kernels.h5'


# Name, size and SHA-256; the sums are those that users of the skip-thoughts files have published.
_SKIP_THOUGHTS = """
dictionary.txt   7996547     4dc5622978a30cddea8c975c871ea8b6382423efb107d27248ed7b6cfa490c7c
utable.npy       2342138474  790951d4b08e843e3bca0563570f4134ffd17b6bd4ab8d237d2e5ae15e4febb3
btable.npy       2342138474  4a4ed9d7560bb87f91f241739a8f80d8f2ba787a871da96e1119e913ccd61c53
uni_skip.npz     663989216   7f40ff16ff5c54ce9b02bd1a3eb24db3e6adaf7712a7a714f160af3a158899c8
uni_skip.npz.pkl 693         d58740d46cba28417cbc026af577f530c603d81ac9de43ffd098f207c7dc4411
bi_skip.npz      289340074   8ab7965d2db5d146a907956d103badfa723b57e0acffb75e10198ba9f124edb0
bi_skip.npz.pkl  689         d7e81430fcdcbc60b36b92b3f879200919c75d3015505ee76ae3b206634a0eb6
"""
SKIP_THOUGHTS = Part(
    'skip-thoughts',
    'the encoders of sentences, and their words',
    tuple(
        Published(
            name,
            tuple(f'{place}/models/{name}' for place in (_TORONTO, _MIRROR)),
            int(size),
            f'sha256:{digits}',
        )
        for name, size, digits in map(str.split, _SKIP_THOUGHTS.strip().splitlines())
    ),
)

# The weights alone have 574,668,960 bytes. The sum of Caffe's file stands in two projects that have
# nothing to do with each other; of vgg19.pkl only one is to be found, and there for two files.
VGG = Part(
    'vgg',
    'VGG-19, which sees the photos',
    (
        Published(
            'vgg19.pkl',
            ('https://s3.amazonaws.com/lasagne/recipes/pretrained/imagenet/vgg19.pkl',),
            574_670_000,
            exact=False,
            note="the file of 2015: Lasagne's copy of the weights",
        ),
        Published(
            'VGG_ILSVRC_19_layers.caffemodel',
            (
                'http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/'
                'VGG_ILSVRC_19_layers.caffemodel',
            ),
            574_671_192,
            'md5:b5c644beabd7cf06bdd9065cfd674c97',
            note='the weights as they were first published, for Caffe',
        ),
        Published(
            _KERAS,
            (f'{_RELEASES}/{_KERAS}', f'{_BUCKET}/{_KERAS}'),
            574_710_816,
            'md5:cbe5617147190e668d6c5d5026f83318',
            note='the same weights for Keras; reading them needs h5py',
        ),
        Published(
            'vgg19-d01eb7cb.pth',
            ('https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth',),
            574_670_000,
            'sha256:d01eb7cb',
            exact=False,
            note='the same weights for PyTorch',
        ),
        Published(
            'vgg19-dcbb9e9d.pth',
            ('https://download.pytorch.org/models/vgg19-dcbb9e9d.pth',),
            574_673_361,
            'sha256:dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44',
            note="other weights: torchvision's own training, whose features are not those of 2015",
        ),
    ),
    one=True,
)

_IN_ARCHIVE = (
    'romance.npz', 'romance.npz.pkl', 'romance_dictionary.pkl', 'caption_style.npy',
    'romance_style.npy', 'coco_train_caps.txt', 'coco_embedding.npz', 'coco_embedding.npz.pkl',
    'coco_embedding.npz.dictionary.pkl',
)  # fmt: skip
STORYTELLER = Part(
    'storyteller',
    'the decoder, its words and styles; captions, and the embedding that finds them',
    (
        Published(
            'neural_storyteller.zip',
            tuple(
                f'{place}/neural_storyteller.zip'
                for place in (_TORONTO, _MIRROR, f'{_ARCHIVE}/{_TORONTO}')
            ),
            600_000_000,
            exact=False,
            holds=_IN_ARCHIVE,
        ),
    ),
)

PARTS = (SKIP_THOUGHTS, VGG, STORYTELLER)

USES = (
    Use(
        ('skip-thoughts', 'vgg', 'storyteller'),
        'stories as in 2015',
        'python -m storyteller --models {folder} PHOTO',
    ),
    Use(
        ('skip-thoughts', 'storyteller'),
        'the decoder and the styles of 2015 tell what the network of our bundle sees',
        keys=('skmodels', 'sktables', 'decmodel', 'dictionary', 'negbias', 'posbias'),
    ),
    Use(
        ('vgg', 'storyteller'),
        'photos are seen and captions found as in 2015; our own decoder tells them',
        keys=('vgg', 'vsemodel', 'captions'),
    ),
    Use(
        ('skip-thoughts',),
        'vectors of sentences; decoders and styles can be trained for them '
        '(scripts/train_decoder.py, scripts/make_style.py)',
        'skipthoughts.load_model({folder!r}, {folder!r})',
    ),
    Use(('vgg',), 'our own models see photos through VGG-19', keys=('vgg',)),
    Use(
        ('storyteller',),
        'sentences and captions of 2015 in one space',
        'embedding.load_model({entries[vsemodel]!r})',
    ),
)


def chosen(names: Iterable[str]) -> tuple[Part, ...]:
    """The parts, or what is left of them, that names of parts and of files ask for.

    A ValueError says what nothing is called.
    """
    names = set(names)
    known = [name for part in PARTS for name in (part.name, *(file.name for file in part.files))]
    if unknown := sorted(names - set(known)):
        raise ValueError(f'{unknown[0]!r} is none of {", ".join(known)}')
    found = []
    for part in PARTS:
        files = [file for file in part.files if {part.name, file.name} & names]
        if files:
            found.append(Part(part.name, part.about, tuple(files), part.one))
    return tuple(found)


def listing(parts: Iterable[Part], mirror: str | None = None) -> str:
    """What would be downloaded, with sizes and sources, as text."""
    lines = []
    for part in parts:
        enough = '; one of these is enough' if part.one else ''
        lines.append(f'{part.name}, {part.size / 1e9:.1f} GB: {part.about}{enough}')
        for file in part.files:
            about = '' if file.exact else 'about '
            lines.append(f'  {file.name}: {about}{file.size:,} bytes; {file.check}')
            lines += [f'    ({file.note})'] * bool(file.note)
            lines += [f'    {source}' for source in file.addresses(mirror)]
    return '\n'.join(lines)


def uses(folder: str | os.PathLike, had: Collection[str]) -> str:
    """What can be done with the parts in a folder, as text.

    What needs no more than a part of something else that is named is left out.
    """
    possible = [use for use in USES if set(use.needs) <= set(had)]
    best = [
        use for use in possible if not any(set(use.needs) < set(other.needs) for other in possible)
    ]
    lines = [
        line
        for use in best
        for line in (f'  {" + ".join(use.needs)}: {use.what}', f'    {_how(use, Path(folder))}')
    ]
    if not lines:
        lines = ['  our own models need none of these files: python -m storyteller PHOTO']
    return '\n'.join(lines)


def _how(use: Use, folder: Path) -> str:
    """The line that does it."""
    entries = folder_paths(folder)
    forms = [str(folder / file.name) for file in VGG.files if (folder / file.name).is_file()]
    entries |= {'vgg': forms[0]} if forms else {}
    if use.keys:
        return f'generate.load_all({dict((key, entries[key]) for key in use.keys)})'
    return use.how.format(folder=str(folder), entries=entries)
