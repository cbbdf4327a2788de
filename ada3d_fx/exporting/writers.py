"""Files of an exported graph, each with the description that `Session` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import requirements
from ..errors import Ada3DError
from ..runtime.contract import KEY, Description
from .pieces import onnx

LARGEST = 2**31 - 1  # bytes of a protocol buffer


class OnnxFile:
    """Writes an ONNX model to one file.

    Args:
        model: the model.
        file: where it is written.

    Raises:
        Ada3DError: the model is larger than such a file may be.
    """

    def __init__(self, model: Any, file: Path):
        if model.ByteSize() >= LARGEST:
            raise Ada3DError("export: the network has more than 2 GiB, the limit of one ONNX file")
        self.model, self.file = model, file

    def write(self, description: Description) -> None:
        """Write the file with this description."""
        del self.model.metadata_props[:]
        entry = self.model.metadata_props.add()
        entry.key, entry.value = KEY, description.to_json()
        onnx().save(self.model, str(self.file))


class OpenVinoFile:
    """Writes an ONNX model as OpenVINO's .xml, and its weights beside it as .bin.

    Args:
        model: the model.
        file: where the .xml is written.

    Raises:
        Ada3DError: an operation that OpenVINO has not.
    """

    def __init__(self, model: Any, file: Path):
        self.openvino = requirements.module("openvino", "export to .xml")
        self.file = file
        source = file.with_suffix(".onnx")
        onnx().save(model, str(source))
        try:
            # not openvino.convert_model, which reports its use to OpenVINO's makers
            self.converted = self.openvino.Core().read_model(str(source))
        except RuntimeError as error:
            raise Ada3DError(f"export: OpenVINO cannot take the network: {error}") from error

    def write(self, description: Description) -> None:
        """Write both files with this description."""
        self.converted.set_rt_info(description.to_json(), [KEY])
        self.openvino.save_model(self.converted, str(self.file), compress_to_fp16=False)
