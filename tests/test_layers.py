"""Recording layers: what is captured, what is refused by name, and that the network is left as it was."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from brainrdl.layers import as_patterns, check_layers, evaluating, layer_names, record_layers


class Net(nn.Module):
    def __init__(self, inplace=False):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.relu = nn.ReLU(inplace=inplace)
        self.block = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 4 * 4, 5))
        self.unused = nn.Linear(2, 2)

    def forward(self, images):
        return self.block(self.relu(self.conv(images)))


class Gives(nn.Module):
    """A network of one layer whose output is whatever `make` makes of it."""

    def __init__(self, make):
        super().__init__()
        self.linear, self.odd = nn.Linear(2, 3), Odd(make)

    def forward(self, inputs):
        return self.linear(inputs), self.odd(self.linear.weight @ inputs.T)


class Odd(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, inputs):
        return self.make(inputs)


class Repeated(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu, self.linear = nn.ReLU(), nn.Linear(4, 4)

    def forward(self, inputs):
        return self.relu(self.linear(self.relu(inputs)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


IMAGES = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def hook_count(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_what_the_layers_gave(net):
    with record_layers(net, ["conv", "block.2", "", "relu"]) as patterns:
        output = net(IMAGES)
    assert set(patterns) == {"conv", "block.2", "", "relu"}
    convolved = net.conv(IMAGES)
    torch.testing.assert_close(patterns["conv"], convolved)
    torch.testing.assert_close(patterns["relu"], convolved.relu())
    torch.testing.assert_close(patterns["block.2"], output)
    torch.testing.assert_close(patterns[""], output)


def test_gradients_flow_through_what_was_recorded(net):
    with record_layers(net, ["conv"]) as patterns:
        net(IMAGES)
    patterns["conv"].square().sum().backward()
    by_hand = Net().eval()
    by_hand.load_state_dict(net.state_dict())
    by_hand.conv(IMAGES).square().sum().backward()
    torch.testing.assert_close(net.conv.weight.grad, by_hand.conv.weight.grad)


def test_recording_changes_neither_output_nor_gradient(net):
    net(IMAGES).sum().backward()
    expected = net.conv.weight.grad.clone()
    plain = net(IMAGES)
    net.zero_grad()
    with record_layers(net, ["conv", "relu", ""]):
        output = net(IMAGES)
    assert torch.equal(output, plain)
    output.sum().backward()
    assert torch.equal(net.conv.weight.grad, expected)


def test_later_changes_in_place_do_not_reach_the_record():
    torch.manual_seed(0)
    inplace, plain = Net(inplace=True).eval(), Net().eval()
    plain.load_state_dict(inplace.state_dict())
    gradients = []
    for network in (inplace, plain):
        with record_layers(network, ["conv", "relu"]) as patterns:
            output = network(IMAGES)
        assert (patterns["conv"] < 0).any()
        assert torch.equal(patterns["conv"].relu(), patterns["relu"])
        (patterns["conv"].square().sum() + output.sum()).backward()
        gradients.append(network.conv.weight.grad)
    torch.testing.assert_close(*gradients)


def test_each_forward_starts_anew(net):
    with record_layers(net, ["conv"]) as patterns:
        net(IMAGES)
        first = patterns["conv"]
        net(2 * IMAGES[:2])
        assert patterns["conv"].shape[0] == 2
        assert first.shape[0] == 4


def test_hooks_are_gone_afterwards(net):
    with record_layers(net, ["conv", ""]) as patterns:
        assert hook_count(net) == 3
        net(IMAGES)
    assert hook_count(net) == 0
    recorded = patterns["conv"]
    net(IMAGES[:1])
    assert patterns["conv"] is recorded


def test_hooks_are_gone_after_an_error_in_the_block(net):
    with pytest.raises(ZeroDivisionError), record_layers(net, ["conv"]):
        net(IMAGES)
        raise ZeroDivisionError
    assert hook_count(net) == 0


def test_hooks_are_gone_after_an_error_in_the_forward(net):
    with pytest.raises(RuntimeError, match="expected input"), record_layers(net, ["conv"]) as patterns:
        net(torch.rand(4, 2, 6, 6))
    assert hook_count(net) == 0
    assert not patterns


def test_a_forward_after_a_failed_one_is_recorded(net):
    with record_layers(net, ["conv", "block.2"]) as patterns:
        with pytest.raises(RuntimeError, match="shapes"):
            net(torch.rand(4, 1, 9, 9))
        net(IMAGES)
        assert patterns["block.2"].shape == (4, 5)


def test_unknown_layers_leave_no_hooks(net):
    with pytest.raises(ValueError, match="layer 'pool9' is not in the network"), record_layers(net, ["conv", "pool9"]):
        pass
    assert hook_count(net) == 0


def test_the_same_layer_may_be_asked_for_twice(net):
    with record_layers(net, ["conv", "conv"]) as patterns:
        net(IMAGES)
    assert patterns["conv"].shape == (4, 3, 4, 4)


def test_two_recordings_at_once(net):
    with record_layers(net, ["conv"]) as outer, record_layers(net, ["conv", "relu"]) as inner:
        net(IMAGES)
    assert torch.equal(outer["conv"], inner["conv"])
    assert set(outer) == {"conv"}


def test_a_layer_that_ran_twice_is_refused():
    network = Repeated()
    with pytest.raises(ValueError, match="layer 'relu' ran twice in one forward"), record_layers(network, ["relu"]):
        network(torch.rand(2, 4))
    assert hook_count(network) == 0
    with record_layers(network, ["linear"]) as patterns:
        network(torch.rand(2, 4))
    assert patterns["linear"].shape == (2, 4)


def test_a_layer_that_did_not_run_is_refused_when_it_is_read(net):
    with record_layers(net, ["conv", "unused"]) as patterns:
        with pytest.raises(ValueError, match="layer 'conv' was recorded but did not run in the last forward"):
            patterns["conv"]
        net(IMAGES)
        assert patterns["conv"].shape[0] == 4
        with pytest.raises(ValueError, match="layer 'unused' was recorded but did not run in the last forward"):
            patterns["unused"]


@pytest.mark.parametrize("make", [lambda x: (x,), lambda x: [x], lambda x: {"features": x}, lambda x: OrderedDict(a=x)])
def test_one_tensor_in_a_container_is_taken_out(make):
    network, inputs = Gives(make), torch.rand(4, 2)
    with record_layers(network, ["odd"]) as patterns:
        network(inputs)
    torch.testing.assert_close(patterns["odd"], network.linear.weight @ inputs.T)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: (x, x), r"layer 'odd' gives 2 parts \(tuple\), expected one tensor; record a layer inside it"),
        (lambda x: {"a": x, "b": x, "c": x}, r"layer 'odd' gives 3 parts \(dict\), expected one tensor"),
        (lambda x: None, r"layer 'odd' gives NoneType \(NoneType\), expected one tensor"),
        (lambda x: x.sum(), r"layer 'odd' gives torch.float32 of shape \(\), expected floating-point patterns"),
        (lambda x: x.argmax(1), r"layer 'odd' gives torch.int64 of shape \(3,\), expected floating-point patterns"),
    ],
)
def test_other_outputs_are_refused_by_name(make, message):
    network = Gives(make)
    with pytest.raises(ValueError, match=message), record_layers(network, ["odd"]):
        network(torch.rand(4, 2))
    assert hook_count(network) == 0


def test_a_network_that_gives_several_outputs_is_refused_as_the_network():
    network = Gives(lambda x: x)
    with pytest.raises(ValueError, match=r"the network gives 2 parts \(tuple\)"), record_layers(network, [""]):
        network(torch.rand(4, 2))


@pytest.mark.parametrize(("shape", "n_units"), [((4, 5), 5), ((4, 3, 2, 2), 12), ((4, 7, 3), 21), ((4,), 1)])
def test_patterns_are_laid_out_flat(shape, n_units):
    recorded = torch.rand(shape)
    flat = as_patterns("tokens", recorded, 4)
    assert flat.shape == (4, n_units)
    assert torch.equal(flat.flatten(), recorded.flatten())


def test_sequence_first_layers_are_refused():
    network = nn.Sequential(OrderedDict(attend=nn.TransformerEncoderLayer(8, 2, dim_feedforward=4)))
    with record_layers(network, ["attend"]) as patterns:
        network(torch.rand(7, 4, 8))  # (n_tokens, n_stimuli, n_units)
    with pytest.raises(ValueError, match=r"layer 'attend' gives shape \(7, 4, 8\) for 4 stimuli; .* batch_first=True"):
        as_patterns("attend", patterns["attend"], 4)


def test_layer_names_are_module_paths(net):
    assert layer_names(net) == ("conv", "relu", "block", "block.0", "block.1", "block.2", "unused")


def test_known_layers_and_the_output_pass(net):
    check_layers(net, ["conv", "block.2", ""])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("covn", "layer 'covn' is not in the student; did you mean 'conv'[?] it has: conv, relu, block, block.0"),
        ("zzz", "layer 'zzz' is not in the student; it has: conv, relu, block, block.0, block.1, block.2, unused$"),
    ],
)
def test_unknown_layers_are_refused_with_the_nearest_known(net, layer, message):
    with pytest.raises(ValueError, match=message):
        check_layers(net, ["conv", layer], "student")


def test_a_long_list_of_layers_is_cut():
    deep = nn.Sequential(*(nn.Identity() for _ in range(50)))
    with pytest.raises(ValueError, match=r"38, 39, … \(50 in all\)$"):
        check_layers(deep, ["readout"])


def test_hooks_set_before_compiling_capture(net):
    weight, bias = net.conv.weight, net.conv.bias
    with record_layers(net, ["conv", ""]) as patterns:
        compiled = torch.compile(net, backend="eager")
        for images in (IMAGES, 2 * IMAGES):
            output = compiled(images)
            torch.testing.assert_close(patterns["conv"], nn.functional.conv2d(images, weight, bias))
            torch.testing.assert_close(patterns[""], output)
            (gradient,) = torch.autograd.grad(patterns["conv"].sum(), bias)
            torch.testing.assert_close(gradient, torch.full((3,), 4.0 * 16))


def test_evaluating_puts_each_modules_mode_back(net):
    net.train()
    net.block.eval()
    modes = [module.training for module in net.modules()]
    with evaluating(net):
        assert not any(module.training for module in net.modules())
        assert not net(IMAGES).requires_grad
    assert [module.training for module in net.modules()] == modes
    assert torch.is_grad_enabled()


def test_evaluating_puts_modes_back_after_an_error(net):
    other = nn.Dropout()
    net.train()
    with pytest.raises(ZeroDivisionError), evaluating(net, other):
        raise ZeroDivisionError
    assert all(module.training for network in (net, other) for module in network.modules())
    assert torch.is_grad_enabled()
