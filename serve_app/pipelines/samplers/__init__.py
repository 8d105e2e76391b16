"""Samplers: their names in the API, and how each request gets its own."""
