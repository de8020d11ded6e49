"""Results below a user's folder: planned, made one by one, whole or not at all."""
