"""Features in two dimensions, for the eye: PCA, t-SNE (van der Maaten and Hinton, 2008) or UMAP."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from av_ssl.analysis.feature_folder import Floats
from av_ssl.errors import DataError

METHODS = ("tsne", "pca", "umap")
PRINCIPAL_COMPONENTS = 50
"""That t-SNE and UMAP are given: the rest is mostly noise, and costs time."""


def project(x: Floats, method: str, seed: int = 0) -> NDArray[np.float32]:
    """Points `[N, 2]` of features `[N, C]`, whose channels are standardised first.

    Distances between far points, and the axes, mean nothing for `tsne` and `umap`.

    Raises DataError when there are fewer than four points, or the package of the method is not installed.
    """
    if len(x) < 4:
        raise DataError(f"{len(x)} frames are too few to be laid out; take at least 4")
    centred = np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64)
    deviation = centred.std(axis=0)
    scaled = centred / np.where(deviation > 0, deviation, 1.0)
    components = principal_components(scaled, 2 if method == "pca" else PRINCIPAL_COMPONENTS)
    if method == "pca":
        return components.astype(np.float32)
    if method == "tsne":
        perplexity = min(30.0, (len(x) - 1) / 3)
        layout = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
        return np.asarray(layout.fit_transform(components), np.float32)
    if method != "umap":
        raise DataError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    try:
        from umap import UMAP
    except ModuleNotFoundError as error:
        if error.name != "umap":
            raise
        raise DataError(
            "--method umap: umap is not installed; pip install umap-learn, or take tsne"
        ) from error
    return np.asarray(UMAP(random_state=seed).fit_transform(components), np.float32)


def principal_components(x: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Scores `[N, count]` (at most C) of centred features `[N, C]`; signs are fixed by the largest weight."""
    values, vectors = np.linalg.eigh(x.T @ x)
    vectors = vectors[:, np.argsort(values)[::-1][:count]]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return np.asarray(x @ (vectors * np.sign(largest)))
