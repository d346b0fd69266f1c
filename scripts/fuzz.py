"""Fuzz the readers of files and text (atheris, extra `fuzz`).

    python scripts/fuzz.py pickle --seconds 600

Every target may refuse its input by an error of ours; anything else is a finding, and the input
that caused it is kept in the folder of the run.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import vgg_forms
from PIL import Image

from storyteller import convnet, formats, images, text
from storyteller.errors import ImageError, MissingFileError, ModelFileError
from storyteller.io import bundle, pickle_2015, pickle_2015_tables
from storyteller.nn import efficientnet

Target = Callable[[bytes, Path], None]
LONGEST = 4096  # bytes of an input that atheris makes, unless a seed is longer
MOST_PATTERNS = pickle_2015.MOST_PATTERNS
FORMS = Path(__file__).parents[1] / 'tests' / 'forms'  # written by Python 2


def pickles(data: bytes, folder: Path) -> None:
    """The readers of the pickles of 2015."""
    for read in (formats.load_pickles, formats.load_dictionary):
        refused(read, put(folder / 'a.pkl', data))


def models(data: bytes, folder: Path) -> None:
    """Readers of parameters: of ours, and of those of 2015."""
    refused(formats.read_model, put(folder / 'a.safetensors', data))
    formats.write_pickle(folder / 'a.npz.pkl', {})
    refused(formats.read_model, put(folder / 'a.npz', data))
    refused(formats.read_array, put(folder / 'a.npy', data))
    refused(formats.open_table, folder / 'a.npy')


def networks(data: bytes, folder: Path) -> None:
    """The readers of VGG-19, which know its files by what stands in them, and of settings."""
    refused(convnet.read_params, put(folder / 'network', data))
    refused(efficientnet.read_eyes, put(folder / 'convnet.json', data))


def tables(data: bytes, folder: Path) -> None:
    """The reader of word tables of 2015: a step at a time, and with rows matched as a whole."""
    path, out, found = put(folder / 'a.npy', data), folder / 'plain.npy', []
    for patterns in (0, MOST_PATTERNS):
        pickle_2015.MOST_PATTERNS = patterns
        out.unlink(missing_ok=True)
        refused(lambda path: pickle_2015_tables.write_plain(path, out), path)
        found.append(out.read_bytes() if out.exists() else None)
    assert found[0] == found[1]


def cards(data: bytes, folder: Path) -> None:
    """The card of a bundle."""
    put(folder / bundle.CARD, data)
    refused(bundle.read_card, folder)
    refused(lambda folder: bundle.search_settings(folder / 'decoder.safetensors'), folder)


def photos(data: bytes, folder: Path) -> None:
    """The loader of photos: the centre, and the whole."""
    for allow, side in ((False, None), (True, 60)):
        try:
            rawim, im = images.load_image(
                io.BytesIO(data), allow_truncated=allow, side=side, max_pixels=2**24
            )
        except ImageError:
            continue
        assert rawim.shape == (224, 224, 3) and im.shape[2:] == (side or 224,) * 2
        assert np.isfinite(im).all()


def tokens(data: bytes, folder: Path) -> None:
    """The tokeniser, on any text, lone surrogates too."""
    given = data.decode('utf-8', 'surrogateescape')
    (told,) = text.preprocess([given])
    assert isinstance(told, str) and '\n' not in told
    text.detokenise(told)


TARGETS: dict[str, Target] = {
    'pickle': pickles,
    'model': models,
    'network': networks,
    'table': tables,
    'bundle': cards,
    'photo': photos,
    'text': tokens,
}


def refused(read: Callable, path: Path) -> None:
    """Read, or be refused by an error of ours that names the file."""
    try:
        read(path)
    except (ModelFileError, MissingFileError) as error:
        assert str(path) in str(error)


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def seeds(name: str) -> list[bytes]:
    """A few sound inputs to begin with."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        if name == 'pickle':
            formats.write_pickle(path / 'a', {'dim': 3, 'words': ['a', 'b'], 'W': array})
            words = pickle.dumps({'the': 2, 'dog': 300}, 2)
            old = b"(dp0\nS'dim'\np1\nI3\nsS'name'\np2\nS'romance.npz'\np3\ns."
            return [(path / 'a').read_bytes(), old, words]
        if name == 'model':
            formats.write_model(path / 'a.safetensors', {'W': array}, {'dim': 3})
            formats.write_model(path / 'a.npz', {'W': array}, {'dim': 3})
            formats.write_array(path / 'a.npy', array)
            return [(path / f'a.{kind}').read_bytes() for kind in ('safetensors', 'npz', 'npy')]
        if name == 'network':
            blocks = tuple((1,) * len(block) for block in convnet.VGG19.blocks)
            shapes = convnet.Architecture(blocks, fc=(1, 1), input_size=32).shapes()
            params = {key: np.full(shape, 0.5, np.float32) for key, shape in shapes.items()}
            for form, write in vgg_forms.FORMS.items():
                write(path / form, params)
            efficientnet.write_eyes(path / 'a.json', efficientnet.Eyes(2.0, 0.5))
            return [(path / name).read_bytes() for name in (*vgg_forms.FORMS, 'a.json')]
        if name == 'table':
            return [(FORMS / f'table_{way}_2.npy').read_bytes() for way in ('cPickle', 'pickle')]
        if name == 'bundle':
            files = {'a.npy': {'bytes': 1, 'sha256': '0' * 64}}
            files['decoder.safetensors'] = files['a.npy']
            search = {'k': 10, 'bw': 8, 'length_penalty': 0.5, 'banned': ['love'], 'groups': 2}
            return [json.dumps({'format': 1, 'files': files, 'search': search}).encode()]
        if name == 'photo':
            found, picture = [], np.tile(np.uint8(array * 40), (8, 8))
            for kind in ('JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM', 'TGA'):
                file = io.BytesIO()
                Image.fromarray(picture).convert('RGB').save(file, kind)
                found.append(file.getvalue())
            return found
        said = 'Mrs. Smith said, "It\'s 5 p.m. ... isn\'t it?" -- He didn\u2019t know.'
        return [said.encode(), b'\xff\xfe\x00 a\r\nb']


