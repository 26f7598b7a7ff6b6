"""What wrong input gets: one message, with the remedy; and a training that goes wrong says where."""

import pytest
import torch
from torch import nn

from brainrdl.objectives import DeepSupervision, Distillation, RDLObjective, Stage, sgd
from brainrdl.sources import NetworkTeacher
from brainrdl.training import Trainer
from brainrdl.training.checkpoint import load_checkpoint
from brainrdl.training.devices import make_fabric


@pytest.fixture
def rdl(teacher):
    return RDLObjective(teacher, {"pool1": "pool1", "fc": "fc"})


# -- at the door -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": "first"}, "keep: expected 'last' or 'best', got 'first'"),
        ({"batch_size": 0}, "expected batch_size >= 1 and clip > 0, got batch_size=0, clip=None"),
        ({"accumulate": 1.5}, "accumulate: expected at least 1 part, .* got 1.5 parts of 100 in 1 process; lower"),
        ({"accumulate": 51}, "accumulate: expected at least 1 part, .* got 51 parts of 100 in 1 process; lower"),
        ({"checkpoint_activations": "fc"}, r"checkpoint_activations: expected a list, got 'fc'; put it in \[\]"),
        ({"clip": 0.0}, "expected batch_size >= 1 and clip > 0, got batch_size=100, clip=0.0"),
        ({"clip": float("nan")}, "expected batch_size >= 1 and clip > 0, got batch_size=100, clip=nan"),
        ({"accelerator": "cuda", "devices": 9}, "cannot train on accelerator 'cuda' × 9"),
        ({"accelerator": "gpux"}, "cannot train on accelerator 'gpux' × 1, precision None: .*gpux"),
        ({"precision": "bf16-true"}, r"expected 32-true, 16-mixed or bf16-mixed \(the weights .*, got 'bf16-true'"),
    ],
)
def test_settings(student, settings, message):
    with pytest.raises(ValueError, match=message):
        Trainer(student, Stage(), **{"accelerator": "cpu", **settings})


def test_stages(student, rdl):
    with pytest.raises(ValueError, match="no stages: give the trainer at least one Stage"):
        Trainer(student, [], accelerator="cpu")
    with pytest.raises(ValueError, match="keep='best' goes by validation error, and the last stage has no task"):
        Trainer(student, Stage(rdl, task_weight=0), keep="best", accelerator="cpu")


def test_unknown_precision_and_device():
    with pytest.raises(ValueError, match=r"precision: expected 32-true, 16-mixed or bf16-mixed .* got 'fp8'"):
        make_fabric("cpu", precision="fp8")
    with pytest.raises(ValueError, match="cannot train on accelerator 'cpu' × 0, precision None"):
        make_fabric("cpu", devices=0)


