from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from storyteller.formats import MismatchError, ModelFileError
from storyteller.training import loop
from storyteller.training.loop import train
from storyteller.training.optimizer import Adam2015, clip_gradients, make_optimizer
from storyteller.training.options import TrainOptions

BATCHES = 7  # in an epoch


class Net(nn.Module):
    """A small network with dropout, so that the state of the random numbers matters."""

    def __init__(self, width=6):
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.Tanh(), nn.Dropout(0.5), nn.Linear(width, 1)
        )
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def batches(epoch):
    """Every epoch its own batches: x (8, 4) and what to predict, the sum of each row."""
    rng = np.random.default_rng(epoch)
    return [torch.tensor(rng.normal(size=(8, 4)), dtype=torch.float32) for _ in range(BATCHES)]


def cost_of(net):
    return lambda x: ((net.layers(x)[:, 0] - x.sum(1)).square().sum(), len(x))


def run(checkpoint, cost=None, net=None, **options):
    """Train a new network, from the checkpoint if there is one; gives it back."""
    net = net or Net()
    settings = {'epochs': 3, 'lr': 0.01, 'seed': 5} | options
    train(net, batches, cost or cost_of(net), TrainOptions(**settings), checkpoint)
    return net


def assert_equal(first, second):
    """Bit for bit."""
    for (name, one), (_, two) in zip(
        first.state_dict().items(), second.state_dict().items(), strict=True
    ):
        assert torch.equal(one, two), name


def metrics(checkpoint):
    path = checkpoint.with_suffix('.jsonl')
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


class InterruptAt:
    """A cost that is interrupted at a step, before or after its random numbers are drawn."""

    def __init__(self, net, step, when):
        self.cost, self.step, self.when, self.calls = cost_of(net), step, when, 0

    def __call__(self, batch):
        self.calls += 1
        if self.calls > self.step and self.when == 'before':
            raise KeyboardInterrupt
        priced = self.cost(batch)
        if self.calls > self.step:
            raise KeyboardInterrupt
        return priced


# --- going on where it stopped -------------------------------------------------------------------


@pytest.mark.parametrize('when', ['before', 'after'])
@pytest.mark.parametrize('optimizer', ['adam', 'adam2015'])
@pytest.mark.parametrize('step', [0, 10, 14])  # at once, inside an epoch, at the end of one
def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path, optimizer, step, when):
    options = {'optimizer': optimizer, 'decay': True, 'warmup': 5}
    whole = run(tmp_path / 'whole.pt', **options)
    assert metrics(tmp_path / 'whole.pt')[-1]['steps'] == 3 * BATCHES == 21
    net = Net()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / 'parts.pt', InterruptAt(net, step, when), net, **options)
    assert metrics(tmp_path / 'parts.pt')[-1]['steps'] == step
    torch.manual_seed(99)  # whatever came between
    assert_equal(run(tmp_path / 'parts.pt', **options), whole)


def test_many_interruptions(tmp_path):
    whole = run(tmp_path / 'whole.pt')
    for _ in range(6):
        net = Net()
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / 'parts.pt', InterruptAt(net, 3, 'before'), net)
    assert_equal(run(tmp_path / 'parts.pt'), whole)
    assert [row['steps'] for row in metrics(tmp_path / 'parts.pt')] == [3, 6, 9, 12, 15, 18, 21]


def test_a_checkpoint_between_changes_nothing(tmp_path):
    whole = run(tmp_path / 'whole.pt')
    often = run(tmp_path / 'often.pt', save_minutes=1e-9)
    assert_equal(often, whole)
    assert [row['steps'] for row in metrics(tmp_path / 'often.pt')] == [*range(1, 22), 21]


def test_what_a_report_draws_changes_nothing(tmp_path):
    net, options = Net(), TrainOptions(epochs=3, lr=0.01, seed=5, save_minutes=1e-9)

    def report():
        return {'drawn': float(torch.rand(()))}

    train(net, batches, cost_of(net), options, tmp_path / 'a.pt', report=report)
    assert_equal(net, run(tmp_path / 'whole.pt'))


