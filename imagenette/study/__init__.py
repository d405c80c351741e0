"""Studies: TOML definitions, their cells as rows of a database, workers that claim them, a driver a machine.

A cell is trained as the same Job that `imagenette train` runs, and its end is the same Result. The rows
decide what is done; Optuna's trials and MLflow's runs follow them. Never imports serving or server.
"""
