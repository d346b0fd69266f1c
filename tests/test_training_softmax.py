from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from storyteller.training.ops.softmax import (
    Rows,
    SampledSoftmax,
    full_cost,
    log_frequencies,
    unlikely_cost,
)

H, V = 8, 60

bf16_full_cost = partial(full_cost, dtype=torch.bfloat16)
bf16_unlikely_cost = partial(unlikely_cost, dtype=torch.bfloat16)


def problem(n=50, seed=0, scale=0.3):
    """Hidden states, targets and an output layer; no probability is near the 1e-8 of 2015."""
    torch.manual_seed(seed)
    hidden = torch.randn(n, H, requires_grad=True)
    output = torch.nn.Linear(H, V)
    with torch.no_grad():
        output.weight.copy_(scale * torch.randn(V, H))
        output.bias.copy_(scale * torch.randn(V))
    return hidden, torch.randint(0, V, (n,)), output


def cost_and_gradients(function, hidden, targets, output):
    cost = function(hidden, targets, output)
    return cost.detach(), torch.autograd.grad(cost, [hidden, output.weight, output.bias])


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


# --- the whole vocabulary ------------------------------------------------------------------------


def test_full_cost_is_a_sum_of_log_probabilities():
    hidden, targets, output = problem()
    logits = (hidden @ output.weight.T + output.bias).detach().numpy().astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log(p[np.arange(50), targets.numpy()] + 1e-8).sum()
    assert float(full_cost(hidden, targets, output).detach()) == pytest.approx(expected, rel=1e-5)


def test_full_cost_of_an_impossible_word_is_that_of_2015():
    output = torch.nn.Linear(1, 2)
    with torch.no_grad():
        output.weight.zero_()
        output.bias.copy_(torch.tensor([200.0, 0.0]))  # the second word has probability 0
    cost = full_cost(torch.zeros(1, 1), torch.tensor([1]), output)
    assert float(cost.detach()) == pytest.approx(-np.log(1e-8), rel=1e-5)


def plain_full_cost(hidden, targets, output):
    """As one writes it first: all logits at once, torch's own gradients."""
    p = torch.softmax(output(hidden), 1)[torch.arange(len(hidden)), targets]
    return -torch.log(p + 1e-8).sum()


def plain_unlikely_cost(hidden, targets, output):
    p = torch.softmax(output(hidden), 1)[torch.arange(len(hidden)), targets]
    return -torch.log(1 - p + 1e-6).sum()


@pytest.mark.parametrize('rows', [1, 7, 50, 2048])
@pytest.mark.parametrize(
    ('function', 'plain'), [(full_cost, plain_full_cost), (unlikely_cost, plain_unlikely_cost)]
)
def test_cost_and_gradients_are_those_of_the_plain_softmax(function, plain, rows):
    hidden, targets, output = problem()
    found, gradients = cost_and_gradients(partial(function, rows=rows), hidden, targets, output)
    expected, true_gradients = cost_and_gradients(plain, hidden, targets, output)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    for gradient, true in zip(gradients, true_gradients, strict=True):
        assert distance(gradient, true) < 1e-5


@pytest.mark.parametrize(
    ('function', 'plain'), [(full_cost, plain_full_cost), (unlikely_cost, plain_unlikely_cost)]
)
def test_in_bfloat16_they_are_the_same_to_its_precision(function, plain):
    hidden, targets, output = problem()
    half = partial(function, dtype=torch.bfloat16)
    found, gradients = cost_and_gradients(half, hidden, targets, output)
    expected, true_gradients = cost_and_gradients(plain, hidden, targets, output)
    assert float(found) == pytest.approx(float(expected), rel=0.02)
    for gradient, true in zip(gradients, true_gradients, strict=True):
        assert gradient.dtype == torch.float32 and distance(gradient, true) < 0.02


def test_gradients_agree_with_finite_differences():
    hidden, targets, output = problem(n=5)
    hidden, output = hidden.detach().double().requires_grad_(), output.double()

    def cost(hidden, weight, bias):
        return full_cost(hidden, targets, Rows(weight, bias), rows=2)

    assert torch.autograd.gradcheck(cost, (hidden, output.weight, output.bias))


