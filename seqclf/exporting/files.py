"""The exported files of a model: written, compared with the model, and timed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from seqclf.batch import SeqclfError
from seqclf.exporting.check import check, eager, latencies, open_file
from seqclf.exporting.graph import frame_graph, onnx_form
from seqclf.exporting.int8 import accuracy, quantize
from seqclf.exporting.program import Frames, export_program, memory
from seqclf.exporting.sample import MOST_FRAMES, Sample
from seqclf.models import require_streaming

METADATA = ("run", "step", "classes", "frame_shape", "frames", "input", "versions")
"""The fields of ``model.json`` that every file carries as well."""


def forms_of(model: Any) -> tuple[str, ...]:
    """ "model" (whole clips), and "stream" if the model has a memory to carry.

    Raises:
        SeqclfError: the model has a memory but does not declare that it can continue a sequence.
    """
    if not memory(model.temporal, 1):
        return ("model",)
    require_streaming(model, "exporting a stream")
    return ("model", "stream")


def signature(model: Any, shape: Sequence[int], K: int, dtype: torch.dtype, form: str) -> dict[str, Any]:
    """The inputs and outputs of a form by name: dtype and shape of each."""
    state = memory(model.temporal, 1) if form == "stream" else {}
    kinds = {name: ["float32", [len(x), "B", x.shape[-1]]] for name, x in state.items()}
    inputs = {"frames": [str(dtype).removeprefix("torch."), ["B", "T", *shape]]}
    outputs = {name: ["float32", ["B", "T", K]] for name in ("logits", "probabilities")}
    if kinds:
        inputs["is_first"] = ["bool", ["B", "T"]]
    return {"inputs": inputs | kinds, "outputs": outputs | {f"next_{name}": kind for name, kind in kinds.items()}}


def write_files(
    folder: Path,
    model: Any,
    parts: Frames,
    sample: Sample,
    formats: Sequence[str],
    opset: int,
    about: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Writes and checks all files except the 8-bit one.

    Returns:
        By file name: its form, and the largest difference from the model.
    """
    metadata = {key: json.dumps(about[key]) for key in METADATA}
    files: dict[str, dict[str, Any]] = {}
    if "onnx" in formats:
        files |= _write_onnx(folder, model, parts, about["frame_shape"], sample.frames.dtype, opset, metadata)
    if "program" in formats:
        for form in forms_of(model):
            program = export_program(model, about["frame_shape"], sample.frames.dtype, form)
            torch.export.save(program, folder / f"{form}.pt2", extra_files={"seqclf.json": json.dumps(metadata)})
            files[f"{form}.pt2"] = {"form": form}
    for name, file in files.items():
        file["difference"] = check(model, folder / name, file["form"], sample.frames)
    if "safetensors" in formats:
        _write_safetensors(folder / "model.safetensors", model, metadata)
        files["model.safetensors"] = {"difference": 0.0}
    return files


def _write_onnx(
    folder: Path,
    model: Any,
    parts: Frames,
    shape: Sequence[int],
    dtype: torch.dtype,
    opset: int,
    metadata: dict[str, str],
) -> dict[str, dict[str, Any]]:
    import onnx

    files = {}
    frames = frame_graph(parts, shape, dtype, opset)
    for form in forms_of(model):
        proto = onnx_form(parts, frames, shape, form)
        onnx.helper.set_model_props(proto, metadata)
        onnx.save(proto, folder / f"{form}.onnx")
        files[f"{form}.onnx"] = {"form": form}
    return files


def _write_safetensors(path: Path, model: Any, metadata: dict[str, str]) -> None:
    from safetensors.torch import load_file, save_file

    weights = {name: x.clone().contiguous() for name, x in model.state_dict().items()}
    save_file(weights, path, {"format": "pt", **metadata})
    read = load_file(path)
    if read.keys() != weights.keys() or not all(torch.equal(read[name], x) for name, x in weights.items()):
        raise SeqclfError(f"{path.name}: its weights differ from those of the model")


def write_int8(folder: Path, model: Any, sample: Sample, count: int, about: dict[str, Any]) -> dict[str, Any]:
    """Writes the 8-bit file (of the stream, if there is one) and compares its accuracy with the float file."""
    form = forms_of(model)[-1]
    files = {"float": folder / f"{form}.onnx", "int8": folder / f"{form}.int8.onnx"}
    quantize(files["float"], files["int8"])
    about["files"][files["int8"].name] = {"form": form}
    if sample.clips is None:
        return {"clips": 0, "why": f"accuracy is not measured: the checks used {sample.source}"}
    total = len(sample.clips)
    rows = torch.linspace(0, total - 1, min(count, total)).round().long()
    blank = memory(model.temporal, 1)
    figures = {
        name: accuracy(open_file(path), blank, sample.clips, rows, len(about["classes"]))
        for name, path in files.items()
    }
    return {"clips": len(rows), "of": total, **figures}


def measure_latencies(
    folder: Path, model: Any, form: str, sample: Sample, files: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The time of one call, on one frame of a stream or on a whole clip, of each file and of the model in PyTorch."""
    T = 1 if form == "stream" else min(sample.length, MOST_FRAMES)
    inputs = {"frames": sample.frames[torch.arange(T) % len(sample.frames)][None]}
    if form == "stream":
        inputs |= {"is_first": torch.zeros(1, 1, dtype=torch.bool), **memory(model.temporal, 1)}
    runs = {name: open_file(folder / name) for name, file in files.items() if file.get("form") == form}
    return {"frames": T, **latencies(runs | {"PyTorch": eager(model)}, inputs)}
