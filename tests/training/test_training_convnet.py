"""Training a narrow VGG network: data, objectives, export, stages, features of unseen photos."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_array
from torch.nn.functional import normalize

from storyteller import formats
from storyteller.convnet import Architecture, build_convnet, compute_features
from storyteller.images import MEAN_BGR, load_image
from storyteller.training import closed_form, convnet, folds, measures, network, photos
from storyteller.training.convnet import Lesson, joint_cost
from storyteller.training.matching import Matches
from storyteller.training.network import FC7, TrainableNet
from storyteller.training.recipe import Recipe, stage_options

SMALL = Architecture(blocks=((4,), (6, 6)), fc=(9, 8), input_size=28)
COLOURS = {'red': (200, 30, 30), 'green': (30, 200, 30), 'blue': (30, 30, 200)}


def jpeg(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, 'JPEG', quality=95)
    return file.getvalue()


def coloured(label: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """A noisy photo whose class is its colour."""
    colour = np.array(list(COLOURS.values())[label])
    return np.clip(colour + rng.normal(0, 30, (side, side, 3)), 0, 255).astype(np.uint8)


def write_labelled(path, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    files = [jpeg(coloured(label, 64, rng)) for label in labels]
    np.savez(
        path,
        jpeg=np.frombuffer(b''.join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=labels.astype(np.uint8),
    )


def write_captioned(folder, split: str, n: int, seed: int) -> None:
    """Photos whose fc7 says which colour they have."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).random((3, FC7))
    labels, names = rng.integers(0, 3, n), [f'{split}{i:03}.jpg' for i in range(n)]
    with tarfile.open(folder / f'{split}.tar', 'w') as tar:
        for name, label in zip(names, labels, strict=True):
            content = jpeg(coloured(label, 40, rng))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (folder / f'{split}.txt').write_text('\n'.join(names) + '\n')
    fc7 = centres[labels] * 5 + 0.1 * rng.random((n, FC7))
    np.savez(folder / f'fc7_{split}.npz', fc7=fc7.astype(np.float16))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    (folder / 'tinyimagenet').mkdir()
    (folder / 'flickr8k').mkdir()
    write_labelled(folder / 'tinyimagenet' / 'train-00.npz', 48, 1)
    write_labelled(folder / 'tinyimagenet' / 'val-00.npz', 24, 2)
    write_captioned(folder / 'flickr8k', 'train', 48, 3)
    write_captioned(folder / 'flickr8k', 'dev', 12, 4)
    return folder


def recipe(epochs: int, **changes) -> Recipe:
    options = replace(stage_options(epochs, None), lr=1e-2, warmup=2)
    return Recipe(
        labels=options,
        distil=options,
        fold=options,
        label_size=32,
        label_batch=16,
        captioned_batch=8,
        labelled_batch=8,
        folds=2,
        bf16=False,
        **changes,
    )


def trained_net(seed: int = 0) -> TrainableNet:
    """A network whose batch normalisation is anything but the identity."""
    torch.manual_seed(seed)
    model = TrainableNet(SMALL, 3, 0, 0.2)
    for name, value in model.named_parameters():
        if 'norm' in name and value.requires_grad:
            torch.nn.init.normal_(value, 0.5)
    for name, value in model.named_buffers():
        if name.endswith('running_mean'):
            value.normal_(0, 2)
        elif name.endswith('running_var'):
            value.uniform_(0.5, 4)
    return model.eval()


# --- data ----------------------------------------------------------------------------------------


def test_labelled_photos(data):
    read = photos.read_labelled([data / 'tinyimagenet' / 'train-00.npz'])
    assert read.pixels.shape == (48, 3, 64, 64)
    assert read.pixels.dtype == torch.uint8
    for colour, label in zip(read.pixels.float().mean((2, 3)), read.labels, strict=True):
        assert colour.argmax() == label