def test_torchrun_has_started_others(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "a-run", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    told = "torchrun has started 4 processes, 2 on this machine: expected devices 2 and nodes 2, got devices {} and"
    for devices, nodes in ((4, 1), (1, 4), (2, 1), (1, 2)):
        with pytest.raises(ValueError, match=told.format(devices)):
            make_fabric("cpu", devices=devices, num_nodes=nodes)
    with pytest.raises(ValueError, match=r"each of which would train alone; .* devices 2 .of a machine. and nodes 2"):
        make_fabric("cpu")


def test_machines_that_nobody_has_started():
    with pytest.raises(ValueError, match="processes on other machines are not started from here; start by torchrun"):
        make_fabric("cpu", num_nodes=2)


def test_no_data(student, fit, train, rdl):
    with pytest.raises(ValueError, match="nothing to train on; give fit task or stimuli"):
        fit(student, Stage())
    with pytest.raises(ValueError, match="stage 'main' has a task; give fit task, or set task_weight=0"):
        fit(student, Stage(), stimuli=train)
    with pytest.raises(ValueError, match="an objective reads the stream 'task', but fit was given no such data"):
        fit(student, Stage(rdl, task_weight=0), stimuli=train)
    rdl.stream = "stimuli"
    with pytest.raises(ValueError, match="an objective reads the stream 'stimuli', but fit was given no such data"):
        fit(student, Stage(rdl), train)


def test_validation_data(student, fit, train, validation):
    with pytest.raises(ValueError, match="keep='best' needs validation data; give some, or keep='last'"):
        fit(student, Stage(), train, keep="best")
    with pytest.raises(ValueError, match="validation images: expected at least one, with labels"):
        fit(student, Stage(), train, validation=validation._replace(labels=None))
    with pytest.raises(ValueError, match="validation images: expected at least one, with labels"):
        fit(student, Stage(), train, validation=validation.subset(torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(ValueError, match="validation images: 30 of 30 images hold NaN"):
        fit(student, Stage(), train, validation=validation._replace(images=validation.images + torch.nan))


def test_fewer_images_than_a_batch(student, fit, train):
    with pytest.raises(ValueError, match="training images: 50 images are fewer than a batch of 64; lower batch_size"):
        fit(student, Stage(), train, batch_size=64)


def test_nan_in_images(student, fit, train, rdl):
    images = train.images.clone()
    images[7, 0, 3, 3] = torch.nan
    with pytest.raises(ValueError, match=r"training images: 1 of 50 images hold NaN .* the first is '1/7'; repair or"):
        fit(student, Stage(), train._replace(images=images))
    with pytest.raises(
        ValueError, match=r"stimuli: 1 of 50 images hold NaN .* the first is '1/7'; repair or leave out"
    ):
        fit(student, Stage(rdl), train, train._replace(images=images))


def test_nan_in_weights(student, fit, train):
    with torch.no_grad():
        student.conv2[0].weight[0, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"the student's 'conv2.0.weight' holds NaN or infinite values; give it other"):
        fit(student, Stage(), train)


def test_unknown_layer(student, teacher, fit, train):
    objective = RDLObjective(teacher, {"pool3": "pool1"})
    with pytest.raises(
        ValueError, match=r"layer 'pool3' is not in the network; did you mean 'pool\d'\? it has: conv1, "
    ):
        fit(student, Stage(objective), train)


def test_labels_missing(student, fit, train):
    unlabelled = train._replace(labels=None)
    with pytest.raises(
        ValueError, match=r"the task needs labels; these stimuli have none \(set task_weight=0 to train"
    ):
        fit(student, Stage(), unlabelled)
    with pytest.raises(ValueError, match="deep supervision needs labels; these stimuli have none"):
        fit(student, Stage(DeepSupervision(["pool1"]), task_weight=0), unlabelled)


def test_rdl_needs_no_labels(student, fit, train, rdl):
    (row,) = fit(student, Stage(rdl, task_weight=0), train._replace(labels=None))
    assert row["rdl/fc"] > 0


@pytest.mark.parametrize("as_dataset", [False, True])
def test_more_classes_than_outputs(student, fit, train, as_dataset):
    labels = train.labels.clone()
    labels[-1] = 7
    data = train._replace(labels=labels)
    if as_dataset:
        data = torch.utils.data.TensorDataset(data.images, data.labels)
    # Wherever in the epoch the label comes.
    for seed in range(3):
        with pytest.raises(ValueError, match="label 7 is outside the student's 3 outputs; widen its last layer"):
            fit(student, Stage(), data, batch_size=10, seed=seed)


def test_classes_of_student_and_teacher(student, make_net, fit, train):
    objective = Distillation(NetworkTeacher(make_net(1, n_classes=10), ["fc"]))
    with pytest.raises(ValueError, match=r"student gives shape \(16, 3\), the teacher \(16, 10\)"):
        fit(student, Stage(objective), train)


def test_no_class_scores(fit, train):
    for network, shape in (
        (nn.Sequential(nn.Conv2d(1, 3, 3)), r"\(16, 3, 6, 6\)"),
        (nn.Sequential(nn.Flatten(0)), r"\(1024,\)"),
    ):
        with pytest.raises(
            ValueError, match=rf"needs class scores \(n_stimuli, n_classes\) from the student; it gives {shape}"
        ):
            fit(network, Stage(DeepSupervision(["0"])), train)


def test_student_and_teacher_share_weights(student, make_net, fit, train):
    message = "student and teacher share weights, so the teacher would change; give the teacher a copy"
    with pytest.raises(ValueError, match=message):
        fit(student, Stage(RDLObjective(NetworkTeacher(student, ["fc"]), {"fc": "fc"})), train)
    other = make_net(1)
    other.conv1 = student.conv1
    with pytest.raises(ValueError, match=message):
        fit(student, Stage(Distillation(NetworkTeacher(other, ["fc"]))), train)


def test_nothing_to_train(student, fit, train):
    for parameter in student.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="stage 'main' trains nothing: its loss depends on no parameter with requires"):
        fit(student, Stage(), train)


def test_two_objectives_of_a_kind_on_one_layer(student, teacher, fit, train, rdl):
    with pytest.raises(
        ValueError, match=r"two objectives give a term 'rdl/fc'; map each student layer in one objective"
    ):
        fit(student, Stage([rdl, RDLObjective(teacher, {"fc": "pool2"})]), train)


class Shared(nn.Module):
    """One ReLU module for two places, and a layer that is never used."""

    def __init__(self):
        super().__init__()
        self.flatten, self.relu, self.unused = nn.Flatten(), nn.ReLU(), nn.Linear(2, 2)
        self.first, self.readout = nn.Linear(64, 8), nn.Linear(8, 3)

    def forward(self, images):
        return self.readout(self.relu(self.first(self.relu(self.flatten(images)))))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("relu", "layer 'relu' ran twice in one forward, so it is not clear which pattern is meant; give each use"),
        ("unused", "layer 'unused' was recorded but did not run in the last forward; record a layer that the network"),
    ],
)
def test_layers_that_give_no_single_pattern(teacher, fit, train, layer, message):
    with pytest.raises(ValueError, match=message):
        fit(Shared(), Stage(RDLObjective(teacher, {layer: "fc"})), train)