def test_a_finished_training_stays_as_it_is_until_it_is_given_more(tmp_path):
    first = run(tmp_path / 'a.pt', epochs=2)
    assert_equal(run(tmp_path / 'a.pt', epochs=2), first)
    assert_equal(run(tmp_path / 'a.pt', epochs=3), run(tmp_path / 'whole.pt', epochs=3))


def test_the_rate_may_change_when_it_goes_on(tmp_path):
    run(tmp_path / 'a.pt', epochs=1)
    before = torch.load(tmp_path / 'a.pt', weights_only=True)['module']
    slow = run(tmp_path / 'a.pt', epochs=2, lr=1e-12)
    for name, array in slow.state_dict().items():
        torch.testing.assert_close(array, before[name], atol=1e-9, rtol=0)


def test_seeds_decide_on_dropout(tmp_path):
    nets = [run(tmp_path / f'{i}.pt', seed=seed) for i, seed in enumerate((1, 1, 2))]
    assert_equal(nets[0], nets[1])
    weights = [net.layers[0].weight for net in nets]
    assert not torch.equal(weights[0], weights[2])


def test_what_is_not_trained_stays(tmp_path):
    assert run(tmp_path / 'a.pt').frozen.tolist() == [1.0, 1.0]


def test_training_learns(tmp_path):
    net = run(tmp_path / 'a.pt', epochs=1)
    first = metrics(tmp_path / 'a.pt')[-1]['cost']
    run(tmp_path / 'a.pt', epochs=40, net=net)
    assert metrics(tmp_path / 'a.pt')[-1]['cost'] < 0.5 * first


def test_export_and_report_at_each_save(tmp_path):
    net, saved = Net(), []

    def report():
        assert not net.training and not torch.is_grad_enabled()
        return {'held_out': 0.25}

    train(
        net,
        batches,
        cost_of(net),
        TrainOptions(epochs=1, save_minutes=1e-9),
        tmp_path / 'a.pt',
        report=report,
        save=lambda: saved.append(net.layers[0].weight.detach().clone()),
    )
    rows = metrics(tmp_path / 'a.pt')
    assert len(saved) == len(rows) == BATCHES + 1
    assert all(row['held_out'] == 0.25 for row in rows)
    assert torch.equal(saved[-1], net.layers[0].weight)
    assert not torch.equal(saved[0], saved[-1]) and net.training


def test_lines_of_the_metrics(tmp_path):
    net = Net()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / 'a.pt', InterruptAt(net, 10, 'before'), net)
    run(tmp_path / 'a.pt')
    first, second = metrics(tmp_path / 'a.pt')
    assert set(first) == {'minutes', 'epoch', 'steps', 'cost', 'finished'}
    assert (first['epoch'], first['steps'], first['finished']) == (1, 10, False)
    assert (second['epoch'], second['steps'], second['finished']) == (3, 21, True)
    assert 0 <= first['minutes'] <= second['minutes']
    assert 0 < second['cost'] < first['cost']  # each the mean of the items since the last


def test_the_cost_of_the_metrics_is_a_mean_of_items(tmp_path):
    net = Net()
    settings = TrainOptions(epochs=1)
    sizes = iter([1, 2, 3, 4, 5, 6, 7])

    def cost(batch):
        size = next(sizes)
        return 0 * net.layers(batch).sum() + 2.0 * size, size

    train(net, batches, cost, settings, tmp_path / 'a.pt')
    assert metrics(tmp_path / 'a.pt')[-1]['cost'] == pytest.approx(2.0)


