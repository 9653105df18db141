"""``seqclf.export``: a run as files for other programs, checked before they replace an earlier export."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from seqclf.batch import SeqclfError
from seqclf.data.input_spec import InputSpec
from seqclf.experiment.config import Experiment
from seqclf.experiment.rendering import render_record
from seqclf.exporting.card import write_card
from seqclf.exporting.files import forms_of, measure_latencies, signature, write_files, write_int8
from seqclf.exporting.parts import require_classifier
from seqclf.exporting.sample import Sample, sample_frames
from seqclf.models.contract import declares
from seqclf.prediction import load_run
from seqclf.runs.checkpoint import step_of
from seqclf.runs.environment import environment, now
from seqclf.runs.folder import RunFolder
from seqclf.runtime.files import replacing, write_json

FORMATS = ("program", "onnx", "safetensors")
PACKAGES = {"program": (), "onnx": ("onnx", "onnxscript", "onnxruntime"), "safetensors": ("safetensors",)}


def export(
    run: str | Path,
    out: str | Path | None = None,
    checkpoint: str = "auto",
    formats: Sequence[str] = FORMATS,
    opset: int = 18,
    int8: bool = False,
    clips: int = 1000,
    dtype: str | None = None,
    settings: Sequence[str] = (),
    experiment: Experiment | None = None,
) -> dict[str, Any]:
    """Writes the model of a run as files that need no seqclf, with a model card.

    Raw frames go in: scaling and mean are part of the files. Each file is compared with the model on test clips of the
    run. The folder appears only if all checks pass. Files that PyTorch cannot write for this model are left out.

    Args:
        run: the run folder.
        out: the folder to write; an earlier export is replaced. None: ``export`` in the run folder.
        checkpoint: "auto" (the best one, or the newest without validation), "best", "newest", or a step.
        formats: some of "program" (``torch.export``), "onnx" and "safetensors".
        opset: the ONNX opset, 18 or more.
        int8: also write the streaming ONNX file with 8-bit weights, and measure its accuracy.
        clips: how many test clips, evenly spaced, to measure that accuracy on.
        dtype: of the frames, "uint8" or "float32"; None for that of the test clips.
        settings: ``key=value`` changes of the config, such as ``data.root=DIR``.
        experiment: in place of the run's config, for a run whose config could not be written in full.

    Returns:
        the content of ``model.json``: files with sizes, differences and latencies, reasons why files are not written,
        metrics, classes and versions.

    Raises:
        SeqclfError: the run cannot be loaded, no file can be written, a package is missing, a check fails, or ``out``
            holds something else. ``out`` is then unchanged.
    """
    out = RunFolder(run).export if out is None else Path(out)
    _check_arguments(out, formats, opset, int8, clips)
    experiment, model, record, path = load_run(run, checkpoint, settings, experiment)
    require_classifier(model)
    spec = InputSpec.from_record(record, run)
    sample = sample_frames(experiment, spec, record["data"]["source"], dtype)
    about = _describe(RunFolder(run), model, record, spec, step_of(path), sample)
    about |= {"versions": _versions(formats), "files": {}, "not_written": {}}
    try:
        with replacing(out) as folder:
            folder.mkdir()
            about["files"], about["not_written"] = write_files(folder, model, sample, formats, opset, about)
            if int8:
                about["int8"] = write_int8(folder, model, sample, clips, about)
            for name, file in about["files"].items():
                file["bytes"] = (folder / name).stat().st_size
            about["latency"] = {f: measure_latencies(folder, model, f, sample, about["files"]) for f in forms_of(model)}
            about["threads"] = torch.get_num_threads()
            write_json(folder / "model.json", about)
            write_card(folder / "README.md", about, render_record(experiment)[0])
    except OSError as error:
        raise SeqclfError(f"{out}: cannot be written ({error})") from None
    return about


def _check_arguments(out: Path, formats: Sequence[str], opset: int, int8: bool, clips: int) -> None:
    for name in formats:
        if name not in FORMATS:
            raise SeqclfError(f"format {name!r}: expected {', '.join(FORMATS)}")
    if int8 and "onnx" not in formats:
        raise SeqclfError("int8 needs the format onnx")
    if opset < 18:
        raise SeqclfError(f"opset {opset}: expected 18 or more")
    if clips < 1:
        raise SeqclfError(f"clips={clips}: expected at least 1")
    for package in (package for name in formats for package in PACKAGES[name]):
        if importlib.util.find_spec(package) is None:
            raise SeqclfError(f"this export needs the package {package}: pip install 'seqclf[export]'")
    if out.exists() and not (out.is_dir() and ((out / "model.json").is_file() or not any(out.iterdir()))):
        raise SeqclfError(f"{out} exists and is not an export: choose another folder (out=, --out)")


def _describe(
    folder: RunFolder, model: torch.nn.Module, record: dict[str, Any], spec: InputSpec, step: int, sample: Sample
) -> dict[str, Any]:
    """What the run's record says about the model, and how the model is called."""
    kind = sample.frames.dtype
    return {
        "run": folder.path.resolve().name,
        "step": step,
        "exported": now(),
        "data": record["data"]["source"],
        "classes": list(spec.classes),
        "frame_shape": list(spec.frame_shape),
        "input": spec.to_json(),
        "normalization": record.get("fitted", {}).get("normalization"),
        "causal": declares(model, "causal"),
        "streams": declares(model, "streams"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "figures": _metrics(folder, step),
        "frames": str(kind).removeprefix("torch."),
        "forms": {f: signature(model, spec.frame_shape, len(spec.classes), kind, f) for f in forms_of(model)},
        "checked_on": sample.source,
    }


def _metrics(folder: RunFolder, step: int) -> dict[str, dict[str, float]]:
    """The metrics of the run after this step by part of the data; empty if it has none."""
    results = folder.read_results() if folder.has_results() else None
    if results is None or results["step"] != step:
        return {}
    return {
        part: {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        for part, metrics in results["parts"].items()
    }


def _versions(formats: Sequence[str]) -> dict[str, str]:
    """The versions of the packages involved."""
    packages = [package for name in formats for package in PACKAGES[name]]
    found = environment(torch.device("cpu"))
    own = {name: str(found[name]) for name in ("seqclf", "code", "torch", "python")}
    return own | {package: version(package) for package in packages}
