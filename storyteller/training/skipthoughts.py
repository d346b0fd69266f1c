"""Training the skip-thought encoders: predicting the sentences around a unit of text.

The objective is that of Kiros et al. (2015), "Skip-Thought Vectors": the last state of the encoder
starts two GRU decoders, one for the sentence before and one for the sentence after; both read one
table of word vectors and share one output layer. The published code trains the *uni* encoder. A
*bi* encoder here is two encoders, one reading forwards and one backwards, whose last states, side
by side, start decoders of twice the width.

Beyond 2015, for small models: a unit may be several sentences, captions of one photo may be each
other's neighbours, and the vector may also have to name the words of its own unit
(``own_words``), which keeps its content linear in the vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import layers
from ..formats import PathLike, read_model, write_array, write_model
from ..vocabulary import Vocabulary
from . import distributed
from .data.sentence_windows import Units
from .loop import train
from .ops.recurrence import run_gru
from .ops.softmax import Rows, cost_of_words, full_cost, log_frequencies
from .options import TrainOptions, check
from .speed import check_bfloat16


@dataclass(frozen=True)
class SkipThoughtsOptions:
    """Options of the skip-thought trainer.

    Attributes
    ----------
    dim_word, dim : int
        Dimensions W of word vectors and H of one encoder.
    bidirectional : bool
        Train the bi encoder instead of the uni encoder.
    read_eos : bool
        Whether the encoder also reads the ``<eos>`` after the text, as the trainer of 2015 did.
    samples : int
        Number of samples of a sampled softmax; 0: the full softmax.
    targets : int
        Size of the output vocabulary: only the most frequent words are predicted; 0: all. A softmax
        over the words that make up most of a text is cheap and, unlike a sampled one, has a
        gradient for each word at each step, which Adam needs.
    word_dropout : float
        Proportion of the decoders' input words that are replaced by the zero vector.
    own_words : float
        Weight of the loss of predicting the encoded words themselves (bag of words); 0: none.
    frequent : int
        Number of the most frequent words to exclude from that loss.
    singles : float
        Proportion of units that are single sentences; the others are consecutive sentences of up
        to `longest` words together.
    captions : float
        Proportion of units that are captions, if there is a corpus of them.
    longest, longest_target : int
        Maximum numbers of words: longer units are skipped, longer neighbours truncated.
    batch_size, batch_words : int
        Maximum number of units, and of their words, in a batch.
    bfloat16 : bool
        Run the GRUs in bfloat16: several times faster on processors that support it.
    """

    dim_word: int = 620
    dim: int = 2400
    bidirectional: bool = False
    read_eos: bool = True
    samples: int = 0
    targets: int = 0
    word_dropout: float = 0.0
    own_words: float = 0.0
    frequent: int = 100
    singles: float = 1.0
    captions: float = 0.0
    longest: int = 30
    longest_target: int = 30
    batch_size: int = 64
    batch_words: int = 8192
    bfloat16: bool = False

    def __post_init__(self):
        check(self, 'at least 1', 'dim_word', 'dim', 'longest', 'longest_target')
        check(self, 'at least 1', 'batch_size', 'batch_words')
        check(self, '0 to 1', 'word_dropout', 'singles')
        check(self, '0 to below 1', 'captions')
        check(self, '0 or more', 'samples', 'targets', 'own_words', 'frequent')


def initial_params(options: SkipThoughtsOptions, n_words: int, seed: int) -> dict[str, np.ndarray]:
    """Random parameters under the names of 2015; ``own_words`` beside them if it is trained."""
    rng = np.random.RandomState(seed)
    width, hidden = options.dim_word, options.dim * (2 if options.bidirectional else 1)
    params = {'Wemb': layers.norm_weight(rng, n_words, width)}
    for prefix in ('encoder', 'encoder_r') if options.bidirectional else ('encoder',):
        params |= layers.init_gru(rng, prefix, width, options.dim)
    for prefix in ('decoder_f', 'decoder_b'):
        params |= layers.init_gru(rng, prefix, width, hidden)
    params |= layers.init_affine(rng, 'ff_logit', hidden, n_words)
    if options.own_words:
        params |= layers.init_affine(rng, 'own_words', hidden, n_words)
    return params


class SkipThoughts(nn.Module):
    """The encoder with the two decoders that train it.

    Parameters
    ----------
    params : mapping of str to array
        Under the names of 2015: ``Wemb``, ``encoder_*`` (and ``encoder_r_*``), ``decoder_f_*`` for
        the sentence after, ``decoder_b_*`` for the one before, ``ff_logit_*``.
    options : SkipThoughtsOptions
    counts : (V,) array, optional
        Word counts, for a sampled softmax.
    """

    def __init__(
        self,
        params: Mapping[str, np.ndarray],
        options: SkipThoughtsOptions,
        counts: np.ndarray | None = None,
    ):
        super().__init__()
        self.options = options
        self.table = nn.Embedding.from_pretrained(torch.tensor(params['Wemb']), freeze=False)
        self.encoder = layers.gru(params, 'encoder')
        self.encoder_r = layers.gru(params, 'encoder_r') if options.bidirectional else None
        self.after = layers.gru(params, 'decoder_f')
        self.before = layers.gru(params, 'decoder_b')
        self.output = layers.affine(params, 'ff_logit')
        self.own_words = layers.affine(params, 'own_words') if options.own_words else None
        self.dtype = torch.bfloat16 if options.bfloat16 else torch.float32
        self.word_cost = cost_of_words(options.samples, counts, self.dtype)

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """The last states (B, H or 2H) of texts (T, B); the mask says where each ends."""
        ends = mask.sum(0).long() - 1
        columns = torch.arange(x.shape[1], device=x.device)
        last = self._states(self.encoder, x)[ends, columns]
        if self.encoder_r is None:
            return last
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        backwards = x[(ends - rows).clamp(min=0), columns]  # each column reversed in place
        return torch.cat([last, self._states(self.encoder_r, backwards)[ends, columns]], dim=1)

    def _states(self, encoder: nn.GRU, x: Tensor) -> Tensor:
        first = self.table.weight.new_zeros(x.shape[1], encoder.hidden_size)
        return run_gru(encoder, self.table(x), first, self.dtype)

    def decoded(
        self, decoder: nn.GRU, thought: Tensor, y: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """States (n, H) and words (n,), given thoughts (B, H), where the mask of y (T, B) is 1."""
        inputs = self.table(y[:-1])
        if self.training and self.options.word_dropout:
            keep = torch.rand(inputs.shape[:2], device=y.device) >= self.options.word_dropout
            inputs = inputs * keep[..., None]
        inputs = functional.pad(inputs, (0, 0, 0, 0, 1, 0))  # the first input is the zero vector
        states = run_gru(decoder, inputs, thought, self.dtype)
        counted = mask.bool()
        return states[counted], y[counted]

    def neighbour_cost(
        self, thought: Tensor, around: Sequence[Tensor], word_cost: Callable | None = None
    ) -> Tensor:
        """Summed cost, given thoughts (B, H), of the words around.

        `around` are the words after, their mask, those before, and their mask, each (T, B).
        """
        after, after_mask, before, before_mask = around
        pairs = [
            self.decoded(self.after, thought, after, after_mask),
            self.decoded(self.before, thought, before, before_mask),
        ]
        states, words = (torch.cat(part) for part in zip(*pairs, strict=True))
        output: nn.Linear | Rows = self.output
        if self.options.targets:
            output = Rows.first(self.output, self.options.targets)
            common = words < self.options.targets
            states, words = states[common], words[common]
        return (word_cost or self.word_cost)(states, words, output)

    def own_cost(self, thought: Tensor, x: Tensor) -> Tensor:
        """Summed cost of naming each word of the unit once, in any order, frequent ones apart."""
        assert self.own_words is not None
        with torch.autocast(x.device.type, torch.bfloat16, self.options.bfloat16):
            logits = self.own_words(thought)  # (B, V)
        logits = logits.float()
        present = torch.zeros_like(logits).scatter_(1, x.T, 1.0)
        present[:, : 2 + self.options.frequent] = 0
        cost = logits.logsumexp(1) * present.sum(1) - (logits * present).sum(1)
        return cost.sum()

    def forward(self, x: Tensor, x_mask: Tensor, *around: Tensor) -> Tensor:
        """The summed cost of a batch: words after, words before, and the unit's own if asked.

        `around` is as for :meth:`neighbour_cost`.
        """
        thought = self.encode(x, x_mask)
        cost = self.neighbour_cost(thought, around)
        if self.own_words is not None:
            cost = cost + self.options.own_words * self.own_cost(thought, x)
        return cost

    def params(self) -> dict[str, np.ndarray]:
        """All parameters, float32, under the names of 2015."""
        params = {'Wemb': self.table.weight.detach().cpu().numpy().copy()}
        params |= layers.gru_params(self.encoder, 'encoder')
        if self.encoder_r is not None:
            params |= layers.gru_params(self.encoder_r, 'encoder_r')
        params |= layers.gru_params(self.after, 'decoder_f')
        params |= layers.gru_params(self.before, 'decoder_b')
        params |= layers.affine_params(self.output, 'ff_logit')
        if self.own_words is not None:
            params |= layers.affine_params(self.own_words, 'own_words')
        return params


def fit(
    units: Units,
    training: TrainOptions,
    out: PathLike,
    checkpoint: PathLike,
    *,
    n_words: int,
    counts: np.ndarray | None = None,
    table: np.ndarray | None = None,
    held_out: Units | None = None,
    device: str | torch.device | None = None,
) -> None:
    """Train an encoder and export all its parameters.

    Parameters
    ----------
    units : Units
    training, checkpoint, n_words, counts, table, device
        As for :func:`storyteller.training.decoder.fit`; V is the size of the corpora's vocabulary.
    out : path-like
        ``.npz`` (the pair of 2015: ``uni_skip.npz``, ``bi_skip.npz``) or ``.safetensors``.
    held_out : Units, optional
        Its costs go into the metrics; that of the neighbours decides what is best.
    """
    distributed.join()
    device, options = layers.pick_device(device), units.options
    check_bfloat16(options.bfloat16, options.dim, options.batch_size, device)
    params = initial_params(options, n_words, training.seed)
    if table is not None:
        params['Wemb'] = table
    if counts is not None:
        params['ff_logit_b'] = log_frequencies(counts)
    model = SkipThoughts(params, options, counts).to(device)
    kept = asdict(options) | {'n_words': n_words, 'encoder': 'gru', 'decoder': 'gru'}

    def cost(batch):
        corpus, rows = batch
        tensors = units.tensors((corpus, distributed.part(rows)), device)
        return model(*tensors), count_targets(options, *tensors[2:])

    train(
        model,
        units.batches,
        cost,
        training,
        checkpoint,
        report=None if held_out is None else lambda: neighbour_cost(model, held_out, device),
        goal=None if held_out is None else 'neighbour_cost',
        save=lambda: write_model(out, model.params(), kept),
    )


def export(source: PathLike, folder: PathLike, vocabulary: Vocabulary, dtype: str) -> None:
    """Write encoder and word table as :func:`storyteller.skipthoughts.load_model` reads them.

    Parameters
    ----------
    source : path-like
        What :func:`fit` wrote.
    folder : path-like
        Gets ``uni_skip.safetensors`` and ``utable.npy``, or ``bi_skip.safetensors`` and
        ``btable.npy``, and ``dictionary.txt``.
    vocabulary : Vocabulary
        Row i of the table is entry i.
    dtype : {'float32', 'float16'}
        What is stored.
    """
    params, options = read_model(source)
    kind = 'bi' if options['bidirectional'] else 'uni'
    encoder = {name: array for name, array in params.items() if name.startswith('encoder')}
    folder = Path(folder)
    write_model(folder / f'{kind}_skip.safetensors', encoder, options, dtype)
    write_array(folder / f'{kind[0]}table.npy', params['Wemb'].astype(dtype))
    vocabulary.save(folder / 'dictionary.txt')


def count_targets(options: SkipThoughtsOptions, *around: Tensor) -> int:
    """Number of predicted words of (words, mask, words, mask)."""
    limit = options.targets or torch.iinfo(torch.int64).max
    pairs = zip(around[::2], around[1::2], strict=True)
    return sum(int((y[mask.bool()] < limit).sum()) for y, mask in pairs)


def neighbour_cost(
    model: SkipThoughts, held_out: Units, device: torch.device, n_batches: int = 12
) -> dict[str, float]:
    """Loss per predicted word, in nats, of the sentences around held-out units."""
    cost, words, own_cost, own_words = 0.0, 0, 0.0, 0
    for batch in held_out.batches(0)[:n_batches]:
        x, x_mask, *around = held_out.tensors(batch, device)
        thought = model.encode(x, x_mask)
        cost += float(model.neighbour_cost(thought, around, full_cost))
        words += count_targets(model.options, *around)
        if model.own_words is not None:
            own_cost += float(model.own_cost(thought, x))
            own_words += sum(len(set(column.tolist())) for column in x.T)
    figures = {'neighbour_cost': cost / words, 'neighbour_perplexity': float(np.exp(cost / words))}
    return figures | ({'own_words_cost': own_cost / own_words} if own_words else {})
