"""Captioned photos: the layouts that are read, what is wrong with them, and the recalls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from storyteller import formats
from storyteller.captions import ranking
from storyteller.convnet import Architecture
from storyteller.formats import MismatchError
from storyteller.layers import unit_rows
from storyteller.training import embedding
from storyteller.training.data import captioned
from storyteller.training.data.captioned import CaptionedPhotos, encode

CAPTIONS = ['a dog runs', 'a brown dog', 'two men', 'men on a boat', 'the sea', 'a blue sea']


def write_2015(folder, captions, features, split='train'):
    (folder / f'f8k_{split}_caps.txt').write_text('\n'.join(captions) + '\n', encoding='utf-8')
    np.save(folder / f'f8k_{split}_ims.npy', features)
    return folder / 'f8k'


@pytest.fixture
def features():
    return np.random.default_rng(0).random((3, 7)).astype(np.float32)


@pytest.mark.parametrize('repeated', [False, True])
def test_the_layout_of_2015(tmp_path, features, repeated):
    rows = np.repeat(features, 2, axis=0) if repeated else features
    read = CaptionedPhotos.from_2015(write_2015(tmp_path, CAPTIONS, rows), 'train')
    assert read.captions == [caption.split() for caption in CAPTIONS]
    assert read.photos.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(read.features, unit_rows(features), rtol=1e-6)


@pytest.mark.parametrize('n_captions', [0, 2, 5])
def test_captions_and_features_that_do_not_fit(tmp_path, features, n_captions):
    prefix = write_2015(tmp_path, CAPTIONS[:n_captions], features)
    if n_captions == 0:
        (tmp_path / 'f8k_train_caps.txt').write_text('')
    with pytest.raises(formats.MismatchError, match=f'shape 3 x 7.*: {n_captions} captions'):
        CaptionedPhotos.from_2015(prefix, 'train')


def test_a_data_set_that_is_not_there(tmp_path):
    with pytest.raises(formats.MissingFileError, match='x_train_caps'):
        CaptionedPhotos.from_2015(tmp_path / 'x', 'train')


def test_lines_of_photo_and_caption(tmp_path, features):
    path = tmp_path / 'captions.txt'
    path.write_text('b\tmen\nx\tunknown\na\tdogs\n\nb\t0\ttwo men\nc\t \n', encoding='utf-8')
    read = CaptionedPhotos.from_files(path, ['a', 'b', 'c'], features)
    assert read.captions == [['dogs'], ['men'], ['two', 'men']]
    assert read.photos.tolist() == [0, 1, 1] and len(read.features) == 2  # c has no caption
    with pytest.raises(formats.MismatchError, match='2 photos, but 3 rows'):
        CaptionedPhotos.from_files(path, ['a', 'b'], features)
    with pytest.raises(formats.MismatchError, match=r'captions\.txt: not one caption.*such as q'):
        CaptionedPhotos.from_files(path, ['q'], features[:1])
    path.write_text('a\tdogs\nno tab here\n')
    with pytest.raises(formats.ModelFileError, match='line 2 is not photo<TAB>caption'):
        CaptionedPhotos.from_files(path, ['a'], features[:1])


def test_a_folder_of_photos(tmp_path, capsys, monkeypatch):
    small = Architecture(blocks=((2,), (3,)), fc=(4, 5), input_size=32)
    rng = np.random.default_rng(0)
    params = {n: rng.normal(size=s).astype('f4') for n, s in small.shapes().items()}
    formats.write_model(tmp_path / 'net.safetensors', params, small.options())
    folder = tmp_path / 'photos'
    folder.mkdir()
    for i, name in enumerate(('a.png', 'b.jpg')):
        Image.new('RGB', (40, 30), (80 * i, 200, 30)).save(folder / name)
    (folder / 'bad.jpg').write_text('no photo')
    captions = tmp_path / 'captions.txt'
    captions.write_text('a.png\ta field\nb.jpg\ta meadow\nbad.jpg\tnothing\ngone.jpg\tgone\n')
    arguments = captions, folder, tmp_path / 'net.safetensors', tmp_path / 'run'
    read = CaptionedPhotos.from_folder(*arguments)
    assert read.captions == [['a', 'field'], ['a', 'meadow']]
    assert read.features.shape == (2, 5)
    assert 'passed over' in capsys.readouterr().out
    with monkeypatch.context() as patched:  # the second time nothing is computed
        patched.setattr(captioned, 'build_convnet', None)
        again = CaptionedPhotos.from_folder(*arguments)
    np.testing.assert_array_equal(again.features, read.features)
    whole = captions.read_text()
    captions.write_text(whole.replace('bad.jpg\tnothing\n', ''))
    with pytest.raises(MismatchError, match=r'features\.npy: .* bad\.jpg is not there any more'):
        CaptionedPhotos.from_folder(*arguments)
    captions.write_text(whole)
    first = (folder / 'a.png').read_bytes()
    Image.new('RGB', (40, 30), 'red').save(folder / 'a.png')
    with pytest.raises(MismatchError, match=r'a\.png differs; to start afresh'):
        CaptionedPhotos.from_folder(*arguments)
    (folder / 'a.png').write_bytes(first)
    params[next(iter(params))] += 1
    formats.write_model(tmp_path / 'net.safetensors', params, small.options())
    with pytest.raises(MismatchError, match='network differs'):
        CaptionedPhotos.from_folder(*arguments)
    captions.write_text('gone.jpg\tgone\n')
    with pytest.raises(formats.MissingFileError, match='none of the photos'):
        CaptionedPhotos.from_folder(*arguments)


def test_photos_are_held_out_with_their_captions(tmp_path, features):
    read = CaptionedPhotos.from_2015(write_2015(tmp_path, CAPTIONS, features), 'train')
    rest, held_out = read.hold_out(1)
    assert len(rest.features) == 2 and len(held_out.features) == 1
    assert rest.photos.tolist() == [0, 0, 1, 1] and held_out.photos.tolist() == [0, 0]
    assert sorted(rest.captions + held_out.captions) == sorted(read.captions)
    for part in (rest, held_out):
        for caption, photo in zip(part.captions, part.photos, strict=True):
            row = read.photos[read.captions.index(caption)]
            np.testing.assert_array_equal(part.features[photo], read.features[row])
    for count in (0, 3, 9):
        with pytest.raises(ValueError, match=f'of 3 photos {count} cannot'):
            read.hold_out(count)


def test_mirrored_photos_are_learned_from_too(tmp_path, features):
    read = CaptionedPhotos.from_2015(write_2015(tmp_path, CAPTIONS, features), 'train')
    both = read.with_mirrored(features[:2, ::-1])  # of the first two alone
    options = embedding.EmbeddingOptions(dim_image=7, unit_images=True, temperature=0.1)
    plain, mirrored = both.sources(read.vocabulary(), options, 0)
    assert plain.once and mirrored.once
    assert len(plain.captions) == 6 and len(mirrored.captions) == 4
    np.testing.assert_allclose(mirrored.features, unit_rows(features[:2, ::-1]))
    np.testing.assert_array_equal(mirrored.photos, [0, 0, 1, 1])
    rest, held_out = both.hold_out(1)
    for part in (rest, held_out):  # a photo that is held out is not learned from mirrored
        rows = [np.flatnonzero((read.features == f).all(1))[0] for f in part.features]
        np.testing.assert_allclose(part.mirrored, both.mirrored[[r for r in rows if r < 2]])
    (alone,) = read.sources(read.vocabulary(), embedding.EmbeddingOptions(dim_image=7), 0)
    assert not alone.once


def test_mirrored_photos_that_do_not_fit(tmp_path, features):
    read = CaptionedPhotos.from_2015(write_2015(tmp_path, CAPTIONS, features), 'train')
    with pytest.raises(MismatchError, match='3 x 6, features of width 7'):
        read.with_mirrored(features[:, :6])
    with pytest.raises(MismatchError, match='6 mirrored photos, but 3'):
        read.with_mirrored(np.tile(features, (2, 1)))


def test_recalls_are_those_of_the_ranking_measures(tmp_path, features):
    read = CaptionedPhotos.from_2015(write_2015(tmp_path, CAPTIONS, features), 'train')
    words = read.vocabulary()
    options = embedding.EmbeddingOptions(dim_image=7, dim_word=8, dim=8, batch_size=3)
    model = embedding.JointEmbedding(embedding.initial_params(options, len(words), 0), options)
    found = read.recalls(model.eval(), words)
    images = unit_rows(model.images(torch.from_numpy(read.features)).detach().numpy())
    vectors = encode(model, [words.encode(caption) for caption in read.captions])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert found['i2t_r1'] == ranking.i2t(images, vectors, captions_per_image=2)[0]
    assert found['t2i_median'] == ranking.t2i(images, vectors, captions_per_image=2)[3]
    recalls = [found[f'{way}_r{n}'] for way in ('i2t', 't2i') for n in (1, 5, 10)]
    assert found['sum_of_recalls'] == pytest.approx(sum(recalls))


def test_only_the_hardest_partner_costs():
    rng = np.random.default_rng(0)
    images, sentences = (unit_rows(rng.normal(size=(5, 6)).astype('f4')) for _ in range(2))
    scores, expected = images @ sentences.T, 0.0
    for i in range(5):
        wrong = [j for j in range(5) if j != i]
        expected += max(0, *(0.2 - scores[i, i] + scores[i, j] for j in wrong))
        expected += max(0, *(0.2 - scores[i, i] + scores[j, i] for j in wrong))
    found = embedding.ranking_cost(torch.tensor(images), torch.tensor(sentences), 0.2, hardest=True)
    assert float(found) == pytest.approx(expected, rel=1e-5)