def test_labelled_photos_may_have_places_for_their_classes(data, tmp_path):
    paths = [data / 'tinyimagenet' / 'train-00.npz']
    places = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    formats.write_array(tmp_path / 'places.npy', places)
    read = photos.read_labelled(paths, tmp_path / 'places.npy')
    np.testing.assert_array_equal(read.targets, places)
    assert photos.read_labelled(paths).targets is None
    formats.write_array(tmp_path / 'few.npy', places[:2])
    with pytest.raises(formats.MismatchError, match=r'few.npy: 2 rows, labels to 2'):
        photos.read_labelled(paths, tmp_path / 'few.npy')


def test_both_kinds_of_photos_learn_their_places(data, tmp_path):
    rng = np.random.default_rng(0)
    for name, rows in (('photos', 48), ('classes', 3)):
        formats.write_array(tmp_path / f'{name}.npy', rng.normal(size=(rows, 6)).astype('f4'))
    places = {'targets': tmp_path / 'photos.npy', 'class_targets': tmp_path / 'classes.npy'}
    seen, loss = [], convnet.ranking_loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convnet, 'ranking_loss', lambda *a: seen.append(a[1]) or loss(*a))
        folds.Stages(data, tmp_path / 'run', recipe(1), SMALL, **places).fold(0)
    classes = torch.from_numpy(np.load(tmp_path / 'classes.npy'))
    assert seen and all(len(targets) == 16 for targets in seen)  # eight of each kind
    for target in seen[0][8:]:
        assert (classes == target).all(1).any()
    last = json.loads((tmp_path / 'run' / 'fold0.jsonl').read_text().splitlines()[-1])
    assert 0 <= last['joint_recall10'] <= 1


def test_photos_learn_to_choose_among_the_captions_of_a_pool(data, tmp_path):
    """The three colours have a caption each; what photos of a colour choose is that."""
    places, labels = np.eye(4, dtype='f4')[:3], {}
    for split, seed in (('train', 3), ('dev', 4)):
        n = 48 if split == 'train' else 12
        labels[split] = np.random.default_rng(seed).integers(0, 3, n)
    formats.write_array(tmp_path / 'photos.npy', places[labels['train']])
    formats.write_array(tmp_path / 'classes.npy', places)
    sure = csr_array(np.eye(3, dtype=np.float32))
    pool = folds.Pool(
        torch.from_numpy(places[[2, 0, 1]]),
        Matches(sure[labels['train']][:, [2, 0, 1]], 0.1),
        Matches(sure[:, [2, 0, 1]], 0.1),
    )
    stages = folds.Stages(
        data,
        tmp_path / 'run',
        recipe(20, target_weight=0.0),
        SMALL,
        targets=tmp_path / 'photos.npy',
        class_targets=tmp_path / 'classes.npy',
        pool=pool,
    )
    model = stages.distil()
    dev = photos.read_captioned(data / 'flickr8k', 'dev', 32)
    with torch.inference_mode():
        at = model.target_head(model(photos.plain_batch(dev.pixels, 28)))
    chosen = (at @ pool.vectors.T).argmax(1).numpy()
    assert (np.array([2, 0, 1])[chosen] == labels['dev']).mean() > 0.7


def test_joint_cost_equals_its_definition():
    torch.manual_seed(0)
    settings = recipe(1, target_weight=0.7, choice_weight=1.3, margin=0.2, temperature=0.1)
    places, pool = torch.randn(7, 6), normalize(torch.randn(5, 6))
    targets = [normalize(torch.randn(n, 6)) for n in (4, 3)]
    shares = [torch.softmax(torch.randn(n, 5), 1) for n in (4, 3)]
    x, small = torch.zeros(4, 1), torch.zeros(3, 1)
    lesson = Lesson(x, small, x, small, targets, shares)
    at, to, share = normalize(places), torch.cat(targets), torch.cat(shares)
    chosen = torch.log_softmax(at @ pool.T / 0.1, 1)
    expected = 0.7 * ((1 - (at * to).sum(1)).mean() + convnet.ranking_loss(places, to, 0.2))
    expected += 1.3 * (share * (share.log() - chosen)).sum(1).mean()
    torch.testing.assert_close(joint_cost(places, lesson, settings, pool), 4 * expected)


