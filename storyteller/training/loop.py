"""One engine for every trainer: optimiser, clipping, budget, checkpoints, a metrics file.

The engine knows nothing of the models. A trainer hands it a module, a function that gives the
batches of an epoch, and one that gives the cost of a batch.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..formats import MismatchError, ModelFileError, PathLike, atomic_path
from . import ranks


@dataclass(frozen=True)
class TrainOptions:
    """How to train, whatever the model.

    Attributes
    ----------
    epochs : int
        How many times to go through the data at most.
    minutes : float or None
        A budget of wall-clock time, counted over all resumed runs. None: no limit.
    optimizer : {'adam', 'adam2015'}
        torch's Adam, or the updates of the code of 2015 (:class:`Adam2015`).
    lr : float
        Learning rate.
    decay : bool
        Whether the rate falls, by a cosine, to a twentieth over the budget.
    warmup : int
        Over how many steps the rate rises from zero.
    weight_decay : float
        How much of each weight is taken away at a step, times the rate; not for 'adam2015'.
    clip : float
        Largest global norm of a gradient; 0 leaves gradients as they are.
    seed : int
        Of initial weights, batches and dropout.
    save_minutes : float
        How often a checkpoint is written.
    """

    epochs: int = 5
    minutes: float | None = None
    optimizer: str = 'adam'
    lr: float = 2e-4
    decay: bool = False
    warmup: int = 0
    weight_decay: float = 0.0
    clip: float = 5.0
    seed: int = 0
    save_minutes: float = 5.0

    def __post_init__(self):
        if self.optimizer not in ('adam', 'adam2015'):
            raise ValueError(f"optimizer: expected 'adam' or 'adam2015', found {self.optimizer!r}")
        for name in ('epochs', 'lr', 'save_minutes'):
            if not getattr(self, name) > 0:
                raise ValueError(f'{name}: expected more than 0, found {getattr(self, name)!r}')
        for name in ('clip', 'warmup', 'weight_decay'):
            if not getattr(self, name) >= 0:
                raise ValueError(f'{name}: expected 0 or more, found {getattr(self, name)!r}')
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f'minutes: expected more than 0, found {self.minutes!r}')


class Adam2015(torch.optim.Optimizer):
    """Adam as the code of 2015 had it.

    Its moments decay as usual, but the bias correction uses powers of 0.1 and 0.001 where Kingma
    and Ba (2015) have 0.9 and 0.999, so that it is almost absent: the first few hundred steps are
    several times longer than with :class:`torch.optim.Adam`.
    """

    def __init__(self, params, lr: float = 2e-4):
        super().__init__(params, {'lr': lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group['params']:
                if param.grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state['step'] = 0
                    state['m'], state['v'] = torch.zeros_like(param), torch.zeros_like(param)
                state['step'] += 1
                t = state['step']
                state['m'].mul_(0.9).add_(param.grad, alpha=0.1)
                state['v'].mul_(0.999).addcmul_(param.grad, param.grad, value=0.001)
                rate = group['lr'] * math.sqrt(1 - 0.001**t) / (1 - 0.1**t)
                param.addcdiv_(state['m'], state['v'].sqrt().add_(1e-8), value=-rate)


def make_optimizer(module: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """The optimiser that `options` names, over all parameters that are trained."""
    params = [param for param in module.parameters() if param.requires_grad]
    if options.optimizer == 'adam2015':
        return Adam2015(params, options.lr)
    decay = {'weight_decay': options.weight_decay} if options.weight_decay else {}
    kind = torch.optim.AdamW if decay else torch.optim.Adam
    return kind(params, options.lr, fused=True, **decay)  # fused: one pass over memory


def clip_gradients(module: nn.Module, clip: float) -> float:
    """Scale all gradients down to the global norm `clip`, if they exceed it; give the norm.

    As in 2015 the factor is clip / norm, with no epsilon. `clip` = 0 only measures.
    """
    gradients = [param.grad for param in module.parameters() if param.grad is not None]
    norm = math.hypot(*(float(torch.linalg.vector_norm(gradient)) for gradient in gradients))
    if 0 < clip < norm:
        for gradient in gradients:
            gradient.mul_(clip / norm)
    return norm


def train(
    module: nn.Module,
    batches: Callable[[int], Sequence[Any]],
    cost: Callable[[Any], tuple[Tensor, int]],
    options: TrainOptions,
    checkpoint: PathLike,
    *,
    report: Callable[[], dict[str, float]] | None = None,
    save: Callable[[], None] | None = None,
) -> None:
    """Train until the epochs or the minutes are used up, from the last checkpoint if there is one.

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
        Where the state is kept. Beside it, with suffix ``.jsonl``, the metrics: a line a save.
    report : function, optional
        Gives figures on held-out data, for the metrics; called at each save.
    save : function, optional
        Exports the model; called at each save.

    Raises
    ------
    FloatingPointError
        If a cost is not a finite number; the checkpoint then holds the last good state.
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, after saving. The same call then goes on where it stopped.

    Notes
    -----
    Under ``torchrun`` all processes call this. `cost` takes `ranks.part` of each batch; only the
    first process reports and writes.
    """
    ranks.join()
    run = _Run(module, options, Path(checkpoint), report, save)
    run.resume()
    with _sigterm_as_interrupt():
        try:
            run.through(batches, cost)
        except KeyboardInterrupt:
            run.keep()
            message = f'interrupted; {checkpoint} is where the same command goes on'
            tqdm.write(message, file=sys.stderr)
            raise
    run.keep(finished=True)


class _Run:
    """The state of one training: position, time used, running means."""

    def __init__(self, module, options, checkpoint, report, save):
        torch.manual_seed(options.seed + ranks.number())
        self.module, self.options, self.checkpoint = module, options, checkpoint
        self.report, self.save = report, save
        self.optimizer = make_optimizer(module, options)
        self.epoch = self.done = self.steps = 0  # `done` batches of this epoch, `steps` in all
        self.used, self.started, self.now = 0.0, time.monotonic(), 0.0
        self.saved = self.started
        self.sums = [0.0, 0]
        self.random = _random_states()  # after the last whole step: an interrupted one is repeated

    @property
    def elapsed(self) -> float:
        return self.used + time.monotonic() - self.started

    def through(self, batches, cost) -> None:
        self.module.train()
        while self.epoch < self.options.epochs:
            epoch = batches(self.epoch)
            with self.bar(epoch) as bar:
                for batch in _skipped(epoch, self.done):
                    self.now = ranks.agree(self.elapsed)
                    if self.out_of_time():
                        return
                    self.step(cost(batch), len(epoch))
                    self.random = _random_states()
                    bar.update()
                    bar.set_postfix(cost=f'{self.sums[0] / max(1, self.sums[1]):.3f}')
                    if time.monotonic() - self.saved > 60 * self.options.save_minutes:
                        self.keep()
            self.epoch, self.done = self.epoch + 1, 0

    def bar(self, epoch: Sequence[Any]) -> tqdm:
        """The progress bar of an epoch; one is enough for all processes."""
        text, hidden = f'epoch {self.epoch}', ranks.number() > 0
        return tqdm(epoch, desc=text, initial=self.done, unit=' batches', disable=hidden)

    def out_of_time(self) -> bool:
        return self.options.minutes is not None and self.now > 60 * self.options.minutes

    def step(self, priced: tuple[Tensor, int], epoch_length: int) -> None:
        total, terms = priced
        value, terms = ranks.summed(float(total.detach()), terms)
        if not math.isfinite(value):
            there = self.checkpoint.exists()
            kept = 'holds the last good state' if there else 'was not written yet'
            raise FloatingPointError(
                f'the cost became {value} at step {self.steps}; '
                f'{self.checkpoint} {kept}: go on with a lower learning rate'
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        ranks.sum_gradients(self.module)
        clip_gradients(self.module, self.options.clip)
        for group in self.optimizer.param_groups:
            group['lr'] = self.rate(epoch_length)
        self.optimizer.step()
        self.steps, self.done = self.steps + 1, self.done + 1
        self.sums[0] += value
        self.sums[1] += terms

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
        """Write checkpoint, metrics and export."""
        self.saved = time.monotonic()
        if ranks.number() > 0:
            return
        state = {
            'module': self.module.state_dict(),
            'optimizer': self.optimizer.state_dict(),
            'position': [self.epoch, self.done, self.steps],
            'elapsed': self.elapsed,
            'options': asdict(self.options),
            'random': self.random,
        }
        with atomic_path(self.checkpoint) as temporary:
            torch.save(state, temporary)
        if self.save is not None:
            self.save()
        self.log(finished)
        self.saved = time.monotonic()

    def log(self, finished: bool) -> None:
        row = {
            'minutes': round(self.elapsed / 60, 2),
            'epoch': self.epoch,
            'steps': self.steps,
            'cost': self.sums[0] / max(1, self.sums[1]),
            'finished': finished,
        }
        if self.report is not None:
            self.module.eval()
            with torch.no_grad():
                row.update(self.report())
            self.module.train()
            _set_random_states(self.random)  # whatever the report has drawn
        with open(self.checkpoint.with_suffix('.jsonl'), 'a', encoding='utf-8') as file:
            file.write(json.dumps(row) + '\n')
        self.sums = [0.0, 0]

    def resume(self) -> None:
        if not self.checkpoint.exists():
            return
        try:
            state = torch.load(self.checkpoint, map_location='cpu', weights_only=True)
            module, optimizer, options = state['module'], state['optimizer'], state['options']
            position, self.used, random = state['position'], state['elapsed'], state['random']
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
        if ranks.number() > 0:  # the states that were kept are those of the first process
            torch.manual_seed(self.options.seed + ranks.number() + ranks.count() * self.steps)
            self.random = _random_states()
        _set_random_states(self.random)


def _random_states() -> list[Tensor]:
    """Of the CPU and of each GPU."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *gpus]


def _set_random_states(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for gpu, state in enumerate(states[1 : 1 + torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, gpu)


def _skipped(epoch: Sequence[Any], done: int) -> Iterator[Any]:
    return (epoch[i] for i in range(done, len(epoch)))


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end training as Ctrl-C does; outside the main thread signals stay as they are."""

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
