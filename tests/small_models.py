"""Small models that tell a story from the first pixel to the last word, whatever the bundle is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from conftest import REFERENCE

from storyteller import convnet, formats, generate

PHOTO = np.tile(np.arange(240, dtype=np.uint8)[:, None, None], (1, 240, 3))
EYES = convnet.Architecture(blocks=((4,), (6, 6), (8,)), fc=(12, 20), input_size=32)


def write_models(folder: Path) -> dict[str, str]:
    """The models of the reference with a network of random weights; paths for `load_all`."""
    rng, story = np.random.default_rng(0), REFERENCE / 'story'
    params = {name: rng.normal(0, 0.3, shape).astype('f4') for name, shape in EYES.shapes().items()}
    formats.write_model(folder / 'convnet.safetensors', params, EYES.options())
    published = REFERENCE / 'embedding' / 'coco_embedding.npz'
    params, _ = formats.read_model(published)
    joint = params['ff_image_W'].shape[1]
    params['ff_image_W'] = rng.normal(size=(EYES.dim, joint)).astype('f4')
    np.savez(folder / published.name, **params)
    for suffix in ('.pkl', '.dictionary.pkl'):
        shutil.copyfile(f'{published}{suffix}', folder / f'{published.name}{suffix}')
    paths = {
        'skmodels': REFERENCE / 'skipthoughts',
        'sktables': REFERENCE / 'skipthoughts',
        'decmodel': REFERENCE / 'decoder' / 'romance.npz',
        'dictionary': REFERENCE / 'decoder' / 'romance_dictionary.pkl',
        'vsemodel': folder / published.name,
        'vgg': folder / 'convnet.safetensors',
        'captions': story / 'captions.txt',
        'negbias': story / 'caption_style.npy',
        'posbias': story / 'romance_style.npy',
    }
    return {entry: str(path) for entry, path in paths.items()}


def tell(z, photos=(PHOTO,), **options) -> list[str]:
    """Passages: one searched, one drawn, and one by the rules, of each photo."""
    ways = {}, {'seed': 3}, {'telling': generate.Telling(candidates=3, groups=2)}
    told = [generate.stories(z, photos, k=5, bw=4, maxlen=30, **way, **options) for way in ways]
    return [story.passage for stories in told for story in stories]
