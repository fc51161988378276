"""Figures: frames of layers in two dimensions, similarity of layers, word error rates in noise.

Frames are laid out by PCA, t-SNE (van der Maaten and Hinton, 2008) or UMAP.  Figures are drawn without a
screen; the suffix of the file chooses the format (.png, .svg, .pdf).  Colours are those of Okabe and Ito
(2008), which colour-blind readers can distinguish, the yellow darkened; where there are more classes than
colours, markers differ.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from av_ssl.analysis.alignments import labelled_frames, shared_clips, titles
from av_ssl.analysis.cka import cka_matrix, shared_frames
from av_ssl.analysis.features import FeatureFolder, Floats
from av_ssl.data.noise import parse_snr
from av_ssl.errors import DataError
from av_ssl.io import read_text, write_atomically

TABLES = (".tsv", ".csv", ".txt")
METHODS = ("tsne", "pca", "umap")
PRINCIPAL_COMPONENTS = 50  # given to t-SNE and UMAP: the rest is mostly noise, and costs time


def project(x: Floats, method: str, seed: int = 0) -> NDArray[np.float32]:
    """Points ``[N, 2]`` of features ``[N, C]``, whose channels are standardised first.

    Distances between far points, and the axes, mean nothing for ``tsne`` and ``umap``.  Raises DataError when
    there are fewer than four points, or the package of the method is not installed.
    """
    if len(x) < 4:
        raise DataError(f"{len(x)} frames are too few to be laid out; take at least 4")
    scaled = StandardScaler().fit_transform(np.asarray(x, np.float64))
    count = 2 if method == "pca" else PRINCIPAL_COMPONENTS
    components = PCA(min(count, *scaled.shape), svd_solver="full").fit_transform(scaled)
    if method == "pca":
        return components.astype(np.float32)
    if method == "tsne":
        perplexity = min(30.0, (len(x) - 1) / 3)
        layout = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
        return np.asarray(layout.fit_transform(components), np.float32)
    if method != "umap":
        raise DataError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
    try:
        from umap import UMAP  # an optional package
    except ModuleNotFoundError as error:
        if error.name != "umap":
            raise
        raise DataError("--method umap: is not installed; pip install umap-learn") from error
    return np.asarray(UMAP(random_state=seed).fit_transform(components), np.float32)


CLEAN = math.inf
"""The signal-to-noise ratio of clips without noise."""
COLUMNS = ("method", "snr", "wer")
OPTIONS = re.compile(r"options-(.+)\.yaml")


@dataclass(frozen=True)
class NoiseResult:
    method: str
    snr: float  # dB; CLEAN: no noise
    rate: float  # word error rate, percent


def read_results(folder: Path, method: str | None = None) -> list[NoiseResult]:
    """What ``fairseq-generate --results-path`` left in a folder: one result for each subset.

    Args:
        folder: with ``options-{subset}.yaml`` and ``generate-{subset}.txt``.
        method: its name; None: that of the checkpoint's folder.

    Raises:
        DataError: a file is missing, noise was in a part of the clips only or of no single SNR, or there is
            no word error rate.
    """
    found = sorted(path for path in folder.glob("options-*.yaml") if OPTIONS.fullmatch(path.name))
    if not found:
        raise DataError(f"{folder}: has no options-{{subset}}.yaml; decode again with --results-path")
    results = []
    for path in found:
        options = _read_yaml(path)
        try:
            task, checkpoint = options["task"], Path(options["common_eval"]["path"])
            share = float(task["noise_prob"]) if task["noise_wav"] else 0.0
            snr = _snr(path, share, task["noise_snr"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: lacks {error}; it was not written by this package") from error
        subset = path.name.removeprefix("options-").removesuffix(".yaml")
        rate = word_error_rate(folder / f"generate-{subset}.txt")
        results.append(NoiseResult(method or checkpoint.parent.name, snr, rate))
    return results


def word_error_rate(path: Path) -> float:
    """In percent, out of the file that ``fairseq-generate --scoring wer`` writes."""
    try:
        found = re.findall(r"WER: ([0-9.]+)", path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); decode again") from error
    if not found:
        raise DataError(f"{path}: holds no word error rate; decode again with --scoring wer")
    return float(found[-1])


def read_table(path: Path) -> list[NoiseResult]:
    """Rows of a table: ``method``, ``snr`` in dB or ``clean``, ``wer`` in percent; tabs or commas between."""
    text = read_text(path, f"name a table with the columns {', '.join(COLUMNS)}")
    rows = list(csv.reader(text.splitlines(), delimiter="\t" if "\t" in text else ","))
    heads = [cell.strip() for cell in rows[0]] if rows else []
    missing = [column for column in COLUMNS if column not in heads]
    if missing:
        raise DataError(f"{path}, line 1: lacks {missing[0]}; needed are the columns {', '.join(COLUMNS)}")
    results = []
    for number, row in enumerate(rows[1:], start=2):
        cells = dict(zip(heads, (cell.strip() for cell in row), strict=False))
        if not any(cells.values()):
            continue
        try:
            snr = CLEAN if cells["snr"] == "clean" else float(cells["snr"])
            results.append(NoiseResult(cells["method"], snr, float(cells["wer"])))
        except (KeyError, ValueError):
            raise DataError(
                f"{path}, line {number}: needed are a method, an SNR in dB or clean, a word error rate"
            ) from None
    return results


def by_method(results: Sequence[NoiseResult]) -> dict[str, dict[float, list[float]]]:
    """Rates by method and SNR, rising; several of one, as with several seeds, stand together."""
    methods: dict[str, dict[float, list[float]]] = {}
    for result in results:
        methods.setdefault(result.method, {}).setdefault(result.snr, []).append(result.rate)
    return {method: dict(sorted(rates.items())) for method, rates in methods.items()}


def _snr(path: Path, probability: float, snr: Any) -> float:
    if probability == 0:
        return CLEAN
    value = parse_snr(snr)
    if probability < 1 or isinstance(value, tuple):
        noise = f"noise was in {probability:.0%} of the clips, at {snr} dB"
        raise DataError(f"{path}: {noise}; decode with --noise-prob 1 and one --noise-snr")
    return value


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        options = yaml.safe_load(read_text(path, "name the folder of a decoding"))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not isinstance(options, dict):
        raise DataError(f"{path}: holds no options")
    return options


COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B8A800")
MARKERS = ("o", "^", "s", "X", "D")
OTHERS = "#D9D9D9"
SUFFIXES = (".png", ".svg", ".pdf")
DOTS_PER_INCH = 100
PANEL = 3.3  # inches
LETTERS_OF_TWO_COLUMNS = 28  # longest name for which a legend of two columns fits above the axes


def draw_frames(
    points: Sequence[Floats],
    labels: Sequence[Mapping[str, NDArray[np.str_]]],
    names: Sequence[str],
    classes: int,
) -> Figure:
    """A panel for each set of points (a column) and each kind of label (a row).

    Args:
        points: ``[N, 2]`` each; N may differ.
        labels: of each set of points strings ``[N]`` by kind, the same kinds for all.
        names: of the sets of points.
        classes: the most frequent ones of all sets are coloured, the others gray.
    """
    kinds = list(labels[0])
    figure = new_figure(PANEL * len(points) + 1.1, PANEL * len(kinds))
    axes = figure.subplots(len(kinds), len(points), squeeze=False)
    for row, kind in zip(axes, kinds, strict=True):
        counts = Counter(value for own in labels for value in own[kind].tolist())
        frequent = [name for name, _ in counts.most_common(classes)]
        for axis, place, own in zip(row, points, labels, strict=True):
            scatter_classes(axis, place, own[kind], frequent)
        row[0].set_ylabel(f"by {kind}")
        row[-1].legend(
            title=kind, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8, markerscale=1.8
        )
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name)
    return figure


def scatter_classes(axis: Any, points: Floats, values: NDArray[np.str_], frequent: Sequence[str]) -> None:
    """Points ``[N, 2]``, of which the frequent classes are coloured and lie above the others."""
    for number, name in enumerate(frequent):
        here = points[values == name]
        axis.scatter(*here.T, s=9, linewidths=0, alpha=0.85, label=name, zorder=2, **style_of(number))
    others = points[~np.isin(values, frequent)]
    if len(others):
        axis.scatter(*others.T, s=5, linewidths=0, color=OTHERS, label="others", zorder=1)
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set_color(OTHERS)


def draw_similarity(
    matrices: Sequence[NDArray[np.float64]],
    layers: Sequence[Sequence[int]],
    names: Sequence[str],
    reference: str,
    reference_layers: Sequence[int],
) -> Figure:
    """A heat map of CKA for each folder that is compared with the reference.

    Args:
        matrices: ``[M, L]`` each: M layers of a folder, L of the reference.
        layers, names: of the folders.
        reference, reference_layers: name and layers of the reference.
    """
    width = sum(0.42 * len(reference_layers) + 1.3 for _ in matrices) + 0.6
    figure = new_figure(max(width, 3.4), max(0.38 * len(layer) for layer in layers) + 1.5)
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    image: Any = None
    for axis, matrix, own, name in zip(axes, matrices, layers, names, strict=True):
        image = axis.imshow(matrix, vmin=0, vmax=1, cmap="cividis", origin="lower", aspect="auto")
        axis.set(
            xticks=range(len(reference_layers)), xticklabels=reference_layers, yticks=range(len(own)),
            yticklabels=own, xlabel=f"layer of {reference}", ylabel=f"layer of {name}",
        )  # fmt: skip
        if matrix.size <= 200:
            for (y, x), value in np.ndenumerate(matrix):
                ink = "black" if value > 0.5 else "white"
                axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)
    figure.colorbar(image, ax=axes.tolist(), label="linear CKA (1: alike)")
    return figure


def draw_noise(methods: Mapping[str, Mapping[float, Sequence[float]]]) -> Figure:
    """Word error rate against SNR, a line a method, falling from noise to clean speech.

    Args:
        methods: rates in percent by method and SNR in dB (infinite: clean); of several rates the mean is
            drawn, with a bar from the lowest to the highest.
    """
    ratios = sorted({snr for rates in methods.values() for snr in rates})
    noisy = [snr for snr in ratios if math.isfinite(snr)]
    # Clean clips have no place on the axis: they stand apart, a step of it behind the last.
    step = (noisy[-1] - noisy[0]) / max(1, len(noisy) - 1) if len(noisy) > 1 else 5.0
    clean = (noisy[-1] if noisy else 0.0) + step
    figure = new_figure(5.2, 3.6)
    axis = figure.subplots()
    for number, (method, rates) in enumerate(methods.items()):
        places = [snr if math.isfinite(snr) else clean for snr in rates]
        means = np.array([mean(values) for values in rates.values()])
        reach = np.array([[m - min(v), max(v) - m] for m, v in zip(means, rates.values(), strict=True)]).T
        bars = reach if reach.any() else None
        # A little apart, so that the bars of one place can be told from each other.
        apart = np.array(places) + 0.03 * step * (number - (len(methods) - 1) / 2)
        axis.errorbar(apart, means, yerr=bars, label=method, capsize=3, elinewidth=1, **style_of(number))
    shown = {**{snr: f"{snr:g}" for snr in noisy}, **({clean: "clean"} if len(ratios) > len(noisy) else {})}
    axis.set_xticks(list(shown), list(shown.values()))
    axis.set(xlabel="signal-to-noise ratio (dB)", ylabel="word error rate (%)", ylim=(0, None))
    axis.grid(axis="y", color="#EEEEEE")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    columns = 2 if max(map(len, methods)) <= LETTERS_OF_TWO_COLUMNS else 1
    figure.legend(loc="outside upper center", ncols=columns, frameon=False, fontsize=9)  # never over a line
    return figure


def style_of(number: int) -> dict[str, Any]:
    """Colour and marker of a class or line."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number // len(COLOURS) % len(MARKERS)]}


