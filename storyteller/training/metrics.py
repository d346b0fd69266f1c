"""Training metrics: JSON lines, curves, TensorBoard; and samples of the model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from ..formats import PathLike, atomic_path
from ..io.extras import MissingExtraError
from .process_state import say


class Metrics:
    """Writes the metrics of a training run, beside its checkpoint.

    They have its name with the suffix ``.jsonl``: an object a line. What the model showed is added
    to ``.txt``; `curves` are drawn as ``.png`` each time; with `tensorboard` the figures also go
    into a folder of that name. A MissingExtraError says that what is needed is not installed.
    """

    def __init__(self, checkpoint: Path, curves: bool = False, tensorboard: bool = False):
        wanted = {'matplotlib': curves, 'tensorboard': tensorboard}
        for package in (name for name, needed in wanted.items() if needed):
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package)
        self.checkpoint, self.curves = checkpoint, curves
        self.file = checkpoint.with_suffix('.jsonl')
        self.board = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(checkpoint.parent / 'tensorboard' / checkpoint.stem)

    def add(self, row: dict[str, float]) -> None:
        """Add a line."""
        with open(self.file, 'a', encoding='utf-8') as file:
            file.write(json.dumps(row) + '\n')
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(name, value, row['steps'])
            self.board.flush()
        if self.curves:
            draw(self.file, self.checkpoint.with_suffix('.png'))

    def show(self, text: str) -> None:
        """Print samples of the model, and append them to a file."""
        say(text)
        with open(self.checkpoint.with_suffix('.txt'), 'a', encoding='utf-8') as file:
            file.write(text + '\n')


def draw(metrics: PathLike, out: PathLike) -> None:
    """Plot each metric of a file over the steps, as a PNG picture."""
    from matplotlib.figure import Figure

    lines = Path(metrics).read_text(encoding='utf-8').splitlines()
    rows = [row for row in map(json.loads, lines) if row['steps']]
    if not rows:
        return
    names = [name for name in rows[-1] if name not in ('epoch', 'steps', 'minutes', 'finished')]
    figure = Figure(figsize=(4 * min(3, len(names)), 3 * -(-len(names) // 3)), layout='tight')
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(-(-len(names) // 3), min(3, len(names)), place)
        known = [(row['steps'], row[name]) for row in rows if name in row]
        axes.plot(*zip(*known, strict=True), marker='.')
        axes.set_title(name.replace('_', ' '))
        axes.set_xlabel('steps')
    with atomic_path(out) as temporary:
        figure.savefig(temporary, format='png', dpi=100)
