"""Training the joint space of images and sentences.

The objective is the pairwise ranking loss of Kiros et al. (2014), "Unifying Visual-Semantic
Embeddings with Multimodal Neural Language Models": every other caption of a batch must score lower
for an image than its own, and every other image for a caption, by a margin. Beside it there is a
cross entropy (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision"): each image chooses its caption among those of the batch, and each caption its image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .. import layers
from ..embedding import IMAGE_LAYERS
from ..formats import PathLike, write_model
from ..vocabulary import Vocabulary
from . import distributed
from .data.captioned import Pairs as Pairs
from .data.matching import choice_cost
from .loop import train
from .ops.recurrence import affine, run_gru
from .options import TrainOptions, check
from .speed import check_bfloat16

SECOND_IMAGES = IMAGE_LAYERS[1]  # for the features of another network


@dataclass(frozen=True)
class EmbeddingOptions:
    """Options of the embedding trainer.

    Attributes
    ----------
    dim_image, dim_word, dim : int
        Dimensions F of image features, W of word vectors and E of the joint space. With
        ``encoder='bow'``, E is `dim_word`.
    encoder : {'gru', 'bow'}
        Sentence encoder: the last state of a GRU, or the sum of word vectors.
    margin : float
        Margin of the ranking loss.
    hardest : bool
        Hard-negative mining: only the hardest negative of each item counts, not the sum over all
        (Faghri et al. 2018, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives").
    temperature : float
        0: the ranking loss. Above 0: cross entropy of cosines over this temperature; needs
        `unit_images`.
    candidates_weight : float
        Weight of the loss over candidate captions of a pool, if there is one.
    unit_images : bool
        Normalise image vectors in training too; in 2015 they were normalised only afterwards.
    dropout : float
        Dropout rate of image features and word vectors.
    longest : int
        Maximum number of words of a caption; longer ones are skipped.
    batch_size : int
        Pairs per batch; the others of a batch are the negatives.
    bfloat16 : bool
        Run the GRU in bfloat16: several times faster on processors that support it.
    """

    dim_image: int = 4096
    dim_word: int = 300
    dim: int = 1024
    encoder: str = 'gru'
    margin: float = 0.2
    hardest: bool = False
    temperature: float = 0.0
    candidates_weight: float = 1.0
    unit_images: bool = False
    dropout: float = 0.0
    longest: int = 100
    batch_size: int = 128
    bfloat16: bool = False

    def __post_init__(self):
        check(self, 'at least 1', 'dim_image', 'dim_word', 'dim', 'longest', 'batch_size')
        if self.encoder not in ('gru', 'bow'):
            raise ValueError(f"encoder: expected 'gru' or 'bow', found {self.encoder!r}")
        check(self, '0 to below 1', 'dropout')
        check(self, 'more than 0', 'margin')
        check(self, '0 or more', 'temperature', 'candidates_weight')
        if self.temperature and not self.unit_images:
            raise ValueError('temperature: needs unit_images, found unit_images=False')


def initial_params(options: EmbeddingOptions, n_words: int, seed: int) -> dict[str, np.ndarray]:
    """Random parameters under the names of 2015; Glorot initialisation of the image layer."""
    rng = np.random.RandomState(seed)
    width = options.dim_word if options.encoder == 'bow' else options.dim
    params = {'Wemb': layers.norm_weight(rng, n_words, options.dim_word)}
    if options.encoder == 'gru':
        params |= layers.init_gru(rng, 'encoder', options.dim_word, options.dim)
    return params | _init_images(rng, 'ff_image', options.dim_image, width)


def with_second_images(
    params: Mapping[str, np.ndarray], dim_image: int, seed: int
) -> dict[str, np.ndarray]:
    """The parameters with a second image layer beside the first, for features of width F."""
    rng, joint = np.random.RandomState(seed), params['ff_image_W'].shape[1]
    return {**params, **_init_images(rng, SECOND_IMAGES, dim_image, joint)}


def _init_images(
    rng: np.random.RandomState, name: str, n_in: int, n_out: int
) -> dict[str, np.ndarray]:
    bound = np.sqrt(6.0 / (n_in + n_out))
    weight = rng.uniform(-bound, bound, (n_in, n_out)).astype(np.float32)
    return {f'{name}_W': weight, f'{name}_b': np.zeros(n_out, np.float32)}


def ranking_cost(images: Tensor, sentences: Tensor, margin: float, hardest: bool = False) -> Tensor:
    """The summed hinge loss over all negatives of a batch, or the hardest of each row.

    Takes (B, E) rows, scored by their dot product; row i of both belong together.
    """
    scores = images @ sentences.T  # (B, B): image i, sentence j
    right = scores.diagonal()
    other_sentences = (margin - right[:, None] + scores).clamp(min=0)
    other_images = (margin - right[None, :] + scores).clamp(min=0)
    wrong = 1 - torch.eye(len(scores), device=scores.device)
    other_sentences, other_images = other_sentences * wrong, other_images * wrong
    if hardest:
        return other_sentences.amax(1).sum() + other_images.amax(0).sum()
    return (other_sentences + other_images).sum()


def contrastive_cost(images: Tensor, sentences: Tensor, temperature: float) -> Tensor:
    """The summed symmetric cross entropy of matching rows, halved.

    Takes (B, E) unit rows; row i of both belong together.
    """
    scores = images @ sentences.T / temperature
    own = torch.arange(len(scores), device=scores.device)
    both = [cross_entropy(way, own, reduction='sum') for way in (scores, scores.T)]
    return (both[0] + both[1]) / 2


class JointEmbedding(nn.Module):
    """Image layer and sentence encoder as they are trained.

    Parameters
    ----------
    params : mapping of str to array
        Under the names of 2015: ``Wemb``, ``encoder_*`` (gru), ``ff_image_*``; beside them
        ``ff_image_vgg19_*`` if photos come with the features of two networks.
    options : EmbeddingOptions
    """

    def __init__(self, params: Mapping[str, np.ndarray], options: EmbeddingOptions):
        super().__init__()
        self.options = options
        self.table = nn.Embedding.from_pretrained(torch.tensor(params['Wemb']), freeze=False)
        self.encoder = layers.gru(params, 'encoder') if options.encoder == 'gru' else None
        self.image = layers.affine(params, 'ff_image')
        self.second = None
        if f'{SECOND_IMAGES}_W' in params:
            self.second = layers.affine(params, SECOND_IMAGES)
        self.drop = nn.Dropout(options.dropout)
        self.dtype = torch.bfloat16 if options.bfloat16 else torch.float32

    def sentences(self, x: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors (B, E) of word sequences (T, B); the mask counts the ``<eos>``."""
        vectors = self.drop(self.table(x))
        if self.encoder is None:
            joined = (vectors * mask[..., None]).sum(0)
        else:
            ends = mask.sum(0).long() - 1
            first = vectors.new_zeros(x.shape[1], self.encoder.hidden_size)
            states = run_gru(self.encoder, vectors, first, self.dtype)
            joined = states[ends, torch.arange(x.shape[1], device=x.device)]
        return joined / joined.norm(dim=1, keepdim=True)

    def images(self, features: Tensor) -> Tensor:
        """Vectors (B, E) of image features (B, F); unit length if the options say so."""
        known = self.image.in_features == features.shape[1]
        layer = self.image if known or self.second is None else self.second
        joined = affine(self.drop(features), layer.weight, layer.bias)
        return joined / joined.norm(dim=1, keepdim=True) if self.options.unit_images else joined

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        features: Tensor,
        candidates: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The summed cost of a batch of pairs, and of its choice among candidates if there are.

        `candidates` are words (T, K), their mask, and how much each fits each image (B, K).
        """
        options = self.options
        images, sentences = self.images(features), self.sentences(x, mask)
        whole = distributed.gather(images), distributed.gather(sentences)
        if not options.temperature:
            return distributed.once(ranking_cost(*whole, options.margin, options.hardest))
        cost = distributed.once(contrastive_cost(*whole, options.temperature))
        if candidates is None:
            return cost
        scores = images @ self.sentences(*candidates[:2]).T / options.temperature
        return cost + options.candidates_weight * choice_cost(scores, candidates[2])

    def params(self) -> dict[str, np.ndarray]:
        """All parameters, float32, under the names of 2015."""
        params = {'Wemb': self.table.weight.detach().cpu().numpy().copy()}
        if self.encoder is not None:
            params |= layers.gru_params(self.encoder, 'encoder')
        params |= layers.affine_params(self.image, 'ff_image')
        if self.second is not None:
            params |= layers.affine_params(self.second, SECOND_IMAGES)
        return params


def fit(
    sources: Sequence[Pairs],
    training: TrainOptions,
    out: PathLike,
    checkpoint: PathLike,
    *,
    vocabulary: Vocabulary,
    params: Mapping[str, np.ndarray] | None = None,
    report: Callable[[JointEmbedding], dict[str, float]] | None = None,
    device: str | torch.device | None = None,
) -> None:
    """Train an embedding and export it as :func:`storyteller.embedding.load_model` reads it.

    Parameters
    ----------
    sources : sequence of Pairs
        Several where photos come with the features of two networks; a batch is of one source.
        The options are those of the first.
    training, checkpoint, device
        As for :func:`storyteller.training.decoder.fit`.
    out : path-like
        ``.npz`` or ``.safetensors``; the dictionary is written beside it.
    vocabulary : Vocabulary
        Of the captions in `sources`.
    params : mapping, optional
        Initial parameters, if not those of :func:`initial_params`.
    report : function, optional
        Figures for the metrics, such as recalls on held-out photos; where ``sum_of_recalls`` is
        among them, it decides what is best, as in 2015.
    """
    distributed.join()
    device, options = layers.pick_device(device), sources[0].options
    check_bfloat16(options.bfloat16, options.dim, options.batch_size, device)
    params = params or initial_params(options, len(vocabulary), training.seed)
    model = JointEmbedding(params, options).to(device)
    kept = asdict(options) | {'n_words': len(vocabulary)}

    def batches(epoch):
        found = [(source, batch) for source in sources for batch in source.batches(epoch)]
        rng = np.random.default_rng([training.seed, epoch])
        return [found[i] for i in rng.permutation(len(found))]

    def cost(job):
        source, batch = job
        own = distributed.part(batch)
        return model(*source.tensors(own, device), source.choices(own, device)), len(own)

    def save():
        write_model(out, model.params(), kept)
        ours = Path(out).with_name(f'{Path(out).stem}_dictionary.txt')
        vocabulary.save(f'{out}.dictionary.pkl' if Path(out).suffix == '.npz' else ours)

    train(
        model,
        batches,
        cost,
        training,
        checkpoint,
        report=None if report is None else lambda: report(model),
        goal=None if report is None else 'sum_of_recalls',
        maximise=True,
        save=save,
    )
