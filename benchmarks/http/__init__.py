"""Benchmark 2: the whole service over HTTP against its peers. See the README beside this file."""
