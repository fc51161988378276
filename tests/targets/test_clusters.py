"""Fitting, drawing clips, the nearest centroid, and soft clusters."""

import numpy as np
import pytest
import torch

from av_ssl import io
from av_ssl.errors import DataError
from av_ssl.targets import clusters
from av_ssl.targets.clusters import Codebook, SoftClusters, draw_frames, fit_kmeans
from av_ssl.targets.feature_shards import FeatureShard, SplitFeatures
from tests.data_folder import listed_clips


def blobs(rng, centres, each=200):
    return np.concatenate([centre + rng.normal(0, 0.1, (each, len(centre))) for centre in centres]).astype(
        np.float32
    )


def test_finds_well_separated_clusters():
    centres = np.array([[0, 0, 0], [5, 0, 0], [0, 5, 0], [0, 0, 5]], float)
    frames = blobs(np.random.default_rng(0), centres)
    centroids = fit_kmeans(frames, 4, seed=0)
    assert centroids.dtype == np.float32
    order = [np.linalg.norm(centroids - centre, axis=1).argmin() for centre in centres]
    np.testing.assert_allclose(centroids[order], centres, atol=0.05)
    labels, inertia = Codebook(centroids).nearest(frames)
    assert [set(labels[k * 200 : (k + 1) * 200]) for k in range(4)] == [{k} for k in order]
    assert inertia / len(frames) == pytest.approx(3 * 0.01, rel=0.1)


def test_nearest_equals_the_definition(monkeypatch):
    rng = np.random.default_rng(0)
    frames, centroids = rng.normal(size=(300, 39)) * 20, rng.normal(size=(50, 39)) * 20
    squared = ((frames[:, None] - centroids) ** 2).sum(axis=2)
    labels, inertia = Codebook(centroids.astype(np.float32)).nearest(frames)
    assert np.array_equal(labels, squared.argmin(axis=1))
    assert inertia == pytest.approx(squared.min(axis=1).sum(), rel=1e-5)
    assert Codebook(centroids.astype(np.float32)).nearest(frames[:0]) == (pytest.approx(np.zeros(0)), 0.0)
    monkeypatch.setattr(clusters, "BLOCK", 70)
    found = Codebook(centroids.astype(np.float32)).inertia(frames)
    assert found == pytest.approx(squared.min(axis=1).mean(), rel=1e-5)


def test_half_precision_features_are_computed_in_single():
    centroids = np.array([[300.0, 0], [0, 300]], np.float32)  # squares of these overflow float16
    labels, inertia = Codebook(centroids).nearest(np.array([[299, 0], [0, 298]], np.float16))
    assert labels.tolist() == [0, 1]
    assert inertia == pytest.approx(5, abs=0.1)


# -- the draw ------------------------------------------------------------------------------------------------


def write_shards(folder, lengths, count):
    """Frames [n, 1] that hold the number of their clip."""
    shards = []
    for rank in range(count):
        shard = FeatureShard(folder / str(count), "train", rank, count)
        part = shard.range(len(lengths))
        shard.folder.mkdir(exist_ok=True)
        clips = np.arange(len(lengths))[part]
        np.save(shard.features, np.repeat(clips, lengths[part]).astype(np.float32)[:, None])
        shard.lengths.write_text("".join(f"{length}\n" for length in lengths[part]))
        shards.append(shard)
    return tuple(shards)


def test_whole_clips_are_drawn_whatever_the_shards(tmp_path):
    lengths = np.array([3, 0, 4, 5, 1, 6, 2, 0, 7, 3])
    frames = draw_frames(write_shards(tmp_path, lengths, 1), 0.5, seed=0)
    drawn, counts = np.unique(frames, return_counts=True)
    assert len(drawn) == 4  # of the 8 that have frames
    assert counts.tolist() == lengths[drawn.astype(int)].tolist()
    for count in (3, 7, 10):
        assert np.array_equal(draw_frames(write_shards(tmp_path, lengths, count), 0.5, seed=0), frames)
    assert not np.array_equal(draw_frames(write_shards(tmp_path, lengths, 1), 0.5, seed=1), frames)
    assert len(draw_frames(write_shards(tmp_path, lengths, 1), 1.0, seed=0)) == lengths.sum()