# --- when it goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_a_cost_that_is_no_number_stops_training(tmp_path, bad):
    good = run(tmp_path / 'a.pt', epochs=1)
    kept = (tmp_path / 'a.pt').read_bytes()
    net = Net()

    def cost(batch):
        total, terms = cost_of(net)(batch)
        return total * bad, terms

    with pytest.raises(
        FloatingPointError, match=r'became (nan|inf) at step 7.*lower learning'
    ) as error:
        run(tmp_path / 'a.pt', cost, net)
    assert str(tmp_path / 'a.pt') in str(error.value)
    assert (tmp_path / 'a.pt').read_bytes() == kept  # the last good state
    assert_equal(net, good)  # and the bad cost changed nothing
    assert_equal(run(tmp_path / 'a.pt', epochs=1), good)


def test_a_bad_cost_before_the_first_checkpoint_promises_none(tmp_path):
    with pytest.raises(FloatingPointError, match=r'a\.pt was not written yet'):
        run(tmp_path / 'a.pt', lambda batch: (torch.tensor(math.nan), 1))


def test_a_checkpoint_of_another_model(tmp_path):
    run(tmp_path / 'a.pt', epochs=1)
    with pytest.raises(MismatchError, match=r'a\.pt: the checkpoint is of another model'):
        run(tmp_path / 'a.pt', net=Net(width=7))


@pytest.mark.parametrize(('before', 'after'), [('adam', 'adam2015'), ('adam2015', 'adam')])
def test_a_checkpoint_of_another_optimizer(tmp_path, before, after):
    run(tmp_path / 'a.pt', epochs=1, optimizer=before)
    with pytest.raises(MismatchError, match=r'a\.pt'):
        run(tmp_path / 'a.pt', epochs=2, optimizer=after)


class Command:
    def __reduce__(self):
        return exec, ('raise SystemExit',)


