"""The story decoder: a GRU language model conditioned on a thought vector.

It turns a skip-thought vector into a passage in the style of the books it was trained on
(Kiros et al., "Skip-Thought Vectors", 2015). The vector gives the first state, tanh(c W + b); each
step reads the word before and gives the probabilities of the next one. Files of 2015 and ours are
read alike; :mod:`storyteller.search` does the searching.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from storyteller import formats, layers, search
from storyteller.nn.decoder_network import Decoder
from storyteller.options import check_count
from storyteller.vocabulary import SPECIAL

# Maximum number of probabilities (rows times words) of a step: 20 MB in float32, which the C
# library keeps for the next step. From 32 MB on new memory would be cleared each time.
LARGEST_STEP = 5 * 2**20
LARGEST_STEP_OF_GPU = 2**26


# --- loading -------------------------------------------------------------------------------------


def load_model(
    path: formats.PathLike,
    dictionary: formats.PathLike,
    *,
    device: str | torch.device | None = None,
) -> dict[str, Any]:
    """Load a decoder and its dictionary.

    Parameters
    ----------
    path : path-like
        ``.npz`` of 2015 with its ``.npz.pkl``, or ``.safetensors``.
    dictionary : path-like
        Word -> index, ``.pkl`` of 2015 or ``.txt``. It may hold more words than the model.
    device : str or torch.device, optional
        Where to compute. None: the GPU if there is one, else the CPU.

    Returns
    -------
    dict
        - ``options``: those of the file; ``doutput`` is True where it is missing, as in 2015.
        - ``worddict``: str -> int, as in the file.
        - ``word_idict``: int -> str, the inverse; 0 is ``'<eos>'``, 1 is ``'UNK'``.
        - ``f_init(ctx)``: contexts (B, D) -> states (B, H), float32.
        - ``f_next(words, state)``: words (B,) (-1 before the first), states (B, H) ->
          probabilities (B, V), a word sampled from each (B,), states (B, H).
        - ``_model``: the :class:`Decoder`.

    Raises
    ------
    MissingFileError, ModelFileError
        If a file is missing or invalid.
    MismatchError
        If the dictionary lacks a word of the model.
    """
    params, options = read_params(path)
    worddict = formats.load_dictionary(dictionary)
    word_idict = {index: word for word, index in worddict.items()}
    word_idict |= dict(enumerate(SPECIAL))
    n_words = options['n_words']
    if (lacking := next((i for i in range(n_words) if i not in word_idict), None)) is not None:
        raise formats.MismatchError(
            f'{path}: the decoder has {n_words} words, but {dictionary} names none with index '
            f'{lacking}: is it the dictionary of another decoder?'
        )
    model = Decoder(params, layers.pick_device(device)).eval()
    return {
        'options': options,
        'worddict': worddict,
        'word_idict': word_idict,
        'f_init': functools.partial(_f_init, model),
        'f_next': functools.partial(_f_next, model),
        '_model': model,
    }


def network(dec: Mapping[str, Any]) -> Decoder:
    """The network of a decoder, whose `step` a search takes."""
    return dec['_model']


def at_once(model: Decoder, k: int) -> int:
    """How many contexts, each with k hypotheses, go into one batch: as many as fit into memory."""
    largest = LARGEST_STEP if model.device.type == 'cpu' else LARGEST_STEP_OF_GPU
    return max(1, largest // (k * model.logit.out_features))


def read_params(path: formats.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the parameters of a decoder, under the names of 2015, and its options.

    Options that old files lack are there: the sizes, and ``doutput``.

    Raises
    ------
    MissingFileError, ModelFileError
        If there is no such file, or it is not a decoder.
    """
    params, options = formats.read_model(path)
    options.setdefault('doutput', True)
    formats.require(params, {'Wemb': (None, None), 'ff_state_W': (None, None)}, path)
    (V, W), (D, H) = params['Wemb'].shape, params['ff_state_W'].shape
    if V < 2:
        raise formats.ModelFileError(f'{path}: expected <eos>, UNK and more, found {V} words')
    shapes: dict[str, tuple[int, ...]] = {'Wemb': (V, W), 'ff_state_W': (D, H), 'ff_state_b': (H,)}
    shapes |= {'decoder_W': (W, 2 * H), 'decoder_U': (H, 2 * H), 'decoder_b': (2 * H,)}
    shapes |= {'decoder_Wx': (W, H), 'decoder_Ux': (H, H), 'decoder_bx': (H,)}
    if options['doutput']:
        shapes |= {'ff_hid_W': (H, W), 'ff_hid_b': (W,)}
    shapes |= {'ff_logit_W': (W if options['doutput'] else H, V), 'ff_logit_b': (V,)}
    formats.require(params, shapes, path)
    formats.require_finite(params, shapes, path)
    for name, found in {'n_words': V, 'dim_word': W, 'dimctx': D, 'dim': H}.items():
        if options.setdefault(name, found) != found:
            raise formats.ModelFileError(
                f'{path}: option {name!r} is {options[name]!r}, but the parameters have {found}'
            )
    return {name: params[name] for name in shapes}, options


