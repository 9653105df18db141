"""The computation of recurrent layers, by the fastest kernel for each case.

- ``layers``: recurrent layers as functions; chooses the kernel
- for LSTM layers: ``cpu_lstm`` (packed sequences, on the CPU), ``padded_lstm`` (whole batches; ``cudnn_lstm`` on a GPU)
- with the extra ``fast``: ``fused_lstm``; its compiled functions: ``fused_kernels``, with ``fused_vectors``, and their
  machine code: ``fused_code``
"""