@pytest.mark.parametrize('content', ['empty', 'text', 'cut', 'code', 'list', 'no position'])
def test_a_checkpoint_that_is_none(tmp_path, content):
    path = tmp_path / 'a.pt'
    run(path, epochs=1)
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)
    if content in ('empty', 'text', 'cut'):
        path.write_bytes({'empty': b'', 'text': b'hello', 'cut': whole[: len(whole) // 2]}[content])
    elif content == 'code':
        torch.save(state | {'module': Command()}, path)
    elif content == 'list':
        torch.save([1, 2], path)
    else:
        torch.save({name: state[name] for name in ('module', 'optimizer')}, path)
    with pytest.raises(ModelFileError, match=r'a\.pt: not a readable checkpoint'):
        run(path)


def test_what_cost_raises_is_passed_on(tmp_path):
    def broken(batch):
        raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError, match='out of memory'):
        run(tmp_path / 'a.pt', broken)


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    run(tmp_path / 'a.pt', epochs=1)
    kept = (tmp_path / 'a.pt').read_bytes()

    def full_disk(state, path):
        path.write_bytes(b'half')
        raise OSError('no space left')

    monkeypatch.setattr(torch, 'save', full_disk)
    with pytest.raises(OSError):
        run(tmp_path / 'a.pt', epochs=2)
    assert (tmp_path / 'a.pt').read_bytes() == kept
    assert {path.name for path in tmp_path.iterdir()} == {'a.pt', 'a.jsonl'}


# --- budget and rate -----------------------------------------------------------------------------


class Clock:
    """Stands for the time module of the engine; each cost takes a minute."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loop, 'time', clock)
    return clock


def slow(net, clock, seconds=60):
    def cost(batch):
        clock.now += seconds
        return cost_of(net)(batch)

    return cost


def test_minutes_are_a_budget_over_all_runs(tmp_path, clock):
    net = Net()
    run(tmp_path / 'a.pt', slow(net, clock), net, minutes=4.5, epochs=100, save_minutes=100)
    (row,) = metrics(tmp_path / 'a.pt')
    assert (row['steps'], row['minutes'], row['finished']) == (5, 5.0, True)
    clock.now += 10**6  # what passes between runs does not count
    net = Net()
    run(tmp_path / 'a.pt', slow(net, clock), net, minutes=9.5, epochs=100, save_minutes=100)
    assert metrics(tmp_path / 'a.pt')[-1]['steps'] == 10
    run(tmp_path / 'a.pt', slow(net, clock), net, minutes=9.5, epochs=100)
    assert metrics(tmp_path / 'a.pt')[-1]['steps'] == 10  # it is used up


def test_the_last_save_is_part_of_the_budget(tmp_path, clock):
    """Looking takes three minutes, a step takes one: ten minutes are kept to within a step."""
    net = Net()

    def report():
        clock.now += 180
        return {'figure': 1.0}

    options = TrainOptions(epochs=100, lr=0.01, minutes=10, save_minutes=1.5)
    train(net, batches, slow(net, clock), options, tmp_path / 'a.pt', report=report)
    rows = metrics(tmp_path / 'a.pt')
    assert [row['minutes'] for row in rows] == [5.0, 11.0] and rows[-1]['finished']


def test_the_rate_of_steps_is_told_after_the_first(tmp_path, clock, capsys):
    net = Net()
    run(tmp_path / 'a.pt', slow(net, clock, 235), net, minutes=60, save_minutes=100)
    said = capsys.readouterr().err
    assert (
        'the first step took 235 seconds: 0.255 steps a minute, about 14.3 more in the 60' in said
    )
    assert said.count('the first step took') == 1
    run(tmp_path / 'a.pt', slow(net, clock, 2), net, epochs=4)  # again, of what goes on
    assert 'the first step took 2 seconds: 30 steps a minute\n' in capsys.readouterr().err


def test_epochs_end_training_before_the_minutes_do(tmp_path, clock):
    net = Net()
    run(tmp_path / 'a.pt', slow(net, clock), net, minutes=1000, epochs=1)
    assert metrics(tmp_path / 'a.pt')[-1]['steps'] == BATCHES


def test_checkpoints_come_every_so_many_minutes(tmp_path, clock):
    net = Net()
    run(tmp_path / 'a.pt', slow(net, clock), net, save_minutes=4.5)
    assert [row['steps'] for row in metrics(tmp_path / 'a.pt')] == [5, 10, 15, 20, 21]


def rates(tmp_path, monkeypatch, clock=None, **options):
    """The learning rate of each step."""
    found, net = [], Net()
    kept = torch.optim.Adam.step

    def step(self, closure=None):
        found.append(self.param_groups[0]['lr'])
        return kept(self, closure)

    monkeypatch.setattr(torch.optim.Adam, 'step', step)
    cost = cost_of(net) if clock is None else slow(net, clock)
    run(tmp_path / 'a.pt', cost, net, lr=0.1, **options)
    return np.array(found)


def test_the_rate_is_constant_by_default(tmp_path, monkeypatch):
    np.testing.assert_allclose(rates(tmp_path, monkeypatch), np.full(21, 0.1))


def test_the_rate_rises_over_the_warmup(tmp_path, monkeypatch):
    found = rates(tmp_path, monkeypatch, warmup=4)
    np.testing.assert_allclose(found[:6], [0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_the_rate_falls_by_a_cosine_to_a_twentieth(tmp_path, monkeypatch):
    found = rates(tmp_path, monkeypatch, decay=True)
    part = np.arange(21) / 21
    np.testing.assert_allclose(found, 0.1 * (0.05 + 0.475 * (1 + np.cos(np.pi * part))))
    assert found[0] == pytest.approx(0.1) and 0.005 < found[-1] < 0.006


def test_the_rate_falls_over_the_minutes_where_they_end_first(tmp_path, monkeypatch, clock):
    found = rates(tmp_path, monkeypatch, clock, decay=True, minutes=9.5, epochs=100)
    part = np.arange(10) / 9.5  # a step takes a minute
    expected = 0.1 * (0.05 + 0.475 * (1 + np.cos(np.pi * part)))
    np.testing.assert_allclose(found, expected)


# --- optimisers ----------------------------------------------------------------------------------


def test_adam_of_2015_on_one_number():
    """The published updates, written out; the bias correction is almost absent."""
    p, m, v = 1.0, 0.0, 0.0
    parameter = nn.Parameter(torch.tensor([p], dtype=torch.float64))
    optimizer = Adam2015([parameter], lr=0.1)
    for t in range(1, 6):
        g = 2 * p
        parameter.grad = 2 * parameter.detach()
        optimizer.step()
        m, v = 0.1 * g + 0.9 * m, 0.001 * g**2 + 0.999 * v
        p -= 0.1 * math.sqrt(1 - 0.001**t) / (1 - 0.1**t) * m / (math.sqrt(v) + 1e-8)
        assert float(parameter.detach()) == pytest.approx(p, rel=1e-12)


def test_adam_of_2015_leaves_alone_what_has_no_gradient():
    parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
    parameters[0].grad = torch.ones(2)
    Adam2015(parameters).step()
    assert (parameters[0] < 1).all() and parameters[1].tolist() == [1.0, 1.0]


def test_adam_is_that_of_torch():
    ours, theirs = Net(), Net()
    optimizers = [
        make_optimizer(ours, TrainOptions(lr=0.02)),
        torch.optim.Adam([p for p in theirs.parameters() if p.requires_grad], 0.02),
    ]
    for net, optimizer in zip((ours, theirs), optimizers, strict=True):
        net.eval()
        for batch in batches(0):
            optimizer.zero_grad()
            cost_of(net)(batch)[0].backward()
            optimizer.step()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_weights_decay_by_the_rate():
    module = nn.Linear(2, 1)
    before = module.weight.detach().clone()
    optimizer = make_optimizer(module, TrainOptions(lr=0.1, weight_decay=0.5))
    module.weight.grad, module.bias.grad = torch.zeros(1, 2), torch.zeros(1)
    optimizer.step()
    torch.testing.assert_close(module.weight.detach(), before * (1 - 0.1 * 0.5))


@pytest.mark.parametrize(('clip', 'after'), [(0.0, 5.0), (2.5, 2.5), (7.0, 5.0)])
def test_gradients_are_clipped_by_their_global_norm(clip, after):
    module = nn.Linear(2, 1)
    module.weight.grad, module.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert clip_gradients(module, clip) == pytest.approx(5.0)
    assert module.weight.grad.tolist() == [[pytest.approx(3 * after / 5), 0.0]]
    assert module.bias.grad.tolist() == [pytest.approx(4 * after / 5)]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'optimizer': 'sgd'}, "optimizer: expected 'adam' or 'adam2015', found 'sgd'"),
        ({'epochs': 0}, 'epochs: expected more than 0, found 0'),
        ({'lr': 0.0}, 'lr: expected more than 0'),
        ({'lr': -1.0}, 'lr: expected more than 0, found -1'),
        ({'lr': math.nan}, 'lr: expected more than 0, found nan'),
        ({'save_minutes': 0}, 'save_minutes: expected more than 0'),
        ({'clip': -1}, 'clip: expected 0 or more, found -1'),
        ({'warmup': -1}, 'warmup: expected 0 or more'),
        ({'minutes': 0}, 'minutes: expected more than 0, found 0'),
        ({'minutes': -3}, 'minutes: expected more than 0'),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        TrainOptions(**options)


def test_options_do_not_change():
    with pytest.raises(AttributeError):
        TrainOptions().lr = 1.0


# --- signals -------------------------------------------------------------------------------------

SCRIPT = textwrap.dedent("""
    import sys, time, torch
    from storyteller.training.loop import train
    from storyteller.training.options import TrainOptions

    def task(checkpoint, pause=0):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))

        def cost(batch):
            if batch == 4 and pause:
                print('four', flush=True)
                time.sleep(pause)
            return net(torch.full((2, 3), float(batch))).square().sum(), 2

        train(net, lambda epoch: range(10), cost, TrainOptions(epochs=1, seed=1), checkpoint)
        return net

    if __name__ == '__main__':
        task(sys.argv[1], 60)
