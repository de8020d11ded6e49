"""The tasks that `--task` runs, and the settings of a config."""
