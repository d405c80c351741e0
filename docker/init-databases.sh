#!/bin/bash
# Runs once, in an empty cluster: a database and a user each for MLflow and for Optuna, who cannot see each other's.
set -euo pipefail
psql --set ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname postgres <<'EOS'
\set mlflow `cat /run/secrets/mlflow_database_password`
\set optuna `cat /run/secrets/optuna_database_password`
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE ROLE optuna LOGIN PASSWORD :'optuna';
CREATE DATABASE mlflow OWNER mlflow TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8';
CREATE DATABASE optuna OWNER optuna TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8';
REVOKE ALL ON DATABASE mlflow, optuna, postgres FROM PUBLIC;
EOS
