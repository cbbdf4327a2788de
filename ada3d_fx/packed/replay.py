"""Passes that come again on a GPU: captured as a CUDA graph once, and replayed.

A pass of few frames takes as long as Python needs to launch its operations, many times what the GPU
computes. A graph launches all of them at once. What is computed stays the same: the operations read
weights where they lie, folding included, so new values are seen. Whatever else decides which operations
they are is compared at each call.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .fused_operations import is_plain
from .module_state import ModuleState
from .segments import numbers_kept
from .time_forms import asked_form

CAPTURED_AT = 3  # calls of a kind, as capturing takes as long as several
REMEMBERED = 64  # kinds of passes, the latest ones
LARGEST = 2**24  # numbers that go in; with more of them, the GPU computes longer than launches take


class Replays:
    """The passes of one network on one device."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passes: OrderedDict[Hashable, _Pass | int] = OrderedDict()  # or how often it came
        self._state: ModuleState | None = None
        self._memory: _Memory | None = None

    def __call__(
        self,
        run: Callable[[Tensor], Any],
        x: Tensor,
        network: nn.Module,
        program: nn.Module,
        decides: Hashable = None,
    ) -> Any:
        """Compute ``run(x)``, by a replay where there is one.

        Args:
            run: runs ``network``; it depends on nothing else but ``x`` and ``decides``.
            x: what goes in.
            network: whose settings and memory are compared at each call. No part of it trains, and no
                hook waits for a call of one, see `is_watched_or_trains`.
            program: what runs in it; the tensors that its modules hold are kept for a graph.
            decides: what else decides which operations run.

        Returns:
            A tensor of its own, or whatever ``run`` returns, where that is no tensor.
        """
        if not is_replayable(x):
            return run(x)
        with self._lock, torch.cuda.device(x.device):
            known = self._pass(run, x, network, program, decides)
            if known is not None:
                return known(x)
        return run(x)

    def _pass(
        self, run: Callable[[Tensor], Any], x: Tensor, network: nn.Module, program: nn.Module,
        decides: Hashable,
    ) -> _Pass | None:  # fmt: skip
        """The pass that a call is; None where it is not captured."""
        constants = _constants(program)
        if self._state is None or not self._state.holds(network, constants):
            self._passes.clear()
            self._state = ModuleState(network, constants)
        if not self._state.is_plain:
            return None
        if self._memory is None or self._memory.device != x.device:
            self._passes.clear()
            self._memory = _Memory(x.device)
        kind = (decides, x.shape, x.stride(), x.dtype, _surroundings())
        known = self._passes.pop(kind, 0)
        if isinstance(known, int):
            known += 1
            if known == CAPTURED_AT:
                known = _Pass.of(run, x, self._memory, program) or known
        self._passes[kind] = known
        while len(self._passes) > REMEMBERED:
            self._passes.popitem(last=False)
        return known if isinstance(known, _Pass) else None


def is_replayable(x: Tensor) -> bool:
    """Tell whether a call with ``x`` may be replayed: a small one on a GPU, and nobody follows what is computed."""
    return (
        x.is_cuda
        and is_plain(x)
        and not torch.is_grad_enabled()
        and x.numel() <= LARGEST
        and not torch.cuda.is_current_stream_capturing()
    )


