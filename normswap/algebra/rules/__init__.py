"""Rules of operators, by kind; rules_onnx.py says which operator has which."""

__all__: list[str] = []
