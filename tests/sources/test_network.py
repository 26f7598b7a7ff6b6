"""A network as teacher: right values, a network left as it was, and no image looked at for nothing."""

import copy

import numpy as np
import pytest
import torch
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import calc_rdm
from torch import nn

from brainrdl.models import Preprocessing
from brainrdl.pairs import Pairs, all_pairs, sample_images
from brainrdl.sources import NetworkTeacher
from brainrdl.stimuli import Stimuli


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True))
        self.fc = nn.Linear(3 * 4 * 4, 5)
        self.dropout = nn.Dropout(0.5)
        self.readout = nn.Linear(5, 4)

    def forward(self, images):
        return self.readout(self.dropout(self.fc(self.conv(images).flatten(1))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def stimuli():
    generator = torch.Generator().manual_seed(1)
    return Stimuli(torch.rand(9, 1, 6, 6, generator=generator), tuple(f"image-{k}" for k in range(9)))


@pytest.fixture
def seen(net):
    """How many images the network was shown, forward by forward."""
    counts = []
    net.register_forward_pre_hook(lambda module, inputs: counts.append(len(inputs[0])))
    return counts


def values(teacher, stimuli, pairs=None):
    targets = teacher.targets(stimuli, all_pairs(len(stimuli.ids)) if pairs is None else pairs)
    return {name: target.values for name, target in targets.items()}


# -- what it answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dissimilarity", ["euclidean", "sqeuclidean", "correlation", "cosine"])
@pytest.mark.parametrize("cache", [None, "memory"])
def test_contract(check_contract, net, stimuli, dissimilarity, cache):
    check_contract(NetworkTeacher(net, ["conv", "fc", ""], dissimilarity, cache=cache), stimuli)


@pytest.mark.parametrize("dissimilarity", ["euclidean", "correlation"])
def test_values_are_rsatoolboxs(net, stimuli, dissimilarity):
    teacher = NetworkTeacher(net.double(), ["conv", "fc"], dissimilarity)
    patterns = teacher.patterns(stimuli)
    for name, found in values(teacher, stimuli).items():
        expected = calc_rdm(Dataset(patterns[name].flatten(1).numpy()), method=dissimilarity)
        np.testing.assert_allclose(found, expected.dissimilarities[0], rtol=1e-6)


def test_of_a_batch_that_nobody_shares_the_whole_answers(net, stimuli):
    teacher, pairs = NetworkTeacher(net, ["conv", "fc"]), all_pairs(9)
    (answer,) = teacher.targets_across_ranks(stimuli, pairs, ["fc"]).items()
    assert answer[0] == "fc" and torch.equal(answer[1].values, teacher.targets(stimuli, pairs)["fc"].values)


def test_patterns_are_those_of_eval_mode(net, stimuli):
    teacher = NetworkTeacher(net.train(), ["fc"])
    found = teacher.patterns(stimuli)
    copied = copy.deepcopy(net).eval()
    torch.testing.assert_close(found[""], copied(stimuli.images).detach())
    torch.testing.assert_close(found["fc"], copied.fc(copied.conv(stimuli.images).flatten(1)).detach())
    assert found["fc"].shape == (9, 5)


def test_mahalanobis_takes_a_precision_for_each_layer(net, stimuli):
    root = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    precision = root @ root.T
    teacher = NetworkTeacher(net, ["fc"], "mahalanobis", precision={"fc": precision})
    fc = teacher.patterns(stimuli)["fc"]
    difference = fc[0] - fc[1]
    assert values(teacher, stimuli)["fc"][0] == pytest.approx(float(difference @ precision @ difference) / 5, rel=1e-4)
    with pytest.raises(ValueError, match="no precision for teacher layer 'conv'"):
        NetworkTeacher(net, ["fc", "conv"], "mahalanobis", precision={"fc": precision})


def test_constant_pattern_has_no_correlation(net, stimuli):
    with torch.no_grad():
        net.fc.weight.zero_()
        net.fc.bias.fill_(0.3)
    found = values(NetworkTeacher(net, ["fc", "conv"], "correlation"), stimuli)
    assert found["fc"].isnan().all()
    assert not found["conv"].isnan().any()


@pytest.mark.parametrize("dissimilarity", ["euclidean", "correlation"])
def test_patterns_that_are_not_finite_do_not_pass_for_not_measured(net, stimuli, dissimilarity):
    with torch.no_grad():
        net.fc.bias[2] = 3e38
        net.fc.weight.mul_(1e38)
    assert (values(NetworkTeacher(net, ["fc"], dissimilarity), stimuli)["fc"] == torch.inf).all()


def test_preprocessing_belongs_to_the_teacher(net, stimuli):
    raw = Stimuli(torch.rand(9, 3, 11, 7, generator=torch.Generator().manual_seed(3)), stimuli.ids)
    preprocess = Preprocessing(size=(6, 6), channels=1)
    found = values(NetworkTeacher(net, ["fc"], preprocess=preprocess), raw)
    expected = values(NetworkTeacher(net, ["fc"]), Stimuli(preprocess(raw.images), raw.ids))
    torch.testing.assert_close(found, expected)


def test_half_precision_is_near_and_answers_in_float32(net, stimuli):
    half = values(NetworkTeacher(net, ["fc"], dtype=torch.bfloat16), stimuli)["fc"]
    full = values(NetworkTeacher(net, ["fc"]), stimuli)["fc"]
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert torch.corrcoef(torch.stack([half, full]))[0, 1] > 0.999
    assert net.fc.weight.dtype == torch.float32


def test_a_teacher_of_another_type_than_the_images(net, stimuli):
    full = values(NetworkTeacher(net, ["fc"]), stimuli)["fc"]
    double = values(NetworkTeacher(net.double(), ["fc"]), stimuli)["fc"]
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), full)


