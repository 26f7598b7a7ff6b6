"""Stopping and going on gives, bit by bit, the run that was never stopped."""

import numpy as np
import pytest
import torch

from brainrdl.objectives import Distillation, Hints, RDLObjective, Stage, adamw, sgd
from brainrdl.schedule import linear_decay
from brainrdl.sources import NetworkTeacher
from brainrdl.training import Trainer
from brainrdl.training.checkpoint import load_checkpoint, save_checkpoint


def jitter(images, generator):
    return images + 0.05 * torch.from_numpy(generator.standard_normal(images.shape, np.float32))


class Training:
    """Everything with a memory at once: two stages, dropout, augmentation, momentum, the best epoch so far."""

    def __init__(self, make_net, train, validation):
        self.make_net, self.train, self.validation = make_net, train, validation

    def trainer(self, checkpoint, evaluations=None, augment=jitter):
        teacher = NetworkTeacher(self.make_net(1, n_hidden=10), ["pool1", "fc"])
        objectives = [RDLObjective(teacher, {"fc": "fc"}, pairs=30), Distillation(teacher)]
        stages = [
            Stage(Hints(teacher, {"pool1": "pool1"}), task_weight=0, epochs=2, optimizer=sgd(0.2), name="hints"),
            Stage(
                objectives, [linear_decay(2.0), 0.5], epochs=3, optimizer=sgd(0.3, 0.9), initial_weights=self.other()
            ),
        ]
        return Trainer(
            self.make_net(0), stages, batch_size=16, accelerator="cpu", seed=5, clip=2.0, keep="best",
            augment=augment, evaluations=evaluations, checkpoint=checkpoint,
        )  # fmt: skip

    def other(self):
        """A part of other weights, which the second stage begins with."""
        state = self.make_net(3).state_dict()
        return {name: value for name, value in state.items() if name.startswith("conv2")}

    def run(self, trainer, stop=None, resume=False):
        rows = []
        for record in trainer.fit(self.train, validation=self.validation, resume=resume):
            rows.append(record.history)
            if stop == len(rows):
                break
        return rows


@pytest.fixture
def training(make_net, train, validation):
    return Training(make_net, train, validation)


@pytest.fixture
def whole(training, snapshot):
    """The run that is never stopped, written down without a checkpoint."""
    trainer = training.trainer(None)
    return training.run(trainer), snapshot(trainer.student), trainer._best["epoch"]


def test_a_checkpoint_changes_nothing(training, whole, snapshot, assert_equal_states, tmp_path):
    trainer = training.trainer(tmp_path / "last.pt")
    assert training.run(trainer) == whole[0]
    assert_equal_states(snapshot(trainer.student), whole[1])


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_break_and_resume(training, whole, snapshot, assert_equal_states, tmp_path, stop):
    place = tmp_path / "part" / "last.pt"
    first = training.trainer(place)
    assert training.run(first, stop) == whole[0][:stop]
    second = training.trainer(place)
    assert training.run(second, resume=True) == whole[0]
    assert_equal_states(snapshot(second.student), whole[1])
    assert second._best["epoch"] == whole[2]
    assert set(second.copied) == set(training.other())


@pytest.mark.parametrize("epoch", [0, 1, 2, 4])
def test_killed_in_an_epoch_and_resumed(training, whole, snapshot, assert_equal_states, tmp_path, epoch):
    calls = []

    def killed(images, generator):
        calls.append(1)
        # A first batch is drawn before each stage; an epoch has 4 steps.
        if len(calls) == 1 + (epoch >= 2) + 4 * epoch + 3:
            raise KeyboardInterrupt
        return jitter(images, generator)

    place = tmp_path / "last.pt"
    with pytest.raises(KeyboardInterrupt):
        training.run(training.trainer(place, augment=killed))
    assert place.exists() == (epoch > 0)
    second = training.trainer(place)
    assert training.run(second, resume=True) == whole[0]
    assert_equal_states(snapshot(second.student), whole[1])


def test_stopped_again_and_again(training, whole, snapshot, assert_equal_states, tmp_path):
    place = tmp_path / "last.pt"
    for stop in (1, 2, 3, 4):
        training.run(training.trainer(place), stop, resume=True)
    last = training.trainer(place)
    assert training.run(last, resume=True) == whole[0]
    assert_equal_states(snapshot(last.student), whole[1])


def test_epochs_done_before_come_first_and_are_not_repeated(training, tmp_path):
    place = tmp_path / "last.pt"
    training.run(training.trainer(place), 3)
    evaluated = []
    trainer = training.trainer(place, {"count": lambda student, epoch: evaluated.append(epoch) or {}})
    records = list(trainer.fit(training.train, validation=training.validation, resume=True))
    assert [bool(record.timing) for record in records] == [False, False, False, True, True]
    assert evaluated == [3, 4]


