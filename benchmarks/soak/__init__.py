"""A soak under attack: ordinary calls beside all kinds of hostile ones. See the README above."""
