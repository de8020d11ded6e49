"""Training machinery that knows neither CT nor quantization."""
