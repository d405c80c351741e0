"""What the containers of docker/ run beside the ordinary verbs: MLflow's server and Optuna's dashboard
behind the guard, and the accounts made at their start. Needs the packages of docker/tracking.in; knows no
torch."""
