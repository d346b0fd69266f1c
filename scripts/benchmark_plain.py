"""A story in straightforward PyTorch and NumPy, as a baseline.

Sentences in padded batches, a GRU cell a step and a mask; all captions scored and sorted; and the
beam search of 2015. Nothing of the library computes here, only its readers of files, its tokeniser
and the resize of photos are used. Photos go through the networks of `benchmark_plain_networks`.

Dimension letters: B batch, T time, R live hypotheses, V vocabulary, W word vector, H hidden state,
D thought vector, E joint space, F image feature, N pool of captions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from benchmark_plain_networks import Params, linear, load_network
from torch import Tensor, nn

from storyteller import config, convnet, formats, images
from storyteller.text import preprocess

Next = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

EOS, UNK = 0, 1
MAXLEN = 1000  # most words of a story


# --- layers --------------------------------------------------------------------------------------


def cell(params: Params, prefix: str) -> nn.GRUCell:
    """A step of a GRU from its six arrays of 2015."""
    found = nn.GRUCell(*params[f'{prefix}_Wx'].shape)
    with torch.no_grad():
        for target, name in (('weight_ih', 'W'), ('weight_hh', 'U'), ('bias_ih', 'b')):
            gates, candidate = params[f'{prefix}_{name}'], params[f'{prefix}_{name}x']
            stacked = np.concatenate([gates, candidate], axis=-1).T
            getattr(found, target).copy_(torch.tensor(stacked))
        found.bias_hh.zero_()
    return found


def last_states(gru: nn.GRUCell, rows: Sequence[Sequence[int]], table: np.ndarray) -> np.ndarray:
    """States (B, H) after the last word of each sentence, rows of `table` (V, W)."""
    longest = max(map(len, rows))
    x = torch.zeros(longest, len(rows), table.shape[1])
    mask = torch.zeros(longest, len(rows))
    for b, ids in enumerate(rows):
        x[: len(ids), b] = torch.tensor(np.asarray(table[list(ids)], np.float32))
        mask[: len(ids), b] = 1
    state = torch.zeros(len(rows), gru.hidden_size)
    with torch.no_grad():
        for words, there in zip(x, mask, strict=True):
            state = torch.where(there[:, None] > 0, gru(words, state), state)
    return state.numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# --- models --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thoughts:
    """Skip-thoughts: three GRUs, two tables (V, W), and the rows of the words."""

    uni: nn.GRUCell
    forward: nn.GRUCell
    backward: nn.GRUCell
    utable: np.ndarray
    btable: np.ndarray
    index: dict[str, int]

    @classmethod
    def load(cls, models: str, tables: str) -> Thoughts:
        (uni, _), (bi, _) = (
            formats.read_model(_either(models, name)) for name in ('uni_skip', 'bi_skip')
        )
        words = formats.read_lines(f'{tables}/dictionary.txt')
        return cls(
            cell(uni, 'encoder'), cell(bi, 'encoder'), cell(bi, 'encoder_r'),
            np.load(f'{tables}/utable.npy', mmap_mode='r'),
            np.load(f'{tables}/btable.npy', mmap_mode='r'),
            {word.strip(): row for row, word in enumerate(words)},
        )  # fmt: skip

    def encode(self, texts: Sequence[str], batch_size: int = 128) -> np.ndarray:
        """Thoughts (B, D): the uni-skip and the bi-skip part, each of unit length."""
        vectors = []
        for first in range(0, len(texts), batch_size):
            split = [text.split() for text in preprocess(texts[first : first + batch_size])]
            rows = [[self.index.get(w, self.index['UNK']) for w in words] for words in split]
            turned = [row[::-1] for row in rows]
            forward = last_states(self.forward, rows, self.btable)
            backward = last_states(self.backward, turned, self.btable)
            uni = unit(last_states(self.uni, rows, self.utable))
            vectors.append(np.hstack([uni, unit(np.hstack([forward, backward]))]))
        return np.concatenate(vectors)


def _either(folder: str, name: str) -> str:
    ours = f'{folder}/{name}.safetensors'
    return ours if formats.Path(ours).exists() else f'{folder}/{name}.npz'


@dataclass(frozen=True)
class Joint:
    """The joint space: a GRU over words, and a linear layer for each width of features."""

    gru: nn.GRUCell
    words: np.ndarray
    index: dict[str, int]
    layers: dict[int, nn.Linear]

    @classmethod
    def load(cls, path: str) -> Joint:
        params, options = formats.read_model(path)
        ours = path.removesuffix('.safetensors') + '_dictionary.txt'
        index = formats.load_dictionary(
            ours if path.endswith('.safetensors') else f'{path}.dictionary.pkl'
        )
        names = [name[:-2] for name in params if name.startswith('ff_image') and name[-1] == 'W']
        layers = [linear(params, name) for name in names]
        words = params['Wemb'][: options['n_words']]
        return cls(cell(params, 'encoder'), words, index, {x.in_features: x for x in layers})

    def encode_sentences(self, texts: Sequence[str], batch_size: int = 128) -> np.ndarray:
        """Unit vectors (B, E)."""
        vectors = []
        for first in range(0, len(texts), batch_size):
            rows = [self._ids(text) for text in texts[first : first + batch_size]]
            vectors.append(unit(last_states(self.gru, rows, self.words)))
        return np.concatenate(vectors)

    def _ids(self, text: str) -> list[int]:
        ids = (self.index.get(word, UNK) for word in text.split())
        return [*(i if i < len(self.words) else UNK for i in ids), EOS]

    def encode_images(self, features: np.ndarray) -> np.ndarray:
        """Features (B, F) of unit length to unit vectors (B, E)."""
        with torch.no_grad():
            layer = self.layers[features.shape[1]]
            return unit(layer(torch.from_numpy(features)).numpy())


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    """Rows (B, k) of the captions' vectors (N, E) nearest to each query (B, E), best first."""
    return np.argsort(queries @ vectors.T, axis=1)[:, ::-1][:, :k]


