"""The files of catalogue entries: where they come from, what they are, whether they are sound."""
