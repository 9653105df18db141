"""From a run to a folder of exported files, every one of them compared with the run's model before it gets its name."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from seqclf.batch import SeqclfError
from seqclf.experiment.config import render
from seqclf.exporting.card import write_card
from seqclf.exporting.check import check, eager, latencies, open_file
from seqclf.exporting.graph import frame_graph, onnx_form
from seqclf.exporting.int8 import accuracy, quantize
from seqclf.exporting.material import POOL, Material, find_material
from seqclf.exporting.program import Frames, export_program, memory
from seqclf.prediction import load_run
from seqclf.runs.checkpoint import step_of
from seqclf.runs.environment import environment, now
from seqclf.runs.folder import RunFolder
from seqclf.runtime.files import write_json

FORMATS = ("program", "onnx", "safetensors")
PACKAGES = {"program": (), "onnx": ("onnx", "onnxscript", "onnxruntime"), "safetensors": ("safetensors",)}


def export(
    run: str | Path,
    out: str | Path | None = None,
    checkpoint: str = "newest",
    formats: Sequence[str] = FORMATS,
    opset: int = 18,
    int8: bool = False,
    clips: int = 1000,
    dtype: str | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes a run's model as files that need no seqclf, and a model card; all of it when all checks have passed.

    Args:
        run: the run's folder.
        out: the folder to write, which may be an earlier export; None for ``export`` in the run.
        checkpoint: as of ``load_run``.
        formats: of "program", "onnx" and "safetensors" those to write.
        opset: of the ONNX files, from 18.
        int8: whether to write the streaming ONNX file with weights of 8 bits, too, and to measure what that costs.
        clips: on how many test clips, spread over all of them, that is measured.
        dtype: of the frames that come in, "uint8" or "float32"; None for that of the run's test clips.
        settings: ``key=value`` changes of the run's config, such as ``data.root=DIR``.

    Returns:
        what ``model.json`` holds: the files with sizes, differences and latencies, figures, classes and versions.

    Raises:
        SeqclfError: the run can't be loaded or exported; a package is not installed; a check fails; ``out`` is
            something else. What was in ``out`` is then as it was.
    """
    for name in formats:
        if name not in FORMATS:
            raise SeqclfError(f"format {name!r}: expected {', '.join(FORMATS)}")
    if int8 and "onnx" not in formats:
        raise SeqclfError("int8 is made of the ONNX files: export the format onnx, too")
    if opset < 18:
        raise SeqclfError(f"opset {opset}: expected 18 or more")
    if clips < 1:
        raise SeqclfError(f"clips={clips}: expected at least 1")
    for package in (package for name in formats for package in PACKAGES[name]):
        if importlib.util.find_spec(package) is None:
            raise SeqclfError(f"this export needs the package {package}: pip install 'seqclf[export]'")
    out = RunFolder(run).export if out is None else Path(out)
    if out.exists() and not (out.is_dir() and ((out / "model.json").is_file() or not any(out.iterdir()))):
        raise SeqclfError(f"{out}: is there already, and is no export: name another folder (out=, --out)")

    experiment, model, record, path = load_run(run, checkpoint, settings)
    shape, classes = record["data"]["train"]["frame_shape"], record["data"]["classes"]
    material = find_material(experiment, record, dtype)
    parts = Frames(model)
    about: dict[str, Any] = {
        "run": Path(run).resolve().name,
        "step": step_of(path),
        "exported": now(),
        "data": record["data"]["source"],
        "classes": classes,
        "frame_shape": shape,
        "frames": str(material.frames.dtype).removeprefix("torch."),
        "forms": {form: _signature(model, shape, len(classes), material.frames.dtype, form) for form in _forms(model)},
        "parameters": sum(p.numel() for p in model.parameters()),
        "figures": _figures(Path(run), step_of(path)),
        "checked_on": material.told,
        "versions": _versions(formats),
    }
    part = out.with_name(f".{out.name}.part{os.getpid()}")
    try:
        part.mkdir(parents=True)
        about["files"] = _write_files(part, model, parts, material, formats, opset, about)
        if int8:
            about["int8"] = _write_int8(part, model, material, clips, about)
        for name, file in about["files"].items():
            file["bytes"] = (part / name).stat().st_size
        about["latency"] = {form: _latencies(part, model, form, material, about["files"]) for form in _forms(model)}
        about["threads"] = torch.get_num_threads()
        write_json(part / "model.json", about)
        write_card(part / "README.md", about, render(experiment))
        _put(part, out)
    except OSError as error:
        raise SeqclfError(f"{out}: could not be written ({error})") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return about


def _forms(model: Any) -> tuple[str, ...]:
    """Whole clips; and streams, where there is a memory to carry."""
    return ("model", "stream") if memory(model.temporal, 1) else ("model",)


