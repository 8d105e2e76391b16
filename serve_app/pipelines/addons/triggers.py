"""The words of embeddings in prompts. No torch."""

import re
from collections.abc import Iterator, Mapping

from serve_app.types import GenerationSpec

__all__ = ["replaced", "with_triggers"]


def with_triggers(spec: GenerationSpec, triggers: Mapping[str, str]) -> GenerationSpec:
    """Put the word of each named embedding at the end of the prompt where neither text has it.

    triggers: the words, by the embedding's id.
    """
    triggers = {name: triggers[name] for name in spec.embeddings}
    words = _Words(triggers)
    found = set(words.find(spec.prompt)) | set(words.find(spec.negative_prompt))
    prompt = spec.prompt
    for word in triggers.values():
        if word.lower() not in found:
            found.add(word.lower())
            prompt = f"{prompt} {word}".lstrip()
    return spec.model_copy(update={"prompt": prompt})


def replaced(text: str, triggers: Mapping[str, str], tokens: Mapping[str, str]) -> str:
    """Replace words by the tokens of their embeddings; of several with one word, by all of theirs.

    triggers, tokens: by the embedding's id.
    """
    of_word: dict[str, list[str]] = {}
    for name, word in triggers.items():
        of_word.setdefault(word.lower(), []).append(tokens[name])
    return _Words(triggers).replace(text, {word: " ".join(own) for word, own in of_word.items()})


class _Words:
    """Finds the words of a request's embeddings, as words of their own and in any case.

    All in one pass, the longest first: `bad-hands` must not take its part of `bad-hands-5`, nor any
    word a part of another's token.
    """

    def __init__(self, triggers: Mapping[str, str]) -> None:
        self._words = sorted({word.lower() for word in triggers.values()}, key=len, reverse=True)
        any_of = "|".join(f"({re.escape(word)})" for word in self._words)
        self._pattern = re.compile(rf"(?<!\w)(?:{any_of})(?!\w)", re.IGNORECASE)

    def find(self, text: str) -> Iterator[str]:
        """Yield the words that a text has, in lower case."""
        return map(self._word, self._pattern.finditer(text)) if self._words else iter(())

    def replace(self, text: str, others: Mapping[str, str]) -> str:
        """Put others in the places of words; others: by the word in lower case."""
        if not self._words:
            return text
        return self._pattern.sub(lambda match: others[self._word(match)], text)

    def _word(self, match: re.Match[str]) -> str:
        assert match.lastindex is not None, "each word is a group"
        return self._words[match.lastindex - 1]
