"""Docstrings begin as an engineer expects: Return, Raise, Report; not Tell, Give, Say, Have."""

import ast

import pytest

from tests.meta.rooms import FILES, ROOT

_UNUSUAL = ("Tell ", "Give ", "Say ", "Have ", "Let ", "See ")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_begin_with_a_usual_verb(path):
    documented = ast.AsyncFunctionDef | ast.FunctionDef | ast.ClassDef | ast.Module
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, documented)]
    begins = [ast.get_docstring(node) or "" for node in nodes]
    assert [text for text in begins if text.startswith(_UNUSUAL)] == []