# -- on the way ----------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_longer_finite(make_net, train, fit, tmp_path):
    """Term, epoch and step; and the checkpoint of the epoch before is kept."""
    student = make_net(0, norm=nn.Identity, dropout=0)
    place = tmp_path / "last.pt"
    stage = Stage(epochs=9, optimizer=sgd(1.0, momentum=0), learning_rate=lambda epoch, n: 0.01 if epoch < 2 else 1e30)
    message = r"loss term task became (nan|inf) in stage 'main', epoch 2, step [1-3]: lower the learning rate or alpha"
    with pytest.raises(FloatingPointError, match=message):
        fit(student, stage, train, checkpoint=place)
    state = load_checkpoint(place)
    assert state["epoch"] == 2
    assert all(value.isfinite().all() for value in state["student"].values())


class Diverging:
    """A teacher whose dissimilarities are too large for float32 once squared, from the seventh step on."""

    names, dissimilarity = ("it",), "euclidean"

    def __init__(self):
        self.n_calls = 0

    def covers(self, ids):
        return {"it": torch.ones(len(ids), dtype=torch.bool)}

    def targets(self, stimuli, pairs):
        from brainrdl.stimuli import Targets

        self.n_calls += 1
        size = 1e30 if self.n_calls > 8 else 1e-3
        return {"it": Targets(size * (1 + torch.arange(len(pairs.i)) % 3))}


def test_the_term_and_layer_are_named(student, fit, train):
    # Two calls before the training, four in the first epoch.
    stage = Stage(RDLObjective(Diverging(), {"pool2": "it"}), epochs=3, name="second")
    message = r"loss term rdl at layer 'pool2' became inf in stage 'second', epoch 1, step 2: lower .* warm alpha up"
    with pytest.raises(FloatingPointError, match=message):
        fit(student, stage, train)


def test_epochs_are_counted_over_the_stages(student, teacher, fit, train):
    first = Stage(RDLObjective(teacher, {"pool1": "pool1"}), task_weight=0, epochs=2, name="first")
    second = Stage(RDLObjective(Diverging(), {"pool2": "it"}), epochs=3)
    with pytest.raises(FloatingPointError, match="in stage 'main', epoch 3, step 2"):
        fit(student, [first, second], train)


def test_weights_that_are_not_finite_after_the_last_step(make_net, train, fit, tmp_path):
    student = make_net(0, norm=nn.Identity, dropout=0)
    stage = Stage(optimizer=sgd(1e38, momentum=0, weight_decay=1e6))
    with pytest.raises(FloatingPointError, match="the weights became nan in stage 'main', epoch 0, step 0: lower the"):
        fit(student, stage, train, batch_size=50, checkpoint=tmp_path / "last.pt")
    assert not (tmp_path / "last.pt").exists()
