"""Images as Caffe and pycaffe read and change them.

- of pycaffe: ``processing`` (reads, resizes, crops, mirrors) with ``interpolation``; ``transformer``; ``mean`` files;
  ``arrays`` checks their arguments
- of data layers: ``decode`` (as OpenCV does), ``data_transform`` (``transform_param``)
"""
