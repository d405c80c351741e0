"""Modules and their saved form."""
