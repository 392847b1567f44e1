"""diagnose: what eval mode costs a model on its user's data, and which fix is right.

The model is run in several ways on the same batches. Where there are targets the ways are compared by their errors,
else by how far their outputs are from train mode's; the moments of each layer's input say why they differ.
"""

from normswap.diagnosis.findings import Diagnosis, ModeFinding
from normswap.diagnosis.run import diagnose

__all__ = ["Diagnosis", "ModeFinding", "diagnose"]
