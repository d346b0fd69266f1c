"""The stages of a story as benchmarks.

A stage is made from a bundle of models, and can be run again and again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import benchmark_machine as machine
import numpy as np
from benchmark_machine import Product, seconds_of
from benchmark_plain import Plain, nearest, search_2015

from storyteller import (
    captions,
    config,
    convnet,
    decoder,
    embedding,
    generate,
    images,
    layers,
    skipthoughts,
)
from storyteller.nn import efficientnet

MB = 1e6
STEPS = 10  # of a search, to time one
OLD = generate.Telling.of_2015()


@dataclass(frozen=True)
class Scale:
    """How much is done: what the options of the command line say."""

    k: int  # captions of a story
    bw: int
    maxlen: int
    part: int  # captions that stand for more
    stories: int  # told to their end by the search of 2015
    square: int  # side of the matrices that measure the limit
    numbers: int  # summed, to measure the memory
    many: int = 100  # photos told in one call
    folder: int = 500  # photos told by the folder script


@dataclass(frozen=True)
class Run:
    """What a stage did once: its seconds, its products, or the bytes that it had to read."""

    seconds: float
    products: Sequence[Product] = ()
    read: float = 0.0
    note: str = ''
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Something to time, and the same in plain PyTorch; `whole` times that is the whole work.

    `peer` names what does the same if that is not plain PyTorch; `items` are done at once.
    """

    run: Callable[[], Run]
    plain: Callable[[], Run] | None = None
    whole: float = 1.0
    note: str = ''
    elsewhere: bool = False  # in processes of its own
    items: int = 1
    peer: str = ''


@dataclass(frozen=True)
class Bench:
    """A bundle that is measured; its models are loaded when they are first needed."""

    paths: dict[str, str]
    photos: list[str]
    scale: Scale

    @cached_property
    def first_load(self) -> float:
        """Seconds; it embeds the captions if they are not cached yet."""
        print('the first load, which may embed all captions ...', file=sys.stderr)
        return machine.load_in_process(self.paths)['seconds']

    @cached_property
    def z(self) -> dict[str, Any]:
        return generate.load_all(self.paths)

    @cached_property
    def plain(self) -> Plain:
        return Plain.load(self.paths)

    @property
    def side(self) -> int | None:
        """Of the photos that the network wants, as for `images.load_image`."""
        return convnet.side_of(self.paths['vgg'])

    def inputs(self, count: int) -> np.ndarray:
        """The first photos as the network takes them."""
        photos = self.photos[:count]
        return np.concatenate([images.load_image(path, side=self.side)[1] for path in photos])

    def part(self, count: int) -> list[str]:
        """Captions, `count` if they are not more than those that stand for more."""
        return self.z['cap'][: min(count, self.scale.part)]

    def contexts(self, count: int) -> np.ndarray:
        """The vectors (count, D) that stories of the first photos are told from."""
        photos, k = self.photos[:count], self.scale.k
        told = generate.stories(self.z, photos, k=k, bw=1, maxlen=1, telling=OLD)
        return np.stack([story.vectors['shifted'] for story in told])


def timed(work: Callable[[], object], *products: Product, read: float = 0.0) -> Callable[[], Run]:
    """A run of `work`, which is made of these products, or reads so many bytes."""
    return lambda: Run(seconds_of(work), products, read)


@contextlib.contextmanager
def watched(model: Any) -> Iterator[list[tuple[float, int]]]:
    """Note when each step of a decoder began in the block, and for how many hypotheses."""
    seen: list[tuple[float, int]] = []
    model.step = noting(model.step, seen)
    try:
        yield seen
    finally:
        del model.step  # the class' own is there again


def noting(step: Callable, seen: list[tuple[float, int]]) -> Callable:
    """The same step, which notes when it is called, and for how many hypotheses."""

    def noted(words: Any, state: Any) -> Any:
        seen.append((time.perf_counter(), len(words)))
        return step(words, state)

    return noted


