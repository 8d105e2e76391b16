"""The life of models on a replica: load, serve, exchange, evict. Knows no Ray.

`resident` keeps one model and exchanges its weights while it paints; `cache` keeps those of the
Pool within a budget of memory.
"""
