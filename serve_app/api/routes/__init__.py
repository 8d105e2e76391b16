"""The calls: which path does what."""
