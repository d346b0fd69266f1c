"""Make random models in the file formats of 2015, at the published sizes or tiny.

The numbers are drawn, so the stories are nonsense, but what decides about time is as in trained
models: the shapes, captions of 8 to 14 words, photos that lie near to different captions, a few
likely words at each step, and stories that end. The same seed gives the same files.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from storyteller import config, convnet, formats, images, layers
from storyteller.io import word_table

Params = dict[str, np.ndarray]

ROOT = Path(__file__).parent.parent
CARD = 'benchmark_models.json'  # what the models of a folder are
ROWS_AT_ONCE = 1 << 14  # of a table: 41 MB at the published width
SYLLABLES = [consonant + vowel for consonant in 'bcdfghjklmnprstvwxyz' for vowel in 'aeiou']
EOS, UNK = 0, 1


@dataclass(frozen=True)
class Sizes:
    """How large the models are.

    Attributes
    ----------
    convnet : convnet.Architecture
        With the topology of VGG-19.
    classes : int
        Of its last layer, which is in the file and never used.
    width, table, uni, bi : int
        Of the skip-thoughts: width and number of words in the tables, units of the encoders.
    known : int
        Words of their trainers, which saved word vectors, decoders and output layers as well.
    joint, joint_width, joint_words, captions : int
        Of the embedding: units, width and number of words; captions in the pool.
    units, told_width, told : int
        Of the decoder: units, width and number of words.
    length : int
        Of its stories, about.
    """

    convnet: convnet.Architecture
    classes: int
    width: int
    table: int
    uni: int
    bi: int
    known: int
    joint: int
    joint_width: int
    joint_words: int
    captions: int
    units: int
    told_width: int
    told: int
    length: int

    @property
    def thought(self) -> int:
        """D, the width of a thought vector."""
        return self.uni + 2 * self.bi


PUBLISHED = Sizes(
    convnet=convnet.VGG19, classes=1000,
    width=620, table=930_913, uni=2400, bi=1200, known=20_000,
    joint=1024, joint_width=300, joint_words=10_000, captions=414_113,
    units=1600, told_width=620, told=40_000, length=80,
)  # fmt: skip
TINY = Sizes(
    convnet=convnet.Architecture(((4,) * 2, (4,) * 2, (8,) * 4, (8,) * 4, (8,) * 4), (16, 16), 32),
    classes=3,
    width=6, table=300, uni=8, bi=5, known=20,
    joint=12, joint_width=5, joint_words=120, captions=400,
    units=16, told_width=6, told=80, length=12,
)  # fmt: skip
PRESETS = {'published': PUBLISHED, 'tiny': TINY}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--folder', type=Path, required=True, help='folder of the models')
    parser.add_argument('--sizes', choices=PRESETS, default='published', help='(%(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(make_models(args.folder, PRESETS[args.sizes], args.seed), indent=1))


def make_models(folder: formats.PathLike, sizes: Sizes = TINY, seed: int = 0) -> dict[str, str]:
    """Write the models that are not in a folder yet; each file is written atomically.

    Parameters
    ----------
    folder : path-like
        Made if it is not there. The published sizes need 6.7 GB, and 2 GB of memory.
    sizes : Sizes
    seed : int

    Returns
    -------
    dict of str to str
        What `storyteller.generate.load_all` takes as `paths`.

    Raises
    ------
    ValueError
        If models of other sizes, or of another seed, are there.
    """
    folder = Path(folder)
    card = json.dumps({'seed': seed} | asdict(sizes), indent=1)
    if not (folder / CARD).exists():
        formats.write_text(folder / CARD, card)
    elif (folder / CARD).read_text(encoding='utf-8') != card:
        raise ValueError(f'{folder}: models of other sizes or of another seed are there')
    for files, write in WRITERS.items():
        if not all((folder / file).is_file() for file in files):
            print(f'{folder}: {files[0]}', file=sys.stderr)
            write(folder / files[0], sizes, random(seed, files[0]))
    return config.folder_paths(folder)


def random(seed: int, name: str) -> np.random.Generator:
    """The numbers of a file, the same whatever else is written."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def sample_photos(folder: formats.PathLike, count: int) -> list[str]:
    """Photo files that differ: those of the checkout, then mirrored, upside down, and both."""
    files = sorted((ROOT / 'images').glob('ex*.jpg'))
    ways = (lambda photo: photo), ImageOps.mirror, ImageOps.flip, lambda photo: photo.rotate(180)
    if count > len(files) * len(ways):
        raise ValueError(f'expected at most {len(files) * len(ways)} photos, found {count}')
    paths = []
    for number in range(count):
        way, file = number // len(files), files[number % len(files)]
        path = Path(folder) / f'{file.stem}_{way}.jpg' if way else file
        if not path.exists():
            with formats.atomic_path(path) as temporary, Image.open(file) as photo:
                ways[way](photo).save(temporary, quality=88)
        paths.append(str(path))
    return paths


