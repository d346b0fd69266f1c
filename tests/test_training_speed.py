"""bfloat16 where it is slow: measured before training, and said with figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from storyteller.training import embedding, speed
from storyteller.training.options import TrainOptions
from storyteller.training.speed import check_bfloat16
from storyteller.vocabulary import Vocabulary

CPU = torch.device('cpu')


@pytest.fixture
def taken(monkeypatch):
    """Sets what a product takes in float32 and in bfloat16, in seconds; measured in this order."""

    def set_to(*figures):
        measured = iter(figures)
        monkeypatch.setattr(speed, 'seconds', lambda *_: next(measured))

    return set_to


def test_a_slow_bfloat16_is_said_with_figures(taken, capsys):
    taken(0.002, 0.054)
    check_bfloat16(True, 800, 64, CPU)
    said = capsys.readouterr().err
    assert 'a product of 64 x 800 by 800 x 2400 takes 54 ms, in float32 2 ms' in said
    assert 'Without --bfloat16, products are 27.0 times as fast' in said


@pytest.mark.parametrize('figures', [(0.002, 0.001), (0.002, 0.0025)])
def test_a_fast_one_is_not_spoken_of(taken, capsys, figures):
    taken(*figures)
    check_bfloat16(True, 8, 4, CPU)
    assert not capsys.readouterr().err


def test_nothing_is_measured_where_nobody_asks_for_it(taken):
    taken()  # a measurement would find no figure
    check_bfloat16(False, 8, 4, CPU)


def test_what_is_measured_are_products(monkeypatch):
    monkeypatch.setattr(speed, 'SECONDS', 0.0)
    for dtype in (torch.float32, torch.bfloat16):
        product = speed._product(5, 3, CPU, dtype)
        assert product().dtype == dtype and product().shape == (3, 15)
        assert speed.seconds(product, CPU) > 0


def test_trainers_say_it_before_the_first_step(taken, capsys, tmp_path):
    taken(0.001, 1.0)
    options = embedding.EmbeddingOptions(dim_image=4, dim_word=3, dim=5, bfloat16=True)
    words = [np.array([2, 3]), np.array([3, 2])]
    pairs = embedding.Pairs(words, np.array([0, 1]), np.eye(2, 4, dtype='f4'), options, 0)
    vocabulary = Vocabulary(('<eos>', 'UNK', 'a', 'b'))
    where = tmp_path / 'e.npz', tmp_path / 'e.pt'
    embedding.fit([pairs], TrainOptions(epochs=1), *where, vocabulary=vocabulary)
    said = capsys.readouterr().err
    assert 'products are 1000.0 times as fast' in said
    assert said.index('bfloat16 is slow') < said.index('the first step took')
    plain = replace(options, bfloat16=False)
    pairs = embedding.Pairs(words, np.array([0, 1]), np.eye(2, 4, dtype='f4'), plain, 0)
    where = tmp_path / 'f.npz', tmp_path / 'f.pt'
    embedding.fit([pairs], TrainOptions(epochs=1), *where, vocabulary=vocabulary)
    assert 'bfloat16' not in capsys.readouterr().err
