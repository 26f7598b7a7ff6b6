"""Training with brain data: one forward or two, whose statistics, how many pairs, and that only ids decide."""

import numpy as np
import pytest
import torch
from rsatoolbox.rdm import RDMs
from torch import nn

from brainrdl.models import Preprocessing
from brainrdl.objectives import Distillation, RDLObjective, Stage, sgd
from brainrdl.randomness import Draw
from brainrdl.rdms import save_rdms, subset_stimuli
from brainrdl.sources.rdms import MeasuredRDMs
from brainrdl.stimuli import Stimuli
from brainrdl.training import Trainer
from brainrdl.training.stage import prepare_objectives, stage_module
from brainrdl.training.sums import EpochSums
from brainrdl.training.training_state import describe_training


def draw_images(n_stimuli, prefix, size=8):
    images = torch.rand(n_stimuli, 1, size, size, generator=torch.Generator().manual_seed(n_stimuli))
    return Stimuli(images, tuple(f"{prefix}/{k}" for k in range(n_stimuli)))


def draw_rdms(ids, coverage, seed=0, measure="crossnobis"):
    """An RDM a name, NaN outside of its coverage, a fifth of the dissimilarities negative."""
    generator = np.random.default_rng(seed)
    i, j = np.triu_indices(len(ids), 1)
    rows = []
    for covered in coverage.values():
        known = np.isin(ids, covered)
        rows.append(np.where(known[i] & known[j], generator.random(len(i)) - 0.2, np.nan))
    return RDMs(
        np.stack(rows),
        dissimilarity_measure=measure,
        pattern_descriptors={"stimulus": list(ids)},
        rdm_descriptors={"name": list(coverage)},
    )


@pytest.fixture
def shown():
    """30 stimuli, the last 5 of which nobody has seen."""
    return draw_images(30, "shown")


@pytest.fixture
def subjects(shown):
    return {"sub-1": shown.ids[:14], "sub-2": shown.ids[11:25]}


@pytest.fixture
def source(shown, subjects):
    return MeasuredRDMs(draw_rdms(shown.ids, subjects))


BOTH = {"sub-1": 1.0, "sub-2": 1.0}


def count_forwards(network, counts):
    network.register_forward_pre_hook(lambda module, inputs: counts.append(len(inputs[0])))


# -- one forward or two ------------------------------------------------------------------------------------------------


def losses_and_gradients(student, stage, calls, preprocess=None, stimulus_norm=None):
    """Of one or several calls of a stage's module, on (task, stimuli); and how many images each forward saw."""
    counts = []
    student.zero_grad()
    with stage_module(student, stage, preprocess, stimulus_norm) as module:
        prepare_objectives(module, calls[0][0], calls[-1][1])
        module.train()
        count_forwards(student, counts)
        terms = {}
        for task, stimuli in calls:
            terms.update(module(task, stimuli, Draw(0)))
        sum(terms[name] for name in ("task", *module.objective_of)).backward()
    terms = {name: term.detach() for name, term in terms.items()}
    return terms, {name: p.grad.clone() for name, p in student.named_parameters()}, counts


@pytest.fixture
def both_streams(teacher, source):
    """A network teaches on the task's images, two subjects on theirs; the task's own term comes from the output."""
    brain = RDLObjective(source, {"fc": BOTH, "": "sub-1"}, stream="stimuli")
    return Stage([RDLObjective(teacher, {"pool2": "pool2"}), brain])


