"""Files that operators write: YAML, and the Serve config file with our settings in its `args`.

What is wrong with one is a `ValueError` of one line per problem, which names the file and says
what to change. Values are not repeated: they may be secrets.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails

from serve_app.config.app import AppConfig
from serve_app.config.fields import paths
from serve_app.config.wording import sentence, suggestion

__all__ = ["ConfigFile", "SettingsError", "read_file", "read_yaml"]

# What Ray Serve reads; it would refuse other keys only after it has started.
FILE_KEYS = frozenset(
    {
        *("proxy_location", "http_options", "grpc_options", "controller_options"),
        *("logging_config", "tracing_config", "applications", "target_capacity"),
    }
)
HTTP_KEYS = frozenset(
    {
        *("host", "port", "root_path", "request_timeout_s", "keep_alive_timeout_s"),
        *("ssl_keyfile", "ssl_certfile", "ssl_keyfile_password", "ssl_ca_certs"),
    }
)
APPLICATION_KEYS = frozenset(
    {
        *("name", "route_prefix", "import_path", "runtime_env", "host", "port", "deployments"),
        *("autoscaling_policy", "args", "logging_config", "external_scaler_enabled"),
    }
)


class SettingsError(ValueError):
    """The operator's settings are wrong: a line for each that is."""


# What is listened on is no address to go to.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A Serve config file: all of it as it was read, and the settings of the service in it."""

    values: dict[str, JsonValue]
    settings: AppConfig

    @property
    def http_options(self) -> dict[str, JsonValue]:
        """Where Serve's proxy listens; empty where the file does not say."""
        options = self.values.get("http_options") or {}
        assert isinstance(options, dict), "the file's keys were checked"
        return options

    def url(self, port: int | None = None) -> str:
        """Return where this machine reaches the service, without a slash; port: not the file's."""
        host = str(self.http_options.get("host", "127.0.0.1"))
        host = _EVERYWHERE.get(host, f"[{host}]" if ":" in host else host)
        port = port or int(str(self.http_options.get("port", 8000)))
        return f"http://{host}:{port}{self._prefix}"

    @property
    def _prefix(self) -> str:
        """The path that all of the service's begin with, without a slash at its end."""
        match self.values.get("applications"):
            case [{"route_prefix": str(prefix)}, *_]:
                return prefix.rstrip("/")
        return ""


def read_yaml(path: Path) -> JsonValue:
    """Read a YAML file.

    Raises:
        OSError: it cannot be read.
        SettingsError: it is no YAML, or empty.
    """
    try:
        values: JsonValue = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{path} is not UTF-8 text") from exc
    except yaml.YAMLError as exc:
        raise SettingsError(f"{path} is no YAML: {' '.join(str(exc).split())}") from exc
    if values is None:
        raise SettingsError(f"{path} is empty")
    return values


def read_file(path: Path) -> ConfigFile:
    """Read a Serve config file; the first application is the service.

    Raises:
        OSError: it cannot be read.
        SettingsError: it is no such file, or a setting in it or in the environment is wrong.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: there is no application under `applications`")
    applications = values.get("applications")
    first = applications[0] if isinstance(applications, list) and applications else None
    found = list(_unknown_keys(values, first if isinstance(first, dict) else {}))
    if not found and not isinstance(first, dict):
        found = ["there is no application under `applications`"]
    if found or not isinstance(first, dict):
        raise SettingsError("\n".join(f"{path}: {problem}" for problem in found))
    return ConfigFile(values, _read_settings(path, first.get("args") or {}))


def _unknown_keys(values: Mapping[str, JsonValue], first: Mapping[str, JsonValue]) -> Iterator[str]:
    yield from _unknown("", values, FILE_KEYS)
    yield from _unknown("applications.0.", first, APPLICATION_KEYS)
    http = values.get("http_options")
    if isinstance(http, dict):
        yield from _unknown("http_options.", http, HTTP_KEYS)


def _unknown(where: str, values: Mapping[str, JsonValue], known: frozenset[str]) -> Iterator[str]:
    for name in values.keys() - known:
        yield f"{where}{name}: Ray Serve has no such key{suggestion(name, known)}"


def _read_settings(path: Path, args: JsonValue) -> AppConfig:
    if not isinstance(args, dict):
        raise SettingsError(f"{path}: `args` of the application is not a mapping of settings")
    try:
        return AppConfig.model_validate(args)
    except ValidationError as exc:
        details = exc.errors(include_url=False, include_input=False)
        found = dict.fromkeys(_problem(detail) for detail in details)
        raise SettingsError("\n".join(f"{path}: {problem}" for problem in found)) from exc


def _problem(detail: ErrorDetails) -> str:
    steps = tuple(str(step) for step in detail["loc"])
    name = ".".join(steps) or "settings"
    if detail["type"] != "extra_forbidden":
        return f"{name}: {sentence(detail)}"
    return f"{name}: there is no such setting{_meant(steps)}"


def _meant(steps: tuple[str, ...]) -> str:
    """Suggest a setting of the same section, else one of any section."""
    *section, last = steps
    known = list(paths(AppConfig))
    beside = [one[-1] for one in known if one[:-1] == tuple(section)]
    if found := suggestion(last, beside):
        return found
    elsewhere = [".".join(one) for one in known if one[-1] == last]
    return f"; did you mean {elsewhere[0]}?" if elsewhere else ""
