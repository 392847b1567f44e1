"""What a piece of graph computes, for every shape: expressions, layouts, rules, and what they are compared with.

A value is an expression over a tensor x, parameters, constants and means over axes, together with a layout, which says
what axes its dimensions stand for. One table holds a rule for each operator (rules_onnx.py); an operator without a rule
is opaque. The graph itself is seen through a small protocol (graph.py), so that no framework is imported here.
"""

__all__: list[str] = []