def test_gradients_reach_the_layer_whose_first_rows_are_used():
    hidden, _, output = problem()
    targets = torch.randint(0, 20, (50,))
    full_cost(hidden, targets, Rows.first(output, 20)).backward()
    assert output.weight.grad[:20].any(1).all() and not output.weight.grad[20:].any()


@pytest.mark.parametrize('function', [full_cost, bf16_full_cost, unlikely_cost])
def test_the_cost_is_the_same_where_no_gradient_is_wanted(function):
    hidden, targets, output = problem()
    wanted = function(hidden, targets, output).detach()
    with torch.no_grad():
        assert torch.equal(function(hidden, targets, output), wanted)


def test_a_frozen_layer_passes_its_gradient_on():
    hidden, targets, output = problem()
    (expected, *_) = cost_and_gradients(full_cost, hidden, targets, output)[1]
    output.requires_grad_(False)
    full_cost(hidden, targets, output).backward()
    torch.testing.assert_close(hidden.grad, expected)
    assert output.weight.grad is None


@pytest.mark.parametrize('function', [full_cost, bf16_full_cost])
def test_gradients_are_scaled_as_the_cost_is(function):
    hidden, targets, output = problem()
    _, once = cost_and_gradients(function, hidden, targets, output)
    _, thrice = cost_and_gradients(lambda *a: 3 * function(*a), hidden, targets, output)
    for single, triple in zip(once, thrice, strict=True):
        torch.testing.assert_close(triple, 3 * single)


@pytest.mark.parametrize('function', [unlikely_cost, bf16_unlikely_cost])
def test_a_word_that_is_certain_has_a_finite_cost_and_gradient(function):
    hidden, targets, output = problem(scale=100.0)
    targets = output(hidden).argmax(1)
    cost, gradients = cost_and_gradients(function, hidden, targets, output)
    assert torch.isfinite(cost) and all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_cost_of_extreme_logits_is_finite():
    hidden, targets, output = problem(scale=100.0)
    for function in (full_cost, bf16_full_cost):
        cost, gradients = cost_and_gradients(function, hidden, targets, output)
        assert torch.isfinite(cost) and all(torch.isfinite(g).all() for g in gradients)


def test_no_word_costs_nothing():
    hidden, targets, output = problem()
    for function in (full_cost, bf16_full_cost, SampledSoftmax(torch.ones(V), 5)):
        cost, gradients = cost_and_gradients(function, hidden[:0], targets[:0], output)[0], None
        assert float(cost) == 0.0 and gradients is None


@pytest.mark.parametrize(
    'function',
    [full_cost, bf16_full_cost, SampledSoftmax(torch.ones(V), 20)],
    ids=['full', 'bfloat16', 'sampled'],
)
def test_costs_are_sums_over_words(function):
    hidden, targets, output = problem()
    torch.manual_seed(5)  # the same sample each time
    whole = function(hidden, targets, output).detach()
    parts = 0.0
    for part in (slice(0, 20), slice(20, 50)):
        torch.manual_seed(5)
        parts += function(hidden[part], targets[part], output).detach()
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=0)


# --- a sample of it ------------------------------------------------------------------------------

COUNTS = torch.tensor([1000.0, 300, 100, *range(V - 3, 0, -1)])


def averaged(samples, times, hidden, targets, output, counts=COUNTS):
    """Mean cost and mean gradients of a sampled softmax over many samples."""
    torch.manual_seed(1)
    function = SampledSoftmax(counts, samples)
    found = [cost_and_gradients(function, hidden, targets, output) for _ in range(times)]
    costs, gradients = zip(*found, strict=True)
    return torch.stack(costs).mean(), [
        torch.stack(each).mean(0) for each in zip(*gradients, strict=True)
    ]


