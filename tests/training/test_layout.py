"""Where numbers lie and how CUDA multiplies them: the same training within rounding, everything put back."""

from functools import partial

import pytest
import torch
from torch import nn

from brainrdl.layers import as_patterns, record_layers
from brainrdl.objectives import DeepSupervision, Hints, RDLObjective, Stage
from brainrdl.training import Trainer
from brainrdl.training.layout import channels_last, tensor_float32

CUDA, CPU = torch.device("cuda"), torch.device("cpu")

METHODS = {
    "baseline": lambda t: Stage(),
    "rdl": lambda t: Stage(RDLObjective(t, {"pool1": "pool1", "pool2": "pool2"}, pairs=30)),
    "deep supervision": lambda t: Stage(DeepSupervision(["pool1", "pool2"])),
    "hints": lambda t: [Stage(Hints(t, {"pool2": "pool2"}), task_weight=0, name="hints"), Stage()],
}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1)).eval()


def strides(network):
    return {name: value.stride() for name, value in network.state_dict().items()}


def test_weights_lie_channels_last_inside_and_as_before_outside(network):
    before, values = strides(network), {name: value.clone() for name, value in network.state_dict().items()}
    parameters = list(network.parameters())
    with pytest.raises(RuntimeError, match="inside"), channels_last([network, network]):
        assert network[0].weight.stride() == (27, 1, 9, 3)
        assert network[3].weight.stride() == (4, 1, 4, 4)
        assert network(torch.rand(2, 3, 8, 8)).is_contiguous(memory_format=torch.channels_last)
        raise RuntimeError("inside")
    assert strides(network) == before
    assert all(torch.equal(value, values[name]) for name, value in network.state_dict().items())
    assert all(a is b for a, b in zip(parameters, network.parameters(), strict=True))


def test_what_the_user_has_laid_out_stays_so(network):
    network = network.to(memory_format=torch.channels_last)
    before = strides(network)
    with channels_last([network]):
        assert strides(network)["0.weight"] == before["0.weight"]
    assert strides(network)["0.weight"] == before["0.weight"]


def test_unless_wanted_nothing_is_moved(network):
    where = [parameter.data_ptr() for parameter in network.parameters()]
    with channels_last([network], wanted=False):
        assert [parameter.data_ptr() for parameter in network.parameters()] == where


def test_units_have_the_same_order_in_either_layout(network):
    """A unit is a channel and a place; where it lies in memory says nothing about it."""
    images, order = torch.rand(6, 3, 8, 8), []
    for wanted in (False, True):
        with channels_last([network], wanted), record_layers(network, ["0"]) as patterns:
            network(images)
            assert patterns["0"].is_contiguous(memory_format=torch.channels_last) == wanted
            order.append(as_patterns("0", patterns["0"], 6))
    torch.testing.assert_close(*order)
    labelled = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5).float()
    assert torch.equal(
        as_patterns("map", labelled.to(memory_format=torch.channels_last), 2), as_patterns("map", labelled, 2)
    )


@pytest.mark.parametrize(
    ("method", "compiled"), [*((method, False) for method in METHODS), pytest.param("rdl", True, id="rdl compiled")]
)
def test_every_method_trains_the_same_within_rounding(
    make_net, teacher, train, validation, fit, snapshot, assert_equal_states, monkeypatch, method, compiled
):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    even, flip = train.subset(torch.arange(48)), lambda images, generator: images.flip(-1)
    ours, plain, of_teacher = make_net(0, dropout=0), make_net(0, dropout=0), snapshot(teacher.network)
    before = strides(ours), strides(teacher.network)
    seen = []
    ours.conv2.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].stride()[1]))
    given = {"validation": validation, "augment": flip}
    rows = fit(ours, METHODS[method](teacher), even, channels_last=True, compile=compiled, **given)
    expected = fit(plain, METHODS[method](teacher), even, **given)
    assert set(seen) == {1}  # of a map in channels_last, neighbours are channels
    assert (strides(ours), strides(teacher.network)) == before
    assert_equal_states(of_teacher, snapshot(teacher.network))
    for name, value in snapshot(plain).items():
        torch.testing.assert_close(snapshot(ours)[name], value, rtol=1e-4, atol=1e-5)
    for row, other in zip(rows, expected, strict=True):
        assert row.pop("stage") == other.pop("stage")
        assert row == pytest.approx(other, rel=1e-3, nan_ok=True)


def test_the_student_is_put_back_when_a_training_is_left(make_net, train):
    student = make_net(0)
    before = strides(student)
    for _ in Trainer(student, Stage(epochs=3), batch_size=16, accelerator="cpu", channels_last=True).fit(train):
        assert student.conv2[0].weight.stride() != before["conv2.0.weight"]
        break
    assert strides(student) == before


def test_a_checkpoint_of_another_layout_is_another_training(make_net, train, fit, tmp_path):
    settings = {"checkpoint": tmp_path / "last.pt", "resume": True}
    fit(make_net(0), Stage(), train, channels_last=True, **settings)
    with pytest.raises(ValueError, match="is of another training: channels_last: True before, absent now"):
        fit(make_net(0), Stage(), train, **settings)
    (row,) = fit(make_net(0), Stage(), train, channels_last=True, **settings)
    assert row["epoch"] == 0


def precisions():
    backends = torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)
    return (torch.get_float32_matmul_precision(), *(getattr(one, "fp32_precision", None) for one in backends))


def test_tensor_float32_on_cuda_alone_and_put_back():
    before = precisions()
    with pytest.raises(RuntimeError, match="inside"), tensor_float32(CUDA):
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cuda.matmul.allow_tf32
        raise RuntimeError("inside")
    assert precisions() == before
    for device, wanted in ((CPU, True), (CUDA, False)):
        with tensor_float32(device, wanted):
            assert precisions() == before


def test_tensor_float32_changes_nothing_on_a_cpu(make_net, teacher, train, fit, snapshot, assert_equal_states):
    states = []
    for tf32 in (True, False):
        student = make_net(0)
        fit(student, METHODS["rdl"](teacher), train, tf32=tf32)
        states.append(snapshot(student))
    assert_equal_states(*states)
