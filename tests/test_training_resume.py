"""Every trainer: a training that was stopped half-way ends as one that was not, bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from storyteller import formats
from storyteller.training import loop
from storyteller.training.options import TrainOptions

sys.path.insert(0, str(Path(__file__).parent / 'training'))
import together

OPTIONS = TrainOptions(epochs=2, lr=0.01, clip=5.0, decay=True)


@pytest.mark.parametrize(
    'trainer',
    ['skipthoughts', 'decoder', 'decoder_from_captions', 'embedding', 'contrastive'],
)
def test_stopped_and_taken_up(tmp_path, monkeypatch, trainer):
    train, step = getattr(together, f'train_{trainer}'), loop._Run.step
    (tmp_path / 'whole').mkdir()
    (tmp_path / 'parts').mkdir()
    train(tmp_path / 'whole', OPTIONS)

    done = 0

    def until_the_tenth(run, *arguments):
        nonlocal done
        if done == 10:
            raise KeyboardInterrupt
        done += 1
        step(run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, 'step', until_the_tenth)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / 'parts', OPTIONS)
    train(tmp_path / 'parts', OPTIONS)
    whole, parts = (formats.read_model(tmp_path / f / 'out.npz')[0] for f in ('whole', 'parts'))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value, err_msg=name)
