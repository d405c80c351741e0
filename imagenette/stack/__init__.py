"""What the containers of docker/ run beside the ordinary verbs: MLflow's server behind the guard, and the
accounts made at its start. Needs the packages of docker/tracking.in; knows no torch."""
