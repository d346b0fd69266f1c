"""The limits of a machine, and the operations of each kind of work.

The rates of products of matrices and of reading memory, measured; the products that each stage of
a story is made of, counted; time and memory of this process and of others.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from storyteller.nn import efficientnet

MOST_FLOPS = 1e10  # of a product that is measured: more rows change no rate
MOST_NUMBERS = 1 << 26  # of one of its matrices
WORDS_AT_ONCE = 4096  # whose inputs are projected in one product


@dataclass(frozen=True)
class Product:
    """So many products (`count`) of matrices (rows, inner) and (inner, columns) in float32."""

    rows: int
    inner: int
    columns: int
    count: float = 1.0

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        return 2.0 * self.rows * self.inner * self.columns * self.count

    def seconds(self) -> float:
        """What it takes here, measured on a part of its rows and columns if it is large."""
        columns = max(1, min(self.columns, MOST_NUMBERS // self.inner))
        most = int(MOST_FLOPS / (2 * self.inner * columns))
        rows = max(1, min(self.rows, MOST_NUMBERS // self.inner, max(most, 64)))
        part = Product(rows, self.inner, columns)
        x, w = torch.full((rows, self.inner), 0.5), torch.full((self.inner, columns), 0.5)
        by_torch = median_seconds(lambda: x @ w)
        by_numpy = median_seconds(lambda: x.numpy() @ w.numpy())
        return min(by_torch, by_numpy) * self.flops / part.flops


# --- limits --------------------------------------------------------------------------------------


def sgemm(products: Iterable[Product]) -> float:
    """Operations/s of these products, each by what is faster here, PyTorch or NumPy."""
    products = list(products)
    return sum(p.flops for p in products) / sum(p.seconds() for p in products)


def square(n: int) -> float:
    """Operations/s of a square product: the limit that stages are compared with."""
    return sgemm([Product(n, n, n)])


def bandwidth(numbers: int) -> float:
    """Memory bandwidth of all threads in bytes/s, by a sum of float32."""
    x = torch.ones(numbers)
    return x.nbytes / median_seconds(x.sum)


def describe() -> dict[str, Any]:
    """The processor and what computes on it."""
    name = platform.processor()
    with contextlib.suppress(OSError, StopIteration), open('/proc/cpuinfo') as file:
        name = next(line for line in file if line.startswith('model name')).partition(':')[2]
    return {
        'processor': name.strip(),
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'numpy': np.__version__,
        'python': platform.python_version(),
        'load_average': os.getloadavg()[0] if hasattr(os, 'getloadavg') else None,
    }


# --- products of the stages ----------------------------------------------------------------------


def convnet_products(options: Mapping[str, Any], photos: int) -> list[Product]:
    """Of a network, a VGG or EfficientNet-Lite2, as its options say."""
    return vgg_products(options, photos) if 'blocks' in options else lite2_products(photos)


def vgg_products(options: Mapping[str, Any], photos: int) -> list[Product]:
    """Of a VGG network: a convolution is 9 n_in by n_out for each pixel of each photo."""
    side, n_in, products = options['input_size'], 3, []
    for block in options['blocks']:
        for n_out in block:
            products.append(Product(photos * side**2, 9 * n_in, n_out))
            n_in = n_out
        side //= 2
    n_in *= side**2
    for n_out in options['fc']:
        products.append(Product(photos, n_in, n_out))
        n_in = n_out
    return products


def lite2_products(photos: int) -> list[Product]:
    """Of EfficientNet-Lite2, without its convolutions of single channels, which are no products."""
    side, n_in = math.ceil(efficientnet.INPUT_SIZE / 2), efficientnet.STEM
    products = [Product(photos * side**2, 27, n_in)]
    for count, _, stride, expansion, n_out in efficientnet.STAGES:
        for width, step, times in ((n_in, stride, 1), (n_out, 1, count - 1)):
            inner, before = expansion * width, side
            side = math.ceil(side / step)
            if times and expansion > 1:
                products.append(Product(photos * before**2, width, inner, times))
            if times:
                products.append(Product(photos * side**2, inner, n_out, times))
        n_in = n_out
    products.append(Product(photos * side**2, n_in, efficientnet.POOLED))
    return [*products, Product(photos, efficientnet.POOLED, efficientnet.CLASSES)]


def gru_products(words: int, batch: int, width: int, hidden: int) -> list[Product]:
    """Of a GRU that reads so many words in batches: all inputs at once, states step by step."""
    at_once = max(1, min(words, WORDS_AT_ONCE))
    return [
        Product(at_once, width, 3 * hidden, words / at_once),
        Product(batch, hidden, 3 * hidden, words / batch),
    ]


def thought_products(stv: Mapping[str, Any], texts: int, words: int) -> list[Product]:
    """Of skip-thoughts: a GRU of the uni-skip's size, and two of the bi-skip's."""
    width, batch = stv['utable'].width, min(texts, 128)
    uni = gru_products(words, batch, width, stv['uoptions']['dim'])
    return uni + 2 * gru_products(words, batch, width, stv['boptions']['dim'])


def sentence_products(options: Mapping[str, Any], texts: int, words: int) -> list[Product]:
    """Of the embedding's sentences; each has one word more, its end."""
    batch = min(texts, 128)
    return gru_products(words + texts, batch, options['dim_word'], options['dim'])


