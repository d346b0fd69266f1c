"""The k greatest of many values, in an order that does not depend on how they were found."""

from __future__ import annotations

from torch import Tensor, cat


def topk(values: Tensor, k: int, largest: bool = True) -> tuple[Tensor, Tensor]:
    """As ``values.topk(k)`` of rows (R, N), with equal values in the order of their places.

    Gives values and places, each (R, k), the best first; (R, N) if N is less. NaN counts as the
    greatest.
    ``topk`` leaves open which of equal values are taken, and in which order; a stable sort takes
    long. So only where equal ones stand on both sides of the edge are those chosen anew.

    Examples
    --------
    >>> import torch
    >>> topk(torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0]]), 3)
    (tensor([[2., 2., 1.]]), tensor([[1, 3, 0]]))
    """
    found, places = values.topk(min(k + 1, values.shape[1]), dim=1, largest=largest)
    if k < values.shape[1]:
        places, edge = places[:, :k], found[:, k - 1]
        for row in (edge == found[:, k]).nonzero()[:, 0].tolist():
            here, at = values[row], edge[row]
            better = (here > at if largest else here < at).nonzero()[:, 0]
            places[row] = cat([better, (here == at).nonzero()[: k - len(better), 0]])
    places = places.sort(dim=1).values
    found, order = values.gather(1, places).sort(dim=1, descending=largest, stable=True)
    return found, places.gather(1, order)
