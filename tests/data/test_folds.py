"""Laws of the stratified order, with scikit-learn's stratified split beside it, and of folds."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedShuffleSplit

from brainrdl.data.folds import check_disjoint, inner_folds, stimulus_folds, stratified_order, subject_folds


def drawn(seed):
    """Labels of a random number of classes of random sizes, mixed."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 60, size=generator.integers(1, 12))
    return torch.from_numpy(generator.permutation(np.repeat(np.arange(len(sizes)), sizes)))


def order_of(labels, seed=0):
    return stratified_order(labels, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(30))
def test_every_row_comes_once_and_every_stretch_holds_the_classes_in_proportion(seed):
    labels = drawn(seed)
    order = order_of(labels, seed)
    assert torch.equal(order.sort().values, torch.arange(len(labels)))
    share = torch.bincount(labels) / len(labels)
    generator = np.random.default_rng(seed)
    for _ in range(20):
        start, stop = sorted(generator.integers(0, len(labels) + 1, size=2))
        counts = torch.bincount(labels[order[start:stop]], minlength=len(share))
        assert ((counts - (stop - start) * share).abs() <= 1 + len(share) * share).all()


def test_classes_of_equal_size_differ_by_at_most_1_and_stretches_of_all_classes_have_each():
    labels = torch.arange(7).repeat(20)
    order = order_of(labels)
    for start in range(0, 130, 3):
        assert sorted(labels[order[start : start + 7]].tolist()) == list(range(7))
        counts = torch.bincount(labels[order[start : start + 10]], minlength=7)
        assert counts.max() - counts.min() == 1


@pytest.mark.parametrize("size", [50, 200, 777])
def test_class_counts_are_those_of_scikit_learn_to_within_1(size):
    labels = torch.from_numpy(np.random.default_rng(0).choice(10, size=1000, p=np.linspace(0.05, 0.15, 10)))
    splitter = StratifiedShuffleSplit(1, train_size=size, random_state=0)
    expected = torch.bincount(labels[next(splitter.split(labels, labels))[0]], minlength=10)
    assert (torch.bincount(labels[order_of(labels)[:size]], minlength=10) - expected).abs().max() <= 1


def test_the_order_is_the_generators_and_no_class_keeps_its_own():
    labels = drawn(3)
    assert torch.equal(order_of(labels, 5), order_of(labels, 5))
    assert not torch.equal(order_of(labels, 5), order_of(labels, 6))
    order = order_of(torch.zeros(100, dtype=torch.int64))
    assert not torch.equal(order, torch.arange(100))


def test_every_image_is_equally_likely_to_be_chosen():
    labels = torch.tensor([0] * 3 + [1] * 9)
    chosen = torch.stack([torch.isin(torch.arange(12), order_of(labels, seed)[:4]) for seed in range(2000)])
    # 4 of 12; a binomial share over 2000 draws has a standard deviation of 0.0105.
    torch.testing.assert_close(chosen.double().mean(0), torch.full((12,), 1 / 3).double(), atol=0.05, rtol=0)


# folds of stimuli and subjects


def names_and_categories(seed, n=60):
    generator = np.random.default_rng(seed)
    names = [f"s{k:03d}" for k in generator.permutation(n)]
    return names, dict(zip(names, generator.choice(list("abc"), size=n, p=[0.5, 0.3, 0.2]).tolist(), strict=True))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_folds", [2, 5, 7])
def test_every_stimulus_is_held_out_once_and_never_trained_on_in_that_fold(seed, n_folds):
    names, categories = names_and_categories(seed)
    for folds in (stimulus_folds(names, n_folds, seed), stimulus_folds(names, n_folds, seed, stratify=categories)):
        assert len(folds) == n_folds
        assert sorted(name for fold in folds for name in fold.held_out) == sorted(names)
        for fold in folds:
            assert sorted(fold.trained + fold.held_out) == sorted(names)
            check_disjoint(fold.trained, fold.held_out)
            assert len(fold.held_out) - len(names) // n_folds in (0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_categories_are_held_out_in_proportion(seed):
    names, categories = names_and_categories(seed)
    for category in "abc":
        counts = [
            sum(categories[name] == category for name in fold.held_out)
            for fold in stimulus_folds(names, 5, seed, stratify=categories)
        ]
        assert max(counts) - min(counts) <= 1


