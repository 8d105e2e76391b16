"""Prompts: their syntax, how they are encoded, and how they are rewritten."""
