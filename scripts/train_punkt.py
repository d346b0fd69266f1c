#!/usr/bin/env python
"""Train the sentence splitter's Punkt parameters on a folder of novels.

    python scripts/train_punkt.py NOVELS [--out storyteller/data/punkt_english.json]

NOVELS is a folder of UTF-8 text files (.txt or .txt.xz), one paragraph a line; a line that starts
with `=== ` begins a new book. The result is plain JSON. The abbreviations that stand in
storyteller/data/abbreviations.txt help the training and are not repeated in the result.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from nltk.tokenize.punkt import PunktParameters, PunktTrainer
from tqdm import tqdm

from storyteller.formats import atomic_path
from storyteller.text.english import listed_abbreviations
from storyteller.training.data.documents import read_text
from storyteller.training.data.wrapped import unwrapped

DATA = Path(__file__).resolve().parent.parent / 'storyteller' / 'data'

# Punkt's name for "upper case in the middle of a sentence", and all that say "lower case".
MIDDLE_UPPER, ANY_LOWER = 1 << 2, (1 << 4) + (1 << 5) + (1 << 6)

# A name follows these. The word after them tells nothing about sentence ends to Punkt itself,
# which would then part "Mr. Baker" because a baker is seen in lower case.
TITLE = re.compile(r'\b(?:Mr|Mrs|Messrs|Dr|St|Prof|Rev|Hon|Capt|Col|Gen|Lieut|Mme|Mlle)\. (\w+)')

# Punkt takes a quote for the first word of its sentence, and so the word after it for one inside.
QUOTES = re.compile(r'["“”]|(?<!\w)[\'‘]|[\'’](?!\w)')
LETTERS_AND_STOPS = re.compile(r'[^\W\d_]+(\.[^\W\d_]+)+')


class CountedParameters(PunktParameters):
    """Punkt parameters that count how often each orthographic flag was seen.

    Punkt sets a flag at the first sight of it. In millions of words a misprint then sets every
    flag of every common word, and the orthographic heuristic never decides anything.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flag_counts: dict[str, Counter[int]] = defaultdict(Counter)

    def add_ortho_context(self, typ: str, flag: int) -> None:
        self.flag_counts[typ][flag] += 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('novels', type=Path, help='folder of .txt or .txt.xz files')
    parser.add_argument('--out', type=Path, default=DATA / 'punkt_english.json')
    parser.add_argument(
        '--min-count', type=int, default=30, help='minimum count of a word (default 30)'
    )
    parser.add_argument(
        '--min-share', type=float, default=0.02, help='minimum proportion of a flag (default 0.02)'
    )
    parser.add_argument(
        '--hold-out', action='append', default=[], help='a file to exclude; may be repeated'
    )
    options = parser.parse_args()

    files = [f for f in novel_files(options.novels) if f.name not in options.hold_out]
    if not files:
        parser.error(f'{options.novels}: no .txt or .txt.xz file to train on')
    trainer = train(files)
    table = prune(trainer, options.min_count, options.min_share)
    with atomic_path(options.out) as temporary:
        text = json.dumps(table, ensure_ascii=False, indent=0, sort_keys=True)
        Path(temporary).write_text(text + '\n', encoding='utf-8')
    print(f'{options.out}: ' + ', '.join(f'{len(v):,} {k}' for k, v in table.items()))


def novel_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob('*.txt'), *folder.glob('*.txt.xz')])


def books(path: Path) -> Iterator[str]:
    """Yield each book of a file as one text with a blank line between paragraphs."""
    paragraphs: list[str] = []
    for line in unwrapped(read_text(path), path):
        if line.startswith('=== '):
            yield '\n\n'.join(paragraphs)
            paragraphs = []
        elif line.strip():
            paragraphs.append(QUOTES.sub(' ', line).replace('’', "'").strip())
    yield '\n\n'.join(paragraphs)


def train(files: list[Path]) -> PunktTrainer:
    """Feed all books to a Punkt trainer, a name after a title as one inside a sentence."""
    trainer = PunktTrainer()
    trainer._params = CountedParameters()
    for path in tqdm(files, unit='file'):
        for book in books(path):
            # Training drops an abbreviation that a book often writes without its stop ("co",
            # "col"); the list is known to be right, and later books profit from it.
            trainer._params.abbrev_types.update(listed_abbreviations()[0])
            trainer.train(book, finalize=False)
            for name in TITLE.findall(book):
                if name[0].isupper():
                    trainer._params.add_ortho_context(name.lower(), MIDDLE_UPPER)
    trainer.finalize_training()
    return trainer


def prune(trainer: PunktTrainer, min_count: int, min_share: float) -> dict:
    """Keep what is frequent and sure enough to be trusted."""
    contexts = {}
    for word, counts in trainer._params.flag_counts.items():
        lower = sum(count for flag, count in counts.items() if flag & ANY_LOWER)
        upper = counts.total() - lower
        # Single letters are initials ("J. R. R. Tolkien"), whatever else they were seen as.
        proper = word[0].isalpha() and not word.endswith('.') and (len(word) > 1 or word in 'ai')
        if proper and upper + lower >= min_count:
            contexts[word] = sum(
                flag
                for flag, count in counts.items()
                if count >= min_share * (lower if flag & ANY_LOWER else upper)
            )
    # Of abbreviations only those that look it (p.d.q) are sure; of sentence starters those that
    # are no names, and "I". The pairs it finds are no use: they are names ("P. Rochester").
    abbreviations = [a for a in trainer._params.abbrev_types if LETTERS_AND_STOPS.fullmatch(a)]
    starters = [s for s in trainer._params.sent_starters if not contexts.get(s, 0) & MIDDLE_UPPER]
    return {
        'abbreviations': sorted(set(abbreviations) - listed_abbreviations()[0]),
        'sentence_starters': sorted({*starters, 'i'} & contexts.keys()),
        'orthographic_context': {word: flags for word, flags in contexts.items() if flags},
    }


if __name__ == '__main__':
    main()
