from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear as plain

from storyteller.nn.packed import matmul
from storyteller.training.ops.recurrence import affine


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


TYPES = [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 0.1)]


@pytest.mark.parametrize(('dtype', 'tolerance'), TYPES)
@pytest.mark.parametrize('order', ['rows', 'columns', 'slices'])
def test_a_product_is_that_of_torch_in_any_order_of_memory(dtype, tolerance, order):
    a, b = torch.randn(33, 50).to(dtype), torch.randn(50, 21).to(dtype)
    if order == 'columns':
        a, b = (x.T.contiguous().T for x in (a, b))
    elif order == 'slices':
        a, b = a[:, 3:40], b[3:40]
    found = matmul(a, b)
    assert found.dtype == dtype
    torch.testing.assert_close(found, a @ b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize('shape', [(0, 5, 3), (4, 0, 3), (4, 5, 0)])
def test_a_product_of_nothing_is_that_of_torch(shape):
    n, k, m = shape
    a, b = torch.zeros(n, k), torch.zeros(k, m)
    assert torch.equal(matmul(a, b), a @ b)


@pytest.mark.parametrize(('dtype', 'tolerance'), TYPES)
@pytest.mark.parametrize('leading', [(7,), (4, 6), (0,)])
def test_an_affine_layer_and_its_gradients_are_those_of_torch(dtype, tolerance, leading):
    given = [torch.randn(*leading, 9), torch.randn(5, 9), torch.randn(5)]
    found = []
    for layer in (affine, plain):
        tensors = [tensor.to(dtype).requires_grad_() for tensor in given]
        y = layer(*tensors)
        y.square().sum().backward()
        found.append([y, *(tensor.grad for tensor in tensors)])
    for ours, expected in zip(*found, strict=True):
        assert ours.dtype == dtype
        scale = max(1.0, float(expected.detach().float().norm()))
        torch.testing.assert_close(ours / scale, expected / scale, atol=tolerance, rtol=tolerance)


def test_inputs_that_are_given_need_no_gradient():
    layer = torch.nn.Linear(4, 3)
    affine(torch.randn(6, 4), layer.weight, layer.bias).sum().backward()
    assert layer.weight.grad.shape == (3, 4)
    assert torch.equal(layer.bias.grad, torch.full((3,), 6.0))
