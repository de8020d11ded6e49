"""Files of a trained denoiser that other software runs: ONNX."""
