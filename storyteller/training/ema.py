"""Exponential moving average of the weights.

Each step takes a little of the new weights into the mean, as Polyak and Juditsky, "Acceleration of
stochastic approximation by averaging" (1992), but forgetting the oldest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """The moving average of a module's trained weights.

    The past counts `past` at a step, below 1; the first 1 / (1 - past) steps count alike. With 0
    there is no mean, and nothing here does anything.
    """

    def __init__(self, module: nn.Module, past: float):
        self.module, self.past = module, past
        self.steps = 0
        self.mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the weights after a step."""
        if not self.past:
            return
        self.steps += 1
        share = max(1 - self.past, 1 / self.steps)
        for name, weight in self._learned().items():
            if self.steps == 1:
                self.mean[name] = weight.clone()
            else:
                self.mean[name].lerp_(weight, share)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Use the average as the weights of the module within the block."""
        if not self.steps:
            yield
            return
        before = {name: value.clone() for name, value in self.module.state_dict().items()}
        self.apply()
        try:
            yield
        finally:
            self.module.load_state_dict(before)

    @torch.no_grad()
    def apply(self) -> None:
        """Set the weights of the module to the average."""
        if not self.steps:
            return
        for name, weight in self._learned().items():
            weight.copy_(self.mean[name])

    def state(self) -> dict[str, int | dict[str, Tensor]]:
        """The state for a checkpoint."""
        return {'steps': self.steps, 'mean': self.mean}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Restore a checkpoint; one without an average starts a new one."""
        if self.past:
            device = next(self.module.parameters()).device
            self.steps = state.get('steps', 0)
            self.mean = {name: mean.to(device) for name, mean in state.get('mean', {}).items()}

    def _learned(self) -> dict[str, Tensor]:
        """By name; without what belongs to no step."""
        named = self.module.named_parameters()
        return {name: weight.detach() for name, weight in named if weight.requires_grad}
