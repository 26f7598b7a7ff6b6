"""Other people's ways to compute the dissimilarities of a batch, each forward and backward, for comparison.

Theirs are read from checkouts of the public repositories, whose paths the caller gives; nothing of them is part of
this project. The ways that need no checkout are what one writes by hand.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brainrdl.pairs import Pairs


class Problem:
    """Patterns of a student, targets at the pairs, and a teacher's patterns for those who compute their own targets."""

    def __init__(self, n_stimuli: int, n_units: int, pairs: Pairs, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.patterns = torch.randn(n_stimuli, n_units, generator=generator).to(device).requires_grad_()
        self.teacher = torch.randn(n_stimuli, n_units, generator=generator).to(device)
        self.pairs = pairs.to(device)
        self.target = (torch.rand(len(pairs.i), generator=generator) * 2).to(device)
        self.n_stimuli, self.n_units, self.n_pairs = n_stimuli, n_units, len(pairs.i)

    def learn(self, values: Tensor) -> None:
        """Mean squared error to the targets, and its gradient."""
        self.descend((values - self.target).square().mean())

    def descend(self, loss: Tensor) -> None:
        """The gradient of a loss."""
        self.patterns.grad = None
        loss.backward()


class Peer:
    """run: the whole term. of_pairs: it works in proportion to pairs × units, else to stimuli² × units."""

    def __init__(self, run: Callable[[Problem], Any], of_pairs: bool = False) -> None:
        self.run, self.of_pairs = run, of_pairs


def by_hand(dissimilarity: str, root: Tensor | None = None) -> dict[str, Peer]:
    """`gather`: two rows a pair, and autograd. `cdist`: every distance at once, and autograd."""

    def rows(problem: Problem) -> tuple[Tensor, Tensor]:
        patterns = problem.patterns
        if dissimilarity == "correlation":
            patterns = patterns - patterns.mean(1, keepdim=True)
        if root is not None:
            patterns = patterns @ root
        return patterns[problem.pairs.i], patterns[problem.pairs.j]

    def gather(problem: Problem) -> None:
        i, j = rows(problem)
        if dissimilarity in ("cosine", "correlation"):
            problem.learn(1 - functional.cosine_similarity(i, j))
        else:
            squares = (i - j).square()
            problem.learn(squares.sum(1) if dissimilarity == "sqeuclidean" else squares.mean(1))

    def cdist(problem: Problem) -> None:
        distances = torch.cdist(problem.patterns, problem.patterns)[problem.pairs.i, problem.pairs.j]
        problem.learn(distances.square() / problem.n_units)

    return {"gather": Peer(gather, of_pairs=True), **({"cdist": Peer(cdist)} if dissimilarity == "euclidean" else {})}


def rsatoolbox(dissimilarity: str) -> dict[str, Peer]:
    """`calc_rdm`: every pair, float64, without a gradient."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm

    def run(problem: Problem) -> None:
        noise = np.eye(problem.n_units) if dissimilarity == "mahalanobis" else None
        calc_rdm(Dataset(problem.patterns.detach().cpu().numpy()), method=dissimilarity, noise=noise)

    return {"rsatoolbox, no gradient": Peer(run)}


def repdistiller(checkout: Path) -> dict[str, Peer]:
    """RepDistiller's distance part of RKD, and SP; both compute the teacher's relations in each call."""
    rkd = _load(checkout / "distiller_zoo" / "RKD.py").RKDLoss
    similarity = _load(checkout / "distiller_zoo" / "SP.py").Similarity()

    def distance(problem: Problem) -> None:
        with torch.no_grad():
            of_teacher = rkd.pdist(problem.teacher)
            of_teacher = of_teacher / of_teacher[of_teacher > 0].mean()
        own = rkd.pdist(problem.patterns)
        problem.descend(functional.smooth_l1_loss(own / own[own > 0].mean(), of_teacher))

    def preserving(problem: Problem) -> None:
        problem.descend(similarity.similarity_loss(problem.patterns, problem.teacher).sum())

    return {"RKD distance": Peer(distance), "SP": Peer(preserving)}


def orbit_transfer(checkout: Path, dissimilarity: str) -> dict[str, Peer]:
    """orbit_transfer's RDMs of student and teacher, compared by mean squared error.

    Its own comparison takes the upper triangle after laying the RDM out flat, which torch refuses; the whole is taken.
    """
    folder = checkout / "orbit_transfer" / "trainer" / "main_loop_modules"
    rdm = _load(folder / "rdl.py").RDL.compute_rdm
    measure = {"euclidean": "mse", "correlation": "corr"}[dissimilarity]

    def run(problem: Problem) -> None:
        problem.descend(functional.mse_loss(rdm(problem.patterns, measure), rdm(problem.teacher, measure)))

    return {"orbit_transfer": Peer(run)}


def metric_learning(folder: Path, dissimilarity: str) -> dict[str, Peer]:
    """pytorch-metric-learning's matrix of distances, of which the pairs are taken."""
    sys.path.insert(0, str(folder))
    from pytorch_metric_learning.distances import CosineSimilarity, LpDistance

    euclidean = dissimilarity == "euclidean"
    distance = LpDistance(normalize_embeddings=False, power=2) if euclidean else CosineSimilarity()

    def run(problem: Problem) -> None:
        values = distance(problem.patterns)[problem.pairs.i, problem.pairs.j]
        problem.learn(values / problem.n_units if euclidean else 1 - values)

    return {"pytorch-metric-learning": Peer(run)}


class _Nothing(ModuleType):
    """Stands for a module that the file at hand imports and what we call does not need."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return type(name, (), {})


def _load(file: Path) -> Any:
    """A module from its file; what it imports and is not installed is empty."""
    if not file.is_file():
        raise SystemExit(f"{file} does not exist; give the path of a checkout")
    before = set(sys.modules)
    missing: list[str] = []
    package = f"peer_{file.stem}"
    while True:
        spec = importlib.util.spec_from_file_location(f"{package}.{file.stem}", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(package, _Nothing(package))
        try:
            spec.loader.exec_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or error.name in missing:
                raise
            missing.append(error.name)
            parts = error.name.split(".")
            for k in range(1, len(parts) + 1):
                name = ".".join(parts[:k])
                sys.modules.setdefault(name, _Nothing(name))
            continue
        for name in set(sys.modules) - before:
            if isinstance(sys.modules[name], _Nothing):
                del sys.modules[name]
        return module