def test_shards_are_mapped_one_at_a_time(tmp_path, monkeypatch):
    """Threads that read numpy's headers at once fail at times in Python 3.11."""
    load, held = np.load, []

    def watched(*args, **options):
        held.append(io._READING_HEAD.locked())
        return load(*args, **options)

    (shard,) = write_shards(tmp_path, np.array([3, 4]), 1)
    monkeypatch.setattr(io.np, "load", watched)
    assert len(shard.read()[0]) == 7
    assert held == [True]


def test_damaged_shards_are_refused(tmp_path):
    (shard,) = write_shards(tmp_path, np.array([3, 4]), 1)
    shard.lengths.write_text("3\n5\n")
    with pytest.raises(DataError, match=r"train_0_1\.npy: .*\(7, 1\), .*train_0_1\.len lists 8"):
        draw_frames((shard,), 1.0, 0)
    shard.features.write_bytes(b"junk")
    with pytest.raises(DataError, match=r"train_0_1\.npy: "):
        draw_frames((shard,), 1.0, 0)


@pytest.mark.parametrize(("clips", "complete"), [((3, 4), True), ((3, 4, 5), False)])
def test_a_shard_of_another_number_of_clips_is_made_again(clips, complete, tmp_path):
    (shard,) = write_shards(tmp_path, np.array([3, 4]), 1)
    manifest = tmp_path / "train.tsv"
    split = SplitFeatures(manifest, "", listed_clips(*clips), None, shard.folder, tmp_path, wanted=1)
    assert [split.is_complete(job) for job in split.jobs] == [complete]


# -- soft clusters -------------------------------------------------------------------------------------------

INERTIA = 300.0


@pytest.fixture(scope="module")
def centroids():
    return (np.random.default_rng(0).standard_normal((50, 32)) * 5).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    return torch.from_numpy((np.random.default_rng(1).standard_normal((20, 32)) * 5).astype(np.float32))


def test_posteriors_are_the_stated_formula(centroids, vectors):
    """Without the |y|^2 that is left out."""
    distances = ((vectors.numpy().astype(np.float64)[:, None] - centroids) ** 2).sum(-1)
    expected = np.exp(-(distances - distances.min(1, keepdims=True)) / (INERTIA * 0.1))
    expected /= expected.sum(1, keepdims=True)
    q = SoftClusters(centroids, INERTIA)(vectors)
    np.testing.assert_allclose(q, expected, atol=1e-5)
    np.testing.assert_allclose(q.sum(1), 1, atol=1e-6)


def test_largest_at_the_centroid_itself(centroids):
    q = SoftClusters(centroids, INERTIA)(torch.from_numpy(centroids))
    assert q.argmax(1).tolist() == list(range(50))
    q = SoftClusters(centroids, 0.0)(torch.from_numpy(centroids))  # clusters without spread
    assert torch.isfinite(q).all()


def test_half_precision_vectors_are_compared_in_float32(centroids, vectors):
    soft, half = SoftClusters(centroids, INERTIA), vectors.half()
    assert soft(half).dtype == torch.float32
    assert torch.equal(soft(half), soft(half.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(soft(half), soft(half.float()))


def test_the_same_seed_gives_the_same_centroids():
    frames = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    assert np.array_equal(fit_kmeans(frames, 7, seed=1), fit_kmeans(frames, 7, seed=1))


def test_fewer_frames_than_clusters():
    with pytest.raises(DataError, match="9 frames cannot make 10 clusters"):
        fit_kmeans(np.zeros((9, 2), np.float32), 10)