def full_step(seen: list[tuple[float, int]]) -> tuple[float, int]:
    """Median seconds from the beginning of a step to that of the next, of the widest; its rows."""
    moments, rows = np.array(seen).T
    return float(np.median(np.diff(moments)[rows[:-1] == rows.max()])), int(rows.max())


# --- starting ------------------------------------------------------------------------------------


def importing(module: str) -> Callable[[Bench], Stage]:
    """In a fresh process, without its own start."""
    return lambda bench: Stage(lambda: Run(machine.import_seconds(module)), elsewhere=True)


def loading(cold: bool) -> Callable[[Bench], Stage]:
    """All of a bundle in a fresh process that has imported already; cold: from the disk."""

    def make(bench: Bench) -> Stage:
        first, cache = bench.first_load, os.environ['STORYTELLER_CACHE']
        folders = [*config.folders(bench.paths), cache]
        if bench.side:  # its weights are those of a package
            folders.append(str(efficientnet.weights_file().parent))

        def run() -> Run:
            dropped = machine.drop_from_cache(folders) if cold else True
            found = machine.load_in_process(bench.paths)
            sizes = {name: round(found[name] / MB) for name in found if 'seconds' not in name}
            note = ', '.join(f'{name} {size} MB' for name, size in sizes.items())
            if not dropped:
                note += '; nothing was dropped from memory'
            facts = {'memory_mb': sizes, 'first_load_seconds': first}
            return Run(found['seconds'], note=note, facts=facts)

        return Stage(run, elsewhere=True)

    return make


def commanding(in_all: bool) -> Callable[[Bench], Stage]:
    """``python -m storyteller PHOTO``, with the start of Python: to the first caption, or all."""

    def make(bench: Bench) -> Stage:
        scale, _ = bench.scale, bench.first_load  # the captions are embedded then
        words = [bench.photos[0], '--search-2015', '-k', str(scale.k), '--bw', str(scale.bw)]
        return Stage(lambda: Run(machine.command_line(words)[in_all]), elsewhere=True)

    return make


# --- stages --------------------------------------------------------------------------------------


def encoding(count: int, precision: str = 'float32') -> Callable[[Bench], Stage]:
    def make(bench: Bench) -> Stage:
        texts, stv = bench.part(count), bench.z['stv']
        if precision != 'float32':
            folders = bench.paths['skmodels'], bench.paths['sktables']
            stv = skipthoughts.load_model(*folders, precision=precision)
        products = machine.thought_products(stv, len(texts), count_words(texts))
        return Stage(
            timed(lambda: skipthoughts.encode(stv, texts, verbose=False), *products),
            timed(lambda: bench.plain.thoughts.encode(texts)) if precision == 'float32' else None,
            *extrapolated(len(texts), count),
        )

    return make


def embedding_pool(bench: Bench) -> Stage:
    texts, vse = bench.part(len(bench.z['cap'])), bench.z['vse']
    products = machine.sentence_products(vse['options'], len(texts), count_words(texts))
    return Stage(
        timed(lambda: embedding.encode_sentences(vse, texts), *products),
        timed(lambda: bench.plain.joint.encode_sentences(texts)),
        *extrapolated(len(texts), len(bench.z['cap'])),
    )


def count_words(texts: Sequence[str]) -> int:
    return sum(len(text.split()) for text in texts)


def extrapolated(done: int, count: int) -> tuple[float, str]:
    return count / done, '' if done == count else f'extrapolated from {done} of {count}'


def searching_captions(count: int) -> Callable[[Bench], Stage]:
    def make(bench: Bench) -> Stage:
        features = convnet.compute_features(bench.z['net'], bench.inputs(count))
        queries = embedding.encode_images(bench.z['vse'], layers.unit_rows(features))
        vectors, k = np.asarray(bench.z['cvec']), bench.scale.k
        product = Product(len(queries), *vectors.T.shape)
        return Stage(
            timed(lambda: captions.nearest(queries, vectors, k), product, read=vectors.nbytes),
            timed(lambda: nearest(queries, vectors, k)),
        )

    return make


