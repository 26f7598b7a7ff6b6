"""Networks by name and weights from files."""

import sys

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from brainrdl.models import MnistCNN, NiN, build_network, load_weights


def equal_weights(a, b):
    return a.state_dict().keys() == b.state_dict().keys() and all(
        torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items()
    )


@pytest.mark.parametrize(
    ("name", "arguments", "reference"),
    [
        ("mnist_cnn", {"n_classes": 5}, MnistCNN),
        ("nin", {"n_features": 10}, NiN),
        ("torchvision:resnet18", {"num_classes": 7}, torchvision.models.resnet18),
        ("brainrdl.models.mnist_cnn:MnistCNN", {"n_hidden": 20}, MnistCNN),
    ],
)
def test_a_name_gives_its_network_with_initial_weights_from_torchs_seed(name, arguments, reference):
    torch.manual_seed(1)
    built = build_network(name, arguments, allow_code=True)
    torch.manual_seed(1)
    assert equal_weights(built, reference(**arguments))


def test_timm_gives_its_network_without_its_weights():
    timm = pytest.importorskip("timm")
    torch.manual_seed(1)
    built = build_network("timm:resnet18.a1_in1k", {"num_classes": 7, "in_chans": 1})
    torch.manual_seed(1)
    assert equal_weights(built, timm.create_model("resnet18", pretrained=False, num_classes=7, in_chans=1))
    with pytest.raises(ValueError, match=r"unknown network 'timm:resnet18q'; did you mean 'timm:resnet18'"):
        build_network("timm:resnet18q")
    with pytest.raises(ValueError, match=r"unknown network 'timm:hf-hub:timm/resnet18'"):
        build_network("timm:hf-hub:timm/resnet18")


def test_timm_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"need the package timm: pip install timm"):
        build_network("timm:resnet18")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("mnist_cn", "did you mean 'mnist_cnn'"),
        ("resnet18", "did you mean 'torchvision:resnet18'"),
        ("torchvision:resnet81", "did you mean 'torchvision:resnet18'"),
        ("torchvision:fasterrcnn_resnet50_fpn", "expected|did you mean"),
        ("zzz", "expected mnist_cnn, nin, .*linear_head, torchvision:NAME, timm:NAME or package.module:callable"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"unknown network '{name}'; ({nearest})"):
        build_network(name)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mnist_cnn", {"kernal_size": 3}, "no argument 'kernal_size'; did you mean 'kernel_size'. it takes: in_ch"),
        ("mnist_cnn", {"image_size": 8}, "cannot be made with image_size=8: images of 8x8 are too small"),
        ("mnist_cnn", {"n_classes": "ten"}, "cannot be made with n_classes='ten'"),
        ("torchvision:resnet18", {"num_clases": 3}, "cannot be made with num_clases=3: .*unexpected keyword"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "nothing is downloaded, so 'weights' is refused; give a file"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=f"network '{name}'.*{message}"):
        build_network(name, arguments)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def small(n_out): return nn.Sequential(nn.Flatten(), nn.Linear(4, n_out))\n"
        "def text(): return 'no network'\n"
        "def broken(): raise KeyError('size')\n"
        "number = 3\n"
    )
    (tmp_path / "my_typo.py").write_text("import no_such_thing\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_own_code_runs_only_when_allowed(own_module):
    with pytest.raises(ValueError, match=r"'my_nets:small' runs code of that module; allow it with --allow-code"):
        build_network("my_nets:small", {"n_out": 3})
    assert "my_nets" not in sys.modules
    assert build_network("my_nets:small", {"n_out": 3}, allow_code=True)[1].out_features == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_nets:smal", "module 'my_nets' has no callable 'smal'"),
        ("my_nets:number", "module 'my_nets' has no callable 'number'"),
        ("my_nets:small", "cannot be made with no arguments: .*missing 1 required"),
        ("my_nets:text", "gives a str, expected a torch.nn.Module"),
        ("my_nets:broken", "cannot be made with no arguments: 'size'"),
        ("my_net:small", "the module cannot be imported .No module named 'my_net'.; install it, or put its folder"),
        ("my_typo:small", "the module cannot be imported .No module named 'no_such_thing'."),
    ],
)
def test_own_code_that_gives_no_network_is_refused(name, message, own_module):
    with pytest.raises(ValueError, match=f"network '{name}'.*{message}"):
        build_network(name, allow_code=True)


def written(state, folder, kind):
    file = folder / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        save_file(state, file)
    elif kind == "wrapped":
        torch.save({"state_dict": state, "epoch": 3}, file)
    elif kind == "parallel":
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, file)
    else:
        torch.save(state, file)
    return file


@pytest.mark.parametrize("kind", ["safetensors", "plain", "wrapped", "parallel"])
@pytest.mark.parametrize("name", ["mnist_cnn", "nin"])
def test_weights_come_back_from_every_kind_of_file(kind, name, tmp_path):
    torch.manual_seed(0)
    network = build_network(name)
    file = written(network.state_dict(), tmp_path, kind)
    assert not equal_weights(build_network(name), network)
    assert equal_weights(build_network(name, weights=file), network)


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    file = written(MnistCNN(n_classes=5).state_dict(), tmp_path, "plain")
    misshapen = r"2 of another shape \(readout.weight \(5, 200\) for \(10, 200\), readout.bias \(5,\) for \(10,\)\)"
    with pytest.raises(ValueError, match=f"do not fit the network: {misshapen}; they must come"):
        build_network("mnist_cnn", weights=file)
    state = MnistCNN().state_dict()
    del state["fc.0.bias"], state["readout.bias"]
    state["fc.1.bias"] = torch.zeros(3)
    file = written(state, tmp_path, "safetensors")
    message = (
        r"do not fit the network: 2 missing \(fc.0.bias, readout.bias\); 1 unexpected \(fc.1.bias\); they must come"
    )
    with pytest.raises(ValueError, match=message):
        build_network("mnist_cnn", weights=file)
    with pytest.raises(ValueError, match=r"59 missing \(conv1.1.weight, conv1.1.bias, conv1.1.running_mean, …\); 3 un"):
        load_weights(NiN(), file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_tensor(value, tmp_path):
    state = MnistCNN().state_dict()
    state["conv2.0.bias"][3] = value
    network = MnistCNN()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"tensor 'conv2.0.bias' holds NaN or infinite values"):
        load_weights(network, written(state, tmp_path, "plain"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class Unwelcome:
    """A pickle of this would run code when it is read."""

    def __reduce__(self):
        return print, ("code ran",)


def test_files_that_hold_no_weights_are_refused_and_no_code_runs(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"weights '.*none.pt': no such file"):
        load_weights(MnistCNN(), tmp_path / "none.pt")
    torch.save({"conv1.0.weight": Unwelcome()}, tmp_path / "code.pt")
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in "code.pt", "text.pt", "text.safetensors":
        with pytest.raises(ValueError, match=f"weights '.*{name}' cannot be read as .*; save it with torch.save"):
            load_weights(MnistCNN(), tmp_path / name)
    assert capsys.readouterr().out == ""
    for number, other in enumerate(([torch.zeros(3)], torch.zeros(3), {"epoch": 3})):
        torch.save(other, tmp_path / f"{number}.pt")
        with pytest.raises(ValueError, match=r"hold something else than a state dict"):
            load_weights(MnistCNN(), tmp_path / f"{number}.pt")


def test_a_module_like_any_other_can_be_built_from_torch_itself():
    assert isinstance(
        build_network("torch.nn:Linear", {"in_features": 2, "out_features": 3}, allow_code=True), nn.Linear
    )
