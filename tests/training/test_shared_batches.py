"""Two processes that share each batch: the same training as of one process, whatever is drawn across or within them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from brainrdl.objectives import RDLObjective
from brainrdl.randomness import Draw
from brainrdl.ranks import Share
from brainrdl.training.devices import make_fabric

SCRIPT = Path(__file__).with_name("shared_batches.py")
spec = importlib.util.spec_from_file_location("shared_batches", SCRIPT)
shared_batches = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared_batches)
OF_TASK = [name for name in shared_batches.OBJECTIVES if "stimuli" not in name]


@pytest.fixture(scope="module")
def alone():
    return make_fabric("cpu")


@pytest.fixture(scope="module")
def here(tmp_path_factory, alone):
    """The folder of checkpoints; one process begins a training that two go on with."""
    folder = tmp_path_factory.mktemp("shared")
    shared_batches.train("measured", True, alone, epochs=4, keep="best", checkpoint=folder / "of-1.pt", stop=2)
    return folder


@pytest.fixture(scope="module")
def ranks(here):
    """What each of the two processes has come to."""
    command = [sys.executable, str(SCRIPT), str(here), "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(here / f"rank-{rank}.pt") for rank in (0, 1)]


def assert_same_training(found, expected):
    assert found["student"].keys() == expected["student"].keys()
    for name, value in expected["student"].items():
        torch.testing.assert_close(found["student"][name], value, rtol=1e-5, atol=1e-5, msg=name)
    assert len(found["history"]) == len(expected["history"])
    for row, wanted in zip([dict(row) for row in found["history"]], expected["history"], strict=True):
        assert row.pop("stage") == wanted["stage"]
        assert row == pytest.approx({key: wanted[key] for key in row}, rel=1e-5, abs=1e-5, nan_ok=True)
        assert wanted.keys() - row.keys() == {"stage"}


@pytest.mark.parametrize("name", shared_batches.OBJECTIVES)
def test_pairs_across_processes_are_those_of_one_process(ranks, alone, name):
    expected = shared_batches.train(name, True, alone)
    assert_same_training(ranks[0][name, True], expected)
    assert ranks[0][name, True]["history"] == ranks[1][name, True]["history"]
    for key, value in ranks[1][name, True]["student"].items():
        assert torch.equal(ranks[0][name, True]["student"][key], value), key


def blocks(name):
    """The loop that one process would write: each block of a batch draws its own pairs; losses by block size."""
    images, labels = shared_batches.TRAIN.images, shared_batches.TRAIN.labels
    student = shared_batches.net(0)
    objective = shared_batches.OBJECTIVES[name](False)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    order = torch.from_numpy(Draw(4).generator("order").permutation(47))
    with shared_batches.recorded(student, objective) as patterns:
        for step, start in enumerate(range(0, 47, 16)):
            batch = order[start : start + 16]
            loss = 0
            for rank in (0, 1):
                block = shared_batches.TRAIN.subset(batch[rank::2])
                if step == 0 and rank == 0 and objective is not None:
                    student(block.images)
                    objective.prepare(patterns, block)
                output = student(images[batch[rank::2]])
                term = functional.cross_entropy(output, labels[batch[rank::2]])
                if objective is not None:
                    term = term + 3.0 * sum(objective(patterns, block, Draw(4, step=step, rank=rank)).values())
                loss = loss + len(block.ids) / len(batch) * term
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 2.0)
            optimizer.step()
    return student.state_dict()


@pytest.mark.parametrize("name", OF_TASK)
def test_pairs_within_processes_are_those_of_blocks(ranks, name):
    for key, value in blocks(name).items():
        torch.testing.assert_close(ranks[0][name, False]["student"][key], value, rtol=1e-5, atol=1e-5, msg=key)


def test_it_matters_where_pairs_are_drawn(ranks):
    for name in OF_TASK:
        across, within = (ranks[0][name, which]["student"]["conv1.0.weight"] for which in (True, False))
        assert torch.equal(across, within) == (name == "none")


def test_stimuli_of_several_names_have_their_pairs(ranks):
    row = ranks[0]["measured, stimuli", True]["history"][0]
    # 9 stimuli are 36 pairs, of two shares 10 + 6; nine tenths of them measured.
    for name in ("IT", "V4"):
        assert 26 < row[f"n_pairs/rdl/fc/{name}"] <= 36
        assert ranks[0]["measured, stimuli", False]["history"][0][f"n_pairs/rdl/fc/{name}"] < 12


def test_a_batch_in_parts(ranks, alone):
    expected = shared_batches.train("mse, by image", True, alone, images=32, accumulate=2)
    assert_same_training(ranks[0]["parts"], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gathered_rows(ranks, dtype):
    rows = torch.arange(21.0).reshape(7, 3).to(dtype)
    owners = torch.tensor([1, 0, 1, 1, 0, 1, 1])
    for rank in (0, 1):
        found = ranks[rank]["gathered"][dtype]
        assert torch.equal(found["gathered"], rows) and torch.equal(found["of one"], rows)
        # Twice the loss's own gradient: the mean over two processes halves it.
        assert torch.equal(found["gradient"], 2 * torch.arange(7.0)[owners == rank][:, None].expand(-1, 3).to(dtype))


def test_processes_raise_together(ranks):
    for rank in (0, 1):
        of_one, unlike, alike, rows = ranks[rank]["told"]
        assert of_one == "FloatingPointError: of process 1"
        assert unlike.startswith(
            "ValueError: epochs in a file: process 0 finds 0 there, process 1 3; it must lie where"
        )
        assert alike == ""
        assert rows == f"ValueError: expected 2 rows of process {rank}, got 3; give each process its share"


def test_a_share():
    names = [f"image-{k}" for k in range(20)]
    shares = [Share(names, np.array([7, 3, 9, 12, 5]), rank, 2) for rank in (0, 1)]
    assert shares[0].ids == shares[1].ids == ("image-7", "image-3", "image-9", "image-12", "image-5")
    assert shares[0].n_stimuli == 5 and shares[0].owners().tolist() == [0, 1, 0, 1, 0]
    assert shares[1].owners(torch.tensor([1, 3, 4])).tolist() == [1, 1, 0]
    assert [share.weight for share in shares] == [pytest.approx(6 / 5), pytest.approx(4 / 5)]
    assert shares[1].part(slice(1, 3)).ids == ("image-9", "image-12", "image-5")
    assert Share(names, None, 0, 3).ids == tuple(names)


def test_what_cannot_be_drawn_across_processes(alone):
    class Images:
        names, dissimilarity = ("fc",), "euclidean"

        def covers(self, ids):
            return {"fc": torch.ones(len(ids), dtype=torch.bool)}

    with pytest.raises(
        ValueError, match=r"across_ranks: a Images is asked about images, of which .* give a NetworkTeacher or a"
    ):
        RDLObjective(Images(), {"fc": "fc"}, across_ranks=True)
    objective = shared_batches.OBJECTIVES["mse, by image"](True)
    block = shared_batches.TRAIN.subset(torch.arange(8))
    shared = block._replace(share=Share(block.ids, None, 0, 2))
    with pytest.raises(ValueError, match="across_ranks: all processes must draw the same pairs; give a Draw"):
        objective({}, shared)


@pytest.fixture(scope="module")
def whole(alone):
    """Four epochs without a stop."""
    return shared_batches.train("measured", True, alone, epochs=4, keep="best")


def test_two_processes_go_on_with_the_training_of_one(ranks, whole):
    for rank in (0, 1):
        assert_same_training(ranks[rank]["gone on"], whole)
        assert ranks[rank]["gone on"]["best"]["epoch"] == whole["best"]["epoch"]


def test_one_process_goes_on_with_the_training_of_two(ranks, here, alone, whole):
    found = shared_batches.train(
        "measured", True, alone, epochs=4, keep="best", checkpoint=here / "of-2.pt", resume=True
    )
    assert_same_training(found, whole)


def test_every_process_has_the_best_weights_so_far(ranks, here):
    stored = torch.load(here / "of-1.pt", weights_only=True)
    assert ranks[1]["stopped"]["best"] is not None
    for name, value in ranks[0]["stopped"]["best"]["student"].items():
        assert torch.equal(ranks[1]["stopped"]["best"]["student"][name], value)
    assert [rank["gone on"]["best"]["error"] for rank in ranks] == [stored["best"]["error"]] * 2