def test_one_forward_gives_what_two_give(make_net, train, shown, both_streams):
    student = make_net(0, norm=nn.Identity, dropout=0).double()
    task, stimuli = (
        s._replace(images=s.images.double()) for s in (train.subset(torch.arange(16)), shown.subset(torch.arange(14)))
    )
    one, of_one, n_one = losses_and_gradients(student, both_streams, [(task, stimuli)])
    two, of_two, n_two = losses_and_gradients(
        make_net(0, norm=nn.Identity, dropout=0).double(), both_streams, [(task, None), (None, stimuli)]
    )
    assert (n_one, n_two) == ([30], [16, 14])
    assert {"task", "rdl/pool2", "rdl/fc/sub-1", "rdl/fc/sub-2", "rdl/output"} < one.keys()
    assert one.keys() == two.keys()
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(of_one, of_two, rtol=1e-9, atol=1e-12)
    assert all(gradient.any() for gradient in of_one.values())
    assert {name: int(n) for name, n in one.items() if name.startswith("n_pairs/")} == {
        "n_pairs/rdl/fc/sub-1": 91, "n_pairs/rdl/fc/sub-2": 0, "n_pairs/rdl/output": 91,
    }  # fmt: skip


def test_images_that_come_to_one_size_share_a_forward(make_net, train, both_streams):
    large = draw_images(30, "shown", size=20).subset(torch.arange(14))
    task = train.subset(torch.arange(16))
    preprocess = Preprocessing(size=(8, 8))
    *_, counts = losses_and_gradients(make_net(0, norm=nn.Identity), both_streams, [(task, large)], preprocess)
    assert counts == [30]


def test_images_of_two_sizes_are_two_forwards(train, source):
    pooled = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    large = draw_images(30, "shown", size=20).subset(torch.arange(14))
    stage = Stage(RDLObjective(source, {"0": "sub-1"}, stream="stimuli"))
    terms, _, counts = losses_and_gradients(pooled, stage, [(train.subset(torch.arange(16)), large)])
    assert counts == [16, 14]
    assert terms["rdl/0"] > 0


# -- whose statistics --------------------------------------------------------------------------------------------------


def statistics(network):
    return {name: value.clone() for name, value in network.named_buffers()}


@pytest.fixture
def after(make_net, train, shown, both_streams):
    """`after(streams, stimulus_norm)`: the running statistics after one step."""

    def step(streams, stimulus_norm=None):
        student = make_net(0, dropout=0)
        task = train.subset(torch.arange(16)) if "task" in streams else None
        stimuli = shown.subset(torch.arange(14)) if "stimuli" in streams else None
        with stage_module(student, both_streams, None, stimulus_norm) as module:
            module.train()
            modes = {part: part.training for part in module.modules()}
            module(task, stimuli, Draw(0))
            assert {part: part.training for part in module.modules()} == modes
        return statistics(student)

    return step


def test_stimuli_beside_a_task_leave_the_statistics_alone(make_net, after):
    of_task = after(["task"])
    assert not torch.equal(of_task["norm.running_mean"], statistics(make_net(0))["norm.running_mean"])
    for norm in (None, "eval"):
        together = after(["task", "stimuli"], norm)
        assert all(torch.equal(of_task[name], value) for name, value in together.items())
    trained = after(["task", "stimuli"], "train")
    assert not any(torch.equal(of_task[name], value) for name, value in trained.items())


def test_by_themselves_stimuli_have_the_statistics_unless_they_are_kept(make_net, after):
    before = statistics(make_net(0))
    for norm in (None, "train"):
        assert not any(torch.equal(before[name], value) for name, value in after(["stimuli"], norm).items())
    assert all(torch.equal(before[name], value) for name, value in after(["stimuli"], "eval").items())


def test_stimuli_see_the_running_statistics(make_net, train, shown, source):
    stage = Stage(RDLObjective(source, {"fc": "sub-1"}, stream="stimuli"))
    task, stimuli = train.subset(torch.arange(16)), shown.subset(torch.arange(14))
    student = make_net(0, dropout=0)
    terms, gradients, counts = losses_and_gradients(student, stage, [(task, stimuli)])
    assert counts == [16, 14]
    student.eval()  # the statistics have the task's batch in them, which came first
    with torch.no_grad():
        hidden = student.fc(student.pool2(student.conv2(student.pool1(student.conv1(stimuli.images)))))
        (expected,) = stage.objectives[0]({"fc": hidden}, stimuli, Draw(0)).values()
    torch.testing.assert_close(terms["rdl/fc"], expected)
    assert gradients["conv1.1.weight"].any(), "their own weights learn all the same"


