"""Optuna studies: TOML definitions, cells as rows, workers that claim them, one driver a machine."""