# --- words ---------------------------------------------------------------------------------------


def word(number: int) -> str:
    """A word that can be said, a different one for each number.

    Examples
    --------
    >>> word(0), word(123), word(45_678)
    ('baba', 'beja', 'dezisu')
    """
    text = ''
    while number or len(text) < 4:
        number, last = divmod(number, len(SYLLABLES))
        text = SYLLABLES[last] + text
    return text


def vocabulary(count: int) -> list[str]:
    """So many words, the first two as everywhere; those of a small one are in a large one."""
    return ['<eos>', 'UNK', *map(word, range(count - 2))]


def write_dictionary(path: Path, count: int) -> None:
    """Word -> index and, as the trainers did, word -> how often it was seen."""
    words = vocabulary(count)
    counts = OrderedDict((w, count - i) for i, w in enumerate(words))
    formats.write_pickle(path, OrderedDict((w, i) for i, w in enumerate(words)), counts)


def write_captions(path: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    """A pool of captions; the frequencies of their words fall as in a language."""
    words = vocabulary(min(5000, sizes.joint_words, sizes.table))[2:]
    chances = 1 / np.arange(10, len(words) + 10)
    lengths = rng.integers(8, 15, sizes.captions)
    drawn = iter(rng.choice(len(words), lengths.sum(), p=chances / chances.sum()).tolist())
    lines = [' '.join(words[next(drawn)] for _ in range(n)) for n in lengths]
    formats.write_text(path, '\n'.join(lines) + '\n')


# --- numbers -------------------------------------------------------------------------------------


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    """A matrix (n_in, n_out) that keeps the size of what goes through it, times `scale`."""
    numbers = rng.standard_normal(shape, dtype=np.float32)
    return np.multiply(numbers, np.float32(scale / np.sqrt(shape[0])), out=numbers)


def vectors(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Word vectors (count, width)."""
    return normal(rng, count, width, scale=0.6 * np.sqrt(count))


def affine(
    rng: np.random.Generator, prefix: str, n_in: int, n_out: int, scale: float = 1
) -> Params:
    bias = np.zeros(n_out, np.float32)
    return {f'{prefix}_W': normal(rng, n_in, n_out, scale=scale), f'{prefix}_b': bias}


def gru(rng: np.random.Generator, prefix: str, width: int, hidden: int) -> Params:
    """The six arrays of a GRU, normal: for what is measured as good as orthogonal ones."""
    return {
        f'{prefix}_W': normal(rng, width, 2 * hidden),
        f'{prefix}_U': normal(rng, hidden, 2 * hidden),
        f'{prefix}_b': np.zeros(2 * hidden, np.float32),
        f'{prefix}_Wx': normal(rng, width, hidden),
        f'{prefix}_Ux': normal(rng, hidden, hidden),
        f'{prefix}_bx': np.zeros(hidden, np.float32),
    }


# --- models --------------------------------------------------------------------------------------


def write_skipthoughts(path: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    """Both encoders, with the decoders and output layers that the trainers left in the files."""
    for name, hidden, prefixes in (
        ('uni_skip', sizes.uni, ('encoder',)),
        ('bi_skip', sizes.bi, ('encoder', 'encoder_r')),
    ):
        params = {'Wemb': vectors(rng, sizes.known, sizes.width)}
        for prefix in (*prefixes, 'decoder_f', 'decoder_b'):
            params |= gru(rng, prefix, sizes.width, hidden)
        for prefix in ('decoder_f', 'decoder_b'):
            params[f'{prefix}_Wc'] = normal(rng, hidden, 3 * hidden)
        params |= affine(rng, 'ff_logit', hidden, sizes.known)
        options = {'encoder': 'gru', 'decoder': 'gru', 'dim_word': sizes.width, 'dim': hidden}
        formats.write_model(
            path.with_name(f'{name}.npz'), params, options | {'n_words': sizes.known}
        )


def write_words(path: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    formats.write_text(path, '\n'.join(vocabulary(sizes.table)) + '\n')


def write_table(path: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    """Word vectors, drawn and written a block at a time."""
    starts = range(0, sizes.table, ROWS_AT_ONCE)
    blocks = (vectors(rng, min(ROWS_AT_ONCE, sizes.table - i), sizes.width) for i in starts)
    word_table.write_table(path, (sizes.table, sizes.width), 'float32', blocks)


def write_vgg(path: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    """Lasagne's pickle; weights after He et al. 2015, which keep the size of the activations."""
    fc7 = sizes.convnet.dim
    shapes = sizes.convnet.shapes() | {'fc8_W': (fc7, sizes.classes), 'fc8_b': (sizes.classes,)}
    values = []
    for shape in shapes.values():
        fan_in = shape[0] if len(shape) == 2 else np.prod(shape[1:])
        values.append(rng.standard_normal(shape, dtype=np.float32))
        values[-1] *= np.float32(np.sqrt(2 / fan_in) if len(shape) > 1 else 0)
    mean = np.array(images.MEAN_BGR, np.float32)
    formats.write_pickle(path, {'param values': values, 'mean value': mean})


def write_embedding(path: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    """The joint space, with the mean photo in its middle: photos lie near to different captions."""
    features = sizes.convnet.dim
    params = {'Wemb': vectors(rng, sizes.joint_words, sizes.joint_width)}
    params |= gru(rng, 'encoder', sizes.joint_width, sizes.joint)
    params |= affine(rng, 'ff_image', features, sizes.joint)
    params['ff_image_b'] -= mean_feature(path.parent) @ params['ff_image_W']
    options = {'encoder': 'gru', 'dim_word': sizes.joint_width, 'dim': sizes.joint}
    options |= {'n_words': sizes.joint_words, 'dim_image': features, 'margin': 0.2}
    formats.write_model(path, params, options)
    write_dictionary(path.with_name(f'{path.name}.dictionary.pkl'), sizes.joint_words)


def mean_feature(folder: Path) -> np.ndarray:
    """The mean fc7 (F,) of the sample photos, each of unit length."""
    net = convnet.build_convnet(folder / 'vgg19.pkl', device='cpu')
    photos = [images.load_image(photo)[1] for photo in sample_photos(folder, 7)]
    return layers.unit_rows(convnet.compute_features(net, np.concatenate(photos))).mean(axis=0)


def write_decoder(path: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    """A decoder whose words are as unlike in probability as those of a language model."""
    params = {'Wemb': vectors(rng, sizes.told, sizes.told_width)}
    # Thoughts are about 1.5 long, whatever their width: the first state shall not be near to zero.
    scale = 0.6 * np.sqrt(sizes.thought)
    params |= affine(rng, 'ff_state', sizes.thought, sizes.units, scale)
    params |= gru(rng, 'decoder', sizes.told_width, sizes.units)
    params |= affine(rng, 'ff_logit', sizes.units, sizes.told, scale=4)  # states are about 0.5
    params['ff_logit_b'] -= np.log(np.arange(sizes.told, dtype=np.float32) + 1)
    set_clock(params, sizes.length)
    options = {'encoder': 'gru', 'decoder': 'gru', 'dimctx': sizes.thought, 'doutput': False}
    options |= {'dim_word': sizes.told_width, 'dim': sizes.units, 'n_words': sizes.told}
    formats.write_model(path, params, options)
    write_dictionary(path.with_name('romance_dictionary.pkl'), sizes.told)


def set_clock(params: Params, length: int) -> None:
    """Let unit 0 of a decoder rise slowly from -1 to 1 and call for the end of the story.

    Without that, random texts end in their first words or never.
    """
    hidden, share_left = len(params['decoder_Ux']), 0.2  # of the way, when the end grows likely
    kept = share_left ** (1 / length)
    for name, column in (('W', hidden), ('U', hidden), ('Wx', 0), ('Ux', 0)):
        params[f'decoder_{name}'][:, column] = 0
    params['decoder_b'][hidden] = np.log(kept / (1 - kept))
    params['decoder_bx'][0] = 2
    params['ff_state_W'][:, 0], params['ff_state_b'][0] = 0, -2
    params['ff_logit_W'][0], params['ff_logit_W'][:, EOS] = 0, 0
    params['ff_logit_W'][0, EOS], params['ff_logit_b'][EOS] = 30, -12


def write_style(path: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    """A style vector, about as long as a thought."""
    formats.write_array(path, normal(rng, sizes.thought))


# In this order: the embedding looks at photos through the network.
WRITERS = {
    ('uni_skip.npz', 'uni_skip.npz.pkl', 'bi_skip.npz', 'bi_skip.npz.pkl'): write_skipthoughts,
    ('dictionary.txt',): write_words,
    ('utable.npy',): write_table,
    ('btable.npy',): write_table,
    ('vgg19.pkl',): write_vgg,
    tuple(f'coco_embedding.npz{end}' for end in ('', '.pkl', '.dictionary.pkl')): write_embedding,
    ('coco_train_caps.txt',): write_captions,
    ('romance.npz', 'romance.npz.pkl', 'romance_dictionary.pkl'): write_decoder,
    ('caption_style.npy',): write_style,
    ('romance_style.npy',): write_style,
}


if __name__ == '__main__':
    main()
