"""Export of a run to ONNX, ``torch.export`` and safetensors files, each compared with the model before it is kept.

- the export: ``run``, ``files``, ``check``, ``sample`` (frames to check it on), ``card`` (its description)
- forms of the model: ``graph`` (ONNX), ``program`` (``torch.export``), ``int8``; their ``parts``, ``recurrent`` layers
  and ``memory``
"""

from seqclf.exporting.run import export

__all__ = ["export"]
