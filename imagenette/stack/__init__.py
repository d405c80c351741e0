"""Programs that containers and `imagenette server` start with `python -m`, beside the ordinary verbs.

Owns Optuna's dashboard and MLflow's server behind the guard, and the account that is made at a stack's start.
Never imports cli; knows no torch.
"""
