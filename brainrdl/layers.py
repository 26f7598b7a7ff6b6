"""Record what layers of a network give, by module path, and put the network back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from brainrdl.notes import warn_result


class Patterns(dict[str, Tensor]):
    """What the recorded layers gave in the last forward.

    Reading a layer raises ValueError, naming it, where it did not run, and where its tensor was changed in place since.
    """

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, int] = {}  # of those that are the network's own tensors

    def __missing__(self, layer: str) -> Tensor:
        raise ValueError(
            f"layer '{layer}' was recorded but did not run in the last forward; "
            "record a layer that the network uses, or run the network first"
        )

    def __getitem__(self, layer: str) -> Tensor:
        found = super().__getitem__(layer)
        if layer in self.versions and found._version != self.versions[layer]:
            raise _changed(layer, "after the forward; read it before, or change a copy")
        return found


def layer_names(network: nn.Module) -> tuple[str, ...]:
    """Every module path of the network; "" (its output) is left out."""
    return tuple(name for name, _ in network.named_modules() if name)


def check_layers(network: nn.Module, layers: Iterable[str], what: str = "network") -> None:
    """Raise ValueError naming the first of `layers` that is no module path of the network."""
    known = dict(network.named_modules())
    for layer in layers:
        if layer not in known:
            names = layer_names(network)
            close = get_close_matches(layer, names, n=1)
            nearest = f"did you mean '{close[0]}'? " if close else ""
            listed = ", ".join(names[:40]) + (f", … ({len(names)} in all)" if len(names) > 40 else "")
            raise ValueError(f"layer '{layer}' is not in the {what}; {nearest}it has: {listed}")


Reduce = Callable[[Tensor], Tensor]

# Of a forward: in training mode, with gradient, in half precision on the CPU, on a GPU.
_Kind = tuple[bool, bool, bool, bool]


@contextmanager
def record_layers(
    network: nn.Module, layers: Iterable[str], reductions: Mapping[str, Reduce] | None = None
) -> Iterator[Patterns]:
    """Inside the block, every forward of `network` fills the yielded mapping with what `layers` gave.

    layers: module paths; "" is the network's output. The tensors are as the layer gave them (usually
    (n_stimuli, ...)), with their gradient. reductions: layer -> what is kept in place of its tensor, a function of it;
    an objective has those of its layers under `reductions`.
    A new forward empties the mapping first. The hooks are removed whatever happens in the block.

    A tensor is recorded itself, so that it takes no memory where the network keeps it for its own backward; it is
    copied only where the network changes it in place later (`nn.ReLU(inplace=True)`), or hands it out as its output.
    Which are changed is found out in the first forward of a kind (training or not, with gradient or without), which
    holds copies until it ends. A change through `tensor.data` or numpy is hidden from torch, and so from this.
    What activation checkpointing runs again in backward is not recorded again.

    Raises ValueError, by name: a layer the network does not have; one that ran twice in one forward (a shared
    ReLU: which of the two is meant?); one that did not run, when it is read; one whose output is not a single
    tensor with a dimension for stimuli; one that was changed in place in this forward, but not in those before.
    Warns of a layer that runs without gradient in a network that has one: no term reaches its weights.
    """
    recorder = _Recorder(network, tuple(dict.fromkeys(layers)), dict(reductions or {}))
    with recorder:
        yield recorder.patterns


class _Recorder:
    """The hooks of one `record_layers`, and what they know of the network."""

    def __init__(self, network: nn.Module, layers: Sequence[str], reductions: Mapping[str, Reduce]) -> None:
        check_layers(network, layers)
        check_layers(network, reductions)
        self.network, self.layers, self.reductions = network, layers, reductions
        self.patterns = Patterns()
        self.running = False  # the network's own forward, as against a part that is computed again in backward
        self.has_gradient = False
        self.kind: _Kind | None = None  # of this forward; None where it is compiled
        self.changed: dict[tuple[_Kind, str], bool] = {}  # in a forward of a kind; not known before the first
        self.given: dict[str, tuple[Tensor, int]] = {}  # what was the layer's own, and its version then
        self.warned: set[str] = set()
        self.handles: list[RemovableHandle] = []

    def __enter__(self) -> None:
        modules = dict(self.network.named_modules())
        try:
            self.handles.append(self.network.register_forward_pre_hook(self.begin))
            for layer in self.layers:
                self.handles.append(modules[layer].register_forward_hook(partial(self.keep, layer)))
            self.handles.append(self.network.register_forward_hook(self.end))  # after that of the layer ""
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def __deepcopy__(self, memo: object) -> _Recorder:
        """The hooks of a copy of the network have nothing to record, and no patterns to copy."""
        return self

    def begin(self, module: nn.Module, inputs: Any) -> None:
        """Before the network's forward."""
        if module is not self.network:
            return  # a copy
        self.patterns.clear()
        self.patterns.versions.clear()
        self.running, self.has_gradient = True, torch.is_grad_enabled()
        if torch.compiler.is_compiling():
            self.kind = None
            return
        self.given.clear()
        on_cpu, on_gpu = torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
        self.kind = module.training, self.has_gradient, on_cpu, on_gpu

    def keep(self, layer: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """After a layer's forward."""
        if self.running and layer in self.patterns:
            raise ValueError(
                f"layer '{layer}' ran twice in one forward, so it is not clear which pattern is meant; "
                "give each use a module of its own, or record its neighbours"
            )
        given = _single_tensor(layer, output)
        reduce = self.reductions.get(layer)
        made = given if reduce is None else reduce(given)
        if not self.running:
            return  # computed again for backward, which counts on the same operations; the pattern is there already
        if self.has_gradient and not torch.is_grad_enabled():
            self._warn(layer)
        if self.kind is None or torch.compiler.is_compiling():
            # The compiler takes out the copies that are not needed.
            self.patterns[layer] = made.clone() if reduce is None or made.shape == given.shape else made
        elif not _share_memory(made, given):
            self.patterns[layer] = made
        elif given.is_inference() or self.changed.get((self.kind, layer)):
            self.patterns[layer] = made.clone()
        else:
            self.given[layer] = made, made._version
            self.patterns[layer] = made if (self.kind, layer) in self.changed else made.clone()

    def end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """After the network's forward: what nothing has changed is recorded itself."""
        if module is not self.network:
            return
        self.running = False
        if self.kind is None:
            return
        handed_out = _places([output] if isinstance(output, Tensor) else tree_leaves(output)) if self.given else set()
        for layer, (tensor, version) in self.given.items():
            changed = tensor._version != version
            was_known = (self.kind, layer) in self.changed
            self.changed[self.kind, layer] = changed
            if changed and was_known:
                self.patterns.clear()
                self.given.clear()
                raise _changed(layer, "in this forward, but not in those before; record another layer")
            if not changed and tensor.untyped_storage().data_ptr() in handed_out:
                self.patterns[layer] = tensor.clone()
            elif not changed:
                self.patterns[layer] = tensor
                self.patterns.versions[layer] = version
        self.given.clear()

    def _warn(self, layer: str) -> None:
        if layer not in self.warned:
            self.warned.add(layer)
            warn_result(
                f"layer '{layer}' runs without gradient in a network that runs with it, so no term reaches its "
                "weights; in torch.utils.checkpoint set use_reentrant=False",
                stacklevel=2,
            )


def _changed(layer: str, when: str) -> ValueError:
    return ValueError(f"layer '{layer}': its tensor was changed in place {when}")


def _share_memory(one: Tensor, other: Tensor) -> bool:
    return one is other or one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _places(values: Iterable[Any]) -> set[int]:
    return {value.untyped_storage().data_ptr() for value in values if isinstance(value, Tensor)}


def _single_tensor(layer: str, output: Any) -> Tensor:
    name = f"layer '{layer}'" if layer else "the network"
    found = output
    if isinstance(found, Mapping):
        found = tuple(found.values())
    if isinstance(found, (tuple, list)) and len(found) == 1:
        found = found[0]
    if not isinstance(found, Tensor):
        parts = f"{len(found)} parts" if isinstance(found, (tuple, list)) else type(found).__name__
        raise ValueError(
            f"{name} gives {parts} ({type(output).__name__}), expected one tensor; "
            "record a layer inside it that gives one"
        )
    if found.ndim == 0 or not found.is_floating_point():
        raise ValueError(
            f"{name} gives {found.dtype} of shape {tuple(found.shape)}, "
            "expected floating-point patterns (n_stimuli, ...)"
        )
    return found


def as_patterns(layer: str, recorded: Tensor, n_stimuli: int) -> Tensor:
    """(n_stimuli, n_units) of a recorded tensor: feature maps and token sequences are laid out flat.

    Raises ValueError where the first dimension does not count the stimuli (a sequence-first recurrent layer).
    """
    if recorded.shape[0] != n_stimuli:
        raise ValueError(
            f"layer '{layer}' gives shape {tuple(recorded.shape)} for {n_stimuli} stimuli; its first dimension must "
            "count the stimuli (set batch_first=True, or record another layer)"
        )
    return recorded.flatten(1) if recorded.ndim > 1 else recorded[:, None]


def in_memory_order(recorded: Tensor) -> Tensor:
    """Feature maps in `torch.channels_last` as a view (n_stimuli, height, width, channels); other tensors as they are.

    Its units are laid out flat without a copy, in another order: for what takes no notice of that.
    """
    if recorded.ndim == 4 and not recorded.is_contiguous():
        view = recorded.permute(0, 2, 3, 1)
        return view if view.is_contiguous() else recorded
    return recorded


def delay_gradient(result: Tensor, recorded: Tensor) -> None:
    """Let the gradient of a recorded tensor, from `result`, be computed when the backward has come to its layer.

    Autograd runs first what was computed last: it would compute those of all layers at once, and keep them until it
    comes to each. Values are the same.
    """
    origin = recorded.grad_fn
    if origin is None or not hasattr(origin, "_set_sequence_nr"):
        return
    number = origin._sequence_nr()
    nodes: list[Any] = [result.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node.next_functions and node._sequence_nr() > number:
            node._set_sequence_nr(number)
            nodes += [before for before, _ in node.next_functions]


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Eval mode for every module inside, no gradient; each module's own mode is back afterwards."""
    modes = {module: module.training for network in networks for module in network.modules()}
    try:
        if any(modes.values()):  # a frozen teacher is as it should be, and is looked at in every step
            for network in networks:
                network.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            if module.training != mode:
                module.training = mode
