"""The account that trainings, workers, the service and people use, made at the start of the stack:
`python -m imagenette.stack.accounts`. The administrator's is used for nothing else.

MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD: the server, as the administrator.
PASSWORD: of the account `imagenette`; if it has another one there, it is set to this.
"""

from __future__ import annotations

import os

from imagenette.guard import USER
from imagenette.tracking.client import connect, one_line


def main() -> None:
    uri = os.environ["MLFLOW_TRACKING_URI"]
    connect(uri)  # sets short patience
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth.client import AuthServiceClient

    with one_line(uri):
        accounts = AuthServiceClient(uri)
        try:
            accounts.get_user(USER)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            accounts.create_user(USER, os.environ["PASSWORD"])
            print(f"imagenette: account {USER} made")
        else:
            accounts.update_user_password(USER, os.environ["PASSWORD"])


if __name__ == "__main__":
    main()
