"""Recording layers: what is captured, what is refused by name, and that the network is left as it was."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from brainrdl.layers import (
    as_patterns,
    check_layers,
    delay_gradient,
    evaluating,
    in_memory_order,
    layer_names,
    record_layers,
)
from brainrdl.reductions import Reducer, Reduction


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


class Kept(nn.Module):
    """Its layers' tensors, and one that its base changes: `odd` gives a view of what `linear` gave."""

    def __init__(self, later=lambda x: x, odd=lambda x: x):
        super().__init__()
        self.linear, self.odd, self.readout = nn.Linear(2, 4), Odd(odd), nn.Linear(4, 3)
        self.later = later
        self.seen = {}
        for name in ("linear", "odd", "readout"):
            getattr(self, name).register_forward_hook(lambda m, i, output, name=name: self.seen.update({name: output}))

    def forward(self, inputs):
        hidden = self.linear(inputs)
        odd = self.odd(hidden)
        self.later(hidden)
        return self.readout(odd.reshape(hidden.shape))


INPUTS = torch.rand(5, 2, generator=torch.Generator().manual_seed(2))


def at(tensor):
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("training", [True, False])
def test_a_tensor_that_nothing_changes_is_recorded_itself(training):
    network = Kept().train(training)
    with record_layers(network, ["linear", "odd"]) as patterns:
        for _ in range(3):
            network(INPUTS)
            assert at(patterns["linear"]) == at(network.seen["linear"])
            assert at(patterns["odd"]) == at(network.seen["odd"])


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    ("later", "odd"),
    [
        (lambda x: x.relu_(), lambda x: x),  # a layer that gives its own input
        (lambda x: x.mul_(2), lambda x: x.view(5, 2, 2)),
        (lambda x: x[:, 1:].zero_(), lambda x: x[:, :4]),
    ],
)
def test_one_that_is_changed_is_copied_as_it_was(later, odd, context):
    torch.manual_seed(0)
    network = Kept(later, odd)
    with context(), record_layers(network, ["linear", "odd"]) as patterns:
        for inputs in (INPUTS, 2 * INPUTS, 3 * INPUTS):
            network(inputs)
            hidden = nn.functional.linear(inputs, network.linear.weight, network.linear.bias)
            assert not torch.equal(network.seen["linear"], hidden)
            torch.testing.assert_close(patterns["linear"], hidden)
            torch.testing.assert_close(patterns["odd"], odd(hidden))


def test_what_is_changed_in_training_alone():
    network = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5, inplace=True), nn.Linear(4, 3))
    linear = network[0](INPUTS).detach()
    with record_layers(network, ["0"]) as patterns:
        for training in (False, True, False, True):
            network.train(training)
            for _ in range(2):
                network(INPUTS)
                torch.testing.assert_close(patterns["0"], linear)


def test_a_layer_that_is_changed_in_a_later_forward_alone_is_refused():
    network = Kept()
    with record_layers(network, ["linear"]) as patterns:
        network(INPUTS)
        network.later = lambda x: x.relu_()
        with pytest.raises(
            ValueError, match="layer 'linear': its tensor was changed in place in this forward, but not"
        ):
            network(INPUTS)
        assert not patterns
        network(INPUTS)  # now it is known
        torch.testing.assert_close(
            patterns["linear"], nn.functional.linear(INPUTS, network.linear.weight, network.linear.bias)
        )


def test_the_output_may_be_changed_in_place():
    network = Kept()
    with record_layers(network, ["readout", ""]) as patterns:
        for _ in range(2):
            output = network(INPUTS)
            before = output.detach().clone()
            output.mul_(3)
            assert torch.equal(patterns["readout"], before)
            assert torch.equal(patterns[""], before)