def test_modes_are_put_back_when_a_forward_fails(make_net, train, shown, both_streams):
    student = make_net(0)
    wrong = shown._replace(images=torch.rand(30, 2, 8, 8))
    with stage_module(student, both_streams) as module:
        module.train()
        with pytest.raises(RuntimeError):
            module(train, wrong, Draw(0))
        assert all(part.training for part in module.modules())


def test_norms_without_statistics_share_a_forward(train, source, shown):
    student = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 3)
    )
    stage = Stage(RDLObjective(source, {"2": "sub-1"}, stream="stimuli"))
    batch = (train.subset(torch.arange(16)), shown.subset(torch.arange(14)))
    assert losses_and_gradients(student, stage, [batch])[2] == [30]
    student[1] = nn.InstanceNorm2d(4, track_running_stats=True)
    assert losses_and_gradients(student, stage, [batch])[2] == [16, 14]


# -- what a row of the history says ------------------------------------------------------------------------------------


def test_means_are_over_the_batches_of_a_name(make_net, train, shown, source, fit):
    """Names take turns: sub-1 is pulled in the first and third of four steps. Nothing is learnt here."""
    student = make_net(0, norm=nn.Identity, dropout=0)
    objective = RDLObjective(source, {"fc": BOTH}, pairs=20, stream="stimuli")
    seen = []
    forward = objective.forward
    objective.forward = lambda patterns, batch, draw: (
        seen.append((batch.ids, forward(patterns, batch, draw))) or seen[-1][1]
    )
    (row,) = fit(student, Stage(objective, optimizer=sgd(0.0)), train, shown, stimulus_batch_size=7)
    # One batch is looked at before; the task's last batch has two images.
    assert [len(batch) for batch, _ in seen[1:]] == [7] * 4
    for k, name in enumerate(BOTH):
        expected = [float(terms[f"rdl/fc/{name}"].detach()) for _, terms in seen[1 + k :: 2]]
        assert row[f"rdl/fc/{name}"] == pytest.approx(np.mean(expected), rel=1e-6)
        assert row[f"n_pairs/rdl/fc/{name}"] == 20
    assert list(row) == [
        "stage", "epoch", "learning_rate", "task", "rdl/fc/sub-1", "rdl/fc/sub-2", "n_pairs/rdl/fc/sub-1",
        "n_pairs/rdl/fc/sub-2", "train_error", "alpha",
    ]  # fmt: skip


def test_a_name_whose_turn_did_not_come_has_no_mean(make_net, train, shown, source, fit):
    objective = RDLObjective(source, {"fc": BOTH}, stream="stimuli")
    rows = fit(make_net(0), Stage(objective, epochs=2), train, shown, batch_size=50)
    assert [np.isnan(row["rdl/fc/sub-1"]) for row in rows] == [False, True]
    assert [np.isnan(row["n_pairs/rdl/fc/sub-2"]) for row in rows] == [True, False]


def test_a_layer_whose_name_has_its_turn_later_is_trained(make_net, shown, source, fit, snapshot, moved_parts):
    """Without measured pairs in the first batch its gradient is 0 there, which is not the same as no dependence."""
    student = make_net(0)
    before = snapshot(student)
    objective = RDLObjective(source, {"pool1": "sub-1", "fc": "sub-2"}, stream="stimuli")
    fit(student, Stage(objective, task_weight=0), None, shown)
    assert moved_parts(before, snapshot(student)) >= {"conv1", "conv2", "fc"}


def test_of_a_network_no_pairs_are_told(make_net, teacher, train, fit):
    (row,) = fit(make_net(0), Stage(RDLObjective(teacher, {"fc": "fc"})), train)
    assert not any("n_pairs" in name for name in row)


