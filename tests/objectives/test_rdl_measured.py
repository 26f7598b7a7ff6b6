"""RDL with measured dissimilarities as teacher: which discrepancy, which pairs take part, and how many there are."""

import warnings

import pytest
import torch

from brainrdl.objectives.rdl import RDLObjective, RDLSettings
from brainrdl.randomness import Draw
from brainrdl.stimuli import Targets


class Table:
    """Dissimilarities looked up by id, per name; negative ones too."""

    def __init__(self, covered, dissimilarity="correlation", unbiased=False):
        self.rows = {name: {s: k for k, s in enumerate(ids)} for name, ids in covered.items()}
        self.names, self.dissimilarity, self.unbiased = tuple(covered), dissimilarity, unbiased
        generator = torch.Generator().manual_seed(3)
        self.rdms = {name: torch.rand(len(ids), len(ids), generator=generator) - 0.2 for name, ids in covered.items()}
        self.weights = {}

    def covers(self, ids):
        return {name: torch.tensor([s in rows for s in ids], dtype=torch.bool) for name, rows in self.rows.items()}

    def targets(self, stimuli, pairs):
        result = {}
        for name, rdm in self.rdms.items():
            rows = torch.tensor([self.rows[name].get(s, -1) for s in stimuli.ids])
            i, j = rows[pairs.i], rows[pairs.j]
            values = rdm[torch.minimum(i, j), torch.maximum(i, j)]
            weights = self.weights.get(name)
            weights = None if weights is None else weights[torch.minimum(i, j), torch.maximum(i, j)]
            result[name] = Targets(values.masked_fill((i < 0) | (j < 0), torch.nan), weights)
        return result


@pytest.fixture
def table(stimuli):
    return Table({"it": stimuli.ids})


@pytest.fixture
def patterns():
    return {"fc": torch.randn(20, 6, generator=torch.Generator().manual_seed(4), requires_grad=True)}


# -- which discrepancy -------------------------------------------------------------------------------------------------


def test_a_networks_units_are_compared(teacher):
    objective = RDLObjective(teacher, {"high": "high"})
    assert (objective.discrepancy, objective.normalization) == ("mse", "image")


@pytest.mark.parametrize(("unbiased", "discrepancy"), [(True, "cosine"), (False, "correlation")])
def test_of_measured_dissimilarities_zero_counts_where_it_means_something(stimuli, unbiased, discrepancy):
    source = Table({"it": stimuli.ids}, "crossnobis" if unbiased else "mahalanobis", unbiased)
    objective = RDLObjective(source, {"fc": "it"})
    assert (objective.discrepancy, objective.normalization) == (discrepancy, "pair")
    assert RDLObjective(source, {"fc": "it"}, discrepancy="corr_cov").discrepancy == "corr_cov"
    with pytest.raises(ValueError, match=f"is defined for 'mse' alone; leave it out with '{discrepancy}'"):
        RDLObjective(source, {"fc": "it"}, normalization="image")


def test_mse_needs_the_same_measure(stimuli):
    for unbiased in (True, False):
        source = Table({"it": stimuli.ids}, "crossnobis", unbiased)
        with pytest.raises(ValueError, match="the student's are 'euclidean', the teacher's 'crossnobis'; use the same"):
            RDLObjective(source, {"fc": "it"}, discrepancy="mse")
    same = RDLObjective(Table({"it": stimuli.ids}), {"fc": "it"}, dissimilarity="correlation", discrepancy="mse")
    assert same.normalization == "image"


def test_a_fitted_scale_warns_of_an_offset(stimuli, teacher):
    biased, unbiased = (Table({"it": stimuli.ids}, "crossnobis" if u else "euclidean", u) for u in (False, True))
    with pytest.warns(
        UserWarning, match=r"'scaled_mse' fits a scale to .* 'euclidean', .* offset .*; 'correlation'"
    ) as w:
        RDLObjective(biased, {"fc": "it"}, discrepancy="scaled_mse")
    assert len(w) == 1
    assert w[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RDLObjective(unbiased, {"fc": "it"}, discrepancy="scaled_mse")
        RDLObjective(teacher, {"high": "high"}, dissimilarity="cosine", discrepancy="scaled_mse")
        RDLObjective(biased, {"fc": "it"})


def test_settings():
    layers = {"high": "high"}
    assert RDLSettings(layers=layers).discrepancy == "mse"
    by_teacher = RDLSettings(layers=layers, discrepancy=None, normalization="image")
    assert RDLSettings.model_validate(by_teacher.model_dump(mode="json")) == by_teacher
    with pytest.raises(ValueError, match="is defined for 'mse' alone"):
        RDLSettings(layers=layers, discrepancy="scaled_mse", normalization="image")


# -- negative, missing and weighted -----------------------------------------------------------------------------------


def test_negative_dissimilarities_pass_as_they_are(stimuli, patterns):
    source = Table({"it": stimuli.ids}, "crossnobis", unbiased=True)
    source.rdms["it"] -= 0.3
    assert (source.rdms["it"] < 0).any()
    (term,) = RDLObjective(source, {"fc": "it"})(patterns, stimuli).values()
    i, j = torch.triu_indices(20, 20, 1)
    mine, theirs = (patterns["fc"][i] - patterns["fc"][j]).square().mean(1), source.rdms["it"][i, j]
    torch.testing.assert_close(term, 1 - torch.nn.functional.cosine_similarity(mine, theirs, dim=0))


@pytest.mark.parametrize("discrepancy", ["correlation", "cosine", "corr_cov", "cosine_cov", "scaled_mse", "mse"])
def test_what_is_stored_for_a_missing_pair_does_not_matter(stimuli, patterns, discrepancy):
    """NaN, or anything with weight 0: bit by bit the same term and gradient."""
    results = []
    for stored in (torch.nan, 0.0, -5.0, torch.inf):
        source = Table({"it": stimuli.ids})
        weights = (torch.rand(20, 20, generator=torch.Generator().manual_seed(8)) < 0.6).float()
        source.rdms["it"] = source.rdms["it"].masked_fill(weights == 0, stored)
        source.weights["it"] = weights
        settings = {"pairs": 60, "dissimilarity": "correlation", "discrepancy": discrepancy}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            objective = RDLObjective(source, {"fc": "it"}, **settings)
        (term,) = objective(patterns, stimuli, Draw(0)).values()
        results.append((term, *torch.autograd.grad(term, patterns["fc"]), objective.n_measured["rdl/fc"]))
    assert 3 < results[0][2] < 60
    assert results[0][1].any()
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], result, strict=True))


