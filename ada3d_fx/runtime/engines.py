"""The engines that run exported graphs, each behind the same two methods."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import requirements
from ..errors import Ada3DError
from . import contract


class Engine(Protocol):
    """One loaded graph; any thread may call it at any time."""

    def description(self) -> str | None:
        """Return what the file says of its network."""
        ...

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """Compute these outputs."""
        ...


class OnnxRuntime:
    """ONNX Runtime, for files that end with .onnx.

    Args:
        path: the file.
        threads: of one operation; None: as many as there are cores.
        providers: ONNX Runtime's execution providers; None: the CPU's.

    Raises:
        Ada3DError: no ONNX file, a damaged one, or one that this release cannot run.
    """

    def __init__(self, path: Path, threads: int | None, providers: Sequence[str] | None = None):
        runtime = requirements.module("onnxruntime", "a file that ends with .onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        self.running = _named(path, _errors_of(runtime), "run it", "Does the memory suffice?")
        with _named(path, _errors_of(runtime), "read it", WHOLE):
            self.session = runtime.InferenceSession(
                str(path), options, providers=list(providers or ["CPUExecutionProvider"])
            )

    def description(self) -> str | None:
        """Return what the file says of its network."""
        return self.session.get_modelmeta().custom_metadata_map.get(contract.KEY)

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """Compute these outputs."""
        with self.running:
            return self.session.run(list(outputs), dict(inputs))


class OpenVino:
    """OpenVINO, for files that end with .xml, and for those of ONNX too.

    Args:
        path: the file; weights of an .xml lie beside it in a .bin.
        threads: of one inference; None: as many as there are cores.
        precision: 'float32', or 'bfloat16' where the machine has it (another result to 1e-2).
        clips: of every call, where it is always the same and the policy is fixed: shapes are static
            then.

    Raises:
        Ada3DError: a damaged file, or one that this release cannot run.
    """

    def __init__(self, path: Path, threads: int | None, precision: str = "float32", clips: int = 0):
        openvino = requirements.module("openvino", "a file that ends with .xml")
        kinds = {"float32": "f32", "bfloat16": "bf16"}
        if precision not in kinds:
            raise Ada3DError(f"Session: precision={precision!r}; there are {', '.join(kinds)}")
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": kinds[precision]}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        self.running = _named(path, (RuntimeError,), "run it", "Does the memory suffice?")
        with _named(path, (RuntimeError,), "read it", WHOLE):
            core = _core_of(openvino)
            self.model = core.read_model(str(path))
            if clips and len(self.model.inputs) == 1:
                shape = self.model.input(0).get_partial_shape()
                self.model.reshape([clips, *list(shape)[1:]])
            self.request = core.compile_model(self.model, "CPU", options).create_infer_request()
        # one inference at a time: it takes all threads, so a second one would gain nothing
        self.lock = threading.Lock()

    def description(self) -> str | None:
        """Return what the file says of its network."""
        for place in ([contract.KEY], ["framework", contract.KEY]):
            if self.model.has_rt_info(place):
                found = self.model.get_rt_info(place)
                return str(getattr(found, "value", found))
        return None

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """Compute these outputs."""
        with self.lock, self.running:
            self.request.infer(dict(inputs))
            return [np.array(self.request.get_tensor(name).data) for name in outputs]


_cores: dict[int, Any] = {}  # by process: OpenVINO's


def _core_of(openvino: Any) -> Any:
    """Return OpenVINO's one core of this process, which is never taken down.

    Each core gives the thread a stack for its signals and takes it back at its end. Cores that end
    in the order in which they began leave a stack there that is no memory any more (OpenVINO
    2026.4), and the next signal with a handler, such as a child process's end, kills the process.
    """
    core = _cores.get(os.getpid())
    return core if core is not None else _cores.setdefault(os.getpid(), openvino.Core())


WHOLE = "Is the file whole, and exported for this engine?"
ENGINES: dict[str, Callable[..., Engine]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}
OF_SUFFIX = {".onnx": "onnxruntime", ".xml": "openvino"}


def _errors_of(runtime: Any) -> tuple[type[BaseException], ...]:
    """The errors that ONNX Runtime raises of its own; they have no common class."""
    state = runtime.capi.onnxruntime_pybind11_state
    own = [value for value in vars(state).values() if isinstance(value, type)]
    return (*(kind for kind in own if issubclass(kind, Exception)), RuntimeError)


class _named:
    """Turn an engine's errors into one that names the file."""

    def __init__(self, path: Path, kinds: tuple[type[BaseException], ...], doing: str, hint: str):
        self.path, self.kinds, self.doing, self.hint = path, kinds, doing, hint

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, self.kinds) and not isinstance(error, Ada3DError):
            # the first line of what ONNX Runtime says, the last of OpenVINO's, which begins with places
            lines = [*filter(None, map(str.strip, str(error).splitlines()))] or [kind.__name__]
            told = lines[-1] if lines[0].startswith("Exception from") else lines[0]
            raise Ada3DError(
                f"{self.path}: the engine cannot {self.doing}: {told[:300]}. {self.hint}"
            ) from error