def test_a_category_with_fewer_stimuli_than_folds_is_split_without_a_warning(recwarn):
    names, categories = names_and_categories(0)
    categories |= dict.fromkeys(names[:2], "rare")
    folds = stimulus_folds(names, 5, 0, stratify=categories)
    assert sorted(sum(categories[n] == "rare" for n in fold.held_out) for fold in folds) == [0, 0, 0, 1, 1]
    assert not recwarn.list


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("with_categories", [False, True])
def test_a_group_is_never_divided_and_no_fold_is_empty(seed, with_categories):
    names, categories = names_and_categories(seed)
    generator = np.random.default_rng(seed)
    n_groups = int(generator.integers(5, 30))
    groups = {name: int(generator.integers(n_groups)) for name in names}
    n_folds = min(5, len(set(groups.values())))
    folds = stimulus_folds(names, n_folds, seed, groups, categories if with_categories else None)
    for fold in folds:
        assert {groups[n] for n in fold.trained}.isdisjoint(groups[n] for n in fold.held_out)
        assert fold.held_out
    assert sorted(name for fold in folds for name in fold.held_out) == sorted(names)


def test_groups_of_one_category_are_held_out_in_proportion():
    names = [f"{category}{group}{image}" for category in "xy" for group in range(10) for image in range(3)]
    folds = stimulus_folds(names, 5, 0, groups={n: n[:2] for n in names}, stratify={n: n[0] for n in names})
    assert [sum(n[0] == "x" for n in fold.held_out) for fold in folds] == [6] * 5
    assert [len(fold.held_out) for fold in folds] == [12] * 5


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_are_the_seeds_and_not_the_orders(grouped):
    names, categories = names_and_categories(0)
    groups = {name: name[:3] for name in names} if grouped else None
    folds = stimulus_folds(names, 5, 1, groups, categories)
    assert stimulus_folds(names[::-1], 5, 1, groups, categories) == folds
    assert stimulus_folds(sorted(names), 5, 1, groups, dict(reversed(categories.items()))) == folds
    others = {stimulus_folds(names, 5, seed, groups) for seed in range(10)}
    assert len(others) == 10


def test_two_stimuli_meet_in_a_fold_as_often_as_chance_has_it():
    names = [f"s{k}" for k in range(10)]
    meet = np.mean(
        [any({"s0", "s1"} <= set(fold.held_out) for fold in stimulus_folds(names, 5, seed)) for seed in range(1000)]
    )
    assert abs(meet - 1 / 9) < 0.04  # 4 standard errors


def test_inner_folds_never_see_what_the_outer_fold_holds_out():
    names, categories = names_and_categories(0)
    for outer in stimulus_folds(names, 5, 0, stratify=categories):
        inner = inner_folds(outer, 4, 0, stratify=categories)
        for fold in inner:
            assert set(fold.trained + fold.held_out) == set(outer.trained)
        assert sorted(name for fold in inner for name in fold.held_out) == sorted(outer.trained)


def test_subjects_are_split_like_stimuli():
    subjects = [f"sub-{k:02d}" for k in range(15)]
    folds = subject_folds(subjects, 2, 0)
    assert sorted(len(fold.held_out) for fold in folds) == [7, 8]
    assert sorted(folds[0].held_out + folds[1].held_out) == subjects
    assert folds[0].trained == folds[1].held_out


def test_overlap_is_refused_by_the_first_id_scored():
    check_disjoint(["a", "b"], ["c"])
    check_disjoint([], ["c"], "subject")
    with pytest.raises(ValueError, match=r"stimulus 'd' is both trained on and scored \(2 such in all\)"):
        check_disjoint(["a", "b", "d"], ["c", "d", "b"])
    with pytest.raises(ValueError, match="subject 'a' is both trained on and scored"):
        check_disjoint(iter(["a"]), iter(["a"]), "subject")


def test_folds_that_cannot_be_are_refused():
    names = ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="5 folds need at least 5 stimulus ids, got 4; ask for fewer folds"):
        stimulus_folds(names, 5, 0)
    with pytest.raises(ValueError, match="3 folds need at least 3 subject ids, got 2"):
        subject_folds(["x", "y"], 3, 0)
    with pytest.raises(ValueError, match="3 folds need at least 3 stimulus groups, got 2"):
        stimulus_folds(names, 3, 0, groups={"a": 0, "b": 0, "c": 1, "d": 1})
    with pytest.raises(ValueError, match="expected at least 2 folds, got 1"):
        stimulus_folds(names, 1, 0)
    with pytest.raises(ValueError, match="stimulus 'b' occurs twice"):
        stimulus_folds([*names, "b"], 2, 0)
    with pytest.raises(ValueError, match=r"stimulus 'c' has no group \(2 such in all\)"):
        stimulus_folds(names, 2, 0, groups={"a": 0, "b": 0})
    with pytest.raises(ValueError, match="stimulus 'd' has no category"):
        stimulus_folds(names, 2, 0, stratify={"a": 0, "b": 0, "c": 0})
    with pytest.raises(ValueError, match=r"every category has fewer than 3 stimuli \(the largest 2\)"):
        stimulus_folds(names, 3, 0, stratify={"a": 0, "b": 0, "c": 1, "d": 1})
