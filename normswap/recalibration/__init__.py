"""recalibrate: new running statistics from data, and the proof that nothing else of the model changed.

The new mean and variance of a layer are those of all elements of all samples together (Precise BN), not an average of
the statistics of batches, which leaves out the variance between them. They are collected

- by default in one pass in which the layers normalize with the statistics of each batch, as in training: every layer
  then gets the statistics of what it was given in training;
- with ``sequential`` layer by layer in the order in which they run, each with the layers before it in eval mode and
  recalibrated already: every layer gets the statistics of what it is given in eval mode from now on. That takes one
  pass over the data for each layer.

ONNX stores the biased variance, divided by the number of elements N, torch that divided by N - 1: BatchNormalization
defines its running variance so, and torch's BatchNorm updates its own so. Where N is large they do not differ.

References:
    Wu & Johnson 2021, Rethinking "Batch" in BatchNorm, section 3 and appendix.
    Li et al. 2016, Revisiting Batch Normalization For Practical Domain Adaptation (the same on data of a new domain).
"""

from normswap.recalibration.report import Moved, Recalibration
from normswap.recalibration.run import recalibrate

__all__ = ["Moved", "Recalibration", "recalibrate"]
