"""A trained run as files for other programs: ONNX, ``torch.export``, safetensors; checked before they are given out."""

from seqclf.exporting.run import export

__all__ = ["export"]
