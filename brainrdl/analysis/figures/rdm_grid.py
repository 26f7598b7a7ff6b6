"""RDMs of every method and layer, between the pixels' and the labels' (Fig. 3, McClure & Kriegeskorte 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from brainrdl.analysis.figures.style import MILLIMETRE, WIDTH, new_figure, print_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rsatoolbox.rdm import RDMs

_SCALES = {
    "percentile": "Dissimilarity, ranked within each RDM\n(0 = its smallest, 100 = its largest)",
    "raw": "Dissimilarity, as a share of each RDM's largest",
}
# Inches: what a printed page has room for; the largest RDM; between RDMs; a letter of a class name.
_MOST_HEIGHT = 230 * MILLIMETRE
_LARGEST = 45 * MILLIMETRE
_GAP = 0.06
_LETTER = 0.048
# More class names than this would run into each other.
_MOST_NAMES = 12


def plot(rdms: RDMs, scale: str = "percentile") -> Figure:
    """A row a network, a column a layer, stimuli sorted by class; left the pixels' RDM, right the labels'.

    rdms: one RDM a network and layer, rdm_descriptors network and layer; those of network "pixels" and "labels" stand
    at the sides. pattern_descriptors label and category, where there, sort and name the classes. Layers stand in the
    first network's order; a network with other layer names has its own above its RDMs. NaN is grey.
    scale: "percentile" (ranks) or "raw" (each RDM from 0 to its largest value).
    Raises ValueError for an unknown scale, missing descriptors, or a layer that stands twice (epochs, seeds).
    """
    if scale not in _SCALES:
        raise ValueError(f"unknown scale '{scale}' of the RDM grid; expected one of {', '.join(_SCALES)}")
    for name in ("network", "layer"):
        if name not in rdms.rdm_descriptors:
            raise ValueError(f"the RDM grid needs the rdm_descriptor '{name}'; these RDMs lack it")
    cells = _by_network(rdms)
    sides = {name: cells.pop(name) for name in ("pixels", "labels") if name in cells}
    if not cells:
        raise ValueError("the RDM grid needs the RDMs of at least one network besides pixels and labels")
    columns = list(next(iter(cells.values())))
    n_rows, n_columns = len(cells), max(len(layers) for layers in cells.values())
    images = _scaled(rdms, scale)
    order, classes = _classes(rdms)
    images = images[:, order][:, :, order]
    left = int("pixels" in sides)
    n_all = left + n_columns + int("labels" in sides)

    with print_style():
        names = max((len(name) for name, _ in classes), default=0) * _LETTER
        beside = names + 0.14 * max(_wrapped(network).count("\n") + 1 for network in cells) + 0.1
        own_names = [set(layers) - set(columns) for layers in cells.values()]
        below = names + 0.86 + 0.17 * sum(map(bool, own_names))  # with the colour bar and the layers' titles
        cell = min((WIDTH - beside) / n_all - _GAP, (_MOST_HEIGHT - below) / n_rows - _GAP, _LARGEST)
        size = {"width": max(n_all * (cell + _GAP) + beside, WIDTH / 2), "height": n_rows * (cell + _GAP) + below}
        figure = new_figure(**size, padding=_GAP / 2)
        grid = figure.add_gridspec(n_rows, n_all)
        axes: list[Axes] = []
        if "pixels" in sides:
            ax = figure.add_subplot(grid[:, 0])
            _rdm(ax, images[sides["pixels"]["pixels"]], "pixels")
            _name_classes(ax, classes, left=True, below=True)
            axes.append(ax)
        for row, (network, layers) in enumerate(cells.items()):
            own = {} if set(layers) <= set(columns) else dict(enumerate(layers))
            for column in range(n_columns):
                layer = own.get(column, columns[column] if not own and column < len(columns) else None)
                if layer is None or layer not in layers:
                    continue
                ax = figure.add_subplot(grid[row, left + column])
                _rdm(ax, images[layers[layer]], _title(layer) if row == 0 or own else "")
                _name_classes(ax, classes, left=column == 0 and not sides, below=row == n_rows - 1)
                if column == 0:
                    ax.set_ylabel(_wrapped(network), fontsize=7.5)
                axes.append(ax)
        if "labels" in sides:
            ax = figure.add_subplot(grid[:, n_all - 1])
            _rdm(ax, images[sides["labels"]["labels"]], "labels")
            _name_classes(ax, classes, left=False, below=True)
            axes.append(ax)
        colour_bar = figure.colorbar(
            axes[0].images[0],
            ax=axes,
            location="bottom",
            shrink=0.4,
            aspect=30,
            pad=0.01,
            panchor=False,
            label=_SCALES[scale],
        )
        colour_bar.outline.set_linewidth(0.5)
    return figure


def _by_network(rdms: RDMs) -> dict[str, dict[str, int]]:
    """network -> layer -> which RDM."""
    cells: dict[str, dict[str, int]] = {}
    for k, (network, layer) in enumerate(
        zip(rdms.rdm_descriptors["network"], rdms.rdm_descriptors["layer"], strict=True)
    ):
        layers = cells.setdefault(str(network), {})
        if str(layer) in layers:
            raise ValueError(
                f"network '{network}' has layer '{layer}' twice; choose one epoch and seed, "
                "e.g. rdms.subset('epoch', 9)"
            )
        layers[str(layer)] = k
    return cells


def _scaled(rdms: RDMs, scale: str) -> np.ndarray:
    """(n_rdms, n_stimuli, n_stimuli), each RDM 0…100 (percentile) or 0…1 (raw)."""
    from rsatoolbox.rdm import RDMs, rank_transform

    if scale == "raw":
        vectors = rdms.get_vectors()
        largest = np.nanmax(np.abs(vectors), axis=1, keepdims=True, initial=0)
    else:
        # Equal dissimilarities share a rank; the smallest becomes 0 and the largest 100.
        vectors = rank_transform(rdms).get_vectors()
        vectors = 100 * (vectors - np.nanmin(vectors, axis=1, keepdims=True, initial=np.inf))
        largest = np.nanmax(vectors, axis=1, keepdims=True, initial=0) / 100
    scaled = vectors / np.where(largest > 0, largest, 1)
    return np.asarray(RDMs(scaled).get_matrices())


def _classes(rdms: RDMs) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """The order of stimuli that sorts them by class, and each class's name and number of stimuli."""
    labels = np.asarray(rdms.pattern_descriptors.get("label", np.zeros(rdms.n_cond, dtype=int)))
    order = np.argsort(labels, kind="stable")
    if "label" not in rdms.pattern_descriptors:
        return order, []
    names = np.asarray(rdms.pattern_descriptors.get("category", labels))
    _, first, counts = np.unique(labels, return_index=True, return_counts=True)
    return order, [(_shortened(str(names[k])), int(count)) for k, count in zip(first, counts, strict=True)]