def step_products(options: Mapping[str, Any], rows: Sequence[int]) -> list[Product]:
    """Of steps of a decoder for so many hypotheses each: a GRU, and the scores of all words."""
    mean = max(1, round(float(np.mean(rows)))) if len(rows) else 1
    times = sum(rows) / mean
    width, hidden, words = (options[name] for name in ('dim_word', 'dim', 'n_words'))
    products = [Product(mean, width, 3 * hidden, times), Product(mean, hidden, 3 * hidden, times)]
    if options['doutput']:
        products.append(Product(mean, hidden, width, times))
        hidden = width
    return [*products, Product(mean, hidden, words, times)]


# --- time and memory -----------------------------------------------------------------------------


def seconds_of(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def median_seconds(work: Callable[[], object], least: int = 3, total: float = 0.1) -> float:
    """The median of at least so many runs that take at least `total` seconds together."""
    times: list[float] = []
    while len(times) < least or (sum(times) < total and len(times) < 50):
        times.append(seconds_of(work))
    return float(np.median(times))


@contextlib.contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Fill a list with the bytes that the block needed at its peak, above what was there before.

    The list stays empty where the system does not tell.
    """
    found: list[float] = []
    try:
        Path('/proc/self/clear_refs').write_text('5')  # sets the peak to what there is
        before = _status('VmRSS')
    except OSError:
        before = None
    yield found
    if before is not None:
        found.append(max(0.0, _status('VmHWM') - before))


def _status(name: str) -> float:
    text = Path('/proc/self/status').read_text()
    return 1024.0 * int(text.partition(f'{name}:')[2].split()[0])


def drop_from_cache(folders: Iterable[str | os.PathLike]) -> bool:
    """Ask the system to forget what it holds of the files in folders; False if it cannot."""
    if not hasattr(os, 'posix_fadvise'):
        return False
    for path in (path for folder in folders for path in Path(folder).rglob('*') if path.is_file()):
        with open(path, 'rb') as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


# --- other processes -----------------------------------------------------------------------------

LOAD = """
import json, pathlib, re, resource, sys, time
begun = time.perf_counter()
from storyteller import generate
imported = time.perf_counter()
z = generate.load_all(json.loads(sys.argv[1]))
found = {'seconds': time.perf_counter() - imported, 'import_seconds': imported - begun}
try:
    text = pathlib.Path('/proc/self/smaps_rollup').read_text()
    for key, name in (('anonymous', 'Anonymous'), ('resident', 'Rss')):
        found[key] = 1024 * int(re.search(rf'^{name}: *(\\d+)', text, re.MULTILINE)[1])
except OSError:
    found['resident'] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(found))
"""
IMPORT = """
import importlib, sys, time
begun = time.perf_counter()
importlib.import_module(sys.argv[1])
print(time.perf_counter() - begun)
"""


def python(code: str, *arguments: str) -> Any:
    """What a fresh Python prints last, as JSON."""
    command = [sys.executable, '-c', code, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding='utf-8')
    if done.returncode:
        raise ChildProcessError(f'a Python process ended with {done.returncode}')
    return json.loads(done.stdout.splitlines()[-1])


def load_in_process(paths: Mapping[str, str]) -> dict[str, float]:
    """Load a bundle in a fresh process: ``seconds``, ``anonymous`` and ``resident`` bytes."""
    return python(LOAD, json.dumps(dict(paths)))


def import_seconds(module: str) -> float:
    return python(IMPORT, module)


def command_line(arguments: Sequence[str]) -> tuple[float, float]:
    """``python -m storyteller``: seconds to the first caption, and in all.

    Python writes each line at once, as it does on a terminal.
    """
    command = [sys.executable, '-u', '-m', 'storyteller', *arguments]
    begun, first, heading = time.perf_counter(), None, False
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8'
    ) as process:
        for line in process.stdout:
            if first is None and heading and line.strip():
                first = time.perf_counter() - begun
            heading = heading or line.startswith('NEAREST-CAPTIONS')
    if process.returncode or first is None:
        raise ChildProcessError(f'{" ".join(command)} ended with {process.returncode}')
    return first, time.perf_counter() - begun
