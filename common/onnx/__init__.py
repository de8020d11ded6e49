"""Networks as ONNX files: a walk of their operations, a graph, a file."""