@pytest.mark.parametrize("rows", [[3, 0, 8], list(range(8, -1, -1)), [2, 2, 0], [4] * 9])
@pytest.mark.parametrize("asked_before", [[], [0, 1, 2], list(range(9))])
def test_patterns_of_rows_are_in_their_order(net, stimuli, rows, asked_before):
    teacher = NetworkTeacher(net, ["fc"])
    expected = NetworkTeacher(net, ["fc"]).patterns(stimuli)["fc"][rows]
    if asked_before:
        teacher.patterns(stimuli, torch.tensor(asked_before))
    torch.testing.assert_close(teacher.patterns(stimuli, torch.tensor(rows))["fc"], expected)


# -- the network is left as it was ---------------------------------------------------------------------------


def everything(net):
    """All that a teacher must not change."""
    state = {name: value.clone() for name, value in net.state_dict().items()}
    modes = {name: module.training for name, module in net.named_modules()}
    return state, modes, [p.requires_grad for p in net.parameters()], [len(m._forward_hooks) for m in net.modules()]


def assert_same(before, after):
    for name, value in before[0].items():
        assert torch.equal(value, after[0][name]), name
    assert before[1:] == after[1:]


@pytest.mark.parametrize("cache", [None, "memory"])
def test_the_network_never_changes(net, stimuli, cache):
    net.train()
    net.conv[1].eval()
    net.readout.weight.requires_grad_(False)
    before = everything(net)
    teacher = NetworkTeacher(net, ["conv", "fc"], cache=cache)
    for _ in range(3):
        values(teacher, stimuli)
        teacher.patterns(stimuli)
    assert_same(before, everything(net))
    assert all(p.grad is None for p in net.parameters())


def test_the_network_is_put_back_when_it_fails(net, stimuli):
    net.train()
    net.conv[1].eval()
    before = everything(net)
    teacher = NetworkTeacher(net, ["fc"])
    with pytest.raises(RuntimeError, match="shape"):
        teacher.targets(stimuli._replace(images=stimuli.images[:, :, :4]), all_pairs(9))
    assert_same(before, everything(net))
    assert len(values(teacher, stimuli)["fc"]) == 36


# -- what it looks at ----------------------------------------------------------------------------------------


def test_only_images_in_the_pairs_are_seen(net, stimuli, seen):
    teacher = NetworkTeacher(net, ["fc"])
    found = values(teacher, stimuli, Pairs(torch.tensor([1, 1, 4]), torch.tensor([4, 7, 7])))["fc"]
    assert seen == [3]
    whole = values(teacher, stimuli)["fc"]
    assert seen == [3, 6]
    pairs = list(zip(*(side.tolist() for side in all_pairs(9)), strict=True))
    torch.testing.assert_close(found, whole[[pairs.index(pair) for pair in [(1, 4), (1, 7), (4, 7)]]])


