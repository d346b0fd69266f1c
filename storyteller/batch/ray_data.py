"""Processing photos on several machines with Ray Data.

Photos are read by as many tasks as there are processors, and told by actors that have loaded the
models once. Ray holds readers back while tellers are busy, and repeats what was lost with a
machine. Needs the extra ``scale``; every machine must see the photos and the models under the same
paths.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .. import config
from ..convnet import side_of
from ..formats import ImageError
from ..images import CROP, Loaded, load_image
from ..io.extras import needed
from ..io.picture_files import register_plugins
from ..story import StoryError
from .results import Job, Plan


def tell(
    plan: Plan, jobs: Iterable[Job], address: str | None = None, actors: int = 1
) -> Iterator[dict[str, Any]]:
    """Process all jobs; the rows arrive in any order.

    The largest job is the size of the batches. `address` is that of a cluster, ``auto`` for the one
    that this machine belongs to; None starts one here. So many `actors` hold the models at a time.

    Raises
    ------
    OSError
        If the cluster cannot do it; the last line says why.
    MissingExtraError
        If ray is not installed.
    """
    return _told(needed('ray'), plan, jobs, address, actors)  # found out before anything is asked


def _told(
    ray: Any, plan: Plan, jobs: Iterable[Job], address: str | None, actors: int
) -> Iterator[dict[str, Any]]:
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    try:
        jobs = list(jobs)
        size = max((len(photos) for photos, _ in jobs), default=1)
        items = itertools.chain.from_iterable(
            [{'name': p.name, 'path': str(p.path), 'style': style} for p in photos]
            for photos, style in jobs
        )
        reading = plan.options.reading | {'side': side_of(config.resolve(plan.models)['vgg'])}
        read = ray.data.from_items(list(items)).map(_read, fn_args=(reading,))
        told = read.map_batches(
            _Teller,
            fn_constructor_args=(plan,),
            batch_size=size,
            batch_format='numpy',
            concurrency=actors,
        )
        for row in told.iter_rows():
            yield json.loads(row['row'])
    except ray.exceptions.RayError as error:  # of a teller: wrong options, missing models
        raise OSError(f'on the cluster: {str(error).strip().splitlines()[-1]}') from error
    finally:
        ray.shutdown()


def _read(item: dict[str, Any], reading: dict[str, Any]) -> dict[str, Any]:
    """Add the network's input to a photo, or why there is none."""
    side = reading['side']
    register_plugins()  # in this process, which is a worker's
    try:
        rawim, im = load_image(item['path'], **reading)
        reason = ''
    except ImageError as error:
        rawim = np.zeros((CROP, CROP, 3), np.uint8)
        im = np.zeros((1, 3, side or CROP, side or CROP), np.float32)
        reason = error.reason
    style = item['style'] or ''  # columns are of one type
    return item | {'rawim': rawim, 'im': im, 'reason': reason, 'style': style}


class _Teller:
    """An actor: models, loaded once, and batches to tell."""

    def __init__(self, plan: Plan):
        self.plan, self.z = plan, plan.load()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = []
        for style in sorted(set(batch['style'])):
            chosen = np.flatnonzero(batch['style'] == style)
            sound = [i for i in chosen if not batch['reason'][i]]
            names = [str(batch['name'][i]) for i in sound]
            photos = [
                Loaded(str(batch['path'][i]), batch['rawim'][i], batch['im'][i]) for i in sound
            ]
            told = self.plan.rows(self.z, names, photos, style or None)  # begins with the first
            for i in chosen:
                name, path, reason = (str(batch[key][i]) for key in ('name', 'path', 'reason'))
                broken = StoryError(path, reason)
                rows.append(self.plan.row(name, broken, style or None) if reason else next(told))
        return {'row': np.array([json.dumps(row) for row in rows], object)}