def test_captioned_photos(data):
    read = photos.read_captioned(data / 'flickr8k', 'train', side=32)
    assert read.pixels.shape == (48, 3, 32, 32)
    torch.testing.assert_close(read.fc7.norm(dim=1), torch.ones(48))
    torch.testing.assert_close(read.flipped, read.fc7)  # no file of mirrored photos


def test_captioned_pixels_are_those_of_a_new_photo(data):
    read = photos.read_captioned(data / 'flickr8k', 'dev', side=32)
    jpegs = photos.read_photos(data / 'flickr8k')
    for i, name in enumerate(photos.read_names(data / 'flickr8k', 'dev')[:3]):
        im = torch.from_numpy(load_image(io.BytesIO(jpegs[name]))[1])
        expected = torch.nn.functional.adaptive_avg_pool2d(im, 28)
        found = photos.plain_batch(read.pixels[i : i + 1], 28)
        assert (found - expected).abs().mean() < 1  # of 255: the bytes are rounded


def test_mirrored_vectors_replace_the_first(data, tmp_path):
    folder = tmp_path / 'flickr8k'
    folder.mkdir()
    write_captioned(folder, 'train', 6, 5)
    other = np.random.default_rng(0).random((4, FC7)).astype(np.float16)
    np.savez(folder / 'fc7_train_flipped.npz', fc7=other)
    read = photos.read_captioned(folder, side=32)
    assert (read.flipped[:4] != read.fc7[:4]).any(1).all()
    torch.testing.assert_close(read.flipped[4:], read.fc7[4:])


def test_missing_data_is_named(tmp_path, data):
    with pytest.raises(formats.MissingFileError, match='expected photos'):
        photos.read_photos(tmp_path)
    with pytest.raises(formats.MissingFileError, match=r'none\.npz'):
        photos.read_labelled([tmp_path / 'none.npz'])
    np.save(tmp_path / 'targets.npy', np.ones((7, 5)))
    with pytest.raises(formats.MismatchError, match='7 rows for 48 photos'):
        photos.read_captioned(data / 'flickr8k', side=32, targets=tmp_path / 'targets.npy')


def test_augmented_photos_match_their_flags():
    """Dark left half, bright right half: mirrored exactly where the flag says so."""
    pixels = torch.zeros(64, 3, 40, 40, dtype=torch.uint8)
    pixels[:, :, :, 20:] = 255
    x, mirrored = photos.augment(pixels, 24, 0.9, np.random.default_rng(0))
    assert x.shape == (64, 3, 24, 24)
    assert 10 < mirrored.sum() < 54
    left_is_dark = x[:, :, :, :8].mean((1, 2, 3)) < x[:, :, :, 16:].mean((1, 2, 3))
    assert (left_is_dark == ~mirrored).all()


def test_augmented_photos_are_bgr():
    pixels = torch.zeros(8, 3, 30, 30, dtype=torch.uint8)
    pixels[:, 0] = 255  # red
    x, _ = photos.augment(pixels, 30, 1.0, np.random.default_rng(0))
    assert (x[:, 2].mean((1, 2)) > x[:, 0].mean((1, 2)) + 100).all()


def test_each_photo_has_a_crop_of_its_own():
    """Red says how far right a pixel is, green how far down: so corners can be told."""
    across = torch.arange(0, 250, 5, dtype=torch.uint8).expand(50, 50)
    pixels = torch.stack([across, across.T, torch.zeros_like(across)]).expand(300, -1, -1, -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photos, '_tint', lambda x, rng: x)
        x, mirrored = photos.augment(pixels, 25, 0.5, np.random.default_rng(0))
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    right, down = x[:, 2].mean(1), x[:, 1].mean(2)  # (300, 25): steps along each side
    widths, heights = right[:, -1] - right[:, 0], down[:, -1] - down[:, 0]
    torch.testing.assert_close(widths, heights, rtol=0.02, atol=1.0)  # squares stay squares
    assert 110 < widths.min() < 125 and 230 < widths.max() < 246
    for first in (right[:, 0], down[:, 0]):
        assert first.min() < 4 and first.max() > 90


def test_augmentation_repeats_with_its_seed():
    pixels = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8)
    one, two, other = (
        photos.augment(pixels, 32, 0.7, np.random.default_rng(seed))[0] for seed in (1, 1, 2)
    )
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert (one != other).any()


