from __future__ import annotations

import numpy as np
import pytest
import torch

from storyteller import layers
from storyteller.training.ops.recurrence import run_gru

STEPS, BATCH, WIDTH, HIDDEN = 9, 4, 5, 7


@pytest.fixture
def module():
    params = layers.init_gru(np.random.RandomState(0), 'encoder', WIDTH, HIDDEN)
    module = layers.gru(params, 'encoder')
    with torch.no_grad():
        module.bias_ih_l0.normal_()
    return module


@pytest.fixture
def inputs():
    rng = np.random.default_rng(1)
    x, h = rng.normal(size=(STEPS, BATCH, WIDTH)), rng.normal(size=(BATCH, HIDDEN))
    return torch.tensor(x).float(), torch.tensor(h).float()


def by_module(module, x, h):
    return module(x, h[None])[0]


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_states_are_those_of_the_module(module, inputs, dtype):
    found, expected = run_gru(module, *inputs, dtype), by_module(module, *inputs)
    assert found.dtype == torch.float32
    tolerance = 1e-6 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    if dtype == torch.bfloat16:
        assert not torch.equal(found, expected)  # it did compute in half width


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_gradients_are_those_of_the_module(module, inputs, dtype):
    gradients = []
    for run in (lambda *at: run_gru(*at, dtype), by_module):
        x, h = (tensor.clone().requires_grad_() for tensor in inputs)
        module.zero_grad()
        run(module, x, h).square().sum().backward()
        trained = [p.grad for p in module.parameters() if p.requires_grad]
        gradients.append([x.grad, h.grad, *trained])
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    for found, expected in zip(*gradients, strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() <= tolerance * expected.norm()


def test_the_gradients_are_the_slopes(module, inputs):
    x, h = (tensor.double().requires_grad_() for tensor in inputs)
    module = module.double()
    trained = [p for p in module.parameters() if p.requires_grad]
    assert torch.autograd.gradcheck(lambda x, h, *_: run_gru(module, x, h), (x, h, *trained))


def test_a_state_that_is_not_trained_needs_no_gradient(module, inputs):
    x, h = inputs
    run_gru(module, x, h)[-1].sum().backward()
    assert module.weight_hh_l0.grad.any() and x.grad is None and h.grad is None


def test_without_gradients_and_step_by_step(module, inputs):
    x, h = inputs
    with torch.no_grad():
        expected = run_gru(module, x, h)
        for step, state in zip(x, expected, strict=True):
            h = run_gru(module, step[None], h)[0]
            torch.testing.assert_close(h, state)