def test_what_was_changed_after_the_forward_is_refused_when_it_is_read():
    network = Kept()
    with record_layers(network, ["linear"]) as patterns, torch.no_grad():
        network(INPUTS)
        network.seen["linear"].zero_()
        with pytest.raises(ValueError, match="layer 'linear': its tensor was changed in place after the forward"):
            patterns["linear"]


def kept_bytes(run):
    """Bytes of the distinct storages that autograd keeps, and those of what `run` returns."""
    kept = {}

    def pack(tensor):
        kept[at(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        returned = run()
    return sum({**kept, **{at(t): t.untyped_storage().nbytes() for t in returned}}.values())


def test_recording_keeps_no_more_than_the_network_does():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )
    plain = kept_bytes(lambda: [network(IMAGES)])
    with record_layers(network, ["0", "1", "2", "3"]) as patterns:

        def recording():
            output = network(IMAGES)
            return [output, *(patterns[layer] for layer in "0123")]

        recording()
        assert kept_bytes(recording) <= plain + patterns["2"].nbytes  # what a ReLU is given it does not need itself


class Recomputing(nn.Module):
    """A network that keeps nothing of its blocks and computes them again in backward."""

    def __init__(self, use_reentrant=False, recompute=True):
        super().__init__()
        self.first = nn.Linear(2, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(4, 4)) for _ in range(2)
        )
        self.readout = nn.Linear(4, 3)
        self.use_reentrant, self.recompute = use_reentrant, recompute

    def forward(self, inputs):
        hidden = self.first(inputs)
        for block in self.blocks:
            hidden = checkpoint(block, hidden, use_reentrant=self.use_reentrant) if self.recompute else block(hidden)
        return self.readout(hidden)


@pytest.mark.parametrize("reductions", [{}, {"blocks.0.0": Reducer("blocks.0.0", Reduction(project=2), "euclidean")}])
def test_what_is_computed_again_in_backward_is_not_recorded_again(reductions):
    gradients = []
    for recompute in (True, False):
        torch.manual_seed(0)
        network = Recomputing(recompute=recompute)
        with record_layers(network, ["first", "blocks.0.0", "blocks.1", "blocks.1.2"], reductions) as patterns:
            for step in range(3):
                torch.manual_seed(step)
                output = network(INPUTS)
                recorded = dict(patterns)
                terms = [value.square().sum() for value in recorded.values()]
                (output.sum() + sum(terms)).backward()
                assert all(patterns[layer] is value for layer, value in recorded.items())
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_a_layer_without_gradient_in_a_network_with_one_is_told():
    network = Recomputing(use_reentrant=True)
    with (
        pytest.warns(UserWarning, match=r"layer 'blocks.0.0' runs without gradient .* set use_reentrant=False"),
        record_layers(network, ["first", "blocks.0.0"]),
    ):
        network(INPUTS)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad])
def test_nothing_is_told_of_a_network_that_runs_with_gradient_or_without_it_throughout(net, context):
    with record_layers(net, ["conv", "block"]) as patterns, context():
        net(IMAGES)
        assert patterns["block"].requires_grad == torch.is_grad_enabled()


def test_what_runs_beside_the_networks_own_forward_is_not_recorded(net):
    with record_layers(net, ["conv"]) as patterns:
        net.conv(IMAGES)
        assert not patterns
        net(IMAGES)
        recorded = patterns["conv"]
        net.conv(IMAGES[:1])
        assert patterns["conv"] is recorded


def test_a_copy_made_meanwhile_is_not_recorded(net):
    images = torch.rand(4, 1, 6, 6)
    with record_layers(net, ["conv", "block.2"]) as patterns:
        net(images)
        before = dict(patterns)
        other = copy.deepcopy(net)
        other(2 * images)
        assert all(patterns[layer] is before[layer] for layer in ("conv", "block.2"))
        net(3 * images)
        assert torch.equal(patterns["conv"], net.conv(3 * images))
    with record_layers(other, ["conv"]) as patterns:
        other(images)
        assert torch.equal(patterns["conv"], net.conv(images))


