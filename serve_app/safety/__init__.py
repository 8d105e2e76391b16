"""The NSFW check: flags pictures and replaces those that are flagged.

`protocol` is the seam, `diffusers_checker` the real check, `absent` stands in where none is
configured, `fake` serves tests, `replace` makes what is shown instead.
"""
