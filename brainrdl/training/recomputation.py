"""Activation checkpointing: parts of a network that keep nothing for backward but what went in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from brainrdl.layers import check_layers


@contextmanager
def recomputed(network: nn.Module, parts: Iterable[str]) -> Iterator[None]:
    """Inside, these parts (module paths) of the network are computed again in backward instead of being kept.

    Each is run a second time on the same input, in the same mode, with the same random numbers (dropout) and buffers:
    running statistics move once, and results are those of a training that keeps everything. Less memory, more time.
    Under torch.compile parts with buffers are not compiled.
    Raises ValueError for a part that the network does not have.
    """
    parts = tuple(dict.fromkeys(parts))
    check_layers(network, parts)
    modules = dict(network.named_modules())
    before = [(modules[part], modules[part].__dict__.get("forward")) for part in parts]
    try:
        for module, own in before:
            # In the module's own dict, and with the module as an argument: a copy of the network has its own.
            module.__dict__["forward"] = partial(_forward, module, own)
        yield
    finally:
        for module, own in before:
            del module.__dict__["forward"]
            if own is not None:
                module.__dict__["forward"] = own


def _forward(module: nn.Module, own: Callable[..., Any] | None, *inputs: Any, **named: Any) -> Any:
    run = own or partial(type(module).forward, module)
    if not torch.is_grad_enabled():
        return run(*inputs, **named)
    if torch.compiler.is_compiling() and next(module.buffers(), None) is None:
        return checkpoint(run, *inputs, use_reentrant=False, **named)
    return _recomputed(module, run, *inputs, **named)


def _checkpointed(module: nn.Module, run: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    return checkpoint(run, *inputs, use_reentrant=False, context_fn=_AsBefore(module).contexts, **named)


# What torch.compile makes of it would not find the buffers as they were.
_recomputed = cast(Callable[..., Any], torch.compiler.disable(_checkpointed))


class _EachTime(AbstractContextManager[None]):
    """A context made anew whenever it is entered: several gradients may be taken of one forward."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self.make = make
        self.entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        context = self.make()
        context.__enter__()
        self.entered.append(context)

    def __exit__(self, *error: Any) -> bool | None:
        return self.entered.pop().__exit__(*error)


class _AsBefore:
    """What a module's forward found: the mode of each part, and the buffers that it may have changed."""

    def __init__(self, module: nn.Module) -> None:
        self.parts = list(module.modules())
        self.modes = [part.training for part in self.parts]
        self.buffers: list[tuple[nn.Module, str, Tensor]] = []

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """For the forward and for its repetition."""
        return self._forward(), _EachTime(self._again)

    @contextmanager
    def _forward(self) -> Iterator[None]:
        owned = [(part, name, b) for part in self.parts for name, b in part._buffers.items() if b is not None]
        copies = [(b._version, b.clone()) for _, _, b in owned]
        yield
        for (part, name, buffer), (version, copy) in zip(owned, copies, strict=True):
            # Running statistics change without a new version; what is replaced has one of its own.
            if buffer.is_floating_point() or buffer._version != version or part._buffers.get(name) is not buffer:
                self.buffers.append((part, name, copy))

    @contextmanager
    def _again(self) -> Iterator[None]:
        modes = [part.training for part in self.parts]
        now = [(part, name, part._buffers[name]) for part, name, _ in self.buffers]
        try:
            for part, mode in zip(self.parts, self.modes, strict=True):
                part.training = mode
            for part, name, buffer in self.buffers:
                part._buffers[name] = buffer.clone()
            yield
        finally:
            for part, mode in zip(self.parts, modes, strict=True):
                part.training = mode
            for part, name, current in now:
                part._buffers[name] = current
