"""What would be wrong science without a word, planted: each fault is refused or told, and healthy cases are silent."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from planted import TRAIN, VALIDATION, Net, assert_told, fit, measured, measured_rdms, rdl, teacher, told_of
from torch import nn
from torch.utils.data import Dataset

from brainrdl import (
    CombinedTeacher,
    DeepSupervision,
    Distillation,
    Hints,
    LinearCKA,
    MeasuredRDMs,
    RDLObjective,
    RelationalDistillation,
    ResultWarning,
    SimilarityPreserving,
    Stage,
    Stimuli,
    lee_decay,
    linear_decay,
)
from brainrdl.analysis import layer_agreement, network_rdms, score_agreement
from brainrdl.data import horizontal_flips
from brainrdl.fmri.events import read_events
from brainrdl.models import Preprocessing
from brainrdl.objectives import sgd
from brainrdl.pairs import all_pairs
from brainrdl.sources import make_control

# -- a guard that cries wolf is worse than none ------------------------------------------------------------------------


HEALTHY = {
    "rdl": lambda: Stage(rdl(), linear_decay(1.0), epochs=3),
    "rdl, correlation": lambda: Stage(rdl(teacher(dissimilarity="correlation"), discrepancy="correlation")),
    "rdl of the measured": lambda: Stage(_pulled(measured(TRAIN.ids))),
    "rdl of a category model": lambda: Stage(_pulled(_category_model())),
    "rdl with a printed decay": lambda: Stage(rdl(), lee_decay(1.0), epochs=9),
    "deep supervision": lambda: Stage(DeepSupervision(["pool"]), lee_decay(1.0), epochs=9),
    "hints": lambda: [Stage(Hints(teacher(), {"pool": "pool"}), task_weight=0, name="hints"), Stage()],
    "distillation": lambda: Stage(Distillation(teacher())),
    "others": lambda: Stage(
        [
            RelationalDistillation(teacher(), {"fc": "fc"}),
            SimilarityPreserving(teacher(), {"fc": "fc"}),
            LinearCKA(teacher(), {"fc": "fc"}),
        ],
        [1.0, 1.0, 1.0],
    ),
    "a part of the student": lambda: Stage(rdl(layers=["pool"]), task_weight=0),
    "learned by heart": lambda: Stage(rdl(), linear_decay(0.1), epochs=40, optimizer=sgd(0.1)),
}


def _pulled(source):
    return RDLObjective(source, {"fc": source.names[0]}, discrepancy="correlation")


def _category_model():
    categories = {one: str(int(label)) for one, label in zip(TRAIN.ids, TRAIN.labels, strict=True)}
    return make_control("category", measured(TRAIN.ids), TRAIN.ids, categories)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_training_is_silent(name):
    rows, told = fit(Net(), HEALTHY[name](), validation=VALIDATION, augment=horizontal_flips)
    assert told == []
    assert all(np.isfinite(row["task"]) for row in rows if "task" in row)


def test_healthy_networks_and_stimuli_are_silent():
    net = Net().train()
    settings = {"preprocess": Preprocessing(mean=[0.5], std=[0.2]), "batch_size": 7}
    for norm in (nn.BatchNorm2d, nn.InstanceNorm2d, partial(nn.GroupNorm, 2)):
        assert told_of(lambda norm=norm: network_rdms(Net(norm=norm), ["pool", "fc"], TRAIN, **settings)) == []
    # Normalised by hand, for a network that takes them so.
    normalised = TRAIN._replace(images=(TRAIN.images - 0.5) / 0.2)
    assert told_of(lambda: network_rdms(net, ["fc"], normalised)) == []
    assert told_of(lambda: teacher(net).check(TRAIN)) == []


class Drawn(Dataset):
    """As someone's own data set: whatever else it has is nobody's business."""

    def __init__(self, **others):
        self.__dict__.update(others)

    def __len__(self):
        return len(TRAIN.ids)

    def __getitem__(self, row):
        return TRAIN.images[row], int(TRAIN.labels[row])


@pytest.mark.parametrize("labels", [["cat"] * 48, list(range(1, 49)), np.arange(1, 49), None])
def test_what_else_a_data_set_calls_labels(labels):
    assert fit(Net(), Stage(), Drawn(labels=labels))[1] == []


def test_ids_of_a_data_set_that_are_numbers():
    source = measured([str(k) for k in range(40)])
    assert fit(Net(), Stage(_pulled(source)), Drawn(ids=list(range(48))))[1] == []
    # A method `subset` that is none of stimuli's.
    named = Drawn(ids=[*VALIDATION.ids, *range(24)], subset=len)
    assert fit(Net(), Stage(), named, validation=VALIDATION)[1] == []


# -- 1: what is tested must not choose ---------------------------------------------------------------------------------


def test_validation_images_that_are_trained_on():
    some = TRAIN.subset(torch.arange(3, 9))
    both = Stimuli(*(torch.cat(parts) for parts in [(some.images, VALIDATION.images)]), (*some.ids, *VALIDATION.ids))
    both = both._replace(labels=torch.cat([some.labels, VALIDATION.labels]))
    with pytest.raises(
        ValueError, match=r"6 of 30 are training images too \(such as 'image-1/03'\), so keep='best' wo"
    ):
        fit(Net(), Stage(), validation=both, keep="best")
    _, told = fit(Net(), Stage(), validation=both)
    assert_told(told, "6 of 30 are training images too .* so validation_error is no error on new images")
    # Other images that were counted alike are no fault.
    counted = VALIDATION._replace(ids=TRAIN.ids[: len(VALIDATION.ids)])
    assert fit(Net(), Stage(), validation=counted, keep="best")[1] == []


# -- 2: what was learned must not score --------------------------------------------------------------------------------


def test_trained_stimuli_in_a_score():
    ids = TRAIN.ids[:12]
    model = network_rdms(Net(), ["fc"], TRAIN.subset(torch.arange(12)))
    brain = measured_rdms(ids)
    brain.rdm_descriptors["subject"] = ["sub-01"]
    with pytest.raises(ValueError, match=f"stimulus '{ids[0]}' is both trained on and scored .2 such in all.; score"):
        score_agreement(model, brain, held_out=ids[:6], trained=[*ids[6:], *ids[:2]])
    with pytest.raises(ValueError, match=f"stimulus '{ids[3]}' is both trained on and scored .1 such in all.; score"):
        layer_agreement(model, brain, trained=[ids[3], "another"])
    assert len(score_agreement(model, brain, held_out=ids[:6], trained=ids[6:])) == 2
    assert len(layer_agreement(model, brain, trained=VALIDATION.ids).scores) == 1


# -- 3: ids ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "how"),
    [
        (str.upper, "changing case"),
        (lambda one: f" {one}\n", "trimming whitespace"),
        (lambda one: f"{one}.png", "dropping a file suffix"),
        (lambda one: one.replace("/0", "/00"), "dropping leading zeros"),
    ],
)
@pytest.mark.parametrize("stream", ["task", "stimuli"])
def test_ids_that_differ_only_in_how_they_are_written(written, how, stream):
    ids = [written(one) if k < 5 else one for k, one in enumerate(TRAIN.ids)]
    objective = RDLObjective(CombinedTeacher([measured(ids)]), {"fc": "IT"}, stream=stream)
    shown = {"stimuli": TRAIN} if stream == "stimuli" else {}
    _, told = fit(Net(), Stage(objective), **shown)
    what = "training images" if stream == "task" else "stimuli"
    first, other = (re.escape(repr(one)[1:-1] if "\n" not in one else one) for one in (TRAIN.ids[0], ids[0]))
    assert_told(
        told,
        f"{what}: 5 of 48 have no dissimilarities in the teacher, and take no part. 5 would match after {how}, the "
        f"first is '{first}' for '{other}'; ids are not guessed: write them alike",
    )


def test_stimuli_that_a_teacher_merely_lacks_are_no_fault():
    objective = RDLObjective(measured([*TRAIN.ids[5:], "other/1", "other/2"]), {"fc": "IT"})
    assert fit(Net(), Stage(objective))[1] == []


def test_files_that_become_one_stimulus_without_folder_and_ending(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text("onset\tduration\tstim_file\n0\t1\tcats/01.png\n2\t1\tdogs/01.png\n4\t1\tcats/02.png\n")
    with pytest.raises(
        ValueError, match=r"events.tsv: 'cats/01.png' and 'dogs/01.png' would both be stimulus '01', si"
    ):
        read_events(path, 30, "stim_file", file_ids=True)
    path.write_text("onset\tduration\tstim_file\n0\t1\tcats/01.png\n2\t1\tcats/01.png\n4\t1\tcats/02.png\n")
    assert read_events(path, 30, "stim_file", file_ids=True)["stimulus"].tolist() == ["01", "01", "02"]


# -- 4: teachers and networks must be what they are in eval mode -------------------------------------------------------


class Noise(nn.Module):
    def forward(self, values):
        return nn.functional.dropout(values, 0.5, training=True)


class StillTraining(nn.Dropout):
    """Does not let itself be put into eval mode."""

    def train(self, mode=True):
        return super().train(True)


@pytest.mark.parametrize("mode", [True, False])
def test_dropout_and_batch_statistics_stay_out_of_rdms_and_targets(mode):
    net, again = Net().train(mode), Net().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    rdms = network_rdms(net, ["pool", "fc"], TRAIN).dissimilarities
    np.testing.assert_array_equal(rdms, network_rdms(again, ["pool", "fc"], TRAIN, batch_size=48).dissimilarities)
    source, pairs = teacher(net), all_pairs(48)
    state = torch.get_rng_state()
    source.check(TRAIN)
    assert torch.equal(torch.get_rng_state(), state)
    for name, target in source.targets(TRAIN, pairs).items():
        torch.testing.assert_close(target.values, teacher(again).targets(TRAIN, pairs)[name].values)
    assert [part.training for part in net.modules()] == [mode] * len(list(net.modules()))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("noise", [Noise, StillTraining])
def test_dropout_that_does_not_heed_eval_mode(noise):
    net = Net(1)
    net.pool = nn.Sequential(nn.MaxPool2d(2), noise())
    message = "layer '{}' gives other patterns each time it sees the same images, in eval mode too: dropout or noise"
    _, told = fit(Net(), Stage(rdl(teacher(net))))
    assert_told(told, "the teacher: " + message.format("pool"), "the teacher: " + message.format("fc"))
    told = told_of(lambda: network_rdms(net, ["conv", "fc"], TRAIN.subset(torch.arange(12)), name="noisy"))
    assert_told(told, "network 'noisy': " + message.format("fc"))


def test_rdms_that_depend_on_the_batch():
    net = Net(1, norm=lambda n: nn.BatchNorm2d(n, track_running_stats=False))
    depends = "layer '{}' gives patterns that depend on which images are beside it in a batch, in eval mode too, so its"
    told = told_of(lambda: network_rdms(net, ["conv"], TRAIN))
    assert_told(told, "network: " + depends.format("conv"))
    _, told = fit(Net(), Stage(rdl(teacher(net), ["fc"])))
    assert_told(told, "the teacher: " + depends.format("pool"), "the teacher: " + depends.format("fc"))


def test_a_teacher_that_is_a_part_of_the_student():
    student = Net()
    view = Net(1)
    view.readout.weight = nn.Parameter(student.readout.weight[1:].detach())  # a part of its memory
    for source in (CombinedTeacher([teacher(student)]), CombinedTeacher({"a": teacher(), "b": teacher(view)})):
        name = source.names[-1]
        with pytest.raises(
            ValueError, match="student and teacher share weights, so the teacher would change; give the"
        ):
            fit(student, Stage(RDLObjective(source, {"fc": name})))


# -- how it is told ----------------------------------------------------------------------------------------------------


def test_warnings_have_one_category_and_name_the_callers_line():
    with pytest.warns(ResultWarning, match="values are none of 'cosine'") as caught:
        MeasuredRDMs(measured_rdms(TRAIN.ids[:9], measure="cosine", high=9.0))
    assert caught[0].filename == __file__
    assert issubclass(ResultWarning, UserWarning)
