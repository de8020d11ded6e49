"""Array operations of quantization and attention, one a file, with their gradients."""