def test_half_precision_does_not_move_a_crop():
    pixels = torch.randint(0, 256, (4, 3, 146, 146), dtype=torch.uint8)
    with torch.autocast('cpu', torch.bfloat16):
        inside, _ = photos.augment(pixels, 128, 0.7, np.random.default_rng(0))
    outside, _ = photos.augment(pixels, 128, 0.7, np.random.default_rng(0))
    torch.testing.assert_close(inside, outside)


def test_a_square_of_each_photo_is_erased():
    x = photos.erased(torch.ones(200, 3, 20, 20), 0.5, np.random.default_rng(0))
    gone = (x == 0).all(1)
    sides = gone.any(2).sum(1)
    assert torch.equal(gone.sum((1, 2)), sides**2) and torch.equal(gone.any(1).sum(1), sides)
    assert sides.unique().tolist() == list(range(11))
    assert torch.equal(photos.erased(torch.ones(2, 3, 8, 8), 0.0, np.random.default_rng(0)).min(),
                       torch.tensor(1.0))  # fmt: skip


def test_a_square_of_each_photo_comes_from_another():
    x = torch.arange(50.0).view(50, 1, 1, 1).expand(50, 3, 20, 20)
    mixed, mix = photos.pasted(x, 0.5, np.random.default_rng(0))
    shares = mix(torch.eye(50))
    torch.testing.assert_close(shares.sum(1), torch.ones(50))
    assert shares.diagonal().min() == 0.75
    for photo, share in zip(mixed, shares, strict=True):
        for i in range(50):
            torch.testing.assert_close((photo == i).float().mean(), share[i])
    unmixed, mix = photos.pasted(x, 0.0, np.random.default_rng(0))
    assert torch.equal(unmixed, x) and torch.equal(mix(torch.eye(50)), torch.eye(50))


def test_plain_batch_is_the_centre_less_the_mean():
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    x = photos.plain_batch(pixels, 28)
    expected = pixels[:, :, 2:30, 2:30].flip(1).float() - torch.tensor(MEAN_BGR).view(1, 3, 1, 1)
    torch.testing.assert_close(x, expected)


# --- the network and its export ------------------------------------------------------------------


