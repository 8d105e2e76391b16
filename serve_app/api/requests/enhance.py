"""Prompt rewriting of `enhance_prompt`, in the form that the hosted API's `meta` shows.

Source: api-reference 5.4, from the documented replies.
"""

from serve_app.models import ModelEntry

__all__ = ["negative", "positive"]


def positive(prompt: str, entry: ModelEntry, style: str, *, enhance: bool) -> str:
    """Instance prompt, prompt, words to append, a blank between each; the first may be empty.

    style: words of `enhance_style`; they come before the model's own.
    """
    instance = entry.instance_prompt or ""
    suffix = f"{style} {entry.enhancement.prompt_suffix}".strip()
    if enhance and suffix:
        return f"{instance} {prompt} {suffix}"
    return f"{instance} {prompt}".strip()


def negative(prompt: str, entry: ModelEntry, *, enhance: bool) -> str:
    """The client's words, one blank, the stock list of defects; the first may be empty."""
    suffix = entry.enhancement.negative_suffix
    return f"{prompt} {suffix}" if enhance and suffix else prompt
