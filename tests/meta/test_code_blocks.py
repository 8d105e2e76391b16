"""Each block of code in the pages is executed, read by the code it is for, or a claim to try."""

import base64
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
import typer.main
import yaml

from serve_app.api.requests import schemas
from serve_app.cli.main import app
from serve_app.config import AppConfig
from serve_app.models.application import deployment_name
from serve_app.models.entry import AddOn, ModelEntry

ROOT = Path(__file__).parents[2]


def _name(path):
    return path.relative_to(ROOT).as_posix()


FILES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
BLOCKS = [
    pytest.param(_name(path), language, text, id=f"{_name(path)}-{number}")
    for path in FILES
    for number, (language, text) in enumerate(
        re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    )
]
EXECUTED = {f"docs/{name}.md" for name in ("examples", "polling", "events", "openai", "webhooks")}
BODIES = ("docs/inpainting.md-0", "docs/inpainting.md-1", "docs/life-of-a-request.md-0")
NO_COMMANDS = (*BODIES, "docs/architecture.md-0", "docs/traces.md-2", "README.md-1")
CLAIMS = (ROOT / "docs" / "claims.md").read_text()
KNOWN = ("", "sh", "yaml", "console", "text")
FOREIGN = {
    "curl",
    "pg_restore",
    "docker",
    "kubectl",
    "helm",
    "ray",
    "serve",
    "pip",
    "pg_dump",
    "python3",
    "export",
}


def commands():
    """Every line of a block that is typed into a shell, with its page.

    In a transcript those begin with `$`; `before` and `after` are programs of two versions there.
    """
    for one in BLOCKS:
        page, language, text = one.values
        if language == "console":
            for line in re.findall(r"^\$ (.*)", text, re.MULTILINE):
                program = re.sub(r"^(\w+=\S+ )*(before|after) ", "dreamserve ", line)
                yield page, program
        if language in ("", "sh") and page not in EXECUTED and one.id not in NO_COMMANDS:
            for line in text.replace("\\\n", " ").splitlines():
                yield page, re.sub(r"^(\w+=\S+ )+", "", line.split(" #")[0].strip())


def test_blocks_of_other_languages_are_on_pages_that_are_executed():
    others = {one.values[0] for one in BLOCKS if one.values[1] not in KNOWN}
    assert others == EXECUTED


OURS = sorted(
    {
        line[line.index("dreamserve ") :].strip("'")
        for _, line in commands()
        if re.match(r"dreamserve |ray exec .*'dreamserve ", line)
        and not re.search("--install-|--version", line)
    }
)


@pytest.mark.parametrize("line", OURS)
def test_command_of_a_page_has_arguments_that_it_takes(line):
    assert len(OURS) > 30
    words = shlex.split(line.partition(" > ")[0])[1:]
    context = typer.main.get_command(app).make_context("dreamserve", words)
    while isinstance(context.command, click.Group):
        name, command, rest = context.command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        context = command.make_context(name, rest, parent=context)


def test_commands_that_are_not_ours_are_on_pages_with_a_claim():
    """Nothing here runs `kubectl` or `docker`: somebody does, before a release."""
    others = {(page, line.split()[0]) for page, line in commands() if line}
    foreign = {(page, word) for page, word in others if word not in ("dreamserve", "make")}
    assert {word for _, word in foreign} <= FOREIGN
    links = {os.path.relpath(ROOT / page, ROOT / "docs") for page, _ in foreign}
    assert [link for link in sorted(links) if f"]({link}" not in CLAIMS] == []


def _requests():
    """Every JSON body of a page that no test sends, its pictures left out."""
    for one in BLOCKS:
        if one.id in BODIES:
            for text in re.findall(r"^\{.*?\}$", one.values[2], re.MULTILINE | re.DOTALL):
                yield pytest.param(text, id=f"{one.id}-{text[:20]}")


@pytest.mark.parametrize("text", list(_requests()))
def test_body_in_a_page_has_fields_that_are_read(text):
    body = json.loads(text)
    assert body.keys() - {"key"} <= schemas.GenerationBody.model_fields.keys()
    schemas.parse(schemas.GenerationBody, body)


def test_call_of_the_readme_is_the_example_that_demo_sends(tmp_path):
    """Run by a shell whose `curl` shows what it would send."""
    (block,) = [one.values[2] for one in BLOCKS if one.id == "README.md-1"]
    (tmp_path / "call.sh").write_text(f'curl() {{ printf "%s" "${{@: -1}}"; }}\n{block}')
    sent = subprocess.run(
        ["bash", "-eu", str(tmp_path / "call.sh")], cwd=ROOT, capture_output=True, check=True
    )
    body = json.loads(sent.stdout)
    spec = schemas.parse(schemas.GenerationBody, body)
    assert (spec.model_id, spec.width, spec.steps) == ("demo-inpaint", 512, 30)
    for field, name in (("init_image", "init"), ("mask_image", "mask")):
        picture = ROOT / "examples" / "inpaint" / f"{name}.png"
        assert base64.b64decode(body[field]) == picture.read_bytes()


def _entries():
    """Every document of the catalogue's page that is an entry, or a part of one."""
    for one in BLOCKS:
        page, language, text = one.values
        if (page, language) != ("docs/catalogue.md", "yaml"):
            continue
        alone = text.startswith("# each line alone") or text.count("source:") > 1
        lines = [line for line in text.splitlines() if ":" in line]
        for document in lines if alone and "---" not in text else text.split("---\n"):
            name = document.partition("#")[0].split("\n")[0].strip()
            yield pytest.param(yaml.safe_load(document), id=f"{one.id}-{name}")


@pytest.mark.parametrize("entry", list(_entries()))
def test_entry_in_the_page_is_read(entry):
    whole = {"id": "a", "source": "/models/a", **entry}
    if "type" in entry:
        assert AddOn.model_validate(whole).id == whole["id"]
    else:
        kinds = {"kinds": ["text2img"]}
        assert ModelEntry.model_validate(kinds | whole).id == whole["id"]


def test_settings_in_the_page_of_traces_are_read():
    (text,) = [one.values[2] for one in BLOCKS if one.values[:2] == ("docs/traces.md", "yaml")]
    assert AppConfig(**yaml.safe_load(text)).logging.traces_url


def test_deployment_in_the_page_of_reloads_is_named_as_ours_are():
    (text,) = [one.values[2] for one in BLOCKS if one.values[:2] == ("docs/reload.md", "yaml")]
    (application,) = yaml.safe_load(text)["applications"]
    (deployment,) = application["deployments"]
    assert deployment == {"name": deployment_name("sd15"), "user_config": {"revision": "v2"}}
