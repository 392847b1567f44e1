"""An ONNX graph that stays on disk: its code is read, its large tensors are not."""