def test_images_sampling_shows_no_other_image(net, stimuli, seen):
    pairs = sample_images(9, 4, np.random.default_rng(0))
    assert len(values(NetworkTeacher(net, ["fc"]), stimuli, pairs)["fc"]) == 6
    assert seen == [4]


def test_no_pairs_need_no_forward(net, stimuli, seen):
    none = Pairs(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert values(NetworkTeacher(net, ["fc"]), stimuli, none)["fc"].shape == (0,)
    assert seen == []


def test_one_forward_a_batch_for_every_layer_and_asker(net, stimuli, seen):
    teacher = NetworkTeacher(net, ["conv", "fc"])
    for _ in range(3):
        values(teacher, stimuli)
        teacher.patterns(stimuli)
        teacher.patterns(stimuli, torch.tensor([5, 2]))
    assert seen == [9]
    values(teacher, stimuli._replace(images=stimuli.images.clone()))
    assert seen == [9, 9]


def change_weight(net, stimuli):
    with torch.no_grad():
        net.fc.weight.mul_(2)


def replace_weight_data(net, stimuli):
    net.fc.weight.data = net.fc.weight.detach() * 2


def load_other_weights(net, stimuli):
    net.load_state_dict({name: value * 2 for name, value in net.state_dict().items()}, assign=True)


def change_buffer(net, stimuli):
    net.conv[1].running_var.mul_(4)


def change_image(net, stimuli):
    stimuli.images[0].mul_(0.5)


@pytest.mark.parametrize(
    "change", [change_weight, replace_weight_data, load_other_weights, change_buffer, change_image]
)
@pytest.mark.parametrize("cache", [None, "memory"])
def test_nothing_stale_is_answered(net, stimuli, change, cache):
    teacher = NetworkTeacher(net, ["fc"], cache=None if change is change_image else cache)
    before = values(teacher, stimuli)["fc"]
    change(net, stimuli)
    after = values(teacher, stimuli)["fc"]
    assert not torch.allclose(before, after, rtol=1e-3)
    torch.testing.assert_close(after, values(NetworkTeacher(net, ["fc"]), stimuli)["fc"])


def test_a_batch_is_not_kept_alive(net, stimuli):
    import weakref

    teacher = NetworkTeacher(net, ["fc"])
    batch = stimuli._replace(images=stimuli.images.clone())
    values(teacher, batch)
    images = weakref.ref(batch.images)
    del batch
    assert images() is None


# -- messages ------------------------------------------------------------------------------------------------


def test_wrong_arguments(net):
    with pytest.raises(ValueError, match=r"layer 'fcc' is not in the teacher; did you mean 'fc'\? it has: conv, "):
        NetworkTeacher(net, ["fcc"])
    with pytest.raises(ValueError, match="expected a list of at least one teacher layer, got 'fc'"):
        NetworkTeacher(net, "fc")
    with pytest.raises(ValueError, match=r"expected a list of at least one teacher layer, got \[\]"):
        NetworkTeacher(net, [])
    with pytest.raises(ValueError, match="unknown dissimilarity 'manhattan'; expected one of"):
        NetworkTeacher(net, ["fc"], "manhattan")


def test_weights_that_are_not_finite(net):
    with torch.no_grad():
        net.readout.bias[1] = torch.nan
    with pytest.raises(ValueError, match=r"the teacher's 'readout.bias' holds NaN or infinite values; give it other"):
        NetworkTeacher(net, ["fc"])


@pytest.mark.parametrize("shape", [(9,), (9, 3), (9, 2, 2, 2)])
def test_patterns_that_are_not_finite_are_refused_by_stimulus_in_whichever_layer(stimuli, shape):
    class Spoils(nn.Module):
        def forward(self, images):
            given = images.new_ones(shape[1:]).expand(len(images), *shape[1:]).clone()
            return torch.where((images.flatten(1)[:, 0] == bad).view(-1, *[1] * (given.ndim - 1)), torch.nan, given)

    bad = stimuli.images[3].flatten()[0]
    teacher = NetworkTeacher(nn.Sequential(nn.Identity(), Spoils()), ["0", "1"])
    with pytest.raises(ValueError, match="layer '1' gives NaN or infinite values for stimulus 'image-3'; look at its"):
        teacher.check(stimuli)
