"""Export of a run to ONNX, ``torch.export`` and safetensors files, each compared with the model before it is kept."""

from seqclf.exporting.run import export

__all__ = ["export"]
