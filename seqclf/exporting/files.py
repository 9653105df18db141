"""The exported files of a model: written, compared with the model, and timed."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from seqclf.batch import SeqclfError
from seqclf.exporting.check import check, eager, latencies, open_file
from seqclf.exporting.graph import frame_graph, onnx_form
from seqclf.exporting.int8 import accuracy, quantize
from seqclf.exporting.memory import CannotExport, Memory
from seqclf.exporting.parts import Parts
from seqclf.exporting.program import export_program
from seqclf.exporting.sample import MOST_FRAMES, Sample

METADATA = ("run", "step", "classes", "frame_shape", "frames", "input", "versions")
"""The fields of ``model.json`` that every file carries as well."""


def forms_of(model: Any) -> tuple[str, ...]:
    """ "model" (whole clips), and "stream" if the model carries a memory that files can hold."""
    memory = Memory(model)
    return ("model", "stream") if memory.names and memory.problem() is None else ("model",)


def signature(model: Any, shape: Sequence[int], K: int, dtype: torch.dtype, form: str) -> dict[str, Any]:
    """The inputs and outputs of a form by name: dtype and shape of each."""
    state = Memory(model).zeros(1) if form == "stream" else {}
    kinds = {name: [_name(x.dtype), [x.shape[0], "B", *x.shape[2:]]] for name, x in state.items()}
    inputs = {"frames": [_name(dtype), ["B", "T", *shape]]}
    outputs = {name: ["float32", ["B", "T", K]] for name in ("logits", "probabilities")}
    if kinds:
        inputs["is_first"] = ["bool", ["B", "T"]]
    return {"inputs": inputs | kinds, "outputs": outputs | {f"next_{name}": kind for name, kind in kinds.items()}}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def write_files(
    folder: Path, model: Any, sample: Sample, formats: Sequence[str], opset: int, about: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Writes and checks all files except the 8-bit one.

    Returns:
        by file name, its form and the largest difference from the model; and by file name, why it is not written.

    Raises:
        SeqclfError: a file differs from the model, or none can be written.
    """
    metadata = {key: json.dumps(about[key]) for key in METADATA}
    shape, dtype, several = about["frame_shape"], sample.frames.dtype, about["input"]["multi_label"]
    onnx_files = _OnnxFiles(model, several, shape, dtype, opset, metadata)
    files: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    forms, problem = forms_of(model), Memory(model).problem()
    for kind, suffix in (("onnx", ".onnx"), ("program", ".pt2")):
        if kind in formats and problem is not None:
            failed[f"stream{suffix}"] = problem
        for form in forms if kind in formats else ():
            path = folder / f"{form}{suffix}"
            try:
                if kind == "onnx":
                    onnx_files.write(path, form)
                else:
                    program = export_program(model, shape, dtype, form, several)
                    content = io.BytesIO()  # on a full disk, PyTorch's own writer aborts the process
                    torch.export.save(program, content, extra_files={"seqclf.json": json.dumps(metadata)})
                    path.write_bytes(content.getbuffer())
            except CannotExport as error:
                failed[path.name] = str(error)
            else:
                files[path.name] = {"form": form, "difference": check(model, path, form, sample.frames, several)}
    if "safetensors" in formats:
        _write_safetensors(folder / "model.safetensors", model, metadata)
        files["model.safetensors"] = {"difference": 0.0}
    if not files:
        raise SeqclfError("; ".join(dict.fromkeys(failed.values())))
    return files, failed


class _OnnxFiles:
    """Writes the ONNX forms of a model, which share the graph of its encoder."""

    def __init__(
        self,
        model: Any,
        multi_label: bool,
        shape: Sequence[int],
        dtype: torch.dtype,
        opset: int,
        metadata: dict[str, str],
    ) -> None:
        self.model, self.multi_label, self.shape, self.dtype = model, multi_label, shape, dtype
        self.opset, self.metadata = opset, metadata

    @cached_property
    def parts(self) -> Parts:
        return Parts(self.model, multi_label=self.multi_label)

    @cached_property
    def frames(self) -> Any:
        return frame_graph(self.parts, self.shape, self.dtype, self.opset)

    def write(self, path: Path, form: str) -> None:
        import onnx

        proto = onnx_form(self.parts, self.frames, self.shape, form)
        onnx.helper.set_model_props(proto, self.metadata)
        onnx.save(proto, path)


def _write_safetensors(path: Path, model: Any, metadata: dict[str, str]) -> None:
    from safetensors.torch import load_file, save

    weights = {name: x.clone().contiguous() for name, x in model.state_dict().items()}
    path.write_bytes(save(weights, {"format": "pt", **metadata}))  # not save_file: its errors are no OSErrors
    read = load_file(path)
    if read.keys() != weights.keys() or not all(torch.equal(read[name], x) for name, x in weights.items()):
        raise SeqclfError(f"{path.name}: its weights differ from those of the model")


def write_int8(folder: Path, model: Any, sample: Sample, count: int, about: dict[str, Any]) -> dict[str, Any]:
    """Writes the 8-bit file (of the stream, if there is one) and compares its accuracy with the float file."""
    form = next((form for form in ("stream", "model") if f"{form}.onnx" in about["files"]), None)
    if form is None:
        return {"clips": 0, "why": "there is no ONNX file to quantize"}
    files = {"float": folder / f"{form}.onnx", "int8": folder / f"{form}.int8.onnx"}
    quantize(files["float"], files["int8"])
    about["files"][files["int8"].name] = {"form": form}
    if sample.clips is None:
        return {"clips": 0, "why": f"accuracy is not measured: the checks used {sample.source}"}
    total = len(sample.clips)
    rows = torch.linspace(0, total - 1, min(count, total)).round().long()
    blank = Memory(model).zeros(1) if form == "stream" else {}
    metrics = {
        name: accuracy(open_file(path), blank, sample.clips, rows, len(about["classes"]))
        for name, path in files.items()
    }
    return {"clips": len(rows), "of": total, **metrics}


def measure_latencies(
    folder: Path, model: Any, form: str, sample: Sample, files: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The time of one call, on one frame of a stream or on a whole clip, of each file and of the model in PyTorch."""
    T = 1 if form == "stream" else min(sample.length, MOST_FRAMES)
    inputs = {"frames": sample.frames[torch.arange(T) % len(sample.frames)][None]}
    if form == "stream":
        inputs |= {"is_first": torch.zeros(1, 1, dtype=torch.bool), **Memory(model).zeros(1)}
    runs = {name: open_file(folder / name) for name, file in files.items() if file.get("form") == form}
    return {"frames": T, **latencies(runs | {"PyTorch": eager(model)}, inputs)}