def _signature(model: Any, shape: Sequence[int], K: int, dtype: torch.dtype, form: str) -> dict[str, Any]:
    """A form's inputs and outputs by name: what they hold, and their shape."""
    state = memory(model.temporal, 1) if form == "stream" else {}
    kinds = {name: ["float32", [len(x), "B", x.shape[-1]]] for name, x in state.items()}
    inputs = {"frames": [str(dtype).removeprefix("torch."), ["B", "T", *shape]]}
    outputs = {name: ["float32", ["B", "T", K]] for name in ("logits", "probabilities")}
    if kinds:
        inputs["is_first"] = ["bool", ["B", "T"]]
    return {"inputs": inputs | kinds, "outputs": outputs | {f"next_{name}": kind for name, kind in kinds.items()}}


def _write_files(
    folder: Path,
    model: Any,
    parts: Frames,
    material: Material,
    formats: Sequence[str],
    opset: int,
    about: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Writes and checks all but the 8-bit file; what is told of each, by name."""
    files: dict[str, dict[str, Any]] = {}
    shape, dtype = about["frame_shape"], material.frames.dtype
    plain = {key: json.dumps(about[key]) for key in ("run", "step", "classes", "frame_shape", "frames", "versions")}
    if "onnx" in formats:
        import onnx

        frames = frame_graph(parts, shape, dtype, opset)
        for form in _forms(model):
            proto = onnx_form(parts, frames, shape, form)
            onnx.helper.set_model_props(proto, plain)
            onnx.save(proto, folder / f"{form}.onnx")
            files[f"{form}.onnx"] = {"form": form}
    if "program" in formats:
        for form in _forms(model):
            program = export_program(model, shape, dtype, form)
            torch.export.save(program, folder / f"{form}.pt2", extra_files={"seqclf.json": json.dumps(plain)})
            files[f"{form}.pt2"] = {"form": form}
    for name, file in files.items():
        file["difference"] = check(model, folder / name, file["form"], material.frames)
    if "safetensors" in formats:
        from safetensors.torch import load_file, save_file

        weights = {name: x.clone().contiguous() for name, x in model.state_dict().items()}
        save_file(weights, folder / "model.safetensors", {"format": "pt", **plain})
        again = load_file(folder / "model.safetensors")
        if again.keys() != weights.keys() or not all(torch.equal(again[name], x) for name, x in weights.items()):
            raise SeqclfError("model.safetensors: its weights are not the model's")
        files["model.safetensors"] = {"difference": 0.0}
    return files


def _write_int8(folder: Path, model: Any, material: Material, count: int, about: dict[str, Any]) -> dict[str, Any]:
    """Writes the 8-bit file of streams (of clips, where there is no memory) and measures what it costs."""
    form = _forms(model)[-1]
    files = {"float": folder / f"{form}.onnx", "int8": folder / f"{form}.int8.onnx"}
    quantize(files["float"], files["int8"])
    about["files"][files["int8"].name] = {"form": form}
    if material.clips is None:
        return {"clips": 0, "why": f"its accuracy is not measured: {material.told}"}
    total = len(material.clips)
    rows = torch.linspace(0, total - 1, min(count, total)).round().long()
    blank = memory(model.temporal, 1)
    figures = {
        name: accuracy(open_file(path), blank, material.clips, rows, len(about["classes"]))
        for name, path in files.items()
    }
    return {"clips": len(rows), "of": total, **figures}


def _latencies(
    folder: Path, model: Any, form: str, material: Material, files: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """How long a call takes in use, of a stream's one frame or of a whole clip, each file and the model in PyTorch."""
    T = 1 if form == "stream" else min(material.length, POOL)
    inputs = {"frames": material.frames[torch.arange(T) % len(material.frames)][None]}
    if form == "stream":
        inputs |= {"is_first": torch.zeros(1, 1, dtype=torch.bool), **memory(model.temporal, 1)}
    runs = {name: open_file(folder / name) for name, file in files.items() if file.get("form") == form}
    return {"frames": T, **latencies(runs | {"PyTorch": eager(model)}, inputs)}


def _figures(run: Path, step: int) -> dict[str, dict[str, float]]:
    """The figures of the run at this step, by part of the data; empty where it has none."""
    folder = RunFolder(run)
    if not folder.has_results():
        return {}
    results = folder.read_results()
    if results["step"] != step:
        return {}
    return {
        part: {name: value for name, value in figures.items() if isinstance(value, int | float)}
        for part, figures in results["parts"].items()
    }


def _versions(formats: Sequence[str]) -> dict[str, str]:
    """Of all that had a hand in it."""
    packages = [package for name in formats for package in PACKAGES[name]]
    found = environment(torch.device("cpu"))
    own = {name: str(found[name]) for name in ("seqclf", "code", "torch", "python")}
    return own | {package: version(package) for package in packages}


def _put(part: Path, out: Path) -> None:
    """Gives a finished folder its name, in the place of an earlier one."""
    if out.exists():
        old = part.with_suffix(".old")
        os.replace(out, old)
        os.replace(part, out)
        shutil.rmtree(old)
    else:
        os.replace(part, out)
