"""Quality of a caption pool: its nearest captions over many photos.

Dimension letters: P photos, N captions of the pool, E joint space.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..text import preprocess
from ..training.data.matching import Matches

COLUMNS, TILE = 6, (240, 280)


def repetition(top: np.ndarray) -> dict[str, float]:
    """Diversity of the nearest captions (P,), given as indices into the pool.

    Gives ``distinct``, how many different ones, and ``ten_commonest``, the share of the photos, in
    percent, that the ten most frequent serve.
    """
    often = Counter(np.asarray(top).tolist())
    ten = sum(n for _, n in often.most_common(10))
    return {'distinct': len(often), 'ten_commonest': 100 * ten / len(top)}


def word_fit(
    top: np.ndarray, pool: Sequence[str], captions: Sequence[Sequence[str]], seed: int = 0
) -> dict[str, float]:
    """How many words the nearest caption shares with the photo's own: the cosine of tf-idf weights.

    A caption that says the same in other words counts for little, so this is a lower bound. Needs
    the extra ``eval``.

    Gives ``nearest`` and ``chance``, means over the photos, and ``above_0.3``, in percent.

    Parameters
    ----------
    top : (P,) int array
        Of each photo, the place of its nearest caption in the pool.
    pool : sequence of N str
    captions : sequence of P sequences of str
        The photos' own.
    seed : int
        Draws the captions that chance would give.
    """
    matches = Matches.of(captions, pool, lambda text: re.findall(r'\w{3,}', text.lower()))
    rows = np.arange(len(captions))
    other = np.random.default_rng(seed).integers(0, len(pool), len(rows))
    near, far = (np.asarray(matches.similarity[rows, i]).ravel() for i in (top, other))
    above = 100 * float((near > 0.3).mean())
    return {'nearest': float(near.mean()), 'chance': float(far.mean()), 'above_0.3': above}


def unknown_words(
    pool: Sequence[str], thoughts: Mapping[str, Any], joint: Mapping[str, Any]
) -> dict[str, float]:
    """Percentage of the pool's words that skip-thoughts tables and embedding do not know."""
    tokens = [w for caption in preprocess(list(pool)) for w in caption.split()]
    written = [w for caption in pool for w in caption.split()]
    return {
        name: 100 * sum(word not in table for word in words) / max(1, len(words))
        for name, words, table in (
            ('skip_thoughts', tokens, thoughts),
            ('embedding', written, joint),
        )
    }


def contact_sheet(pictures: Sequence[np.ndarray], captions: Sequence[str]) -> Image.Image:
    """Photos (224, 224, 3) in a grid, each above its nearest caption."""
    width, height = TILE
    page = Image.new('RGB', (COLUMNS * width, -(-len(pictures) // COLUMNS) * height), 'white')
    draw = ImageDraw.Draw(page)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = i % COLUMNS * width + 8, i // COLUMNS * height + 8
        page.paste(Image.fromarray(picture), (x, y))
        draw.multiline_text((x, y + 228), textwrap.fill(caption, 35), fill='black', spacing=1)
    return page
