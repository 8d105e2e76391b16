"""From the bytes of a call to a complete `JobRequest`: parsing, coercion, defaults, refusals."""
