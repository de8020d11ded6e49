"""What `--task` runs."""
