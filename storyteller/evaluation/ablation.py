"""Ablation of the style shift: stories with and without the terms of F(x) = x - c + b.

Dimension letters: B photos, D thought vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import skipthoughts, style
from ..formats import PathLike, atomic_path
from ..text import preprocess
from ..training.data import documents
from ..training.data.marked import without_poor
from . import flaws, stories
from .held_out import SHARDS, HeldOut

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)

# Heading -> figure of `Judges.figures`, for the table.
COLUMNS = {
    'own photo in 10 of all, %': 'own_in_ten',
    'shuffled, %': 'shuffled_in_ten',
    'caption words said, %': 'overlap',
    'novel over caption, log-odds': 'novel_over_caption',
    'log perplexity': 'log_perplexity',
    'log perplexity by sentence': 'log_perplexity_by_sentence',
    'repeated 4-grams, %': 'repeated',
    'longest copied, words': 'copied',
    'words': 'words',
    'word twice in a clause, %': 'word_twice',
    'three words again, %': 'run_again',
    'with a name, %': 'with_a_name',
    'cut off, %': 'cut_off',
}


def shifts(z: Mapping[str, Any], x: np.ndarray) -> dict[str, np.ndarray]:
    """What is told of thoughts x (B, D), by name: parts of the formula, strengths, styles.

    `z` comes from `storyteller.generate.load_all`.
    """
    c, b = z['bneg'], z['bpos']
    found = {'x': x, 'x - c': x - c, 'x + b': x + b, 'x - c + b': style.shift(x, c, b)}
    for strength in STRENGTHS:
        found[f'strength {strength:g}'] = style.shift(x, c, b, strength)
    for name, towards in z['styles'].items():
        found[f'style {name}'] = style.shift(x, c, towards)
    return found


class Judges:
    """All measures of a set of stories, with their references prepared once.

    Parameters
    ----------
    held : HeldOut
    work : path
        Folder where the novels that the decoder learned from are kept as tokens.
    leave_out : frozenset of str
        Words that no story should say; see `flaws.flaws`.
    styles : mapping of str to str
        More styles than novel, caption and lyric: name -> how the names of their novels' files
        begin.
    learned : sequence of paths
        Text files, beside the novels, that stories may have copied from; of texts with marks, the
        good ones.
    """

    def __init__(
        self,
        held: HeldOut,
        work: PathLike,
        leave_out: frozenset[str] = frozenset(),
        styles: Mapping[str, str] | None = None,
        learned: Sequence[PathLike] = (),
    ):
        self.held, self.leave_out = held, leave_out
        novels = [paragraph.split() for book in held.books for paragraph in book]
        order = np.random.default_rng(0).permutation(len(held.captions))
        captions = [text for i in order for text in preprocess(held.captions[i])]
        songs = [line for song in held.songs() for line in song]
        texts: dict[str, Iterable[list[str]]] = {
            'novel': novels,
            'caption': map(str.split, captions),
            'lyric': map(str.split, songs),
        }
        for name, beginning in (styles or {}).items():
            texts[name] = (text.split() for book in held.novels(beginning) for text in book)
        self.style = stories.StyleJudge(
            {k: stories.pieces(itertools.chain.from_iterable(v)) for k, v in texts.items()}
        )
        self.fluency = stories.FluencyJudge(novels)
        self.common = stories.common_words(map(' '.join, novels))
        self.thoughts = held.caption_thoughts()
        files = documents.text_files(held.data / 'novels')
        novels_learned = [file for file in files if not file.name.startswith((held.shard, *SHARDS))]
        self.learned_from = Path(work) / 'learned_from.txt'
        documents.tokenise_files(novels_learned, self.learned_from)
        lines = (
            without_poor(line).replace(' / ', ' ')
            for path in learned
            for line in documents.read_text(path)
        )
        self.learned_too = [text.split() for text in preprocess(lines)]

    def figures(self, told: Sequence[str], photos: np.ndarray) -> dict[str, Any]:
        """Measure stories (B,) of photos (B,), numbers among those held out.

        Returns
        -------
        dict
            Means with their intervals, and of what `flaws.flaws` finds the share in percent;
            ``median_own_rank``; ``median_copied`` and ``copied_95``, the 95th percentile;
            ``named``, the share of each style that the judge takes the stories for, in percent; and
            what `stories.variety` gives.
        """
        vectors = skipthoughts.encode(self.held.z['stv'], told, verbose=False)
        own = stories.own_rank(vectors, self.thoughts, photos)
        other = stories.own_rank(vectors, self.thoughts, np.roll(photos, 1))
        captions = [self.held.captions[photo] for photo in photos]
        shuffled = [self.held.captions[photo] for photo in np.roll(photos, 1)]
        learned = map(str.split, documents.token_lines(self.learned_from))
        copied = stories.longest_copied(told, itertools.chain(learned, self.learned_too))
        measured: dict[str, Any] = {
            'own_in_ten': 100.0 * (own <= 10),
            'shuffled_in_ten': 100.0 * (other <= 10),
            'overlap': 100 * stories.overlap(told, captions, self.common),
            'shuffled_overlap': 100 * stories.overlap(told, shuffled, self.common),
            'novel_over_caption': self.style.log_odds(told, 'novel', 'caption'),
            'lyric_over_novel': self.style.log_odds(told, 'lyric', 'novel'),
            'log_perplexity': [np.log(self.fluency.perplexity(text)) for text in told],
            'log_perplexity_by_sentence': [self.fluency.by_sentence(text) for text in told],
            'repeated': [100 * stories.repeated(text) for text in told],
            'copied': copied,
            'words': [len(text.split()) for text in told],
        }
        found: dict[str, Any] = {
            name: stories.interval(values)._asdict() for name, values in measured.items()
        }
        found |= self.flaws(told)
        found['median_own_rank'] = float(np.median(own))
        found['median_copied'] = float(np.median(copied))
        found['copied_95'] = float(np.percentile(copied, 95))
        names = self.style.names(told)
        found['named'] = {name: 100 * names.count(name) / len(told) for name in self.style.styles}
        return found | stories.variety(told)

    def flaws(self, told: Sequence[str]) -> dict[str, dict[str, float]]:
        """The percentage of texts with each flaw, and its interval."""
        rows = flaws.flaws(told, self.held.z['dec']['worddict'], self.leave_out)
        return {name: stories.interval(100.0 * each)._asdict() for name, each in rows.items()}

    def flaws_of_novels(self, wanted: int = 200) -> dict[str, dict[str, float]]:
        """The same of a number of held-out paragraphs, as a human reference."""
        paragraphs = self.held.paragraphs(50, 140, wanted)
        return self.flaws(paragraphs) if paragraphs else {}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures of each setting as a Markdown table, with confidence intervals."""
    rows = [['told', *COLUMNS], ['---'] * (1 + len(COLUMNS))]
    for name, figures in found.items():
        rows.append([name, *(str(stories.Interval(**figures[key])) for key in COLUMNS.values())])
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def draw(found: Mapping[str, Mapping[str, Any]], out: PathLike) -> None:
    """Plot content and style over the strength, and for the terms of the formula.

    Needs the extra ``train``.
    """
    from matplotlib.figure import Figure

    parts = [name for name in ('x', 'x - c', 'x + b', 'x - c + b') if name in found]
    strengths = [s for s in STRENGTHS if f'strength {s:g}' in found]
    shown = {'own_in_ten': 'own photo among the first ten, %', 'novel_over_caption':
             'novel over caption, log-odds', 'log_perplexity': 'log perplexity'}  # fmt: skip
    figure = Figure(figsize=(4 * len(shown), 6), layout='tight')
    for column, (key, title) in enumerate(shown.items(), 1):
        for row, (names, places) in enumerate(
            ((parts, range(len(parts))), ([f'strength {s:g}' for s in strengths], strengths))
        ):
            axes = figure.add_subplot(2, len(shown), row * len(shown) + column)
            axes.set_title(title if row == 0 else '')
            if not names:
                continue
            means, low, high = (
                np.array([found[name][key][what] for name in names])
                for what in ('mean', 'low', 'high')
            )
            style_of_line: dict[str, Any] = {'fmt': 'o' if row == 0 else 'o-', 'capsize': 3}
            axes.errorbar(list(places), means, [means - low, high - means], **style_of_line)
            if row == 0:
                axes.set_xticks(list(places), names)
                axes.margins(x=0.2)
            else:
                axes.set_xlabel('strength')
    with atomic_path(out) as temporary:
        figure.savefig(temporary, format='png', dpi=110)
