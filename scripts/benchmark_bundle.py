"""Stages of the bundle as it is used: with its own pool and the search that suits its decoder."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import benchmark_machine as machine
import numpy as np
from benchmark_stages import Bench, Run, Stage, full_step, seconds_of, watched
from PIL import Image

from storyteller import captions as pool
from storyteller import convnet, decoder, embedding, generate, layers, skipthoughts
from storyteller.batch import processes
from storyteller.captions.stored import StoredPool
from storyteller.search import candidates
from storyteller.telling import tell

FOLDER_SCRIPT = Path(__file__).with_name('story_folder.py')


def parts_of(bench: Bench, count: int) -> list[str]:
    """Photos that differ: parts of the samples, each as large as the whole."""
    folder = Path(os.environ['STORYTELLER_CACHE']).parent / 'parts'
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        share, left, top = rng.uniform(0.5, 0.95), rng.random(), rng.random()
        paths.append(folder / f'{number:04}.jpg')
        if not paths[-1].exists():
            with Image.open(bench.photos[number % len(bench.photos)]) as photo:
                corner = np.array([left, top]) * (1 - share)
                box = np.array([*corner, *(corner + share)]) * [*photo.size, *photo.size]
                photo.convert('RGB').resize(photo.size, box=tuple(box)).save(paths[-1], quality=88)
    return list(map(str, paths))


def pool_search(bench: Bench) -> Stage:
    """The captions nearest to a photo, by vectors that are just loaded."""
    z, k = bench.z, bench.z['search'].k
    features = convnet.compute_features(z['net'], bench.inputs(1))
    query = embedding.encode_images(z['vse'], layers.unit_rows(features))[0]

    def run() -> Run:
        vectors, note = z['cvec'], 'of exact vectors'
        if isinstance(vectors, StoredPool):
            parts = {name: getattr(vectors, name) for name in ('codes', 'scales', 'away')}
            vectors, note = StoredPool(z['vse'], z['cap'], parts), 'of vectors in bytes'
        return Run(seconds_of(lambda: pool.nearest(query, vectors, k)), note=note)

    return Stage(run)


def suiting(bench: Bench) -> tuple[Callable[[], list], np.ndarray, int]:
    """The search that suits the decoder, of the first photo, what it tells, and its candidates."""
    way = bench.z['search']
    (told,) = generate.stories(bench.z, bench.photos[:1])
    shifted = told.vectors['shifted']
    captions = [[caption for caption, _ in told.captions]]

    def search() -> list:
        told_of = {'captions': captions, 'style': bench.z['bpos']}
        return tell(
            bench.z['dec'], shifted[None], way.telling, way.bw, maxlen=way.maxlen, **told_of
        )

    return search, shifted, way.telling.candidates


def step(bench: Bench) -> Stage:
    search, _, _ = suiting(bench)

    def run() -> Run:
        with watched(decoder.network(bench.z['dec'])) as seen:
            search()
        seconds, rows = full_step(seen)
        return Run(seconds, machine.step_products(bench.z['dec']['options'], [rows]))

    return Stage(run)


def search(bench: Bench) -> Stage:
    found, _, _ = suiting(bench)

    def run() -> Run:
        with watched(decoder.network(bench.z['dec'])) as seen:
            seconds = seconds_of(found)
        rows = [rows for _, rows in seen]
        products = machine.step_products(bench.z['dec']['options'], rows)
        return Run(seconds, products, note=f'{len(rows)} steps')

    return Stage(run)


def rereading(bench: Bench) -> Stage:
    """The candidates read again, and compared."""
    search, shifted, count = suiting(bench)
    found, z = search(), bench.z
    b = z['bpos']

    def encode(texts: list[str]) -> np.ndarray:
        return skipthoughts.encode(z['stv'], texts, verbose=False, tokenised=True) - b

    closeness = z['search'].telling.closeness
    work = functools.partial(candidates.nearest_first, found, shifted[None] - b, closeness, encode)
    return Stage(lambda: Run(seconds_of(work), note=f'{len(found[0])} of {count}'))


def many(bench: Bench) -> Stage:
    """Photos in one call, and in as many calls."""
    photos = parts_of(bench, bench.scale.many)

    def run() -> Run:
        together = seconds_of(lambda: generate.stories(bench.z, photos))
        calls = seconds_of(lambda: [generate.stories(bench.z, [photo]) for photo in photos])
        note = f'{len(photos)} calls: {calls:.3g} s, {calls / together:.2f} x'
        return Run(together, note=note, facts={'calls_seconds': calls})

    return Stage(run, items=len(photos))


def folder(bench: Bench) -> Stage:
    """The folder script, from its start to its end, and how busy it keeps the cores."""
    photos = parts_of(bench, bench.scale.folder)

    def run() -> Run:
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, str(FOLDER_SCRIPT), '-', '--out', out]
            command += ['--processes', str(processes.cores())]
            before, begun = _computed(), time.perf_counter()
            subprocess.run(
                command, input='\n'.join(photos), text=True, check=True, capture_output=True
            )
            seconds = time.perf_counter() - begun
        share = (_computed() - before) / seconds / processes.cores()
        note = f'{100 * share:.0f} % of the cores'
        return Run(seconds, note=note, facts={'cores_%': 100 * share})

    return Stage(run, elsewhere=True, items=len(photos))


def _computed() -> float:
    """Seconds that processes which have ended computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def first_command(in_all: bool) -> Callable[[Bench], Stage]:
    """``python -m storyteller PHOTO`` where nothing is cached yet: to the first caption, or all."""

    def make(bench: Bench) -> Stage:
        def run() -> Run:
            with _empty_cache():
                return Run(machine.command_line([bench.photos[0]])[in_all])

        return Stage(run, elsewhere=True)

    return make


@contextlib.contextmanager
def _empty_cache() -> Iterator[None]:
    before = os.environ['STORYTELLER_CACHE']
    try:
        with tempfile.TemporaryDirectory() as os.environ['STORYTELLER_CACHE']:
            yield
    finally:
        os.environ['STORYTELLER_CACHE'] = before


STAGES = {  # of each the title, what makes it, and the goal
    'bundle_pool': ('bundle: nearest captions, 1 photo', pool_search, '0.05 s'),
    'bundle_step': ('bundle: a step of the search that suits', step, '85 %'),
    'bundle_suiting': ('bundle: the search that suits, to its end', search, ''),
    'bundle_rereading': ('bundle: candidates read again', rereading, ''),
    'bundle_many': ('bundle: many photos in a call', many, '3 x calls'),
    'bundle_folder': ('bundle: a folder of photos by the script', folder, '90 % of the cores'),
    'command_new_first': (
        'bundle: the first command of all, to the first caption',
        first_command(False),
        '',
    ),
    'command_new': ('bundle: the first command of all', first_command(True), '4 s'),
}
