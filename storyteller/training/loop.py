"""The training loop of all trainers: batches, budget, checkpoints, early stopping.

The engine knows nothing of the models. A trainer hands it a module, a function that gives the
batches of an epoch, and one that gives the cost of a batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..formats import MismatchError, ModelFileError, PathLike, atomic_path
from . import distributed
from .ema import Average
from .metrics import Metrics
from .optimizer import clip_gradients, make_optimizer
from .options import TrainOptions
from .process_state import products, random_states, say, set_random_states, sigterm_as_interrupt


def train(
    module: nn.Module,
    batches: Callable[[int], Sequence[Any]],
    cost: Callable[[Any], tuple[Tensor, int]],
    options: TrainOptions,
    checkpoint: PathLike,
    *,
    report: Callable[[], dict[str, float]] | None = None,
    save: Callable[[], None] | None = None,
    goal: str | None = None,
    maximise: bool = False,
    show: Callable[[], str] | None = None,
) -> None:
    """Train until the epochs or the budget end, resuming from a checkpoint if there is one.

    Parameters
    ----------
    module : torch.nn.Module
        Everything that is learned.
    batches : function
        Epoch number -> the batches of that epoch; the same for the same number.
    cost : function
        Batch -> its summed cost, a scalar tensor, and the number of terms (words, photos) in it.
    options : TrainOptions
    checkpoint : path-like
        Where the state is kept. Beside it, with suffix ``.jsonl``, the metrics: a line a save; with
        ``.best.pt``, the state with the best figure; with ``.txt``, what the model showed.
    report : function, optional
        Gives figures on held-out data, for the metrics; called at each save.
    save : function, optional
        Exports the model; called at each save.
    goal : str, optional
        The figure of `report` that decides what is best.
    maximise : bool
        Whether that figure shall rise, not fall.
    show : function, optional
        A text that the model writes, to see how it does; called at each save.

    Raises
    ------
    ValueError
        If there is nothing to train on, or the options ask for what is missing.
    FloatingPointError
        If a cost is not a finite number; the checkpoint then holds the last good state.
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, after saving. The same call then goes on where it stopped.

    Notes
    -----
    Under ``torchrun`` all processes call this. `cost` takes `ranks.part` of each batch; only the
    first process reports and writes.
    """
    distributed.join()
    if options.patience and goal is None:
        raise ValueError('patience: needs held-out data, whose figure can become better')
    run = _Run(module, options, Path(checkpoint), report, save, goal, maximise, show)
    run.resume()
    with sigterm_as_interrupt(), products(options.tf32):
        try:
            run.through(batches, cost)
        except KeyboardInterrupt:
            run.keep()
            say(f'interrupted; {checkpoint} is where the same command goes on')
            raise
    run.keep(finished=True)
    if options.patience:
        run.export_best()
    run.average.apply()
    distributed.agree(0.0)  # the other processes go on when the files are there


class _Run:
    """The state of one training: position, time used, running means, the best so far."""

    def __init__(self, module, options, checkpoint, report, save, goal, maximise, show):
        torch.manual_seed(options.seed + distributed.number())
        self.module, self.options, self.checkpoint = module, options, checkpoint
        self.report, self.save, self.show = report, save, show
        self.goal, self.maximise = goal, maximise
        self.average = Average(module, options.average)
        self.metrics = Metrics(checkpoint, options.curves, options.tensorboard)
        self.optimizer = make_optimizer(module, options)
        self.epoch = self.done = self.steps = 0  # `done` batches of this epoch, `steps` in all
        self.used, self.started, self.now = 0.0, time.monotonic(), 0.0
        self.saved, self.keeping = self.started, 0.0  # seconds that a save takes at most
        self.sums = [0.0, 0]
        self.best, self.waited = math.inf, 0  # and for how many saves it has stayed the best
        self.random = random_states()  # after the last whole step: an interrupted one is repeated

    @property
    def elapsed(self) -> float:
        return self.used + time.monotonic() - self.started

    def through(self, batches, cost) -> None:
        self.module.train()
        first_step = self.steps
        while self.epoch < self.options.epochs:
            epoch, size = batches(self.epoch), self.options.accumulate
            if not len(epoch):
                raise ValueError('there is not one batch to train on')
            with self.bar(epoch) as bar:
                for first in range(self.done, len(epoch), size):
                    self.now = distributed.agree(self.elapsed)
                    if self.over():
                        return
                    group = [epoch[i] for i in range(first, min(first + size, len(epoch)))]
                    began, steps = time.monotonic(), self.steps
                    self.step(group, cost, math.ceil(len(epoch) / size))
                    if steps == first_step:
                        self.tell_rate(time.monotonic() - began)
                    self.random = random_states()
                    bar.update(len(group))
                    bar.set_postfix(cost=f'{self.sums[0] / max(1, self.sums[1]):.3f}')
                    if self.should_save():
                        self.keep()
            self.epoch, self.done = self.epoch + 1, 0

    def bar(self, epoch: Sequence[Any]) -> tqdm:
        """The progress bar of an epoch; only the first process shows one."""
        text, hidden = f'epoch {self.epoch}', distributed.number() > 0
        return tqdm(epoch, desc=text, initial=self.done, unit=' batches', disable=hidden)

    def should_save(self) -> bool:
        """Whether a checkpoint is due, and the budget allows another one at the end."""
        minutes, due = self.options.minutes, self.saved + 60 * self.options.save_minutes
        room = minutes is None or self.elapsed + 2 * self.keeping <= 60 * minutes
        return time.monotonic() > due and room

    def over(self) -> bool:
        """Whether the budget or the patience is exhausted."""
        minutes, patience = self.options.minutes, self.options.patience
        if minutes is not None and self.now + distributed.agree(self.keeping) > 60 * minutes:
            return True
        return bool(patience) and distributed.agree(self.waited) >= patience

    def tell_rate(self, seconds: float) -> None:
        """Report the throughput after the first step, and the steps to expect."""
        if distributed.number() > 0:
            return
        rate, minutes = 60 / max(seconds, 1e-9), self.options.minutes
        line = f'the first step took {seconds:.3g} seconds: {rate:.3g} steps a minute'
        if minutes is not None:
            left = max(0.0, 60 * minutes - self.elapsed)
            line += f', about {left / 60 * rate:.3g} more in the {minutes:g} minutes'
        say(line)

    def step(self, group: list[Any], cost, steps_of_epoch: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        found = [0.0, 0]
        for batch in group:
            total, terms = cost(batch)
            value, terms = distributed.summed(float(total.detach()), terms)
            if not math.isfinite(value):
                raise FloatingPointError(self.lost(value))
            total.backward()
            found = [found[0] + value, found[1] + terms]
        distributed.sum_gradients(self.module)
        self.penalise()
        clip_gradients(self.module, self.options.clip)
        for part in self.optimizer.param_groups:
            part['lr'] = self.rate(steps_of_epoch)
        self.optimizer.step()
        self.average.update()
        self.steps, self.done = self.steps + 1, self.done + len(group)
        self.sums = [self.sums[0] + found[0], self.sums[1] + found[1]]

    def penalise(self) -> None:
        """Add the gradient of the L2 penalty over all weights, as in 2015."""
        for param in self.module.parameters() if self.options.l2 else ():
            if param.grad is not None:
                param.grad.add_(param.detach(), alpha=2 * self.options.l2)

    def lost(self, value: float) -> str:
        """The message about a loss that is not finite."""
        kept = 'holds the last good state' if self.checkpoint.exists() else 'was not written yet'
        return (
            f'the cost became {value} at step {self.steps}; '
            f'{self.checkpoint} {kept}: go on with a lower learning rate'
        )

    def rate(self, epoch_length: int) -> float:
        options = self.options
        rate = options.lr * min(1.0, (self.steps + 1) / max(1, options.warmup))
        if not options.decay:
            return rate
        part = self.steps / (options.epochs * epoch_length)
        if options.minutes is not None:
            part = max(part, self.now / (60 * options.minutes))
        return rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, part))))

    def keep(self, finished: bool = False) -> None:
        """Evaluate; write metrics, checkpoint and export."""
        self.saved = time.monotonic()
        if distributed.number() > 0:
            return
        with self.average.applied():
            figures = self.look()
            if self.save is not None:
                self.save()
        set_random_states(self.random)  # whatever has been drawn
        figure = figures.get(self.goal, -math.inf if self.maximise else math.inf)
        badness = -figure if self.maximise else figure
        better = badness < self.best
        self.best = min(self.best, badness)
        self.waited = 0 if better else self.waited + 1
        self.write(self.checkpoint)
        if better:
            self.write(self.best_checkpoint)
        self.metrics.add(
            {
                'minutes': round(self.elapsed / 60, 2),
                'epoch': self.epoch,
                'steps': self.steps,
                'cost': self.sums[0] / max(1, self.sums[1]),
                'finished': finished,
                **figures,
            }
        )
        self.sums = [0.0, 0]
        self.keeping = max(self.keeping, time.monotonic() - self.saved)
        self.saved = time.monotonic()

    @property
    def best_checkpoint(self) -> Path:
        return self.checkpoint.with_suffix('.best.pt')

    def write(self, path: Path) -> None:
        """Write the whole state, atomically."""
        state = {
            'module': self.module.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'average': self.average.state(),
            'position': [self.epoch, self.done, self.steps],
            'elapsed': self.elapsed,
            'best': [self.best, self.waited],
            'options': asdict(self.options),
            'random': self.random,
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def look(self) -> dict[str, float]:
        """Metrics on held-out data, and samples of the model."""
        figures: dict[str, float] = {}
        self.module.eval()
        with torch.no_grad():
            if self.report is not None:
                # NumPy's numbers would make the checkpoint unreadable: it may hold no objects.
                figures = {name: float(value) for name, value in self.report().items()}
            if self.show is not None:
                self.metrics.show(f'step {self.steps}\n{self.show()}\n')
        self.module.train()
        return figures

    def export_best(self) -> None:
        """Export the model with the best metric."""
        if distributed.number() > 0 or self.save is None or not self.best_checkpoint.exists():
            return
        state = torch.load(self.best_checkpoint, map_location='cpu', weights_only=True)
        self.module.load_state_dict(state['module'])
        self.average.resume(state.get('average', {}))
        self.average.apply()
        self.save()

    def resume(self) -> None:
        if not self.checkpoint.exists():
            return
        try:
            state = torch.load(self.checkpoint, map_location='cpu', weights_only=True)
            module, optimizer, options = state['module'], state['optimizer'], state['options']
            position, self.used, random = state['position'], state['elapsed'], state['random']
            self.best, self.waited = state.get('best', (math.inf, 0))
            self.average.resume(state.get('average', {}))
        except Exception as error:  # torch raises anything from KeyError to its own types
            raise ModelFileError(f'{self.checkpoint}: not a readable checkpoint: {error}') from None
        before, now = options['optimizer'], self.options.optimizer
        if before != now:
            raise MismatchError(f'{self.checkpoint}: trained by {before!r}, not by {now!r}')
        try:
            self.module.load_state_dict(module)
            self.optimizer.load_state_dict(optimizer)
        except (KeyError, RuntimeError, ValueError) as error:
            raise MismatchError(
                f'{self.checkpoint}: the checkpoint is of another model: {error}'
            ) from None
        self.epoch, self.done, self.steps = position
        self.random = random if isinstance(random, list) else [random]
        if distributed.number() > 0:  # the states that were kept are those of the first process
            torch.manual_seed(
                self.options.seed + distributed.number() + distributed.count() * self.steps
            )
            self.random = random_states()
        set_random_states(self.random)