def test_the_tasks_own_images_have_brain_data(make_net, train, fit, snapshot, moved_parts):
    """As with a network; pairs with an image that was not measured take no part."""
    source = MeasuredRDMs(draw_rdms(train.ids[:40], {"it": train.ids[:40]}, measure="correlation"))
    student = make_net(0)
    before = snapshot(student)
    stage = Stage(RDLObjective(source, {"pool2": "it"}), task_weight=0)
    (row,) = fit(student, stage, train, batch_size=25)
    assert moved_parts(before, snapshot(student)) == {"conv1", "conv2"}
    # Of two batches of 25 images 40 are measured: at least 15 in each.
    assert 105 <= row["n_pairs/rdl/pool2"] < 300


def test_less_than_three_pairs_in_a_batch(make_net, train, shown, source, fit):
    two = draw_rdms(train.ids, {"it": train.ids})
    two.dissimilarities[:, 2:] = np.nan
    stage = Stage(RDLObjective(MeasuredRDMs(two), {"fc": "it"}))
    message = (
        r"term 'rdl/fc' has 2 measured pairs in a batch of 50 \(stream 'task', stage 'main', epoch 0, step 0\), at "
        r"least 3 are needed: raise the batch size or pairs, .* \(stream='stimuli'\)"
    )
    with pytest.raises(ValueError, match=message):
        fit(make_net(0), stage, train, batch_size=50)


def test_pairs_are_looked_at_seldom(make_net, train, fit, monkeypatch):
    """Not in every step, which would wait for the device, but at the trainer's interval."""
    looks = []
    look = EpochSums.look
    monkeypatch.setattr(EpochSums, "look", lambda self: looks.append(len(self.waiting)) or look(self))
    monkeypatch.setattr("brainrdl.training.trainer._LOOK_EVERY", 4)
    source = MeasuredRDMs(draw_rdms(train.ids, {"it": train.ids}))
    fit(make_net(0, norm=nn.Identity), Stage(RDLObjective(source, {"fc": "it"})), train, batch_size=5)
    assert looks == [4, 4, 2]


class OneProcess:
    world_size = 1


def test_sums():
    sums = EpochSums("main", 3)
    streams = {"task": "task", "n_wrong": "task", "rdl/fc": "stimuli"}
    steps = [(1.0, 2, 4.0, 0), (2.0, 0, 5.0, 6), (4.0, 1, 8.0, 3)]
    for (task, wrong, rdl, n), n_task, n_stimuli in zip(steps, (10, 10, 5), (8, 8, 4), strict=True):
        terms = {"task": task, "n_wrong": wrong, "rdl/fc": rdl, "n_pairs/rdl/fc": n}
        sums.add({k: torch.tensor(v) for k, v in terms.items()}, streams, {"task": n_task, "stimuli": n_stimuli})
    assert sums.look() == {"task": 4.0, "n_wrong": 1.0, "rdl/fc": 8.0}
    means, n_images = sums.means(OneProcess())
    assert n_images == 25
    assert means == {
        "task": (10 + 20 + 20) / 25, "rdl/fc": (5 * 8 + 8 * 4) / 12, "n_pairs/rdl/fc": (6 * 8 + 3 * 4) / 12,
        "train_error": 3 / 25,
    }  # fmt: skip


@pytest.mark.parametrize("n_steps", [1, 3])
def test_an_epoch_without_a_measured_pair_is_refused(n_steps):
    def epoch(*pairs, names=("rdl/fc", "other/fc")):
        """pairs: of each step, how many each term has."""
        sums = EpochSums("main", 3)
        for numbers in pairs:
            counts = {f"n_pairs/{name}": float(n) for name, n in zip(names, numbers, strict=True)}
            terms = {k: torch.tensor(v) for k, v in (dict.fromkeys(names, 1.0) | counts).items()}
            sums.add(terms, dict.fromkeys(names, "stimuli"), {"stimuli": 8})
        sums.look()
        return sums.means(OneProcess())[0]

    message = (
        rf"term 'rdl/fc' had no measured pair in any of the {n_steps} batches of epoch 3 \(stream 'stimuli', stage "
        r"'main'\), so there was nothing to learn: raise the batch size or pairs, or give stimuli that were meas"
    )
    with pytest.raises(ValueError, match=message):
        epoch(*[(0, 0)] * n_steps)
    assert np.isnan(epoch(*[(0, 5)] * n_steps, names=("rdl/fc/sub-1", "rdl/fc/sub-2"))["rdl/fc/sub-1"])
    if n_steps == 1:  # the turn of the names of another objective has not come
        assert np.isnan(epoch((0, 5))["rdl/fc"])
    else:
        with pytest.raises(ValueError, match=message):
            epoch(*[(0, 5)] * n_steps)