def _rdm(ax: Axes, image: np.ndarray, title: str) -> None:
    import matplotlib

    colours = matplotlib.colormaps["viridis"].with_extremes(bad="0.75")
    largest = 100 if np.nanmax(image, initial=0) > 1 else 1
    ax.imshow(image, cmap=colours, vmin=0, vmax=largest, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title:
        ax.set_title(title, pad=3)


def _name_classes(ax: Axes, classes: list[tuple[str, int]], left: bool, below: bool) -> None:
    """Class names in the middle of each class's stimuli; with many classes only every k-th."""
    if not classes:
        return
    ends = np.cumsum([count for _, count in classes])
    middles = ends - np.array([count for _, count in classes]) / 2 - 0.5
    step = -(-len(classes) // _MOST_NAMES)
    names = [name for name, _ in classes][::step]
    longest = max(len(name) for name in names)
    style: dict[str, Any] = {"fontsize": 5.5}
    if left:
        ax.set_yticks(middles[::step], names, **style)
    if below:
        ax.set_xticks(middles[::step], names, rotation=90 if longest > 1 else 0, **style)
    ax.tick_params(length=0, pad=1)


def _title(layer: str) -> str:
    return layer or "output"


def _shortened(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:8]}…{name[-5:]}"


def _wrapped(network: str) -> str:
    """A method's name in lines short enough for the height of its row."""
    from textwrap import fill

    return fill(network.replace("_", " "), 16)