class _Memory:
    """The memory in which the passes of a network run, one after the other."""

    def __init__(self, device: torch.device):
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.used = torch.cuda.Event()  # the end of the last pass

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait on the stream of now for the last pass, and let the next one wait for what runs here."""
        stream = torch.cuda.current_stream()
        stream.wait_event(self.used)
        yield
        self.used.record(stream)


class _Pass:
    """A captured pass."""

    def __init__(
        self, graph: torch.cuda.CUDAGraph, x: Tensor, made: Tensor, memory: _Memory,
        held: Sequence[Tensor],
    ):  # fmt: skip
        self.graph, self.x, self.made = graph, x, made
        self.memory, self.held = memory, [x, *held]
        self.stream = torch.cuda.current_stream()  # on which they were allocated

    @classmethod
    def of(
        cls, run: Callable[[Tensor], Any], x: Tensor, memory: _Memory, program: nn.Module
    ) -> _Pass | None:
        """Capture ``run(x)``; None where that cannot be captured, or does not give the same again."""
        numbers: dict[str, Tensor] = {}
        with torch.inference_mode(False), torch.no_grad():
            own = torch.empty_like(x).copy_(x)
        watch = _HostValues()
        with numbers_kept(numbers), _casts_made_anew():
            try:
                wanted = run(own)  # kernels are chosen, and numbers go to the device
                with watch:
                    run(own)
                if watch.seen or not isinstance(wanted, Tensor):
                    return None
                graph, made = _captured(run, own, memory)
            except RuntimeError:  # such as an operation that waits for the device
                return None
        captured = cls(graph, own, made, memory, [*numbers.values(), *_held(program)])
        same = torch.allclose(captured(x), wanted, rtol=1e-3, atol=1e-5, equal_nan=True)
        return captured if same else None

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the pass of ``x``."""
        stream = torch.cuda.current_stream()
        if stream != self.stream:
            for tensor in self.held:
                tensor.record_stream(stream)  # else it could go to others while this runs
        with self.memory.taken():
            self.x.copy_(x)
            self.graph.replay()
            return self.made.clone()


def _captured(
    run: Callable[[Tensor], Any], x: Tensor, memory: _Memory
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """Capture ``run(x)``, on a stream of its own.

    Not by torch.cuda.graph, which collects garbage and gives all free memory back first.
    """
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    # torch keeps memory for cuBLAS by stream: what products write into here must be the graph's alone
    torch._C._cuda_clearCublasWorkspaces()
    try:
        with torch.cuda.stream(torch.cuda.Stream()):
            graph.capture_begin(pool=memory.pool, capture_error_mode="thread_local")
            try:
                made = run(x)
            finally:
                graph.capture_end()
    finally:
        torch._C._cuda_clearCublasWorkspaces()
    return graph, made


class _HostValues(TorchDispatchMode):
    """Notes whether values go from the host to the device: a graph would not see them change."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        values = torch.utils._pytree.tree_leaves((args, kwargs or {}, made))
        self.seen |= len({v.device for v in values if isinstance(v, Tensor)}) > 1
        return made


@contextmanager
def _casts_made_anew() -> Iterator[None]:
    """Let autocast keep no weights in another type, which a graph would read for ever."""
    before = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def _constants(program: nn.Module) -> list[Tensor]:
    """The tensors that a program itself holds, such as constants of a model's code."""
    return [value for value in vars(program).values() if isinstance(value, Tensor)]


def _held(program: nn.Module) -> list[Tensor]:
    """All tensors that the modules of a program hold as plain attributes, such as folded weights."""
    parts = program.modules()
    return [value for part in parts for value in vars(part).values() if isinstance(value, Tensor)]


def _surroundings() -> tuple:
    """What decides for all networks which operations run."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return (
        asked_form(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cuda"),
        torch.get_autocast_dtype("cuda"),
        torch.are_deterministic_algorithms_enabled(),
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic,
        matmul.allow_fp16_reduced_precision_reduction,
        matmul.allow_bf16_reduced_precision_reduction,
        *map(_precision, (cudnn, matmul)),
    )  # fmt: skip


def _precision(backend: Any) -> object:
    """How precisely a backend multiplies float32, by the older and the newer of torch's settings."""
    told: list[object] = []
    for name in ("allow_tf32", "fp32_precision", "conv"):
        try:
            value = getattr(backend, name, None)
            told.append(getattr(value, "fp32_precision", value) if name == "conv" else value)
        except RuntimeError:  # torch reads only the settings that were used
            told.append("unread")
    return tuple(told)