@layers.inference()
def _f_init(model: Decoder, ctx: np.ndarray) -> np.ndarray:
    return model.start(_contexts(model, ctx)).cpu().numpy()


@layers.inference()
def _f_next(
    model: Decoder, words: np.ndarray, state: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    device = model.device
    logp, new = model.step(
        torch.as_tensor(np.asarray(words, np.int64), device=device),
        torch.as_tensor(np.asarray(state, np.float32), device=device),
    )
    probs = logp.exp()
    drawn = probs.multinomial(1)[:, 0]
    return probs.cpu().numpy(), drawn.cpu().numpy(), new.cpu().numpy()


def _contexts(model: Decoder, c: np.ndarray) -> Tensor:
    """Check contexts (B, D) and bring them to the model's device as float32."""
    width = model.first.in_features
    array = np.asarray(c)
    if array.dtype.kind not in 'fiu':
        raise ValueError(f'contexts: expected numbers, found type {array.dtype}')
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f'contexts: expected shape (B, {width}), found {array.shape}')
    with np.errstate(over='ignore'):  # what float32 cannot hold becomes infinite
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError('contexts: expected finite numbers, found NaN or infinity')
    return torch.from_numpy(array).to(model.device)


def _one_context(c: np.ndarray) -> np.ndarray:
    """(D,) or (1, D) as (1, D); what belongs to several stories is refused, not strung together."""
    array = np.atleast_2d(c)
    if array.ndim != 2 or len(array) != 1:
        raise ValueError(f'c: expected one context, (D,) or (1, D), found shape {array.shape}')
    return array


# --- from vector to text -------------------------------------------------------------------------


def gen_sample(
    dec: Mapping[str, Any],
    c: np.ndarray,
    k: int = 1,
    maxlen: int = 1000,
    stochastic: bool = False,
    argmax: bool = False,
    use_unk: bool = False,
    *,
    early_stop: bool = False,
    seed: int | None = None,
) -> tuple[list[list[int]], list[float]]:
    """Generate word sequences from one context.

    Parameters
    ----------
    dec : dict
        From :func:`load_model`.
    c : array, shape (D,) or (1, D)
        The context: a thought vector.
    k : int
        Beam width.
    maxlen : int
        Maximum number of words, ``<eos>`` included.
    stochastic : bool
        Sample one sequence instead of searching; `k` must be 1.
    argmax : bool
        With `stochastic`: take the most probable word at each step instead of sampling.
    use_unk : bool
        Allow the word ``UNK``.
    early_stop : bool
        Stop once the best non-empty sequence is known; the others may then be missing.
    seed : int, optional
        Makes sampling repeatable.

    Returns
    -------
    sequences : list of lists of int
        In the order of 2015: finished ones, in the order of finishing, each with its final 0,
        then those that were cut at `maxlen`.
    scores : list of float
        Their summed negative log-probabilities, in nats.

    Raises
    ------
    ValueError
        If an argument is out of range, or `c` has another width than the decoder.
    """
    c = _one_context(c)
    (hypotheses,) = _generate(dec, c, k, maxlen, stochastic, argmax, use_unk, early_stop, seed)
    return [item.words for item in hypotheses], [item.score for item in hypotheses]


