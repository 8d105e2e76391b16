"""Pictures of clients: where they come from, how they are read, and our own encoded form.

`source` tells URLs from inline data, `download` fetches, `decode` reads untrusted bytes,
`prepare` makes the two pictures that a Generator wants, `codec` writes and reads `Picture`s.
"""
