"""Measure the training throughput of all trainers, at the published sizes.

In one run: the words/s of each trainer (cost, gradients, Adam), the machine's own sgemm
before and after it, the bound that follows from the floating-point operations of its matrix
products at that rate, and a plain PyTorch loop: batches padded to the longest, a GRU cell a step,
masks, a softmax at every position. Text is random, of the lengths of English sentences. The table
goes to stdout.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from storyteller.training import decoder, embedding, skipthoughts
from storyteller.training.data.corpus import Corpus
from storyteller.training.data.corpus import passages as cut_passages
from storyteller.training.data.passages import Passages
from storyteller.training.data.sentence_windows import Units
from storyteller.training.optimizer import make_optimizer
from storyteller.training.options import TrainOptions

FORWARD_AND_BACKWARD = 3  # a product has two more in its gradient


@dataclass(frozen=True)
class Case:
    """A trainer: its module, a function that gives the cost of a batch, and the plain loop's.

    ``batches`` are those of an epoch; ``flops`` counts the products of one, ``words`` its words.
    """

    module: nn.Module
    batches: list
    cost: Callable
    words: Callable
    flops: Callable
    plain: nn.Module
    plain_batches: list
    plain_cost: Callable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=20, help='time per model (%(default)s)')
    parser.add_argument('--threads', type=int, help='number of CPU threads (all)')
    parser.add_argument(
        '--shrink', type=int, default=1, help='divide all sizes by this, for a quick run'
    )
    parser.add_argument(
        '--bfloat16',
        action='store_true',
        help='train ours in bfloat16; the baseline stays in float32',
    )
    parser.add_argument('--json', help='write the figures to this file')
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f'{torch.get_num_threads()} threads\n')
    print(
        'trainer | words/s | sgemm, GFLOP/s | bound | share of it | plain loop | times it\n'
        '---|---|---|---|---|---|---'
    )
    found = {}
    for name, make in (('skip-thoughts', skip_case), ('decoder', decoder_case),
                       ('embedding', embedding_case)):  # fmt: skip
        case = make(args.shrink, args.bfloat16)
        before = sgemm(2048 // args.shrink)  # around each, since others may use the machine
        ours, flops = measure(case.module, case.batches, case.cost, case.words, case.flops, args)
        after = sgemm(2048 // args.shrink)
        plain, _ = measure(
            case.plain, case.plain_batches, case.plain_cost, case.words, case.flops, args
        )
        rate = (before + after) / 2
        bound = rate / flops
        found[name] = {'words_per_second': ours, 'bound': bound, 'plain': plain, 'sgemm': rate}
        print(
            f'{name} | {ours:.0f} | {rate / 1e9:.0f} | {bound:.0f} | {100 * ours / bound:.0f} % | '
            f'{plain:.0f} | {ours / plain:.1f}',
            flush=True,
        )
    if args.json:
        with open(args.json, 'w', encoding='utf-8') as file:
            json.dump(found, file, indent=1)


def sgemm(n: int) -> float:
    """Floating-point operations/s of a square product in float32."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    times = []
    for _ in range(12):
        begun = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - begun)
    return 2 * n**3 / float(np.median(times))


def measure(module, batches, cost, words, flops, args) -> tuple[float, float]:
    """Throughput in words/s over a number of seconds, and operations per word."""
    optimizer, seen, work, begun = make_optimizer(module, TrainOptions()), 0, 0.0, None
    module.train()
    for number, batch in enumerate(forever(batches)):
        optimizer.zero_grad(set_to_none=True)
        cost(batch).backward()
        optimizer.step()
        if number == 0:  # the first makes room, and is not counted
            begun = time.perf_counter()
            continue
        seen, work = seen + words(batch), work + flops(batch)
        if time.perf_counter() - begun > args.seconds and number > 2:
            break
    return seen / (time.perf_counter() - begun), work / seen


def forever(items: list) -> Iterator:
    while True:
        yield from items


def text(n: int, n_words: int, seed: int = 0) -> Corpus:
    """One book of sentences as long as in novels: a gamma distribution of mean 17."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.gamma(2.5, 7, n).astype(np.int64), 2, 30)
    tokens = rng.integers(2, n_words, lengths.sum()).astype(np.int32)
    return Corpus(tokens, np.concatenate([[0], np.cumsum(lengths)]), np.array([0, n]))


def gru(inputs: int, hidden: int) -> int:
    """Operations of a step of a GRU for one item, forwards and backwards."""
    return FORWARD_AND_BACKWARD * 2 * 3 * hidden * (inputs + hidden)


def output(hidden: int, n_words: int) -> int:
    return FORWARD_AND_BACKWARD * 2 * hidden * n_words


class PlainGRU(nn.Module):
    """A cell that goes through a padded batch step by step, as one writes it first."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.cell = nn.GRUCell(inputs, hidden)

    def forward(self, x: Tensor, mask: Tensor, state: Tensor) -> Tensor:
        """States (T, B, H) of inputs (T, B, W); where the mask is 0 the state stays."""
        states = []
        for step, there in zip(x, mask, strict=True):
            state = torch.where(there[:, None] > 0, self.cell(step, state), state)
            states.append(state)
        return torch.stack(states)


def masked_cost(logits: Tensor, words: Tensor, mask: Tensor) -> Tensor:
    """Cross entropy at every position, those of the padding times zero."""
    costs = cross_entropy(logits.flatten(0, 1), words.flatten(), reduction='none')
    return (costs.view_as(mask) * mask).sum()


def shifted(x: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(x[:1]), x[:-1]])