@dataclass(frozen=True)
class Teller:
    """The decoder: arrays in, arrays out, as the compiled functions of 2015."""

    words: Tensor  # (V, W)
    first: nn.Linear
    gru: nn.GRUCell
    hidden: nn.Linear | None
    logit: nn.Linear
    names: dict[int, str]

    @classmethod
    def load(cls, path: str, dictionary: str) -> Teller:
        params, _ = formats.read_model(path)
        index = formats.load_dictionary(dictionary)
        hidden = linear(params, 'ff_hid') if 'ff_hid_W' in params else None
        words = torch.tensor(params['Wemb'])
        names = {i: word for word, i in index.items()} | {EOS: '<eos>', UNK: 'UNK'}
        first, logit = linear(params, 'ff_state'), linear(params, 'ff_logit')
        return cls(words, first, cell(params, 'decoder'), hidden, logit, names)

    @torch.no_grad()
    def start(self, contexts: np.ndarray) -> np.ndarray:
        """First states (B, H) from contexts (B, D)."""
        return torch.tanh(self.first(torch.tensor(contexts))).numpy()

    @torch.no_grad()
    def next(self, words: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (R, V) of the word after `words` (R,), -1 before the first, and states."""
        x = self.words[torch.tensor(words).clamp(min=0)]
        x = torch.where(torch.tensor(words)[:, None] < 0, torch.zeros_like(x), x)
        state = self.gru(x, torch.tensor(states))
        out = state if self.hidden is None else torch.tanh(self.hidden(state))
        return torch.softmax(self.logit(out), dim=1).numpy(), state.numpy()

    def tell(self, context: np.ndarray, k: int, maxlen: int = MAXLEN) -> str:
        """The story of a context (D,), by the search of 2015."""
        return self.text(*search_2015(self.next, self.start(context[None]), k, maxlen))

    def text(self, samples: list[list[int]], scores: list[float]) -> str:
        """The best of what a search found, in words."""
        texts = [[word for word in sample if word != EOS] for sample in samples]
        if not texts[0]:  # as 2015 did where the first one that had finished was empty
            texts, scores = texts[1:], scores[1:]
        return ' '.join(self.names[word] for word in texts[int(np.argmin(scores))])


# --- the search of 2015 --------------------------------------------------------------------------


@dataclass
class Beginning:
    """A text that has not ended: its words, their cost, and the state after the last but one."""

    words: list[int]
    cost: np.float32
    state: np.ndarray


def search_2015(
    step: Next, start: np.ndarray, k: int = 1, maxlen: int = MAXLEN, use_unk: bool = False
) -> tuple[list[list[int]], list[float]]:
    """The beam search of 2015: lists, copies, all probabilities, and a sort of all costs.

    Parameters
    ----------
    step : callable
        Words (R,), states (R, H) to probabilities (R, V) and states, as `Teller.next`.
    start : (1, H) array
        The first state.
    k, maxlen : int
        Beam width, and greatest number of words.
    use_unk : bool
        Allow the word ``UNK``.

    Returns
    -------
    samples : list of lists of int
        Finished texts in the order of finishing, each with its last 0; then those cut at `maxlen`.
    scores : list of float
        Their summed negative log-probabilities.
    """
    finished: list[Beginning] = []
    live = [Beginning([], np.float32(0), start[0])]
    for _ in range(maxlen):
        words = np.array([text.words[-1] if text.words else -1 for text in live])
        probabilities, states = step(words, np.array([text.state for text in live]))
        grown = _grown(live, probabilities, states, k - len(finished), use_unk)
        finished += [text for text in grown if text.words[-1] == EOS]
        live = [text for text in grown if text.words[-1] != EOS]
        if not live or len(finished) >= k:
            break
    return [text.words for text in finished + live], [float(t.cost) for t in finished + live]


def _grown(
    live: list[Beginning], probabilities: np.ndarray, states: np.ndarray, width: int, use_unk: bool
) -> list[Beginning]:
    """The `width` cheapest texts that are a word longer, best first."""
    with np.errstate(divide='ignore'):
        costs = np.array([text.cost for text in live])[:, None] - np.log(probabilities)
    n_words, costs = costs.shape[1], costs.flatten()
    if not use_unk:
        for row in range(len(live)):
            costs[row * n_words + UNK] = 1e20
    grown = []
    for place in costs.argsort()[:width]:
        row, word = int(place // n_words), int(place % n_words)
        words = [*copy.copy(live[row].words), word]
        grown.append(Beginning(words, costs[place], states[row].copy()))
    return grown


# --- a story -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plain:
    """All models of a bundle; captions and their vectors are the library's."""

    thoughts: Thoughts
    joint: Joint
    network: nn.Module
    side: int | None  # of the photos that the network wants, as for `images.load_image`
    teller: Teller
    style: np.ndarray  # b - c

    @classmethod
    def load(cls, paths: Mapping[str, str] | None = None) -> Plain:
        files = config.resolve(paths if paths is None else dict(paths))
        style = formats.read_array(files['posbias']) - formats.read_array(files['negbias'])
        return cls(
            Thoughts.load(files['skmodels'], files['sktables']),
            Joint.load(files['vsemodel']),
            load_network(files['vgg']),
            convnet.side_of(files['vgg']),
            Teller.load(files['decmodel'], files['dictionary']),
            style.reshape(-1),
        )

    def features(self, photos: np.ndarray) -> np.ndarray:
        """Features (B, F) of photos (B, 3, S, S)."""
        with torch.no_grad():
            return self.network(torch.from_numpy(photos)).numpy()

    def story(
        self, photo: str, captions: Sequence[str], vectors: np.ndarray, k: int, bw: int, maxlen: int
    ) -> str:
        """The story of a photo file, from the nearest of the captions (N,), vectors (N, E)."""
        features = unit(self.features(images.load_image(photo, side=self.side)[1]))
        (rows,) = nearest(self.joint.encode_images(features), vectors, k)
        thought = self.thoughts.encode([captions[row] for row in rows]).mean(axis=0)
        return self.teller.tell(thought + self.style, bw, maxlen)
