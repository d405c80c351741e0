"""Links into MLflow's pages that open on what a person wants to see."""

from __future__ import annotations


def link(uri: str, experiment_id: str) -> str:
    """The leaderboard of an experiment on a server's pages."""
    page = f"#/experiments/{experiment_id}/runs"
    return f"{uri.rstrip('/')}/{page}?workflowType=machine_learning&viewStateShareKey=leaderboard"