def new_figure(width: float, height: float) -> Figure:
    """A figure, inches, that needs no screen and no global state."""
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_suffix(path: Path) -> Path:
    """``path``; raises DataError for a suffix that is no format of figures."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: name a file that ends in {', '.join(SUFFIXES)}")
    return path


def save(figure: Figure, path: Path) -> int:
    """Write a figure atomically; the same figure gives the same bytes, whose number is returned."""
    kind = check_suffix(path).suffix.lower()[1:]
    content = BytesIO()
    undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    figure.savefig(content, format=kind, metadata=undated)
    write_atomically(path, content.getvalue())
    return content.tell()


def plot_frames(
    paths: Sequence[Path],
    out: Path,
    alignments: Path,
    visemes: Mapping[str, tuple[str, ...]] | None = None,
    only: str | None = None,
    layer: int | None = None,
    method: str = "tsne",
    frames: int = 2000,
    classes: int | Sequence[str] = len(COLOURS),
    subset: Sequence[str] | None = None,
    seed: int = 0,
) -> str:
    """Draw frames of one layer in two dimensions, coloured by what is said, a column a feature folder.

    Args:
        paths: folders of ``av-ssl features``.
        out: figure.
        alignments, visemes: see ``av_ssl.analysis.alignments``.
        only: ``phone``, ``word`` or ``viseme``; None: all that are known.
        layer: None: the last.
        method: of METHODS.
        frames: drawn at random.
        classes: so many are coloured, the most frequent ones; or names: no frames of others are drawn.
        subset: splits of the folders; None: all.
        seed: of the draw and the layout.

    Returns:
        A line that describes the figure.
    """
    check_suffix(out)
    folders = [FeatureFolder(path, subset) for path in paths]
    rates = {folder.rate for folder in folders}
    if len(rates) > 1:
        shown = " and ".join(f"{rate:g}" for rate in sorted(rates))
        raise DataError(f"frames of {shown} Hz cannot stand side by side; draw a figure of each")
    clips, points, labels = shared_clips(folders), [], []
    for folder in folders:
        chosen = folder.layers[-1] if layer is None else layer
        if chosen not in folder.layers:
            known = ", ".join(map(str, folder.layers))
            raise DataError(f"--layer {chosen}: {folder.path} has the layers {known}")
        found = labelled_frames(folder, alignments, visemes, clips)
        if only and only not in found.labels:
            known = " and ".join(found.labels)
            raise DataError(f"--only {only}: {alignments} has {known}; visemes need --visemes")
        if not isinstance(classes, int):
            found = found.of_classes(classes)
        drawn = found.drawn(frames, seed)
        points.append(project(drawn.features[:, folder.layers.index(chosen)], method, seed))
        labels.append({kind: names for kind, names in drawn.labels.items() if only in (None, kind)})
    coloured = classes if isinstance(classes, int) else len(classes)
    size = save(draw_frames(points, labels, titles(list(paths)), coloured), out)
    counts = " and ".join(map(str, sorted({len(place) for place in points})))
    return f"{out}: {counts} frames of {len(clips)} clips by {method}; {size / 1000:.0f} kB"


def plot_similarity(
    reference_path: Path, paths: Sequence[Path], out: Path, subset: Sequence[str] | None = None
) -> str:
    """Draw the linear CKA of all pairs of layers of feature folders and a reference; returns the numbers.

    Args:
        reference_path: folder of ``av-ssl features``.
        paths: others; frames are matched by time; empty: the reference with itself.
        out: figure.
        subset: splits of the folders; None: all.
    """
    check_suffix(out)
    first, *others = titles([reference_path, *paths])
    reference = FeatureFolder(reference_path, subset)
    folders = [FeatureFolder(path, subset) for path in paths or [reference_path]]
    matrices, lines = [], []
    for folder, name in zip(folders, others or [first], strict=True):
        matrix = cka_matrix(*shared_frames(folder, reference))
        matrices.append(matrix)
        row, column = np.unravel_index(matrix.argmax(), matrix.shape)
        lines.append(f"linear CKA of {name} (rows) and {first} (columns: layers {reference.layers})")
        lines += [
            f"  layer {layer}: " + " ".join(f"{value:.3f}" for value in values)
            for layer, values in zip(folder.layers, matrix, strict=True)
        ]
        best = f"layer {folder.layers[row]} and layer {reference.layers[column]}"
        lines.append(f"  most alike: {best} ({matrix.max():.3f})")
    layers = [folder.layers for folder in folders]
    size = save(draw_similarity(matrices, layers, others or [first], first, reference.layers), out)
    return "\n".join([*lines, f"{out}: {size / 1000:.0f} kB"])


def plot_noise(sources: Sequence[str], out: Path) -> str:
    """Draw word error rate against signal-to-noise ratio; returns a line that describes the figure.

    Args:
        sources: ``[NAME=]PATH`` of folders that ``fairseq-generate`` wrote, or of tables with the columns
            method, snr, wer; several of one name and ratio are averaged.
        out: figure.
    """
    check_suffix(out)
    results: list[NoiseResult] = []
    for text in sources:
        name, _, path = ("", "", text) if Path(text).exists() else text.partition("=")
        if Path(path).suffix in TABLES and Path(path).is_file():
            results += [NoiseResult(name or row.method, row.snr, row.rate) for row in read_table(Path(path))]
        else:
            results += read_results(Path(path), name or None)
    size = save(draw_noise(by_method(results)), out)
    return f"{out}: {len(results)} word error rates; {size / 1000:.0f} kB"
