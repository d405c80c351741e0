"""One training: a Job to its Result.

Owns the way of a run (`train` tells it from top to bottom), the step and the loop, optimizers, checkpoints,
ranks and hosts, the GPU path, and whether a config may be trained at all (`readiness`). Never imports study,
report, registry, serving, cli, optuna or mlflow; what goes to MLflow it gives to `tracking`.

Nothing is imported here, so that a Job can be made without torch.
"""
