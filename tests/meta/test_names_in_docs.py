"""What the documents name exists: settings, variables, metrics, commands, calls, events, tests."""

import re
from pathlib import Path

import typer.main

from serve_app.cli.main import app
from serve_app.config import AppConfig
from serve_app.models.entry import AddOn, ModelEntry
from serve_app.telemetry import metrics

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"))
    if path.name not in ("CHANGELOG.md", "decisions.md")  # history: names of then
}
SPANS = {page: re.findall(r"`([^`\n]+)`", text) for page, text in PAGES.items()}
CODE = "\n".join(
    path.read_text(encoding="utf-8")
    for folder in (
        "serve_app",
        "deployments",
        "configs",
        "deploy",
        "benchmarks",
        "training",
        "tests",
    )
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".yaml", ".yml", ".json") and path != Path(__file__)
)
# Of diffusers, nginx and Ray; of `is_sdxl` and `tip_1` the pages say that they are not sent.
FOREIGN = {
    "padding_mask_crop", "client_header_timeout", "large_client_header_buffers", "limit_conn",
    "ray_component_rss_bytes", "is_sdxl", "tip_1", "ssh_proxy_command",
}  # fmt: skip


def _names(model, before=()):
    """Dotted names of a settings model and of those in it."""
    for name, field in model.model_fields.items():
        yield ".".join((*before, name))
        for inner in _sections(field.annotation):
            yield from _names(inner, (*before, name))


def _sections(annotation):
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [one for arg in getattr(annotation, "__args__", ()) for one in _sections(arg)]


SETTINGS = set(_names(AppConfig))


def named(pattern):
    """Sorted pairs of page and what a pattern finds in its code spans."""
    return sorted(
        {
            (page, found)
            for page, spans in SPANS.items()
            for s in spans
            for found in re.findall(pattern, s)
        }
    )


def test_settings_that_documents_name_exist():
    sections = "|".join(AppConfig.model_fields)
    found = named(rf"^((?:{sections})\.[a-z0-9_.]+?)(?::.*)?$")
    modules = ("docs/rooms.md", "docs/glossary.md")  # these name modules in the same way
    wrong = [one for one in found if one[1] not in SETTINGS and one[0] not in modules]
    assert len(found) > 100
    assert wrong == []


def test_words_with_underscores_that_documents_name_are_in_the_code():
    """Fields, log events, reasons and functions: a name that is gone has no place in a page."""
    found = named(r"^([a-z]+(?:_[a-z0-9]+)+)$")
    assert len(found) > 300
    assert [one for one in found if one[1] not in CODE and one[1] not in FOREIGN] == []


def test_variables_that_documents_name_exist():
    variables = {"DREAMSERVE_" + name.upper().replace(".", "__") for name in SETTINGS}
    found = named(r"\b(DREAMSERVE_[A-Z0-9_]+)")
    assert [one for one in found if one[1] not in variables] == []


def test_metrics_that_documents_name_exist():
    known = set(re.findall(r"dreamserve_\w+", metrics.markdown()))
    wrong = [
        (page, name)
        for page, name in named(r"\b(dreamserve_\w+)")
        if re.sub(r"_(bucket|sum|count)$", "", name) not in known and name not in known
    ]
    assert wrong == []


def _commands():
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        yield name
        for sub in getattr(command, "commands", {}):
            yield f"{name} {sub}"


def test_commands_that_documents_name_exist():
    known = set(_commands())
    found = named(r"^(?:\.venv/bin/)?dreamserve ([a-z]+(?: [a-z]+)?)\b")
    assert len(found) > 20
    assert [one for one in found if not {one[1], one[1].split()[0]} & known] == []


def test_targets_that_documents_name_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert [one for one in named(r"^make ([a-z-]+)") if one[1] not in targets] == []


def test_tests_that_documents_name_exist():
    wrong = []
    for page, span in named(r"^(tests/[\w/]+\.py(?:::\w+)?)"):
        path, _, name = span.partition("::")
        file = ROOT / path
        if not file.exists() or (name and f"def {name}(" not in file.read_text(encoding="utf-8")):
            wrong.append((page, span))
    assert wrong == []


def test_fields_of_entries_that_the_catalogue_shows_exist():
    fields = set(ModelEntry.model_fields) | set(AddOn.model_fields)
    blocks = re.findall(r"```yaml\n(.*?)```", PAGES["docs/catalogue.md"], flags=re.DOTALL)
    keys = {key for block in blocks for key in re.findall(r"^(\w+):", block, flags=re.MULTILINE)}
    assert len(keys) > 20
    assert keys - fields == set()
