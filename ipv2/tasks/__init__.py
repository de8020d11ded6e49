"""What `--task` runs: the only room of `ipv2` that sees a config."""
