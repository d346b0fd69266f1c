"""Measure the time of each stage of a story, relative to the limits of this machine.

In one run: random models at the published sizes are made (once, in --folder), the machine's rates
of sgemm and of reading memory are measured, right before and after each stage again, and each
stage is timed: its seconds, its matrix products a second, the share of the limit, the memory it
needs. With --compare the same work is also done in plain PyTorch and NumPy. The table goes to
stdout row by row, and all figures into a JSON file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import benchmark_bundle
import benchmark_busy as busy
import benchmark_machine as machine
import benchmark_models
import benchmark_network as networks
import benchmark_stages as stages
import numpy as np
import torch
from benchmark_stages import MB, Bench, Run, Scale, Stage

from storyteller import config, formats
from storyteller.cli import arguments

PHOTOS = 16  # at once
MOST_RUNS = 6
THREADS = 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'
HEAD = (
    'stage | seconds | GFLOP | GFLOP/s | sgemm | of its shapes | share | peak, MB | goal | '
    'plain, s | times | notes'
)
SCALES = {
    'published': Scale(100, 50, 1000, part=1000, stories=3, square=2048, numbers=1 << 28),
    'tiny': Scale(5, 4, 30, 40, stories=2, square=128, numbers=1 << 20, many=3, folder=4),
}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes
    ----------
    title : str
    make : callable
        The stage, from a bundle.
    goal : str
    bundled : bool
        Measured on the bundle that comes with the package.
    always_plain : bool
        Compared in any case.
    """

    title: str
    make: Callable[[Bench], Stage]
    goal: str = ''
    bundled: bool = False
    always_plain: bool = False


ROWS = {
    'import_storyteller': Row('import storyteller', stages.importing('storyteller')),
    'import_generate': Row('import storyteller.generate', stages.importing('storyteller.generate')),
    'load_cold': Row('load, cold', stages.loading(cold=True)),
    'load_warm': Row('load, warm', stages.loading(cold=False), '2 s, 1500 MB anonymous'),
    'photo': Row('a photo read', networks.preprocessing),
    'vgg_1': Row('network, 1 photo', networks.network(1), '80 %'),
    'vgg_16': Row('network, 16 photos', networks.network(PHOTOS), '90 %'),
    **{
        f'vgg_{form}': Row(f'VGG-19 from {form}', networks.reading(form), '3 s, 1200 MB')
        for form in networks.vgg_forms.FORMS
    },
    'encode_100': Row('100 captions encoded', stages.encoding(100), '75 %'),
    'encode_100_bfloat16': Row(
        '100 captions encoded, bfloat16', stages.encoding(100, precision='bfloat16')
    ),
    'encode_10000': Row('10,000 captions encoded', stages.encoding(10_000), '90 %'),
    'embed_pool': Row('all captions embedded', stages.embedding_pool, '85 %'),
    'nearest_1': Row('nearest captions, 1 photo', stages.searching_captions(1), '0.06 s'),
    'nearest_16': Row('nearest captions, 16 photos', stages.searching_captions(PHOTOS), '100 %'),
    'step': Row('a step of the search', stages.stepping, '85 %'),
    'search': Row('a search, early stop', stages.searching),
    'story_1': Row('a story', stages.telling),
    'stories_16': Row('16 stories in a call', stages.telling_many, '1.1 x 16 calls'),
    **{
        f'bundle_network_{count}': Row(
            f'bundle: network, {count} photo{"s"[: count > 1]}, plain: {networks.RUNTIME}',
            networks.bundled(count),
            '1 x',
            bundled=True,
            always_plain=True,
        )
        for count in (1, PHOTOS)
    },
    'bundle_network_memory': Row(
        f'bundle: network built and shown {PHOTOS} photos', networks.memory(PHOTOS), bundled=True
    ),
    'bundle_stories_16': Row(
        'bundle: 16 stories in a call', stages.telling_many, '2 x 16 calls', bundled=True
    ),
    'bundle_search': Row(
        'bundle: searches to their end, plain: that of 2015',
        stages.against_2015,
        '10 x, same text',
        bundled=True,
        always_plain=True,
    ),
    **{n: Row(*row, bundled=True) for n, row in benchmark_bundle.STAGES.items()},
    'command_first': Row(
        'bundle: command line, to the first caption', stages.commanding(False), '2 s', bundled=True
    ),
    'command_all': Row(
        'bundle: command line, in all', stages.commanding(True), '6 s', bundled=True
    ),
    'command_busy': Row(
        'bundle: command beside a busy one', busy.commanding, bundled=True, always_plain=True
    ),
}