def changed(data: bytes, chance: random.Random) -> bytes:
    """The same with a few bytes flipped, cut out, doubled or cut off."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(found) + 1)
        end = min(len(found), place + chance.randint(1, 8))
        way = chance.randrange(4)
        if way == 0:
            found[place:end] = chance.randbytes(end - place)
        elif way == 1:
            del found[place:end]
        elif way == 2:
            found[place:place] = found[place:end]
        else:
            del found[place:]
    return bytes(found)


def guided(name: str, folder: Path, seconds: int) -> None:
    """Run a target in this process under atheris, which ends the process."""
    import atheris

    atheris.instrument_all()
    os.environ['STORYTELLER_CACHE'] = str(folder / 'cache')
    known, work = folder / 'inputs', folder / 'work'
    for each in (known, work):
        each.mkdir(parents=True, exist_ok=True)
    found = seeds(name)
    for number, seed in enumerate(found):
        (known / f'seed{number}').write_bytes(seed)
    longest = max(LONGEST, *map(len, found))
    options = [f'-max_total_time={seconds}', '-rss_limit_mb=2048', '-timeout=10']
    options += [f'-artifact_prefix={folder}/finding-', f'-max_len={longest}', str(known)]
    atheris.Setup([sys.argv[0], *options], lambda data: TARGETS[name](data, work))
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('targets', nargs='*', metavar='TARGET', help=f'of {", ".join(TARGETS)}')
    parser.add_argument('--seconds', type=int, default=600, help='time per target (%(default)s)')
    parser.add_argument('--out', type=Path, default=Path('runs/fuzz'), help='(%(default)s)')
    parser.add_argument('--in-this-process', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := [name for name in args.targets if name not in TARGETS]:
        parser.error(f'{unknown[0]!r} is none of {", ".join(TARGETS)}')
    names = args.targets or list(TARGETS)
    if args.in_this_process:
        guided(names[0], args.out, args.seconds)
    status = 0
    for name in names:
        command = [sys.executable, __file__, name, '--in-this-process']
        command += ['--seconds', str(args.seconds), '--out', str(args.out / name)]
        done = subprocess.run(command, check=False)
        findings = sorted((args.out / name).glob('finding-*'))
        print(f'{name}: {"no finding" if done.returncode == 0 else findings or "it ended badly"}')
        status = status or done.returncode
    return 1 if status else 0


if __name__ == '__main__':
    sys.exit(main())
