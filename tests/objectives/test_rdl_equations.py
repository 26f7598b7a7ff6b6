"""RDL against Eq. 2, 3 and 4 of McClure & Kriegeskorte (2016), written as plain loops."""

import pytest
import torch

from brainrdl.dissimilarity import DISSIMILARITIES
from brainrdl.objectives.rdl import RDLObjective
from brainrdl.randomness import Draw
from brainrdl.stimuli import Stimuli, Targets

N_STIMULI, N_UNITS = 9, 4


class KnownRDM:
    """A teacher that looks dissimilarities up by stimulus id."""

    names = ("it",)

    def __init__(self, rdm, ids, dissimilarity, weights=None):
        self.rdm, self.rows, self.dissimilarity, self.weights = (
            rdm,
            {s: k for k, s in enumerate(ids)},
            dissimilarity,
            weights,
        )

    def covers(self, ids):
        return {"it": torch.tensor([s in self.rows for s in ids])}

    def targets(self, stimuli, pairs):
        rows = torch.tensor([self.rows[s] for s in stimuli.ids])
        i, j = rows[pairs.i], rows[pairs.j]
        return {"it": Targets(self.rdm[i, j], None if self.weights is None else self.weights[i, j])}


def draw_problem(dissimilarity="sqeuclidean", missing=0.0, weighted=False, **settings):
    """A batch whose order is not the teacher's, its patterns, the teacher's RDM in the batch's order, the objective."""
    generator = torch.Generator().manual_seed(0)
    rdm = torch.rand(N_STIMULI, N_STIMULI, generator=generator, dtype=torch.float64) * 3
    rdm = rdm + rdm.T
    gone = torch.rand(N_STIMULI, N_STIMULI, generator=generator).triu(1)
    rdm[(gone + gone.T) > 1 - missing] = torch.nan
    weights = torch.ones_like(rdm)
    if weighted:
        weights = torch.randint(0, 2, rdm.shape, generator=generator).double().triu(1)
        weights = weights + weights.T
    ids = [f"image-{k}" for k in range(N_STIMULI)]
    teacher = KnownRDM(rdm, ids, dissimilarity, weights if weighted else None)
    order = torch.randperm(N_STIMULI, generator=generator)
    stimuli = Stimuli(torch.rand(N_STIMULI, 1, 2, 2, generator=generator), tuple(ids[k] for k in order))
    patterns = torch.randn(N_STIMULI, N_UNITS, generator=generator, dtype=torch.float64, requires_grad=True)
    known = torch.where(weights > 0, rdm, torch.nan)[order][:, order]
    return stimuli, patterns, known, RDLObjective(teacher, {"fc": "it"}, dissimilarity=dissimilarity, **settings)


def gradient_of(objective, patterns, stimuli, draw):
    (term,) = objective({"fc": patterns}, stimuli, draw).values()
    return term, torch.autograd.grad(term, patterns)[0]


def squared_distance(f_i, f_j):
    return sum((a - b) ** 2 for a, b in zip(f_i, f_j, strict=True))


def equation_4(f, target, pairs, unit=1.0):
    """8 / (|X_P| |P_xi|) Σ_{(i,j) in P_xi} (RDM_ij - T_ij) (f_k(x_i) - f_k(x_j)), RDM and its slope times `unit`."""
    measured = [(i, j) for i, j in pairs if target[i][j] == target[i][j]]
    images = {i for pair in measured for i in pair}
    gradient = [[0.0] * len(f[0]) for _ in f]
    for x in images:
        of_x = [(i, j) if i == x else (j, i) for i, j in measured if x in (i, j)]
        for k in range(len(f[0])):
            total = 0.0
            for i, j in of_x:
                rdm = unit * squared_distance(f[i], f[j])
                total += (rdm - target[i][j]) * unit * (f[i][k] - f[j][k])
            gradient[x][k] = 8 / (len(images) * len(of_x)) * total
    return torch.tensor(gradient, dtype=torch.float64)


def equation_3(f, target, unit=1.0):
    n = len(f)
    gradient = [
        [
            8 / (n * (n - 1))
            * sum(
                (unit * squared_distance(f[i], f[j]) - target[i][j]) * unit * (f[i][k] - f[j][k])
                for j in range(n)
                if j != i
            )
            for k in range(len(f[0]))
        ]
        for i in range(n)
    ]  # fmt: skip
    return torch.tensor(gradient, dtype=torch.float64)


def drawn(objective, draw):
    pairs = objective.draw_pairs(N_STIMULI, draw)
    return list(zip(pairs.i.tolist(), pairs.j.tolist(), strict=True))