def test_with_samples_without_end_cost_and_gradients_are_those_of_the_full_softmax():
    hidden, targets, output = problem()
    targets[:20] = 0  # the most frequent word, which every sample holds many times
    expected, true_gradients = cost_and_gradients(full_cost, hidden, targets, output)
    found, gradients = averaged(200_000, 1, hidden, targets, output)
    assert float(found) == pytest.approx(float(expected), rel=0.01)
    for gradient, true in zip(gradients, true_gradients, strict=True):
        assert distance(gradient, true) < 0.03


def test_the_mean_over_samples_approaches_the_full_softmax():
    hidden, targets, output = problem()
    targets[:20] = 0
    expected, true_gradients = cost_and_gradients(full_cost, hidden, targets, output)
    errors = []
    for samples in (3, 30, 300):
        found, gradients = averaged(samples, 6000 // samples, hidden, targets, output)
        errors.append(
            [abs(float(found / expected) - 1)]
            + [distance(g, true) for g, true in zip(gradients, true_gradients, strict=True)]
        )
    assert np.all(np.diff(errors, axis=0) < 0)  # the more, the closer
    assert max(errors[-1]) < 0.06


def test_the_optimum_is_that_of_the_full_softmax():
    """Biases alone learn the frequencies of the targets, however often the sample holds them."""
    torch.manual_seed(0)
    true = torch.tensor([0.8, 0.1, 0.06, 0.04])
    output = torch.nn.Linear(1, 4)
    with torch.no_grad():
        output.weight.zero_()
        output.bias.zero_()
    function = SampledSoftmax(torch.tensor([100.0, 20, 5, 1]), samples=30)
    targets = torch.repeat_interleave(torch.arange(4), (100 * true).long())
    optimizer = torch.optim.SGD([output.bias], 0.02)
    for step in range(400):
        for group in optimizer.param_groups:
            group['lr'] = 0.02 / (1 + step / 50)
        optimizer.zero_grad()
        function(torch.zeros(len(targets), 1), targets, output).backward()
        optimizer.step()
    learned = torch.softmax(output.bias.detach(), 0)
    torch.testing.assert_close(learned, true, atol=0.03, rtol=0)


def test_log_frequencies_are_a_distribution_in_which_every_word_is_possible():
    logs = log_frequencies(np.array([0, 1, 6, 2]))
    np.testing.assert_allclose(np.exp(logs), np.array([1, 1, 6, 2]) / 10, rtol=1e-6)
    assert logs.dtype == np.float32


def test_a_target_is_never_its_own_negative():
    """Where the sample holds nothing but the target, there is nothing to compete with."""
    hidden, _, output = problem()
    counts = torch.ones(V)
    counts[7] = 1e30
    function = SampledSoftmax(counts, samples=10)
    targets = torch.full((50,), 7)
    cost, gradients = cost_and_gradients(function, hidden, targets, output)
    assert float(cost) == 0.0
    assert all(torch.isfinite(g).all() and not g.any() for g in gradients)
    other = cost_and_gradients(function, hidden, targets - 1, output)
    assert float(other[0]) > 0 and other[1][1][7].any()  # for others it is one


def test_words_that_were_never_counted_can_be_targets_and_samples():
    hidden, targets, output = problem()
    function = SampledSoftmax(torch.zeros(V), samples=200)
    cost, gradients = cost_and_gradients(function, hidden, targets, output)
    assert torch.isfinite(cost) and all(torch.isfinite(g).all() for g in gradients)
    torch.testing.assert_close(function.noise, torch.full((V,), 1 / V))


def test_frequencies_are_flattened():
    function = SampledSoftmax(torch.tensor([16.0, 1.0]), samples=1, power=0.75)
    torch.testing.assert_close(function.noise, torch.tensor([8 / 9, 1 / 9]))
    assert function.state_dict() == {}  # nothing of it in checkpoints


def test_only_sampled_words_and_targets_have_gradients():
    hidden, targets, output = problem(n=3)
    torch.manual_seed(0)
    _, (_, weight, bias) = cost_and_gradients(SampledSoftmax(COUNTS, 4), hidden, targets, output)
    touched = weight.abs().sum(1) > 0
    assert 3 < int(touched.sum()) <= 7 and touched[targets].all()
    assert torch.equal(touched, bias != 0)
