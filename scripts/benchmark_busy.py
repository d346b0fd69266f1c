"""A story while another program computes: what it costs how threads wait."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

import benchmark_machine as machine
from benchmark_stages import Bench, Run, Stage

from storyteller.cli.arguments import WAITING

AS_IT_COMES = {'GOMP_SPINCOUNT': '300000'}  # what OpenMP takes where nothing is said


@contextlib.contextmanager
def busy() -> Iterator[subprocess.Popen]:
    """A process that keeps one core busy for the length of the block."""
    with subprocess.Popen([sys.executable, '-c', 'while True: pass']) as process:
        try:
            yield process
        finally:
            process.kill()


def commanding(bench: Bench) -> Stage:
    """``python -m storyteller PHOTO`` beside a busy process, and so with threads that spin."""
    scale, _ = bench.scale, bench.first_load  # the captions are embedded then
    words = [bench.photos[0], '--search-2015', '-k', str(scale.k), '--bw', str(scale.bw)]

    def run(**waiting: str) -> Run:
        kept = {name: value for name, value in os.environ.items() if name not in WAITING}
        with mock.patch.dict(os.environ, kept | waiting, clear=True), busy():
            return Run(machine.command_line(words)[1])

    return Stage(
        run,
        lambda: run(**AS_IT_COMES),
        note='plain: threads that spin',
        elsewhere=True,
        peer='threads that spin',
    )