def main() -> None:
    args = parse()
    use_threads(args.threads)
    os.environ['STORYTELLER_CACHE'] = str(args.folder / 'cache')
    scale = SCALES[args.sizes]
    if args.part:
        scale = replace(scale, part=args.part)
    photos = benchmark_models.sample_photos(args.folder / 'photos', PHOTOS)
    if args.models:
        paths = config.resolve(args.models)
    else:
        paths = benchmark_models.make_models(args.folder, benchmark_models.PRESETS[args.sizes])
    bundled = config.folder_paths(config.local(None))
    own, bundle = Bench(paths, photos, scale), Bench(bundled, photos, scale)
    found = {
        'date': datetime.date.today().isoformat(),
        'sizes': str(args.models or args.sizes),
        'scale': asdict(scale),
        'machine': machine.describe() | limits(scale),
        'stages': {},
    }
    introduce(found)
    for name in args.only or ROWS:
        row = ROWS[name]
        bench = bundle if row.bundled else own
        print(f'{name} ...', file=sys.stderr)
        figures = measure(row, bench, args)
        found['stages'][name] = figures
        print(line(row, figures), flush=True)
        if args.json:  # each time: what is there is kept if the run is broken off
            formats.write_text(args.json, json.dumps(found, indent=1) + '\n')


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--folder',
        type=Path,
        required=True,
        help='folder of models and caches (9 GB for published)',
    )
    parser.add_argument('--sizes', choices=SCALES, default='published', help='(%(default)s)')
    arguments.add_models(parser)
    parser.add_argument('--compare', action='store_true', help='also time plain PyTorch')
    parser.add_argument(
        '--only', action='extend', nargs='+', choices=ROWS, metavar='STAGE', help=', '.join(ROWS)
    )
    parser.add_argument('--part', type=int, help='captions to extrapolate from (1000; 40 if tiny)')
    parser.add_argument(
        '--seconds', type=float, help='approximate time per stage (10; 0.1 if tiny)'
    )
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    parser.add_argument('--threads', type=int, help='number of CPU threads (all)')
    args = parser.parse_args()
    if args.seconds is None:
        args.seconds = 0.1 if args.sizes == 'tiny' else 10
    args.folder = args.folder.absolute()
    return args


def use_threads(count: int | None) -> None:
    """Restart with this number of threads: NumPy reads it only when it is loaded."""
    wanted = {name: str(count) for name in THREADS}
    if count and any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


def limits(scale: Scale) -> dict[str, float]:
    """What the machine does with nothing else to do."""
    n = scale.square
    a = torch.full((n, n), 0.5)
    by_torch, by_numpy = (
        2e-9 * n**3 / machine.median_seconds(work)
        for work in (lambda: a @ a, lambda: a.numpy() @ a.numpy())
    )
    read = machine.bandwidth(scale.numbers) / 1e9
    return {'sgemm_torch': by_torch, 'sgemm_numpy': by_numpy, 'gigabytes_read': read}


