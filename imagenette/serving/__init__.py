"""A registered model in use: on the command line (`predict`), as an HTTP service with one page (`serve`).

Owns requests, their limits and batches, and how a new champion takes over. Never imports training or study.
"""