def test_training_without_a_measured_pair_is_refused(make_net, shown, fit):
    """Every stimulus is covered, each by a pair with one that is not shown."""
    ids = [*shown.ids, *(f"hidden/{k}" for k in range(30))]
    rdms = draw_rdms(ids, {"it": ids})
    i, j = np.triu_indices(60, 1)
    rdms.dissimilarities[0, j != i + 30] = np.nan
    stage = Stage(RDLObjective(MeasuredRDMs(rdms), {"fc": "it"}, stream="stimuli"), task_weight=0)
    with pytest.raises(ValueError, match="term 'rdl/fc' had no measured pair in any of the 1 batches of epoch 0"):
        fit(make_net(0), stage, None, shown, batch_size=30)


# -- only ids decide ---------------------------------------------------------------------------------------------------


@pytest.fixture
def train_with(make_net, train, shown, snapshot):
    """`train_with(source)`: history and weights after two epochs beside a task, with everything random on."""

    def run(source):
        student = make_net(0)
        names = dict.fromkeys(source.names, 1.0)
        objective = RDLObjective(source, {"fc": names, "pool2": names}, pairs=20, stream="stimuli")
        trainer = Trainer(
            student, Stage(objective, epochs=2), batch_size=16, stimulus_batch_size=9, seed=2, accelerator="cpu"
        )
        return [record.history for record in trainer.fit(train, shown)], snapshot(student)

    return run


def test_the_order_of_a_targets_file_does_not_matter(train_with, shown, subjects, tmp_path):
    rdms = draw_rdms(shown.ids, subjects)
    order = np.random.default_rng(5).permutation(30)
    shuffled = subset_stimuli(rdms, [shown.ids[k] for k in order])
    results = []
    for name, content in (("ordered.h5", rdms), ("shuffled.h5", shuffled)):
        save_rdms(content, tmp_path / name)
        results.append(train_with(MeasuredRDMs.load(tmp_path / name)))
    assert not np.array_equal(rdms.dissimilarities, shuffled.dissimilarities, equal_nan=True)
    assert results[0][0] == results[1][0]
    assert all(torch.equal(value, results[1][1][name]) for name, value in results[0][1].items())
    other = train_with(MeasuredRDMs(draw_rdms(shown.ids, subjects, seed=1)))
    assert other[0] != results[0][0]


def test_what_is_stored_for_a_missing_pair_does_not_matter(train_with, shown):
    """NaN, and any number with weight 0, are the same training."""
    full = draw_rdms(shown.ids, {"it": shown.ids})
    gone = np.random.default_rng(6).random(full.dissimilarities.shape) < 0.3
    ones = np.where(gone, 0.0, 1.0)
    results = []
    for stored in (np.nan, 0.0, -8.0, 1e30):
        values, weights = draw_rdms(shown.ids, {"it": shown.ids}), draw_rdms(shown.ids, {"it": shown.ids})
        values.dissimilarities = np.where(gone, stored, full.dissimilarities)
        weights.dissimilarities = ones
        results.append(train_with(MeasuredRDMs(values, weights=weights)))
    with_nan = draw_rdms(shown.ids, {"it": shown.ids})
    with_nan.dissimilarities = np.where(gone, np.nan, full.dissimilarities)
    results.append(train_with(MeasuredRDMs(with_nan)))
    assert 3 < results[0][0][0]["n_pairs/rdl/fc"] < 20
    for history, state in results[1:]:
        assert history == results[0][0]
        assert all(torch.equal(value, results[0][1][name]) for name, value in state.items())


