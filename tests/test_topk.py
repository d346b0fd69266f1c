"""The k best of many values are those of a stable sort, whatever is equal."""

from __future__ import annotations

import pytest
import torch

from storyteller.topk import topk


@pytest.mark.parametrize('largest', [True, False])
@pytest.mark.parametrize('kinds', [1, 3, 50])
@pytest.mark.parametrize('seed', range(20))
def test_it_is_what_a_stable_sort_gives(largest, kinds, seed):
    random = torch.Generator().manual_seed(seed)
    values = torch.randint(kinds, (5, 40), generator=random).float()
    for value in (torch.inf, -torch.inf, 1e20):
        values[torch.rand(values.shape, generator=random) < 0.1] = value
    expected = values.sort(dim=1, descending=largest, stable=True)
    for k in (1, 7, 39, 40, 60):
        found, places = topk(values, k, largest)
        assert torch.equal(found, expected.values[:, :k])
        assert torch.equal(places, expected.indices[:, :k])


def test_what_is_not_a_number_comes_last_of_the_least():
    found, places = topk(torch.tensor([[torch.nan, torch.inf, torch.nan, 1.0]]), 3, largest=False)
    assert places[0, :2].tolist() == [3, 1] and found[0, 2].isnan()
    assert topk(torch.tensor([[1.0, torch.nan, 2.0]]), 1)[0].isnan().all()