def test_exported_network_is_plain_and_computes_the_same(tmp_path):
    model, path = trained_net(), tmp_path / 'net.safetensors'
    network.export(model, path, dtype='float32')
    net = build_convnet(path, device='cpu')
    assert {type(layer).__name__ for layer in net['_module']} == {
        'AdaptiveAvgPool2d',
        'Conv2d',
        'ReLU',
        'MaxPool2d',
        'Flatten',
        'Linear',
    }
    im = np.random.default_rng(0).normal(0, 60, (3, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        x = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(im), 28)
        expected = model(x).numpy()
    assert (expected > 0).any()
    np.testing.assert_allclose(compute_features(net, im), expected, rtol=1e-3, atol=1e-3)


def test_the_recipe_s_network_is_small():
    n_values = sum(int(np.prod(shape)) for shape in convnet.NARROW.shapes().values())
    assert 2 * n_values < 12e6  # bytes as float16


def test_pooling_before_normalisation_is_pooling_after():
    block = network._Conv(3, 5, pool=True)
    block.norm.running_mean.normal_()
    block.norm.running_var.uniform_(0.5, 2)
    torch.nn.init.normal_(block.norm.bias)
    block.eval()
    x = torch.randn(2, 3, 8, 8)
    after = torch.nn.functional.max_pool2d(torch.relu(block.norm(block.conv(x))), 2)
    torch.testing.assert_close(block(x), after)


def test_a_convolution_of_as_many_channels_adds_to_its_input():
    block, x = network._Conv(5, 5, pool=False).eval(), torch.rand(2, 5, 8, 8)
    torch.nn.init.zeros_(block.conv.weight)
    torch.testing.assert_close(block(x), block.norm(x).relu())


# --- objectives ----------------------------------------------------------------------------------


def test_distillation_loss_is_zero_for_the_real_vectors():
    fc7 = torch.nn.functional.normalize(torch.rand(6, FC7))
    mean = fc7.mean(0)
    assert convnet.distillation_loss(3 * fc7, fc7, mean).abs() < 1e-5
    # Predicting the mean is right in the first part and worth nothing in the second.
    nearly_mean = mean + 1e-6 * torch.rand(6, FC7)
    assert convnet.distillation_loss(nearly_mean, fc7, mean) > 0.5


def test_ranking_loss_equals_its_definition():
    x, t = torch.randn(5, 4), torch.randn(5, 4)
    X, T = (a / a.norm(dim=1, keepdim=True) for a in (x, t))
    expected = sum(
        max(0.0, 0.2 + float(X[i] @ T[j] - X[i] @ T[i]))
        + max(0.0, 0.2 + float(X[j] @ T[i] - X[i] @ T[i]))
        for i in range(5)
        for j in range(5)
        if i != j
    )
    assert convnet.ranking_loss(x, t, 0.2).item() == pytest.approx(expected / 5, rel=1e-4)
    assert convnet.ranking_loss(torch.eye(4), torch.eye(4), 0.2) == 0


def test_photos_of_one_place_do_not_stand_against_each_other():
    places, targets = torch.randn(4, 6), torch.randn(3, 6)[[0, 1, 0, 2]]
    scores = normalize(places) @ normalize(targets).T
    expected = 0.0
    for i in range(4):
        for j in range(4):
            if i != j and {i, j} != {0, 2}:
                expected += max(0.0, float(0.2 + scores[i, j] - scores[i, i]))
                expected += max(0.0, float(0.2 + scores[i, j] - scores[j, j]))
    assert convnet.ranking_loss(places, targets, 0.2).item() == pytest.approx(
        expected / 4, rel=1e-4
    )


def test_retrieval_counts_ranks():
    real = torch.eye(20)
    assert measures.retrieval(real, real)['recall1'] == 1
    guess = real.roll(1, 0) + 0.5 * real  # the own vector is second
    found = measures.retrieval(guess, real)
    assert (found['recall1'], found['recall5'], found['median_rank']) == (0, 1, 2)


# --- stages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'changes, name',
    [
        ({'folds': 1}, 'folds'),
        ({'dropout': 1.0}, 'dropout'),
        ({'label_batch': 0}, 'label_batch'),
        ({'margin': -1}, 'margin'),
        ({'label_crop': 0.0}, 'label_crop'),
        ({'crop': 1.1}, 'crop'),
    ],
)
def test_bad_recipes(changes, name):
    with pytest.raises(ValueError, match=f'^{name}: expected'):
        Recipe(**changes)


def test_small_photos_must_outlast_the_poolings(tmp_path):
    with pytest.raises(ValueError, match='label_size: 6 poolings need 64 pixels or more, found 32'):
        folds.Stages(tmp_path, tmp_path, Recipe(label_size=32), convnet.NARROW)


def test_time_is_shared_out():
    whole = Recipe().within(60)
    minutes = whole.labels.minutes + whole.distil.minutes + whole.folds * whole.fold.minutes
    assert minutes == pytest.approx(60)


def test_labels_are_learned(data, tmp_path):
    stages = folds.Stages(data, tmp_path, recipe(16), SMALL)
    model = stages.labels()
    found = measures.accuracy(model.early_logits, stages.held_out, 32, stages.recipe)
    assert found['top1'] > 0.8
    assert found['top5'] == 1


@pytest.mark.parametrize('stage', ['labels', 'distil'])
def test_averaged_weights_come_with_their_statistics(data, tmp_path, stage):
    """A mean of weights has sums of its own, which the running means over steps are not."""
    options = replace(stage_options(12, None), lr=0.1, average=0.95)
    stages = folds.Stages(data, tmp_path, replace(recipe(12), **{stage: options}), SMALL)
    model = getattr(stages, stage)()
    size, whole = (28, True) if stage == 'distil' else (32, False)
    norm = (model.norms if whole else [conv.norm for conv in model.convs])[-1]
    mean, deviation = norm.running_mean.clone(), norm.running_var.sqrt()
    rng, parts = np.random.default_rng(1), [stages.labelled.pixels]
    parts += [stages.captioned.pixels] if whole else []
    shown = (
        [
            photos.augment(pixels[rng.integers(0, len(pixels), 8)], size, 0.7, rng)[0]
            for pixels in parts
        ]
        for _ in range(60)
    )
    model.settle(map(torch.cat, shown), whole)
    assert ((mean - norm.running_mean) / deviation).abs().mean() < 0.04  # 0.065 without