def test_stopping_among_the_old_epochs_leaves_the_checkpoints_student(
    training, snapshot, assert_equal_states, tmp_path
):
    place = tmp_path / "last.pt"
    first = training.trainer(place)
    training.run(first, 2)
    second = training.trainer(place)
    training.run(second, 1, resume=True)
    assert_equal_states(snapshot(second.student), load_checkpoint(place)["student"])


def test_a_finished_training_gives_its_student(training, whole, snapshot, assert_equal_states, tmp_path):
    place = tmp_path / "last.pt"
    training.run(training.trainer(place))
    before = place.read_bytes()
    again = training.trainer(place)
    assert training.run(again, resume=True) == whole[0]
    assert_equal_states(snapshot(again.student), whole[1])
    assert place.read_bytes() == before


def test_without_resume_a_checkpoint_is_not_looked_at(training, whole, tmp_path):
    place = tmp_path / "last.pt"
    place.write_bytes(b"not a checkpoint")
    assert training.run(training.trainer(place)) == whole[0]


@pytest.mark.parametrize("optimizer", [adamw(0.01), sgd(0.1, 0.9, nesterov=True)])
def test_optimizers_go_on(make_net, train, fit, snapshot, assert_equal_states, tmp_path, optimizer):
    a, b = make_net(0), make_net(0)
    stage = Stage(epochs=3, optimizer=optimizer)
    fit(a, stage, train)
    for _ in Trainer(make_net(0), stage, batch_size=16, accelerator="cpu", checkpoint=tmp_path / "c.pt").fit(train):
        break
    fit(b, stage, train, checkpoint=tmp_path / "c.pt", resume=True)
    assert_equal_states(snapshot(a), snapshot(b))


# -- what cannot be gone on from ----------------------------------------------------------------------------------


@pytest.fixture
def stopped(make_net, train, tmp_path):
    """A checkpoint after the first of three epochs."""
    place = tmp_path / "last.pt"
    stage = Stage(epochs=3, optimizer=sgd(0.1))
    for _ in Trainer(make_net(0), stage, batch_size=16, accelerator="cpu", checkpoint=place).fit(train):
        break
    return place


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 torn", b"\x80\x02."])
def test_damaged_checkpoint(make_net, train, fit, stopped, damage):
    stopped.write_bytes(damage)
    with pytest.raises(ValueError, match=r"checkpoint .*last.pt cannot be read .*; delete it to start this part again"):
        fit(make_net(0), Stage(epochs=3), train, checkpoint=stopped, resume=True)


def test_half_a_checkpoint(make_net, train, fit, stopped):
    whole = stopped.read_bytes()
    stopped.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"last.pt cannot be read"):
        fit(make_net(0), Stage(epochs=3), train, checkpoint=stopped, resume=True)


def test_another_kind_of_file(make_net, train, fit, tmp_path):
    for content in ({"weights": torch.zeros(2)}, [1, 2], {"format": 0}):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(ValueError, match=r"x.pt is no checkpoint of this version; delete it to start this part"):
            fit(make_net(0), Stage(), train, checkpoint=tmp_path / "x.pt", resume=True)


def test_code_in_a_checkpoint_is_not_run(make_net, train, fit, tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("code was run",))

    torch.save({"format": 1, "x": Evil()}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x.pt cannot be read"):
        fit(make_net(0), Stage(), train, checkpoint=tmp_path / "x.pt", resume=True)


def test_checkpoint_of_another_network(make_net, train, fit, stopped):
    with pytest.raises(ValueError, match=r"last.pt holds another network than this student; delete it or give another"):
        fit(make_net(0, n_hidden=9), Stage(epochs=3), train, checkpoint=stopped, resume=True)


@pytest.mark.parametrize(
    ("epochs", "settings", "difference"),
    [
        (3, {"seed": 1}, "seed: 0 before, 1 now"),
        (3, {"batch_size": 25}, "batch_size: 16 before, 25 now"),
        (4, {}, r"stages: \['main: 3 epochs'\] before, \['main: 4 epochs'\] now"),
    ],
)
def test_checkpoint_of_another_training(make_net, train, fit, stopped, epochs, settings, difference):
    with pytest.raises(ValueError, match=rf"last.pt is of another training: {difference}; delete it or give another"):
        fit(make_net(0), Stage(epochs=epochs), train, checkpoint=stopped, resume=True, **settings)


def test_checkpoint_of_another_optimizer_or_objective(make_net, teacher, train, fit, stopped):
    message = r"last.pt holds other objectives or another optimizer; delete it or give another place"
    with pytest.raises(ValueError, match=message):
        fit(make_net(0), Stage(epochs=3, optimizer=adamw()), train, checkpoint=stopped, resume=True)
    with pytest.raises(ValueError, match=message):
        stage = Stage(Hints(teacher, {"pool1": "pool1"}), epochs=3)
        fit(make_net(0), stage, train, checkpoint=stopped, resume=True)


def test_a_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    place = tmp_path / "last.pt"
    save_checkpoint(place, {"epoch": 1})

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(place, {"epoch": 2})
    assert load_checkpoint(place)["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
