"""Files of a quantized network that other software runs: ONNX, packed, StableHLO."""