""")


@pytest.mark.skipif(sys.platform == 'win32', reason='Windows has no SIGTERM to catch')
def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
    (tmp_path / 'script.py').write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / 'script.py'), str(tmp_path / 'a.pt')]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'four\n'
    process.terminate()
    out, error = process.communicate(timeout=60)
    assert process.returncode != 0 and 'KeyboardInterrupt' in error
    assert f'interrupted; {tmp_path / "a.pt"} is where the same command goes on' in error
    assert out == ''
    assert metrics(tmp_path / 'a.pt')[-1]['steps'] == 4
    script = {'__name__': 'script'}
    exec(SCRIPT, script)
    assert_equal(script['task'](tmp_path / 'a.pt'), script['task'](tmp_path / 'whole.pt'))


def test_the_handler_of_sigterm_is_put_back(tmp_path):
    def mine(signum, frame):
        raise AssertionError

    before = signal.signal(signal.SIGTERM, mine)
    try:
        run(tmp_path / 'a.pt', epochs=1)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_training_in_a_thread(tmp_path):
    errors = []

    def work():
        try:
            run(tmp_path / 'a.pt', epochs=1)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == [] and (tmp_path / 'a.pt').exists()


def test_nothing_is_printed_but_progress_on_stderr(tmp_path, capfd):
    run(tmp_path / 'a.pt', epochs=1)
    captured = capfd.readouterr()
    assert captured.out == '' and 'epoch 0' in captured.err


# --- what else it can do -------------------------------------------------------------------------


def test_accumulated_batches_make_the_step_of_one_large_batch(tmp_path):
    large, net = nn.Linear(4, 1), nn.Linear(4, 1)
    net.load_state_dict(large.state_dict())

    def train_on(module, size, **options):
        def pieces(epoch):
            whole = torch.cat(batches(epoch))  # 56 rows
            return list(whole.split(size))

        def cost(x):
            return (module(x)[:, 0] - x.sum(1)).square().sum(), len(x)

        settings = TrainOptions(epochs=2, lr=0.01, decay=True, warmup=2, **options)
        train(module, pieces, cost, settings, tmp_path / f'{size}.pt')

    train_on(large, 24)  # 24, 24 and 8 rows
    train_on(net, 8, accumulate=3)
    for (name, one), (_, two) in zip(
        large.state_dict().items(), net.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(one, two, msg=name)
    rows = [metrics(tmp_path / f'{size}.pt')[-1] for size in (24, 8)]
    assert [row['steps'] for row in rows] == [6, 6]
    assert rows[0]['cost'] == pytest.approx(rows[1]['cost'], rel=1e-5)


@pytest.mark.parametrize('options', [{'accumulate': 3}, {'average': 0.8}])
def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, options):
    whole = run(tmp_path / 'whole.pt', **options)
    net = Net()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / 'a.pt', InterruptAt(net, 10, 'after'), net, **options)
    assert_equal(run(tmp_path / 'a.pt', **options), whole)
    assert_equal(run(tmp_path / 'a.pt', **options), whole)  # also when all is done


class Held:
    """Figures on held-out data that are given beforehand; keeps the weights that were exported."""

    def __init__(self, net, values):
        self.net, self.values, self.saved = net, iter(values), []

    def report(self):
        return {'figure': next(self.values)}

    def save(self):
        self.saved.append(self.net.layers[0].weight.detach().clone())

    def train(self, path, **options):
        settings = TrainOptions(**{'epochs': 9, 'save_minutes': 1e-9} | options)
        train(
            self.net,
            batches,
            cost_of(self.net),
            settings,
            path,
            report=self.report,
            save=self.save,
            goal='figure',
        )


def test_training_ends_when_it_has_not_become_better_for_a_while(tmp_path):
    held = Held(Net(), [5, 4, 3, 3.5, 3.2, 9, 9, 9])
    held.train(tmp_path / 'a.pt', patience=3)
    rows = metrics(tmp_path / 'a.pt')
    assert [row['figure'] for row in rows[:6]] == [5, 4, 3, 3.5, 3.2, 9]
    assert rows[-1]['finished'] and rows[-1]['steps'] == 6
    best = torch.load(tmp_path / 'a.best.pt', weights_only=True)
    assert best['position'][2] == 3
    assert torch.equal(held.saved[-1], held.saved[2])  # the best is what was exported last


def test_patience_goes_on_with_its_count(tmp_path):
    first = Held(Net(), [5, 4, 3, 3.5, 3.2])
    with pytest.raises(StopIteration):
        first.train(tmp_path / 'a.pt', patience=3)
    second = Held(Net(), [3.1, 9, 9, 9])
    second.train(tmp_path / 'a.pt', patience=3)
    assert metrics(tmp_path / 'a.pt')[-1]['steps'] <= 7


def test_the_best_is_kept_beside_the_last(tmp_path):
    net, values = Net(), iter([1.0, 3.0, 2.0, 2.5, *[0.0] * 4])
    train(
        net,
        batches,
        cost_of(net),
        TrainOptions(epochs=1, save_minutes=1e-9),
        tmp_path / 'a.pt',
        report=lambda: {'recall': next(values)},
        goal='recall',
        maximise=True,
    )
    best = torch.load(tmp_path / 'a.best.pt', weights_only=True)
    assert best['best'] == [-3.0, 0] and best['position'][2] == 2
    assert torch.load(tmp_path / 'a.pt', weights_only=True)['position'][2] == BATCHES


def test_a_report_in_numpy_s_numbers_goes_on(tmp_path):
    first = Held(Net(), np.array([5.0, 4.0, 3.0]))
    with pytest.raises(StopIteration):
        first.train(tmp_path / 'a.pt')
    second = Held(Net(), np.full(BATCHES * 9, 6.0))
    second.train(tmp_path / 'a.pt')
    assert torch.load(tmp_path / 'a.best.pt', weights_only=True)['best'] == [3.0, 0]


@pytest.mark.parametrize('tf32', [False, True])
def test_the_precision_of_gpus_is_that_of_the_training_alone(tmp_path, tf32):
    def state():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before, seen, net = state(), [], Net()

    def cost(x):
        seen.append(state())
        return cost_of(net)(x)

    run(tmp_path / 'a.pt', cost, net, epochs=1, tf32=tf32)
    assert set(seen) == {('high' if tf32 else before[0], tf32)}
    assert state() == before


def test_patience_needs_a_figure(tmp_path):
    with pytest.raises(ValueError, match='patience: needs held-out data'):
        run(tmp_path / 'a.pt', patience=2)


def test_nothing_to_train_on(tmp_path):
    net = Net()
    with pytest.raises(ValueError, match='not one batch'):
        train(net, lambda epoch: [], cost_of(net), TrainOptions(), tmp_path / 'a.pt')


def test_what_the_model_shows_is_printed_and_kept(tmp_path, capsys):
    net = Net()

    def show():
        assert not net.training
        return f'drawn {float(torch.rand(())):.1f}'

    options = TrainOptions(epochs=3, lr=0.01, seed=5)
    train(net, batches, cost_of(net), options, tmp_path / 'a.pt', show=show)
    assert 'drawn' in capsys.readouterr().err
    assert (tmp_path / 'a.txt').read_text().startswith('step 21\ndrawn')
    assert_equal(net, run(tmp_path / 'whole.pt'))  # and what it drew changed nothing


def test_curves_and_tensorboard(tmp_path):
    pytest.importorskip('matplotlib')
    pytest.importorskip('tensorboard')
    run(tmp_path / 'a.pt', curves=True, tensorboard=True, save_minutes=1e-9)
    with Image.open(tmp_path / 'a.png') as picture:
        assert picture.format == 'PNG' and picture.width > 100
    assert list((tmp_path / 'tensorboard' / 'a').glob('events*'))


@pytest.mark.parametrize(('option', 'package'), [('curves', 'matplotlib'), ('tensorboard',) * 2])
def test_a_package_that_is_missing_is_named_before_training(tmp_path, monkeypatch, option, package):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ValueError, match=rf'{package} is not installed.*storyteller\[train\]'):
        run(tmp_path / 'a.pt', **{option: True})
    assert not list(tmp_path.iterdir())


def test_squared_weights_cost_as_in_2015(tmp_path):
    """The sum of squares of all weights is part of the cost, before clipping."""
    net, other = nn.Linear(4, 1), nn.Linear(4, 1)
    other.load_state_dict(net.state_dict())

    def cost(module, l2):
        def priced(x):
            squares = sum(param.square().sum() for param in module.parameters())
            return (module(x)[:, 0] - x.sum(1)).square().sum() + l2 * squares, len(x)

        return priced

    options = {'epochs': 2, 'lr': 0.01, 'clip': 1.0}
    train(net, batches, cost(net, 0.5), TrainOptions(**options), tmp_path / 'a.pt')
    train(other, batches, cost(other, 0), TrainOptions(**options, l2=0.5), tmp_path / 'b.pt')
    torch.testing.assert_close(other.weight, net.weight)


# --- averaged weights ----------------------------------------------------------------------------


class Watched:
    """A training whose weights are looked at after every step and at the end."""

    def __init__(self):
        self.net, self.steps, self.exported = Net(), [], None

    def cost(self, batch):
        self.steps.append(self.weights())
        return cost_of(self.net)(batch)

    def weights(self):
        return {name: value.clone() for name, value in self.net.state_dict().items()}

    def save(self):
        self.exported = self.weights()

    def train(self, checkpoint, **options):
        settings = TrainOptions(**{'epochs': 2, 'lr': 0.01, 'seed': 5} | options)
        train(self.net, batches, self.cost, settings, checkpoint, save=self.save)


def test_averaged_weights_are_exported_and_left_in_the_module(tmp_path):
    plain, averaged = Watched(), Watched()
    plain.train(tmp_path / 'plain.pt')
    averaged.train(tmp_path / 'averaged.pt', average=0.8)
    after = [*plain.steps[1:], plain.weights()]  # the mean changes nothing of what is learned
    for name, last in plain.weights().items():
        mean = after[0][name]
        for i, step in enumerate(after[1:], 2):
            mean = mean + max(0.2, 1 / i) * (step[name] - mean)
        torch.testing.assert_close(averaged.exported[name], mean)
        assert torch.equal(averaged.net.state_dict()[name], averaged.exported[name])
        assert name == 'frozen' or not torch.allclose(mean, last, atol=1e-4)


def test_a_mean_is_begun_where_there_was_none_and_left_where_it_is_not_wanted(tmp_path):
    run(tmp_path / 'a.pt', epochs=1)
    shutil.copy(tmp_path / 'a.pt', tmp_path / 'b.pt')
    begun = run(tmp_path / 'a.pt', average=0.8)
    assert_equal(run(tmp_path / 'b.pt'), run(tmp_path / 'whole.pt'))
    assert not torch.equal(begun.layers[0].weight, run(tmp_path / 'whole.pt').layers[0].weight)
    assert_equal(run(tmp_path / 'a.pt'), run(tmp_path / 'whole.pt'))


@pytest.mark.parametrize('average', [-0.1, 1.0])
def test_what_the_past_counts_is_checked(average):
    with pytest.raises(ValueError, match=f'average: .*{average}'):
        TrainOptions(average=average)
