"""Training the story decoder: a passage is regenerated from its thought vector.

The model is that of :mod:`storyteller.decoder`: the vector starts a GRU by way of a tanh layer, and
the GRU writes the passage word by word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import layers
from ..formats import PathLike, write_model
from ..vocabulary import Vocabulary
from . import distributed
from .data.passages import Passages
from .decoder_report import goal_of, perplexity, shown
from .loop import train
from .ops.recurrence import run_gru
from .ops.softmax import cost_of_words, log_frequencies
from .ops.whitening import WhitenedAffine, Whitening
from .options import TrainOptions, check
from .preferences import PreferenceCost, Preferences
from .speed import check_bfloat16
from .unlikelihood import repeat_cost


@dataclass(frozen=True)
class DecoderOptions:
    """What is trained.

    Attributes
    ----------
    dim_word, dim : int
        W and H.
    doutput : bool
        Whether a hidden layer of width W stands before the output layer.
    samples : int
        Words drawn for a sampled softmax; 0 is the full one.
    word_dropout : float
        Share of input words replaced by the zero vector, so that the decoder leans on the vector.
    dropout : float
        Share of the values of word vectors and of states, where they go to the output, that are
        dropped: what is not recurrent (Zaremba et al. 2014, "Recurrent Neural Network
        Regularization"). For passages that are read several times.
    towards_mean : float
        A passage's vector v is drawn towards the mean m of all vectors, m + a (v - m), with a
        uniform in [1 - towards_mean, 1]: a mean of many captions lies nearer to the middle than
        any single text does.
    pairs : float
        Share of the passages with captions that are told from what the style shift makes of these,
        not from their own vectors (:mod:`storyteller.training.back_translation`). Those vectors
        are not drawn towards the mean: they are as stories are told of.
    weakest, strongest : float
        The strength of that shift is uniform between them.
    whiten : bool
        Whether the layer from vector to first state learns from whitened vectors; it is exported
        as the plain layer that it comes to. Most of the variance of thought vectors lies in a few
        directions that say how long a text is and who speaks, little in the many that say what it
        is about, and learning alone hardly finds those.
    repeats : float
        Weight of the cost of own repetitions (:mod:`storyteller.training.unlikelihood`); 0 leaves
        it out.
    repeats_beam : int
        Width of the search by which it writes for that; 1 is the most probable word each time.
    preferences_weight : float
        Weight of the cost of preferences (:mod:`storyteller.training.preferences`), for which a
        batch has as many pairs of texts as passages; 0 leaves them out.
    beta : float
        How near it stays, by that cost, to the decoder it begins as.
    batch_size, batch_words : int
        Most passages, and most words, in a batch.
    bfloat16 : bool
        Whether GRU and softmax compute in bfloat16.
    """

    dim_word: int = 620
    dim: int = 1600
    doutput: bool = False
    samples: int = 0
    word_dropout: float = 0.0
    dropout: float = 0.0
    towards_mean: float = 0.0
    pairs: float = 0.0
    weakest: float = 0.8
    strongest: float = 1.3
    whiten: bool = False
    repeats: float = 0.0
    repeats_beam: int = 1
    preferences_weight: float = 0.0
    beta: float = 0.1
    batch_size: int = 16
    batch_words: int = 16384
    bfloat16: bool = False

    def __post_init__(self):
        check(self, 'at least 1', 'dim_word', 'dim', 'repeats_beam', 'batch_size', 'batch_words')
        check(self, '0 to 1', 'word_dropout', 'towards_mean', 'pairs')
        check(self, '0 to below 1', 'dropout')
        check(self, '0 or more', 'samples', 'repeats', 'preferences_weight')
        check(self, 'more than 0', 'beta')
        if not 0 <= self.weakest <= self.strongest < float('inf'):
            raise ValueError(
                f'weakest, strongest: expected finite numbers, 0 or more, in this order, '
                f'found {self.weakest!r}, {self.strongest!r}'
            )


def initial_params(
    options: DecoderOptions, n_words: int, dimctx: int, seed: int
) -> dict[str, np.ndarray]:
    """Random parameters under the names of 2015, for vectors of width `dimctx`."""
    rng = np.random.RandomState(seed)
    width, hidden = options.dim_word, options.dim
    params = {'Wemb': layers.norm_weight(rng, n_words, width)}
    params |= layers.init_affine(rng, 'ff_state', dimctx, hidden)
    params |= layers.init_gru(rng, 'decoder', width, hidden)
    if options.doutput:
        params |= layers.init_affine(rng, 'ff_hid', hidden, width)
        hidden = width
    return params | layers.init_affine(rng, 'ff_logit', hidden, n_words)


class ConditionalGRU(nn.Module):
    """The decoder as it is trained.

    Parameters
    ----------
    params : mapping of str to array
        Under the names of 2015; with ``ff_hid_*`` if ``options.doutput``.
    options : DecoderOptions
    counts : (V,) array, optional
        Word counts, for a sampled softmax.
    mean : (D,) array, optional
        The mean vector, for ``towards_mean``.
    whitening : Whitening, optional
        For ``whiten``.
    """

    mean: Tensor

    def __init__(
        self,
        params: Mapping[str, np.ndarray],
        options: DecoderOptions,
        counts: np.ndarray | None = None,
        mean: np.ndarray | None = None,
        whitening: Whitening | None = None,
    ):
        super().__init__()
        self.options = options
        self.table = nn.Embedding.from_pretrained(torch.tensor(params['Wemb']), freeze=False)
        self.start: nn.Linear | WhitenedAffine = layers.affine(params, 'ff_state')
        if whitening is not None:
            self.start = WhitenedAffine(params, 'ff_state', whitening)
        self.decoder = layers.gru(params, 'decoder')
        self.hidden = layers.affine(params, 'ff_hid') if options.doutput else None
        self.output = layers.affine(params, 'ff_logit')
        self.drop = nn.Dropout(options.dropout)
        self.dtype = torch.bfloat16 if options.bfloat16 else torch.float32
        self.word_cost = cost_of_words(options.samples, counts, self.dtype)
        middle = np.zeros(len(params['ff_state_W'])) if mean is None else mean
        self.register_buffer('mean', torch.tensor(middle, dtype=torch.float32), persistent=False)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        context: Tensor,
        word_cost: Callable | None = None,
        own: Tensor | None = None,
    ) -> Tensor:
        """Summed cost of the words x (T, B) where the mask (T, B) is 1, given vectors (B, D)."""
        inputs = self.table(x[:-1])
        if self.training:
            inputs, context = self._without_words(inputs), self.towards_mean(context, own)
        states = self.states(self.drop(inputs), context)
        counted = mask.bool()
        top = self.top(self.drop(states[counted]))
        return (word_cost or self.word_cost)(top, x[counted], self.output)

    def states(self, inputs: Tensor, context: Tensor) -> Tensor:
        """States (T, B, H) that follow the zero vector and word vectors (T - 1, B, W)."""
        inputs = functional.pad(inputs, (0, 0, 0, 0, 1, 0))  # the first input is the zero vector
        first = torch.tanh(self.start(context))
        return run_gru(self.decoder, inputs, first, self.dtype)

    def top(self, states: Tensor) -> Tensor:
        """What the output layer sees of states (n, H)."""
        return states if self.hidden is None else torch.tanh(self.hidden(states))

    def _without_words(self, inputs: Tensor) -> Tensor:
        if not self.options.word_dropout:
            return inputs
        keep = torch.rand(inputs.shape[:2], device=inputs.device) >= self.options.word_dropout
        return inputs * keep[..., None]

    def towards_mean(self, context: Tensor, own: Tensor | None = None) -> Tensor:
        """Vectors (B, D), each drawn towards the mean by a random part, if the options say so.

        Those that are not a passage's `own` (B,) stay; None: all are own ones.
        """
        if not self.options.towards_mean:
            return context
        part = 1 - self.options.towards_mean * torch.rand(len(context), 1, device=context.device)
        drawn = self.mean + part * (context - self.mean)
        return drawn if own is None else torch.where(own[:, None], drawn, context)

    def params(self) -> dict[str, np.ndarray]:
        """All parameters, float32, under the names of 2015."""
        params = {'Wemb': self.table.weight.detach().cpu().numpy().copy()}
        if isinstance(self.start, WhitenedAffine):
            params |= self.start.params()
        else:
            params |= layers.affine_params(self.start, 'ff_state')
        params |= layers.gru_params(self.decoder, 'decoder')
        if self.hidden is not None:
            params |= layers.affine_params(self.hidden, 'ff_hid')
        return params | layers.affine_params(self.output, 'ff_logit')


def fit(
    passages: Passages,
    training: TrainOptions,
    out: PathLike,
    checkpoint: PathLike,
    *,
    n_words: int,
    counts: np.ndarray | None = None,
    params: Mapping[str, np.ndarray] | None = None,
    table: np.ndarray | None = None,
    thoughts: np.ndarray | None = None,
    preferences: Preferences | None = None,
    held_out: Passages | None = None,
    vocabulary: Vocabulary | None = None,
    device: str | torch.device | None = None,
) -> None:
    """Train a decoder and export it as :func:`storyteller.decoder.load_model` reads it.

    Parameters
    ----------
    passages : Passages
        With their captions, for ``options.pairs``.
    training : TrainOptions
    out : path-like
        ``.npz`` (the pair of 2015) or ``.safetensors``; written at each save.
    checkpoint : path-like
        Where training goes on from, if it is there; see :func:`storyteller.training.loop.train`.
    n_words : int
        V, the size of the vocabulary of ``passages.corpus``.
    counts : (V,) array, optional
        Word counts, for a sampled softmax; the output bias starts at their logarithms.
    params : mapping, optional
        A decoder to begin with, instead of a random one.
    table : (V, W) array, optional
        Word vectors to begin with, instead of random ones; not beside `params`.
    thoughts : (N, D) array, optional
        Vectors like those that stories will be told of, such as captions' with their style
        shifted. No text belongs to them, but with ``options.repeats`` half of what the decoder
        writes of its own is about them: it goes round most where it knows least.
    preferences : Preferences, optional
        For ``options.preferences_weight``; meant for a decoder that begins with `params`.
    held_out : Passages, optional
        Its cost per word, in nats, goes into the metrics, and decides what is best.
    vocabulary : Vocabulary, optional
        Is written beside `out`, see :func:`dictionary_path`, and shows, at each save, what the
        decoder writes from the vectors of some passages (held-out ones, if there are any) beside
        what stands there.
    device : str or torch.device, optional
        None takes a GPU if there is one.
    """
    distributed.join()
    device, options = layers.pick_device(device), passages.options
    check_bfloat16(options.bfloat16, options.dim, options.batch_size, device)
    some = np.asarray(passages.vectors[:16384], np.float32)
    whitening = Whitening.of(some) if options.whiten else None
    if params is None:
        params = initial_params(options, n_words, some.shape[1], training.seed)
        params = whitening.start(params, some) if whitening else params
        if table is not None:
            params['Wemb'] = table
        if counts is not None:
            params['ff_logit_b'] = log_frequencies(counts)
    model = ConditionalGRU(params, options, counts, some.mean(0), whitening).to(device)
    about: Tensor | None = None
    if thoughts is not None:
        if thoughts.ndim != 2 or not len(thoughts) or thoughts.shape[1] != some.shape[1]:
            raise ValueError(
                f'thoughts: expected rows of {some.shape[1]} numbers, as the passages have, '
                f'found shape {thoughts.shape}'
            )
        about = torch.from_numpy(np.asarray(thoughts, np.float32)).to(device)
    preferred = None
    if options.preferences_weight:
        preferred = PreferenceCost(model, preferences, options.beta, device)
    sizes = {'dimctx': some.shape[1], 'n_words': n_words}
    kept = asdict(options) | sizes | {'encoder': 'gru', 'decoder': 'gru'}

    def cost(batch):
        batch = distributed.part(batch)
        x, mask, vectors = passages.tensors(batch, device)
        vectors, own = passages.told_of(batch, vectors)
        total = model(x, mask, vectors, own=own)
        if options.repeats:
            some = written_about(model.towards_mean(vectors, own), about)
            total = total + options.repeats * repeat_cost(model, some, steps=len(x))
        if preferred is not None:
            told, better = preferred.drawn(len(batch))
            total = total + told + options.preferences_weight * better
        return total, int(mask.sum())

    def save():
        write_model(out, model.params(), kept)
        if vocabulary is not None:
            vocabulary.save(dictionary_path(out))

    train(
        model,
        passages.batches,
        cost,
        training,
        checkpoint,
        report=None if held_out is None else lambda: perplexity(model, held_out, device),
        goal=goal_of(held_out),
        show=None
        if vocabulary is None
        else lambda: shown(model, held_out or passages, vocabulary, device),
        save=save,
    )


def dictionary_path(out: PathLike) -> Path:
    """Where the words of a decoder stand: a text of ours, or a dictionary as in 2015."""
    ending = 'pkl' if Path(out).suffix == '.npz' else 'txt'
    return Path(out).with_name(f'{Path(out).stem}_dictionary.{ending}')


def written_about(vectors: Tensor, thoughts: Tensor | None) -> Tensor:
    """What the decoder writes of its own about: half as many as it reads, since it takes longer."""
    count = -(-len(vectors) // 2)
    if thoughts is None:
        return vectors[:count]
    drawn = torch.randint(len(thoughts), (count - count // 2,))
    return torch.cat([vectors[: count // 2], thoughts[drawn.to(thoughts.device)]])