@pytest.mark.parametrize("normalization", ["image", "pair"])
@pytest.mark.parametrize(("dissimilarity", "unit"), [("sqeuclidean", 1.0), ("euclidean", 1 / N_UNITS)])
def test_all_pairs_give_equation_2_and_3(dissimilarity, unit, normalization):
    stimuli, patterns, target, objective = draw_problem(dissimilarity, normalization=normalization)
    term, gradient = gradient_of(objective, patterns, stimuli, Draw(0))
    f, t = patterns.tolist(), target.tolist()
    error = sum((unit * squared_distance(f[i], f[j]) - t[i][j]) ** 2 for i in range(N_STIMULI) for j in range(i))
    assert term.item() == pytest.approx(2 / (N_STIMULI * (N_STIMULI - 1)) * error)
    torch.testing.assert_close(gradient, equation_3(f, t, unit))


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("sampling", [{}, {"pairs": 1}, {"pairs": 6}, {"pairs": 20}, {"images": 4}])
@pytest.mark.parametrize(("dissimilarity", "unit"), [("sqeuclidean", 1.0), ("euclidean", 1 / N_UNITS)])
def test_equation_4(dissimilarity, unit, sampling, missing):
    for step in range(5):
        stimuli, patterns, target, objective = draw_problem(dissimilarity, missing, **sampling)
        pairs = drawn(objective, Draw(0, step=step))
        term, gradient = gradient_of(objective, patterns, stimuli, Draw(0, step=step))
        expected = equation_4(patterns.tolist(), target.tolist(), pairs, unit)
        torch.testing.assert_close(gradient, expected)
        errors = [
            (unit * squared_distance(patterns[i].tolist(), patterns[j].tolist()) - target[i, j].item()) ** 2
            for i, j in pairs
            if not target[i, j].isnan()
        ]
        assert term.item() == pytest.approx(sum(errors) / max(1, len(errors)))


def test_weight_zero_counts_as_not_measured():
    stimuli, patterns, target, objective = draw_problem(missing=0.2, weighted=True, pairs=25)
    pairs = drawn(objective, Draw(0))
    assert sum(bool(target[i, j].isnan()) for i, j in pairs) > 8
    _, gradient = gradient_of(objective, patterns, stimuli, Draw(0))
    torch.testing.assert_close(gradient, equation_4(patterns.tolist(), target.tolist(), pairs))


def test_images_in_no_measured_pair_have_no_gradient():
    stimuli, patterns, target, objective = draw_problem(missing=0.3, pairs=4)
    measured = [pair for pair in drawn(objective, Draw(1)) if not target[pair].isnan()]
    _, gradient = gradient_of(objective, patterns, stimuli, Draw(1))
    inside = sorted({i for pair in measured for i in pair})
    outside = sorted(set(range(N_STIMULI)) - set(inside))
    assert inside
    assert outside
    assert (gradient[outside] == 0).all()
    assert (gradient[inside].abs().sum(1) > 0).all()


def test_nothing_measured_is_no_error_and_no_gradient():
    stimuli, patterns, _, objective = draw_problem(missing=1.1)
    term, gradient = gradient_of(objective, patterns, stimuli, Draw(0))
    assert term == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("dissimilarity", DISSIMILARITIES)
def test_equation_4_weighs_the_rows_of_the_pair_means_gradient(dissimilarity, missing):
    precision = None
    if dissimilarity == "mahalanobis":
        root = torch.randn(N_UNITS, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        precision = {"fc": root @ root.T}
    settings = {"pairs": 12, "precision": precision}
    stimuli, patterns, target, by_image = draw_problem(dissimilarity, missing, **settings)
    *_, by_pair = draw_problem(dissimilarity, missing, normalization="pair", **settings)
    measured = [pair for pair in drawn(by_image, Draw(2)) if not target[pair].isnan()]
    images = {i for pair in measured for i in pair}
    scale = torch.zeros(N_STIMULI, 1, dtype=torch.float64)
    for x in images:
        scale[x] = 2 * len(measured) / (len(images) * sum(x in pair for pair in measured))
    value, gradient = gradient_of(by_image, patterns, stimuli, Draw(2))
    expected_value, expected = gradient_of(by_pair, patterns, stimuli, Draw(2))
    torch.testing.assert_close(value, expected_value)
    torch.testing.assert_close(gradient, scale * expected)
    assert not torch.allclose(gradient, expected)


def test_equation_4_points_where_equation_3_does_on_average():
    stimuli, patterns, target, objective = draw_problem(pairs=12)
    total = sum(gradient_of(objective, patterns, stimuli, Draw(0, step=step))[1] for step in range(300)) / 300
    full = equation_3(patterns.tolist(), target.tolist())
    assert torch.nn.functional.cosine_similarity(total.flatten(), full.flatten(), dim=0) > 0.98