def test_what_is_made_of_a_layer_is_recorded_in_its_place(net):
    with record_layers(net, ["conv", "relu"], {"conv": lambda maps: maps.mean((2, 3))}) as patterns:
        net(IMAGES)
    torch.testing.assert_close(patterns["conv"], net.conv(IMAGES).mean((2, 3)))
    assert patterns["relu"].shape == (4, 3, 4, 4)


def test_a_reduction_of_a_layer_that_there_is_not_is_refused(net):
    message = "layer 'cnv' is not in the network; did you mean 'conv'"
    with pytest.raises(ValueError, match=message), record_layers(net, ["conv"], {"cnv": torch.sum}):
        pass
    assert hook_count(net) == 0


def test_each_forward_starts_anew(net):
    with record_layers(net, ["conv"]) as patterns:
        net(IMAGES)
        first = patterns["conv"]
        net(2 * IMAGES[:2])
        assert patterns["conv"].shape[0] == 2
        assert first.shape[0] == 4


def test_hooks_are_gone_afterwards(net):
    with record_layers(net, ["conv", ""]) as patterns:
        assert hook_count(net) == 4
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


@pytest.mark.parametrize("shape", [(4, 3, 5, 2), (4, 1, 5, 2), (1, 3, 5, 2), (4, 3, 1, 1), (4, 6), (4, 3, 2)])
def test_in_the_order_of_memory_nothing_is_copied(shape):
    recorded = torch.rand(shape)
    assert in_memory_order(recorded) is recorded
    if len(shape) == 4:
        last = recorded.to(memory_format=torch.channels_last)
        flat = as_patterns("map", in_memory_order(last), shape[0])
        assert at(flat) == at(last)
        assert torch.equal(flat.sort(1).values, recorded.flatten(1).sort(1).values)
        turned = recorded.transpose(2, 3)
        assert torch.equal(in_memory_order(turned).flatten(1).sort(1).values, turned.flatten(1).sort(1).values)


def test_sequence_first_layers_are_refused():
    network = nn.Sequential(OrderedDict(attend=nn.TransformerEncoderLayer(8, 2, dim_feedforward=4)))
    with record_layers(network, ["attend"]) as patterns:
        network(torch.rand(7, 4, 8))  # (n_tokens, n_stimuli, n_units)
    with pytest.raises(ValueError, match=r"layer 'attend' gives shape \(7, 4, 8\) for 4 stimuli; .* batch_first=True"):
        as_patterns("attend", patterns["attend"], 4)


@pytest.mark.parametrize("late", [False, True])
def test_a_gradient_is_computed_when_the_backward_is_there(late):
    torch.manual_seed(0)
    network, order = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)), []
    with record_layers(network, ["0", "1"]) as patterns:
        output = network(INPUTS)
        results = {layer: patterns[layer].flatten(1).square().sum() for layer in ("0", "1")}
    for layer, result in results.items():
        result.grad_fn.next_functions[0][0].register_prehook(lambda gradient, layer=layer: order.append(layer))
        if late:
            delay_gradient(result, patterns[layer])
    output.grad_fn.register_prehook(lambda gradient: order.append("output"))
    (output.sum() + sum(results.values())).backward()
    assert order == (["output", "1", "0"] if late else ["1", "0", "output"])
    hidden = network[0](INPUTS)
    loss = network(INPUTS).sum() + hidden.square().sum() + hidden.tanh().square().sum()
    for parameter, expected in zip(network.parameters(), torch.autograd.grad(loss, network.parameters()), strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_a_leaf_has_no_layer_to_wait_for():
    leaf = torch.rand(3, 4, requires_grad=True)
    result = leaf.square().sum()
    delay_gradient(result, leaf)
    delay_gradient(result.detach(), result)
    result.backward()
    torch.testing.assert_close(leaf.grad, 2 * leaf.detach())


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
