"""`dreamserve init`: a folder that can be served, with every setting explained."""

from pathlib import Path

import yaml
from pydantic import JsonValue

from serve_app.cli import bundle
from serve_app.config import template

__all__ = ["write"]

_DEV: dict[str, JsonValue] = {"auth": {"mode": "open"}, "logging": {"format": "console"}}
_PROD: dict[str, JsonValue] = {
    "data_dir": "/var/lib/dreamserve",
    "http": {"public_url": "https://images.example.com"},
    "engine": {"device": "cuda"},
}
_HEAD = """# {title}
# Every setting is here: `##` explains, `#` is a default. `dreamserve settings` shows the same as a
# table. DREAMSERVE_<SECTION>__<FIELD> in the environment wins over this file, and is the place for
# secrets.
proxy_location: {proxy}
http_options:
  host: {host}
  port: 8000
logging_config:
  enable_access_log: false  # the ingress writes its own, without bodies and query strings
applications:
  - name: dreamserve
    route_prefix: /
    import_path: serve_app.app:build
    args:
"""
_TITLE = {False: "One machine, the demo models, no keys.", True: "Keys, GPUs, PostgreSQL, S3."}
_MODEL = """# A model; rename this file to sd15.yaml to serve it. docs/catalogue.md has all fields.
id: sd15
source: /models/sd15  # a diffusers folder or a safetensors file, or {hub: OWNER/NAME}
kinds: [text2img, img2img, inpaint]
"""


def write(folder: Path, *, is_prod: bool = False) -> list[Path]:
    """Write a Serve config file and a folder of models; return the files.

    Raises:
        OSError: they cannot be written.
        ValueError: the config file exists already.
    """
    config = folder / "configs" / ("prod.yaml" if is_prod else "dev.yaml")
    if config.exists():
        raise ValueError(f"{config} exists already")
    models = folder / "configs" / "models"
    models.mkdir(parents=True, exist_ok=True)
    made = _write_example(models) if is_prod else _write_demo(models)
    proxy, host = ("EveryNode", "0.0.0.0") if is_prod else ("HeadOnly", "127.0.0.1")  # noqa: S104
    head = _HEAD.format(title=_TITLE[is_prod], proxy=proxy, host=host)
    given = _PROD if is_prod else _DEV | {"safety": {"checkpoint": str(_checkpoint("demo-safety"))}}
    config.write_text(head + template.settings(given, " " * 6), encoding="utf-8")
    return [config, *made]


def _checkpoint(name: str) -> Path:
    return bundle.folder() / "checkpoints" / name


def _write_demo(models: Path) -> list[Path]:
    """Write the entries of the demo, whose weights stay where they were installed."""
    made = []
    for file in sorted((bundle.folder() / "configs" / "models").glob("*.yaml")):
        entry = yaml.safe_load(file.read_text(encoding="utf-8"))
        entry["source"] = str(bundle.folder() / entry["source"])
        target = models / file.name
        if not target.exists():
            target.write_text(yaml.safe_dump(entry, sort_keys=False), encoding="utf-8")
            made.append(target)
    return made


def _write_example(models: Path) -> list[Path]:
    example = models / "sd15.yaml.example"
    example.write_text(_MODEL, encoding="utf-8")
    return [example]