def measure(row: Row, bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """All figures of a row."""
    stage = row.make(bench)
    squares, shapes, reads = [machine.square(bench.scale.square)], [], []
    runs, peak = [], []
    for run in repeated(stage.run, args.seconds, peak):
        if not runs:
            measure_limits(run, bench, shapes, reads)
        runs.append(run)
    measure_limits(run, bench, shapes, reads)
    squares.append(machine.square(bench.scale.square))
    figures = timing(runs, stage.whole) | {'goal': row.goal}
    figures |= shares(figures, np.mean(squares), mean(shapes), mean(reads))
    figures.setdefault('peak_mb', peak[-1] / MB if peak and not stage.elsewhere else None)
    notes = [stage.note, run.note]
    if stage.items > 1:
        figures['seconds_each'] = figures['seconds'] / stage.items
        notes.insert(0, f'{figures["seconds_each"]:.3g} s each')
    if stage.plain and (args.compare or row.always_plain):
        plain, note = compare(stage, bench, args, figures['seconds'])
        figures |= plain
        notes.append(note)
    return figures | {'notes': '; '.join(filter(None, notes))}


def compare(
    stage: Stage, bench: Bench, args: argparse.Namespace, ours: float
) -> tuple[dict[str, Any], str]:
    """The figures of plain PyTorch, whose models are loaded before, or of a peer; and its note."""
    if not stage.peer:
        _ = bench.plain
    runs = list(repeated(stage.plain, args.seconds))
    seconds = timing(runs, stage.whole)['seconds']
    found = {'plain_seconds': seconds, 'times': seconds / ours, **runs[-1].facts}
    return found, runs[-1].note


def repeated(
    run: Callable[[], Run], seconds: float, peaks: list[float] | None = None
) -> Iterator[Run]:
    """Run once, and again until all took so long together, or often enough."""
    spent = 0.0
    for _ in range(MOST_RUNS):
        with machine.peak_memory() as peak:
            found = run()
        if peaks is not None:
            peaks += peak
        spent += found.seconds
        yield found
        if spent >= seconds:
            break


def measure_limits(run: Run, bench: Bench, shapes: list[float], reads: list[float]) -> None:
    if run.products:
        shapes.append(machine.sgemm(run.products))
    if run.read:
        reads.append(machine.bandwidth(bench.scale.numbers))


def mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def timing(runs: list[Run], whole: float) -> dict[str, Any]:
    """The median of the runs, without the first of several: it warms up. For the whole work."""
    counted = runs[1:] or runs
    return {
        'seconds': whole * float(np.median([run.seconds for run in counted])),
        'runs': len(counted),
        'gflop': whole * sum(product.flops for product in runs[-1].products) / 1e9,
        'gigabytes': whole * runs[-1].read / 1e9,
        **runs[-1].facts,
    }


def shares(
    figures: Mapping[str, Any],
    square: float,
    shapes: float | None,
    read: float | None,
) -> dict[str, Any]:
    """Rates, limits (the mean of before and after), and the share in per cent.

    What reads much memory is compared with the rate of that.
    """
    found: dict[str, Any] = {'sgemm': square / 1e9, 'sgemm_shapes': None, 'share_%': None}
    if shapes:
        found['sgemm_shapes'] = shapes / 1e9
        found['gflops'] = figures['gflop'] / figures['seconds']
        found['share_%'] = 100 * found['gflops'] / found['sgemm']
    if read:
        found['read_limit'] = read / 1e9
        found['read_rate'] = figures['gigabytes'] / figures['seconds']
        found['share_%'] = 100 * found['read_rate'] / found['read_limit']
    return found


# --- the table -----------------------------------------------------------------------------------


def introduce(found: Mapping[str, Any]) -> None:
    about = found['machine']
    print(
        f'{found["date"]}, {about["processor"]}, {about["threads"]} threads, PyTorch '
        f'{about["torch"]}, NumPy {about["numpy"]}; {found["sizes"]}; sgemm '
        f'{about["sgemm_torch"]:.0f} GFLOP/s (NumPy {about["sgemm_numpy"]:.0f}), memory '
        f'{about["gigabytes_read"]:.1f} GB/s\n\n{HEAD}\n{"|".join(["---"] * HEAD.count("|"))}|---',
        flush=True,
    )


def line(row: Row, figures: Mapping[str, Any]) -> str:
    """A row of the table."""
    if 'read_rate' in figures:
        rate, limit = (f'{figures[key]:.1f} GB/s' for key in ('read_rate', 'read_limit'))
    elif 'gflops' in figures:
        rate, limit = f'{figures["gflops"]:.3g}', f'{figures["sgemm"]:.3g}'
    else:
        rate = limit = ''
    cells = [
        row.title,
        f'{figures["seconds"]:.3g}',
        number(figures['gflop'] or None, '.3g'),
        rate,
        limit,
        number(figures['sgemm_shapes'], '.3g'),
        number(figures['share_%'], '.0f', ' %'),
        number(figures['peak_mb'], '.0f'),
        row.goal,
        number(figures.get('plain_seconds'), '.3g'),
        number(figures.get('times'), '.1f'),
        figures['notes'],
    ]
    return ' | '.join(cells)


def number(value: float | None, form: str, unit: str = '') -> str:
    return '' if value is None else f'{value:{form}}{unit}'


if __name__ == '__main__':
    arguments.run(main)
