"""Telling photos in several processes of this machine.

The search for a story is many small steps, of which one process can do no two at a time, whatever
number of threads torch has. Processes that have the models each do: as many as there are cores keep
all of these busy.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from ..ahead import mapped
from ..io.picture_files import register_plugins
from .results import Job, Plan

WAITING = 2  # batches for each process that are given out


def cores() -> int:
    """Those that this process may compute on."""
    counted = getattr(os, 'sched_getaffinity', None)
    return len(counted(0)) if counted else os.cpu_count() or 1


def tell(plan: Plan, jobs: Iterable[Job], count: int) -> Iterator[dict[str, Any]]:
    """Tell all jobs in so many processes; the rows come in order.

    Raises what telling in this process would, and an OSError if the system ended a process.
    """
    before = multiprocessing.active_children()
    pool = ProcessPoolExecutor(count, multiprocessing.get_context('spawn'), _start, (plan,))
    try:
        for rows in mapped(pool, _rows, jobs, WAITING * count):
            yield from rows
    except BrokenProcessPool:
        raise OSError('--processes: the system ended one; is there memory for so many?') from None
    except BaseException:  # an interrupt above all: nobody waits for what is no more asked for
        for child in multiprocessing.active_children():
            if child not in before:
                child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_plan: Plan
_models: dict[str, Any] | None = None


def _start(plan: Plan) -> None:
    global _plan
    _plan = plan
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a process that is ended leaves
    register_plugins()


def _rows(job: Job) -> list[dict[str, Any]]:
    global _models
    if _models is None:  # here, so that what is wrong with them comes as an error of a job
        _models = _plan.load()
    return list(_plan.told(_models, [job]))
