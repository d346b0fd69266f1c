"""Training the story decoder: a passage is regenerated from its own thought vector.

The model is that of :mod:`storyteller.decoder`: the vector starts a GRU by way of a tanh layer, and
the GRU writes the passage word by word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from .. import layers
from ..formats import PathLike, write_array, write_model
from ..skipthoughts import Encoder
from ..vocabulary import Vocabulary
from .corpus import Corpus, batches_of_equal_length, padded
from .loop import TrainOptions, train
from .softmax import SampledSoftmax, fast_full_cost, full_cost


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
    towards_mean : float
        A passage's vector v is drawn towards the mean m of all vectors, m + a (v - m), with a
        uniform in [1 - towards_mean, 1]: a mean of many captions lies nearer to the middle than
        any single text does.
    spread_start : bool
        Whether the layer from vector to first state starts centred and scaled to the vectors at
        hand, so that different vectors give different states from the first step on. Thought
        vectors of one kind of text lie close together, and 2015's start hardly tells them apart.
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
    towards_mean: float = 0.0
    spread_start: bool = False
    batch_size: int = 16
    batch_words: int = 16384
    bfloat16: bool = False

    def __post_init__(self):
        for name in ('dim_word', 'dim', 'batch_size', 'batch_words'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}: expected at least 1, found {getattr(self, name)!r}')
        for name in ('word_dropout', 'towards_mean'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'{name}: expected 0 to 1, found {getattr(self, name)!r}')
        if not self.samples >= 0:
            raise ValueError(f'samples: expected 0 or more, found {self.samples!r}')


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


def spread_start(params: dict[str, np.ndarray], vectors: np.ndarray) -> None:
    """Centre and scale ``ff_state`` so that `vectors` (n, D) give pre-activations of deviation 1/2.

    The layer stays x W + b: the mean goes into b.
    """
    mean = vectors.mean(0)
    weight = params['ff_state_W'] * (0.5 / ((vectors - mean) @ params['ff_state_W']).std())
    params['ff_state_W'] = weight.astype(np.float32)
    params['ff_state_b'] = (-mean @ weight).astype(np.float32)


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
    """

    def __init__(
        self,
        params: Mapping[str, np.ndarray],
        options: DecoderOptions,
        counts: np.ndarray | None = None,
        mean: np.ndarray | None = None,
    ):
        super().__init__()
        self.options = options
        self.table = nn.Embedding.from_pretrained(torch.tensor(params['Wemb']), freeze=False)
        self.start = layers.affine(params, 'ff_state')
        self.decoder = layers.gru(params, 'decoder')
        self.hidden = layers.affine(params, 'ff_hid') if options.doutput else None
        self.output = layers.affine(params, 'ff_logit')
        self.dtype = torch.bfloat16 if options.bfloat16 else torch.float32
        self.word_cost: Callable = fast_full_cost if options.bfloat16 else full_cost
        if options.samples:
            if counts is None:
                raise ValueError('samples: a sampled softmax needs the counts of the words')
            self.word_cost = SampledSoftmax(torch.as_tensor(counts), options.samples)
        middle = np.zeros(self.start.in_features) if mean is None else mean
        self.register_buffer('mean', torch.tensor(middle, dtype=torch.float32), persistent=False)

    def forward(
        self, x: Tensor, mask: Tensor, context: Tensor, word_cost: Callable | None = None
    ) -> Tensor:
        """Summed cost of the words x (T, B) where the mask (T, B) is 1, given vectors (B, D)."""
        inputs = self.table(x[:-1])
        if self.training:
            inputs, context = self._without_words(inputs), self._towards_mean(context)
        inputs = functional.pad(inputs, (0, 0, 0, 0, 1, 0))  # the first input is the zero vector
        states = layers.run_gru(self.decoder, inputs, torch.tanh(self.start(context)), self.dtype)
        counted = mask.bool()
        states = states[counted]
        if self.hidden is not None:
            states = torch.tanh(self.hidden(states))
        return (word_cost or self.word_cost)(states, x[counted], self.output)

    def _without_words(self, inputs: Tensor) -> Tensor:
        if not self.options.word_dropout:
            return inputs
        keep = torch.rand(inputs.shape[:2], device=inputs.device) >= self.options.word_dropout
        return inputs * keep[..., None]

    def _towards_mean(self, context: Tensor) -> Tensor:
        if not self.options.towards_mean:
            return context
        part = 1 - self.options.towards_mean * torch.rand(len(context), 1, device=context.device)
        return self.mean + part * (context - self.mean)

    def params(self) -> dict[str, np.ndarray]:
        """All parameters, float32, under the names of 2015."""
        params = {'Wemb': self.table.weight.detach().cpu().numpy().copy()}
        params |= layers.affine_params(self.start, 'ff_state')
        params |= layers.gru_params(self.decoder, 'decoder')
        if self.hidden is not None:
            params |= layers.affine_params(self.hidden, 'ff_hid')
        return params | layers.affine_params(self.output, 'ff_logit')