def stepping(bench: Bench) -> Stage:
    dec, bw, (context,) = bench.z['dec'], bench.scale.bw, bench.contexts(1)

    def run() -> Run:
        with watched(decoder.network(dec)) as seen:
            decoder.gen_sample(dec, context, bw, STEPS)
        seconds, rows = full_step(seen)
        return Run(seconds, machine.step_products(dec['options'], [rows]))

    def plain() -> Run:
        seen: list[tuple[float, int]] = []
        teller = bench.plain.teller
        search_2015(noting(teller.next, seen), teller.start(context[None]), bw, STEPS)
        return Run(full_step(seen)[0])

    return Stage(run, plain)


def searching(bench: Bench) -> Stage:
    dec, scale, (context,) = bench.z['dec'], bench.scale, bench.contexts(1)

    def run() -> Run:
        with watched(decoder.network(dec)) as seen:
            seconds = seconds_of(
                lambda: decoder.gen_sample(dec, context, scale.bw, scale.maxlen, early_stop=True)
            )
        rows = [rows for _, rows in seen]
        return Run(seconds, machine.step_products(dec['options'], rows), note=f'{len(seen)} steps')

    return Stage(run, timed(lambda: bench.plain.teller.tell(context, scale.bw, scale.maxlen)))


def story_of(bench: Bench, photos: list[str]) -> Run:
    """Tell stories in one call."""
    z, scale = bench.z, bench.scale
    with watched(decoder.network(z['dec'])) as seen:
        begun = time.perf_counter()
        told = generate.stories(z, photos, k=scale.k, bw=scale.bw, maxlen=scale.maxlen, telling=OLD)
        seconds = time.perf_counter() - begun
    texts = sorted({caption for story in told for caption, _ in story.captions})
    products = machine.convnet_products(z['net']['options'], len(photos))
    products += machine.thought_products(z['stv'], len(texts), count_words(texts))
    products += machine.step_products(z['dec']['options'], [rows for _, rows in seen])
    return Run(seconds, products)


def telling(bench: Bench) -> Stage:
    photo, z, scale = bench.photos[0], bench.z, bench.scale
    options = scale.k, scale.bw, scale.maxlen
    plain = timed(lambda: bench.plain.story(photo, z['cap'], z['cvec'], *options))
    return Stage(lambda: story_of(bench, [photo]), plain)


def telling_many(bench: Bench) -> Stage:
    def run() -> Run:
        together = story_of(bench, bench.photos)
        calls = sum(story_of(bench, [photo]).seconds for photo in bench.photos)
        note = f'{len(bench.photos)} calls: {calls:.2f} s, {calls / together.seconds:.2f} x'
        return Run(together.seconds, together.products, note=note, facts={'calls_seconds': calls})

    return Stage(run)


def against_2015(bench: Bench) -> Stage:
    """Whole stories, and by the search of 2015 to its own end: the same text in fewer steps."""
    dec, scale = bench.z['dec'], bench.scale
    contexts, texts, steps = bench.contexts(scale.stories), [], []

    def run() -> Run:
        begun = time.perf_counter()
        with watched(decoder.network(dec)) as seen:
            texts[:] = [decoder.run_sampler(dec, context, scale.bw) for context in contexts]
        steps[:] = [rows for _, rows in seen]
        seconds = time.perf_counter() - begun
        return Run(seconds, machine.step_products(dec['options'], steps))

    def plain() -> Run:
        seen: list[tuple[float, int]] = []
        teller = bench.plain.teller
        step, begun = noting(teller.next, seen), time.perf_counter()
        found = [search_2015(step, teller.start(c[None]), scale.bw) for c in contexts]
        seconds, theirs = time.perf_counter() - begun, len(seen)
        same = [teller.text(*each) for each in found] == texts
        saved = 100 * (1 - len(steps) / theirs)
        note = f'same text: {"yes" if same else "no"}; {len(steps)} steps of {theirs}'
        facts = {'same_text': same, 'steps': len(steps), 'steps_2015': theirs, 'saved_%': saved}
        return Run(seconds, note=f'{note}, {saved:.0f} % saved', facts=facts)

    return Stage(run, plain)
