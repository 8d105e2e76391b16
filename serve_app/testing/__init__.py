"""Twins in memory, fakes and random checkpoints. Nothing in production imports this package.

The twins pass the same contract tests as the real thing (`tests/contract`).
"""