# -- how many pairs ---------------------------------------------------------------------------------------------------


def test_measured_pairs_are_counted_beside_the_terms(stimuli, patterns):
    source = Table({"it": stimuli.ids[:7], "v1": stimuli.ids[5:]})
    objective = RDLObjective(source, {"fc": {"it": 1.0, "v1": 2.0}})
    terms = objective(patterns, stimuli)
    assert set(terms) == set(objective.n_measured) == {"rdl/fc/it", "rdl/fc/v1"}
    assert {name: int(n) for name, n in objective.n_measured.items()} == {"rdl/fc/it": 21, "rdl/fc/v1": 105}
    sum(terms.values()).backward()
    assert patterns["fc"].grad.any()


def test_a_dead_layer_of_the_student_is_no_lack_of_measurements(table, stimuli):
    objective = RDLObjective(table, {"fc": "it"}, dissimilarity="correlation", pairs=50)
    (term,) = objective({"fc": torch.zeros(20, 6)}, stimuli).values()
    assert term == 1
    assert objective.n_measured["rdl/fc"] == 50


def test_of_a_network_nothing_is_counted(student, teacher, stimuli, patterns_of):
    objective = RDLObjective(teacher, {"high": "high"})
    objective(patterns_of(student, ["high"], stimuli), stimuli)
    assert objective.n_measured == {}


def test_a_batch_without_measured_pairs_pulls_nothing(stimuli, patterns):
    source = Table({"it": ["elsewhere", "and there", "too"]})
    for discrepancy in (None, "cosine", "corr_cov"):
        objective = RDLObjective(source, {"fc": "it"}, discrepancy=discrepancy)
        (term,) = objective(patterns, stimuli).values()
        (gradient,) = torch.autograd.grad(term, patterns["fc"])
        assert objective.n_measured["rdl/fc"] == 0
        assert not gradient.any()


def test_small_batches_keep_three_pairs_of_a_measured_teacher(table, teacher, stimuli, patterns):
    sizes = (20, 6, 4, 3)
    for settings, of_table, of_network in (
        ({"pairs": 19}, [19, 3, 3, 3], [19, 2, 1, 1]),
        ({"images": 6}, [15, 3, 3, 3], [15, 1, 1, 1]),
    ):
        for source, expected in ((table, of_table), (teacher, of_network)):
            name = source.names[0]
            objective = RDLObjective(source, {"fc": name}, **settings)
            objective.prepare(patterns, stimuli)
            assert [len(objective.draw_pairs(n, Draw(0)).i) for n in sizes] == expected


@pytest.mark.parametrize("settings", [{"pairs": 2}, {"images": 2}])
def test_less_than_three_pairs_are_refused(table, teacher, settings):
    message = r"a measured teacher needs at least 3 pairs in a batch: expected pairs >= 3 or images >= 3, got pairs="
    with pytest.raises(ValueError, match=message):
        RDLObjective(table, {"fc": "it"}, **settings)
    RDLObjective(teacher, {"high": "high"}, **settings)


# -- the stimulus stream -----------------------------------------------------------------------------------------------


def test_a_name_that_does_not_cover_a_stimulus_batch_takes_no_part(stimuli, patterns):
    """Two subjects who share some stimuli: a batch of one says nothing of the other, but for what both know."""
    source = Table({"sub-1": stimuli.ids[:12], "sub-2": stimuli.ids[8:], "both": stimuli.ids})
    objectives = {
        stream: RDLObjective(source, {"fc": dict.fromkeys(source.names, 1.0)}, stream=stream)
        for stream in ("task", "stimuli")
    }
    rows = torch.arange(12)
    terms = {s: o({"fc": patterns["fc"][rows]}, stimuli.subset(rows)) for s, o in objectives.items()}
    counts = {s: [int(n) for n in o.n_measured.values()] for s, o in objectives.items()}
    assert counts == {"task": [66, 6, 66], "stimuli": [66, 0, 66]}
    for name in ("rdl/fc/sub-1", "rdl/fc/both"):
        assert torch.equal(terms["task"][name], terms["stimuli"][name])
    (gradient,) = torch.autograd.grad(terms["stimuli"]["rdl/fc/sub-2"], patterns["fc"])
    assert not gradient.any()
    assert set(objectives["stimuli"].covers(stimuli.ids)) == set(source.names)


def test_only_the_names_that_are_used_are_asked_for_coverage(stimuli):
    source = Table({"sub-1": stimuli.ids[:12], "sub-2": stimuli.ids[8:]})
    objective = RDLObjective(source, {"fc": "sub-2", "conv": {"sub-2": 0.5}}, stream="stimuli")
    assert list(objective.covers(stimuli.ids)) == ["sub-2"]