def run_sampler(
    dec: Mapping[str, Any],
    c: np.ndarray,
    beam_width: int = 1,
    stochastic: bool = False,
    use_unk: bool = False,
    *,
    maxlen: int = 1000,
    argmax: bool = False,
    seed: int | None = None,
) -> str:
    """Decode one context: the non-empty text with the lowest summed NLL.

    Parameters
    ----------
    dec, c, stochastic, use_unk, maxlen, argmax, seed
        As for :func:`gen_sample`, with the same errors.
    beam_width : int
        Beam width.

    Returns
    -------
    str
        Words joined by blanks. A text that was cut at `maxlen` keeps its last word.

    Raises
    ------
    EmptyStoryError
        If the search found nothing but the empty text.
    MismatchError
        If the dictionary has no word for an index of the text.
    """
    c = _one_context(c)
    (story,) = run_samplers(
        dec, c, beam_width, stochastic, use_unk, maxlen=maxlen, argmax=argmax, seed=seed
    )
    if isinstance(story, formats.EmptyStoryError):
        raise story
    return story


def run_samplers(
    dec: Mapping[str, Any],
    contexts: np.ndarray,
    beam_width: int = 1,
    stochastic: bool = False,
    use_unk: bool = False,
    *,
    maxlen: int = 1000,
    argmax: bool = False,
    seed: int | Sequence[int] | None = None,
) -> list[str | formats.EmptyStoryError]:
    """Decode several contexts in one batch.

    Parameters
    ----------
    dec, beam_width, stochastic, use_unk, maxlen, argmax
        As for :func:`run_sampler`.
    contexts : array, shape (B, D)
        One thought vector per story.
    seed : int or sequence of B ints, optional
        With one number each story is the one that :func:`run_sampler` tells with that seed.

    Returns
    -------
    list of B str or EmptyStoryError
        Each what :func:`run_sampler` gives for that context, its EmptyStoryError not raised.
    """
    found = _generate(dec, contexts, beam_width, maxlen, stochastic, argmax, use_unk, True, seed)
    return [_story(dec, search.best(hypotheses)) for hypotheses in found]


def _story(
    dec: Mapping[str, Any], hypothesis: search.Hypothesis | None
) -> str | formats.EmptyStoryError:
    if hypothesis is None:
        return formats.EmptyStoryError(
            'the decoder ends this story before its first word; '
            'a wider beam, or another seed, may find another'
        )
    return ' '.join(dec['word_idict'][word] for word in hypothesis.text)


@layers.inference()
def _generate(
    dec: Mapping[str, Any],
    contexts: np.ndarray,
    k: int,
    maxlen: int,
    stochastic: bool,
    argmax: bool,
    use_unk: bool,
    early_stop: bool,
    seed: int | Sequence[int] | None,
) -> list[list[search.Hypothesis]]:
    """The hypotheses of each context, from as many contexts at a time as fit into memory."""
    model = network(dec)
    vectors = _contexts(model, contexts)
    check_count('beam width', k)
    if stochastic and k != 1:
        raise ValueError(f'beam width: expected 1 for a stochastic sample, found {k}')
    seeds = list(seed) if isinstance(seed, (Sequence, np.ndarray)) else [seed] * len(vectors)
    if len(seeds) != len(vectors):
        raise ValueError(f'seed: expected one, or {len(vectors)} of them, found {len(seeds)}')
    size, found = at_once(model, k), []
    for first in range(0, len(vectors), size):
        here = slice(first, first + size)
        state = model.start(vectors[here])
        if stochastic and not argmax:
            drawn = search.sample(model.step, state, maxlen, use_unk=use_unk, seeds=seeds[here])
            found += [[hypothesis] for hypothesis in drawn]
        else:
            n_best = 1 if early_stop else None
            found += search.beam_search(
                model.step, state, k, maxlen, use_unk=use_unk, n_best=n_best
            )
    return found