def skip_case(shrink: int, bfloat16: bool = False) -> Case:
    options = skipthoughts.SkipThoughtsOptions(
        dim_word=620 // shrink, dim=2400 // shrink, bfloat16=bfloat16
    )
    n_words, width, hidden = 20_000 // shrink, options.dim_word, options.dim
    units = Units(text(20_000, n_words), None, options)
    module = skipthoughts.SkipThoughts(skipthoughts.initial_params(options, n_words, 0), options)
    tensors = [units.tensors(batch, torch.device('cpu')) for batch in units.batches(0)[:40]]
    mixed = np.random.default_rng(0).permutation(units._of_books(np.random.default_rng(0)))
    size = options.batch_size
    padded = [units.tensors((units.corpus, mixed[i : i + size]), torch.device('cpu'))
              for i in range(0, 40 * size, size)]  # fmt: skip

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.output = nn.Embedding(n_words, width), nn.Linear(hidden, n_words)
            self.encoder = PlainGRU(width, hidden)
            self.sides = nn.ModuleList(PlainGRU(width, hidden) for _ in range(2))

        def forward(self, x, x_mask, *around):
            zero = torch.zeros(x.shape[1], hidden)
            thought = self.encoder(self.table(x), x_mask, zero)[-1]
            cost = 0
            for side, y, mask in zip(self.sides, around[::2], around[1::2], strict=True):
                states = side(shifted(self.table(y)), mask, thought)
                cost = cost + masked_cost(self.output(states), y, mask)
            return cost

    def words(batch):
        return sum(int(mask.sum()) for mask in batch[1::2])

    def flops(batch):
        told = int(batch[3].sum() + batch[5].sum())
        return words(batch) * gru(width, hidden) + told * output(hidden, n_words)

    plain = Plain()
    return Case(module, tensors, lambda b: module(*b), words, flops,
                plain, padded, lambda b: plain(*b))  # fmt: skip


def decoder_case(shrink: int, bfloat16: bool = False) -> Case:
    options = decoder.DecoderOptions(
        dim_word=620 // shrink,
        dim=1600 // shrink,
        batch_size=16,
        batch_words=10**6,
        bfloat16=bfloat16,
    )
    n_words, width, hidden, thought = (
        40_000 // shrink,
        options.dim_word,
        options.dim,
        4800 // shrink,
    )
    told, rng = text(20_000, n_words), np.random.default_rng(0)
    spans = cut_passages(told, rng, 1, 100)  # what scripts/train_decoder.py takes by default
    vectors = rng.normal(size=(len(spans), thought)).astype(np.float32)
    passages = Passages(told, spans, vectors, options)
    params = decoder.initial_params(options, n_words, thought, 0)
    module = decoder.ConditionalGRU(params, options)
    cpu = torch.device('cpu')
    tensors = [passages.tensors(batch, cpu) for batch in passages.batches(0)[:40]]
    padded = [passages.tensors(batch, cpu)
              for batch in rng.permutation(len(spans))[: 40 * 16].reshape(40, 16)]  # fmt: skip

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.output = nn.Embedding(n_words, width), nn.Linear(hidden, n_words)
            self.start, self.gru = nn.Linear(thought, hidden), PlainGRU(width, hidden)

        def forward(self, x, mask, vectors):
            first = torch.tanh(self.start(vectors))
            return masked_cost(self.output(self.gru(shifted(self.table(x)), mask, first)), x, mask)

    def words(batch):
        return int(batch[1].sum())

    def flops(batch):
        return words(batch) * (gru(width, hidden) + output(hidden, n_words))

    plain = Plain()
    return Case(module, tensors, lambda b: module(*b), words, flops,
                plain, padded, lambda b: plain(*b))  # fmt: skip


def embedding_case(shrink: int, bfloat16: bool = False) -> Case:
    options = embedding.EmbeddingOptions(
        dim_image=4096 // shrink, dim_word=300 // shrink, dim=1024 // shrink, bfloat16=bfloat16
    )
    n_words, width, hidden = 10_000 // shrink, options.dim_word, options.dim
    told, rng = text(20_000, n_words), np.random.default_rng(0)
    captions = [told.words(i, i + 1) for i in range(20_000)]
    features = rng.normal(size=(4000, options.dim_image)).astype(np.float32)
    pairs = embedding.Pairs(captions, np.arange(20_000) // 5, features, options)
    module = embedding.JointEmbedding(embedding.initial_params(options, n_words, 0), options)
    cpu, size = torch.device('cpu'), options.batch_size
    tensors = [pairs.tensors(batch, cpu) for batch in pairs.batches(0)[:40]]
    padded = [pairs.tensors(batch, cpu)
              for batch in rng.permutation(20_000)[: 40 * size].reshape(40, size)]  # fmt: skip

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.gru = nn.Embedding(n_words, width), PlainGRU(width, hidden)
            self.image = nn.Linear(options.dim_image, hidden)

        def forward(self, x, mask, features):
            last = self.gru(self.table(x), mask, torch.zeros(x.shape[1], hidden))[-1]
            last = last / last.norm(dim=1, keepdim=True)
            return embedding.ranking_cost(self.image(features), last, options.margin)

    def words(batch):
        return int(batch[1].sum())

    def flops(batch):
        pictures = len(batch[2]) * FORWARD_AND_BACKWARD * 2 * options.dim_image * hidden
        return words(batch) * gru(width, hidden) + pictures

    plain = Plain()
    return Case(module, tensors, lambda b: module(*b), words, flops,
                plain, padded, lambda b: plain(*b))  # fmt: skip


if __name__ == '__main__':
    main()
