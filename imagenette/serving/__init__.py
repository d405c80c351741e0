"""The registered model as an HTTP service with one page."""
