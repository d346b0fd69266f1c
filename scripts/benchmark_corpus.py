"""Measure time and memory to build a large corpus, and to start training from it.

Writes a text of numbered sentences, then, each in a process of its own: tokenises it, counts its
words, indexes it, and takes the first batches. With --arrow the index is also built and read by
`datasets` (Arrow); needs the extra `benchmark`. The table goes to stdout.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from storyteller.text import Vocabulary
from storyteller.text import words as words_of
from storyteller.training import skipthoughts
from storyteller.training.data import corpus, documents
from storyteller.training.data.corpus import Corpus

SENTENCES = (
    'She looked at him for a long time, and said nothing.',
    'There was no one in the garden but the old dog.',
    'He had been waiting in the rain since four in the morning!',
    'What could he have answered to a letter like that one?',
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sentences', type=int, default=10_000_000)
    parser.add_argument(
        '--folder', type=Path, required=True, help='working folder; may be deleted afterwards'
    )
    parser.add_argument(
        '--tokenised', action='store_true', help='write tokens directly, without tokenising'
    )
    parser.add_argument('--arrow', action='store_true', help='compare with an Arrow index')
    args = parser.parse_args()
    folder = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    text, tokens = folder / 'text.txt', folder / 'tokens.txt'
    if args.tokenised:
        steps = {'write tokens': lambda: write_tokens(tokens, args.sentences)}
    else:
        steps = {
            'write the text': lambda: write(text, args.sentences),
            'tokenise': lambda: documents.tokenise_files([text], tokens),
        }
    steps |= {
        'count words': lambda: choose(folder),
        'index': lambda: Corpus.build(folder / 'tokens.txt', words(folder), folder / 'corpus'),
        'open, first batches': lambda: start(folder),
        'open, cut passages': lambda: cut(folder),
        'open, sentences by chance': lambda: draw(folder, args.sentences),
    }
    if args.arrow:
        steps |= {
            'Arrow: index': lambda: build_arrow(folder),
            'Arrow: open, sentences by chance': lambda: draw_arrow(folder, args.sentences),
        }
    print(f'{args.sentences} sentences | seconds | resident memory, MB\n---|---|---')
    for name, step in steps.items():
        seconds, peak = alone(step)
        print(f'{name} | {seconds:.1f} | {peak:.0f}', flush=True)
    size = sum(path.stat().st_size for path in (folder / 'corpus').iterdir())
    print(f'on disk: tokens {tokens.stat().st_size / 1e6:.0f} MB, corpus {size / 1e6:.0f} MB')


def alone(step: Callable[[], object]) -> tuple[float, float]:
    """Run a step in a process of its own: its seconds, and its peak of resident memory in MB."""
    context = multiprocessing.get_context('fork')
    queue = context.Queue()

    def work():
        begun = time.perf_counter()
        step()
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF,
                                                     resource.RUSAGE_CHILDREN)]  # fmt: skip
        queue.put((time.perf_counter() - begun, max(u.ru_maxrss for u in usage) / 1024))

    process = context.Process(target=work)
    process.start()
    found = queue.get()
    process.join()
    return found


def write(path: Path, count: int) -> None:
    """A book of paragraphs of four sentences, each with its number."""
    with open(path, 'w', encoding='utf-8') as file:
        for number in range(0, count, 4):
            if number % 40_000 == 0:
                file.write(f'=== Book {number}\n')
            told = itertools.islice(itertools.cycle(SENTENCES), 4)
            file.write(' '.join(f'{number + i}: {s}' for i, s in enumerate(told)) + '\n')


def write_tokens(path: Path, count: int) -> None:
    """The same sentences as the tokeniser would give them."""
    told = [' '.join(words_of(sentence)) for sentence in SENTENCES]
    with open(path, 'w', encoding='utf-8') as file:
        for number in range(count):
            if number and number % 40_000 == 0:
                file.write('\n')
            file.write(f'{number} : {told[number % 4]}\n')
        file.write('\n')


def choose(folder: Path) -> None:
    counts, spread = documents.count_words([folder / 'tokens.txt'])
    chosen = documents.choose_words(counts, spread, 19_998, books=1)
    Vocabulary(('<eos>', 'UNK', *chosen)).save(folder / 'dictionary.txt')


def words(folder: Path) -> Vocabulary:
    return Vocabulary.load(folder / 'dictionary.txt')


def start(folder: Path) -> None:
    """What a trainer does before its first step."""
    options = skipthoughts.SkipThoughtsOptions()
    units = skipthoughts.Units(Corpus.open(folder / 'corpus'), None, options)
    units.tensors(units.batches(0)[0], 'cpu')


def cut(folder: Path) -> None:
    corpus.passages(Corpus.open(folder / 'corpus'), np.random.default_rng(0))


def batches(count: int) -> np.ndarray:
    """Row numbers of 5,000 batches of 64 sentences, sampled at random."""
    return np.random.default_rng(0).integers(0, count, (5000, 64))


def draw(folder: Path, count: int) -> None:
    """Read batches of sentences from all over the corpus."""
    whole = Corpus.open(folder / 'corpus')
    for batch in batches(count):
        for i in batch:
            whole.words(i, i + 1)


def build_arrow(folder: Path) -> None:
    """The same index as a table of lists of int32."""
    from datasets import Dataset, Features, List, Value

    vocabulary = words(folder)

    def rows():
        with open(folder / 'tokens.txt', encoding='utf-8') as file:
            for line in file:
                if told := line.split():
                    yield {'words': vocabulary.encode(told)}

    features = Features({'words': List(Value('int32'))})
    table = Dataset.from_generator(rows, features=features, cache_dir=str(folder / 'cache'))
    table.save_to_disk(str(folder / 'arrow'))


def draw_arrow(folder: Path, count: int) -> None:
    from datasets import Dataset

    table = Dataset.load_from_disk(str(folder / 'arrow')).with_format('numpy')
    for batch in batches(count):
        table[batch]


if __name__ == '__main__':
    main()