class Passages:
    """Passages and their vectors, in batches of like length.

    Parameters
    ----------
    corpus : Corpus
        In the decoder's vocabulary.
    spans : (P, 2) int array
        First sentence and the one after the last, of each passage.
    vectors : (P, D) array
        The thought vector of each; may be memory-mapped and of half width.
    options : DecoderOptions
    seed : int
    """

    def __init__(
        self,
        corpus: Corpus,
        spans: np.ndarray,
        vectors: np.ndarray,
        options: DecoderOptions,
        seed: int = 0,
    ):
        if len(spans) != len(vectors):
            raise ValueError(f'{len(spans)} passages, but {len(vectors)} vectors')
        self.corpus, self.spans, self.vectors = corpus, spans, vectors
        self.options, self.seed = options, seed
        self.lengths = corpus.sentences[spans[:, 1]] - corpus.sentences[spans[:, 0]]

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, as rows of `spans`."""
        rng = np.random.default_rng([self.seed, epoch])
        # Lengths that share a step of eight fill batches; the mask takes care of the rest.
        return batches_of_equal_length(
            -(-self.lengths // 8) * 8, rng, self.options.batch_size, self.options.batch_words
        )

    def tensors(self, batch: np.ndarray, device: torch.device) -> list[Tensor]:
        """x (T, B), its mask (T, B), and the vectors (B, D)."""
        x, mask = padded([self.corpus.words(first, end) for first, end in self.spans[batch]])
        vectors = np.asarray(self.vectors[np.sort(batch)], np.float32)
        vectors = vectors[np.argsort(np.argsort(batch))]  # read in order of the file
        return [torch.from_numpy(array).to(device) for array in (x, mask, vectors)]


def encode_passages(
    corpus: Corpus,
    spans: np.ndarray,
    vocabulary: Vocabulary,
    encoder: Encoder,
    folder: PathLike,
    block: int = 4096,
) -> np.ndarray:
    """The thought vectors of passages, kept in `folder` block by block, so that it can go on.

    Parameters
    ----------
    corpus : Corpus
        In the vocabulary of the encoder.
    spans : (P, 2) int array
        First sentence and the one after the last, of each passage.
    vocabulary : Vocabulary
        The encoder's.
    encoder : skipthoughts.Encoder
    folder : path-like
    block : int
        Passages in a file.

    Returns
    -------
    (P, D) float16 array
    """
    cut = hashlib.sha256(np.ascontiguousarray(spans)).hexdigest()[:12]  # other spans, other files
    parts = []
    for first in tqdm(range(0, len(spans), block), desc='encoding passages', unit=' blocks'):
        path = Path(folder) / f'{cut}-{first:08d}.npy'
        if not path.exists():
            texts = [
                ' '.join(vocabulary.decode(corpus.words(*span)))
                for span in spans[first : first + block]
            ]
            vectors = encoder.encode(texts, verbose=False, tokenised=True)
            write_array(path, vectors.astype(np.float16))
        parts.append(np.load(path))
    return np.concatenate(parts)


def fit(
    passages: Passages,
    training: TrainOptions,
    out: PathLike,
    checkpoint: PathLike,
    *,
    n_words: int,
    counts: np.ndarray | None = None,
    held_out: Passages | None = None,
    device: str | torch.device | None = None,
) -> None:
    """Train a decoder and export it as :func:`storyteller.decoder.load_model` reads it.

    Parameters
    ----------
    passages : Passages
    training : TrainOptions
    out : path-like
        ``.npz`` (the pair of 2015) or ``.safetensors``; written at each save.
    checkpoint : path-like
        Where training goes on from, if it is there; see :func:`storyteller.training.loop.train`.
    n_words : int
        V, the size of the vocabulary of ``passages.corpus``.
    counts : (V,) array, optional
        Word counts, for a sampled softmax.
    held_out : Passages, optional
        Its cost per word, in nats, goes into the metrics.
    device : str or torch.device, optional
        None takes a GPU if there is one.
    """
    device, options = layers.pick_device(device), passages.options
    some = np.asarray(passages.vectors[:4096], np.float32)
    params = initial_params(options, n_words, some.shape[1], training.seed)
    if options.spread_start:
        spread_start(params, some)
    model = ConditionalGRU(params, options, counts, some.mean(0)).to(device)
    kept = asdict(options) | {
        'dimctx': some.shape[1],
        'n_words': n_words,
        'encoder': 'gru',
        'decoder': 'gru',
    }

    def cost(batch):
        x, mask, vectors = passages.tensors(batch, device)
        return model(x, mask, vectors), int(mask.sum())

    train(
        model,
        passages.batches,
        cost,
        training,
        checkpoint,
        report=None if held_out is None else lambda: perplexity(model, held_out, device),
        save=lambda: write_model(out, model.params(), kept),
    )


def perplexity(
    model: ConditionalGRU, held_out: Passages, device: torch.device, n_batches: int = 8
) -> dict[str, float]:
    """Cost per word in nats, and perplexity, over some batches, with their vectors and without."""
    word_cost = fast_full_cost if model.options.bfloat16 else full_cost
    costs, words = np.zeros(2), 0
    for batch in held_out.batches(0)[:n_batches]:
        x, mask, vectors = held_out.tensors(batch, device)
        middle = model.mean.expand_as(vectors)
        costs += [float(model(x, mask, v, word_cost)) for v in (vectors, middle)]
        words += int(mask.sum())
    told, untold = costs / max(1, words)
    return {
        'held_out_cost': told,
        'held_out_perplexity': float(np.exp(told)),
        'perplexity_of_the_mean_vector': float(np.exp(untold)),
    }
