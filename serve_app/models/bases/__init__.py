"""Settings of published architectures, for files that hold nothing but weights."""
