"""Makes entries of a folder of downloaded files."""
