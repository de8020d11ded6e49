"""Pure JAX array operations, one a file."""
