"""fx graphs, whatever holds them: swap a BatchNorm that is a node, compare two graphs, run a part of one alone."""

from __future__ import annotations

from normswap.backends.torch.fx.compare import GraphComparison, compare_graphs, compare_nodes
from normswap.backends.torch.fx.cut import cut
from normswap.backends.torch.fx.swap import swap

__all__ = ["GraphComparison", "compare_graphs", "compare_nodes", "cut", "swap"]