def test_statistics_are_the_means_over_what_is_shown():
    net, rng = TrainableNet(SMALL, 3, 0, 0.0), np.random.default_rng(0)
    net.eval()
    inputs = [torch.from_numpy(rng.normal(i, 1, (8, 3, 28, 28)).astype(np.float32)) for i in (0, 4)]
    before = [value.clone() for value in net.norms[0].buffers()]
    net.settle(inputs, whole=False)
    sums = [
        torch.nn.functional.conv2d(x, net.convs[0].weight(), padding=1).detach() for x in inputs
    ]
    pooled = [torch.nn.functional.max_pool2d(x, 2).mean((0, 2, 3)) for x in sums]
    torch.testing.assert_close(net.convs[0].norm.running_mean, sum(pooled) / 2)
    for old, new in zip(before, net.norms[0].buffers(), strict=True):
        assert torch.equal(old, new)
    net.settle(inputs)
    assert not torch.equal(before[0], net.norms[0].running_mean) and not net.training


def test_a_stage_goes_on_where_it_stopped(data, tmp_path):
    whole = folds.Stages(data, tmp_path / 'whole', recipe(3), SMALL).labels()

    stages = folds.Stages(data, tmp_path / 'parts', recipe(3), SMALL)
    calls, original = 0, convnet.augment

    def interrupted(*args):
        nonlocal calls
        calls += 1
        if calls == 5:  # in the second of three epochs
            raise KeyboardInterrupt
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convnet, 'augment', interrupted)
        with pytest.raises(KeyboardInterrupt):
            stages.labels()
    resumed = folds.Stages(data, tmp_path / 'parts', recipe(3), SMALL).labels()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0, msg=name)


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    stages = folds.Stages(data, folder, recipe(25), SMALL)
    stages.distil()
    for k in range(2):
        stages.fold(k)
    return stages


def test_fc7_is_distilled(run):
    last = json.loads((run.run / 'fold0.jsonl').read_text().splitlines()[-1])
    assert last['finished']
    assert last['cosine'] > 0.9
    assert last['centred_cosine'] > 0.5


def test_final_network_can_be_loaded(run):
    net = build_convnet(run.run / 'distil.safetensors')
    assert (net['dim'], net['input_size']) == (8, 28)


def test_features_and_probe(run):
    features = run.features()
    assert {name: array.shape for name, array in features.items()} == {
        'train': (48, 8),
        'train_unseen': (48, 8),
        'dev': (12, 8),
    }
    names = photos.read_names(run.data / 'flickr8k', 'dev')
    jpegs = photos.read_photos(run.data / 'flickr8k')
    net = build_convnet(run.run / 'distil.safetensors')
    one = compute_features(net, load_image(io.BytesIO(jpegs[names[3]]))[1])
    np.testing.assert_allclose(features['dev'][3], one[0], rtol=1e-4, atol=1e-4)
    found = run.probe(features)
    assert found['train_unseen']['cosine'] > 0.9


def test_joint_space_is_a_third_task(data, tmp_path):
    rng = np.random.default_rng(0)
    formats.write_array(tmp_path / 'targets.npy', rng.normal(size=(48, 6)).astype(np.float32))
    stages = folds.Stages(data, tmp_path, recipe(1), SMALL, targets=tmp_path / 'targets.npy')
    before = stages._fresh().target_head.weight.clone()
    after = stages.fold(0).target_head.weight
    assert after.shape == (6, 8)
    assert (after != before).any()


# --- a start in closed form ----------------------------------------------------------------------

EVEN = replace(SMALL, fc=(8, 8))