# -- resuming ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_task", [True, False])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_break_and_resume(make_net, train, shown, source, teacher, snapshot, tmp_path, with_task, stop):
    def trainer(place):
        brain = RDLObjective(source, {"fc": BOTH}, pairs=20, stream="stimuli")
        first = Stage(brain, task_weight=0, epochs=2, name="brain")
        second = Stage([brain, Distillation(teacher)], epochs=2) if with_task else Stage(brain, task_weight=0, epochs=2)
        settings = {"batch_size": 16, "stimulus_batch_size": 5, "stimulus_norm": "train"}
        return Trainer(make_net(0), [first, second], **settings, checkpoint=place, accelerator="cpu")

    def run(trainer, resume=False, stop=None):
        rows = []
        for record in trainer.fit(train if with_task else None, shown, resume=resume):
            rows.append(record.history)
            if len(rows) == stop:
                break
        return rows, snapshot(trainer.student)

    place = tmp_path / "last.pt"
    whole, state = run(trainer(None))
    run(trainer(place), stop=stop)
    rows, resumed = run(trainer(place), resume=True)
    assert rows == whole
    assert all(torch.equal(value, resumed[name]) for name, value in state.items())


def test_a_checkpoint_names_the_settings_that_were_set(make_net, train, shown, source, tmp_path):
    plain = Trainer(make_net(0), Stage(), accelerator="cpu")
    assert set(describe_training(plain)) == {"seed", "batch_size", "keep", "stages"}
    stage = Stage(RDLObjective(source, {"fc": "sub-1"}, stream="stimuli"), epochs=2)
    place = tmp_path / "last.pt"
    for _ in Trainer(make_net(0), stage, batch_size=16, accelerator="cpu", checkpoint=place).fit(train, shown):
        break
    for settings, message in (
        ({"stimulus_batch_size": 5}, "stimulus_batch_size: 5 now, absent before"),
        ({"stimulus_norm": "train"}, "stimulus_norm: 'train' now, absent before"),
    ):
        trainer = Trainer(make_net(0), stage, batch_size=16, accelerator="cpu", checkpoint=place, **settings)
        with pytest.raises(ValueError, match=f"is of another training: {message}"):
            next(trainer.fit(train, shown, resume=True))


# -- wrong input -------------------------------------------------------------------------------------------------------


def test_no_overlap_is_told_before_the_first_step(make_net, train, fit, source):
    student = make_net(0)
    before = [p.clone() for p in student.parameters()]
    others = draw_images(30, "other")
    stages = [Stage(), Stage(RDLObjective(source, {"fc": "sub-1"}, stream="stimuli"))]
    with pytest.raises(ValueError, match=r"stimuli: the teacher's 'sub-1' covers 0 of 30 images, .* 'other/0'"):
        fit(student, stages, train, others)
    with pytest.raises(ValueError, match=r"training images: the teacher's 'sub-1' covers 0 of 50 images, .* '1/0'"):
        fit(student, [Stage(), Stage(RDLObjective(source, {"fc": "sub-1"}))], train)
    assert all(torch.equal(one, other) for one, other in zip(before, student.parameters(), strict=True))


def test_settings(make_net, train, shown, source, fit):
    with pytest.raises(ValueError, match="stimulus_norm: expected 'eval' or 'train', got 'frozen'"):
        Trainer(make_net(0), Stage(), stimulus_norm="frozen", accelerator="cpu")
    stage = Stage(RDLObjective(source, {"fc": "sub-1"}, stream="stimuli"))
    with pytest.raises(ValueError, match=r"stimuli: expected a batch of at least 3 .*, got 2"):
        fit(make_net(0), stage, train, shown, stimulus_batch_size=2)