def known_places(folder):
    """A place for each of the 48 photos, by its fc7, and for each class."""
    fc7 = photos.read_fc7(folder / 'flickr8k' / 'fc7_train.npz').numpy()
    map_ = np.random.default_rng(0).normal(size=(FC7, 6)).astype(np.float32)
    return normalize(torch.from_numpy(fc7 @ map_)).numpy()


def test_the_second_stage_can_begin_as_a_linear_map(data, tmp_path):
    """All that it is to learn is predicted before its first step."""
    formats.write_array(tmp_path / 'targets.npy', known_places(data))
    stages = folds.Stages(data, tmp_path, recipe(1), EVEN, targets=tmp_path / 'targets.npy')
    model = stages.labels()
    small = photos.Labelled(stages.labelled.pixels, stages.labelled.labels)
    closed_form.begin(model, stages.captioned, small, closed_form.Start(label_weight=1.0))
    mean = stages.captioned.fc7.mean(0)
    found = measures.measures(model.eval(), stages.captioned, stages.held_out, mean, stages.recipe)
    assert found['cosine'] > 0.9 and found['top1'] > 0.9
    assert found['joint_centred_cosine'] > 0.7


def test_a_stage_begins_so_once(data, tmp_path, monkeypatch):
    begun, begin = [], folds.begin
    monkeypatch.setattr(folds, 'begin', lambda *a: begun.append(begin(*a)))
    stages = folds.Stages(data, tmp_path, recipe(1, closed_form=True), EVEN)
    stages.fold(0)
    assert len(begun) == 1
    monkeypatch.setattr(folds, 'begin', lambda *_: pytest.fail('it began anew'))
    stages.fold(0)


def test_a_linear_map_needs_layers_of_one_width(data, tmp_path):
    stages = folds.Stages(data, tmp_path, recipe(1, closed_form=True), SMALL)
    with pytest.raises(ValueError, match=r'fc: expected two equal, even widths, found \(9, 8\)'):
        stages.fold(0)


# --- features of unseen photos -------------------------------------------------------------------


def test_unseen_features_come_from_the_right_fold_in_the_final_coordinates():
    rng = np.random.default_rng(0)
    final, fold_of = rng.normal(size=(300, 5)), np.arange(300) % 3
    turns = [np.linalg.qr(rng.normal(size=(5, 5)))[0] for _ in range(3)]
    noise = [0.01 * rng.normal(size=(300, 5)) for _ in range(3)]
    by_fold = [(final + noise[k]) @ turns[k] for k in range(3)]
    found = folds.unseen_features(final, by_fold, fold_of)
    expected = np.choose(fold_of[:, None], [final + n for n in noise])
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert np.abs(found - expected).mean() < np.abs(found - final).mean()


def test_ridge_equals_its_definition():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
    strength = 0.3 * np.trace(X.T @ X) / 4
    rows = np.vstack([X, np.sqrt(strength) * np.eye(4)])
    expected = np.linalg.lstsq(rows, np.vstack([Y, np.zeros((4, 3))]), rcond=None)[0]
    np.testing.assert_allclose(folds.ridge(X, Y, 0.3), expected, atol=1e-9)


TWO = '-m', 'torch.distributed.run', '--nproc_per_node', '2'


@pytest.mark.slow
@pytest.mark.parametrize(
    ('launcher', 'more'),
    [((), ()), (TWO, ()), (TWO, ('--fc', 8, 8, '--closed-form', '--average', 0.9))],
)
def test_the_script_trains_a_network_of_given_widths(data, tmp_path, launcher, more):
    script = Path(__file__).parents[2] / 'scripts' / 'train_convnet.py'
    command = [sys.executable, *launcher, script, '--data', data, '--work', tmp_path / 'work']
    command += ['--out', tmp_path / 'net.safetensors', '--minutes', 0.5, '--no-bf16', '--folds', 2]
    command += ['--blocks', '4', '6,6', '--fc', 9, 8, '--input-size', 28, '--label-size', 32]
    command += ['--label-batch', 16, '--captioned-batch', 8, '--labelled-batch', 8, *more]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {'train', 'train_unseen'}
    net = build_convnet(tmp_path / 'net.safetensors')
    assert net['dim'] == 8 and net['input_size'] == 28
