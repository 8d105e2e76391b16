"""`AppConfig`: the whole configuration, from the Serve config file and the environment."""

import os
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from serve_app.config.catalogue import CatalogueConfig
from serve_app.config.components import (
    EngineConfig,
    JobsConfig,
    LimitsConfig,
)
from serve_app.config.database import DatabaseConfig
from serve_app.config.events import EventsConfig
from serve_app.config.fields import paths
from serve_app.config.http import AuthConfig, HttpConfig
from serve_app.config.images import HintsConfig, ImagesConfig
from serve_app.config.logs import LoggingConfig
from serve_app.config.pool import PoolConfig
from serve_app.config.reload import ReloadConfig
from serve_app.config.safety import SafetyConfig
from serve_app.config.serving import ServingConfig
from serve_app.config.storage import StorageConfig
from serve_app.config.webhook import WebhooksConfig
from serve_app.config.wording import suggestion

__all__ = ["AppConfig"]


class AppConfig(BaseSettings):
    """All settings. `DREAMSERVE_<SECTION>__<FIELD>` overrides a field of a section."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix="DREAMSERVE_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    root_dir: Path = Field(
        default_factory=Path.cwd, description="Sets the folder that relative paths start from."
    )
    data_dir: Path = Field(
        default=Path("var"),
        description="Sets the folder in which the service writes everything at run time.",
    )
    http: HttpConfig = HttpConfig()
    auth: AuthConfig = AuthConfig()
    catalogue: CatalogueConfig = CatalogueConfig()
    images: ImagesConfig = ImagesConfig()
    hints: HintsConfig = HintsConfig()
    engine: EngineConfig = EngineConfig()
    reload: ReloadConfig = ReloadConfig()
    pool: PoolConfig = PoolConfig()
    safety: SafetyConfig = SafetyConfig()
    storage: StorageConfig = StorageConfig()
    database: DatabaseConfig = DatabaseConfig()
    jobs: JobsConfig = JobsConfig()
    limits: LimitsConfig = LimitsConfig()
    events: EventsConfig = EventsConfig()
    webhooks: WebhooksConfig = WebhooksConfig()
    logging: LoggingConfig = LoggingConfig()
    serving: ServingConfig = ServingConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the environment above the config file."""
        known = {_variable(name) for name in settings_cls.model_fields}
        for variable in os.environ:
            if variable.startswith("DREAMSERVE_") and variable.split("__")[0] not in known:
                meant = suggestion(variable, _variables(settings_cls))
                raise ValueError(f"{variable} names no setting{meant}")
        return env_settings, init_settings

    @model_validator(mode="after")
    def _absolute_paths(self) -> Self:
        """Resolve paths once, since replicas run in other working folders."""
        root = self.root_dir.resolve()
        data_dir = root / self.data_dir
        hub_cache = self.catalogue.hub_cache or _hub_cache()
        paths = {
            "path": root / self.catalogue.path,
            "cache_dir": root / (self.catalogue.cache_dir or data_dir / "weights"),
            "hub_cache": None if hub_cache is None else root / hub_cache,
        }
        catalogue = self.catalogue.model_copy(update=paths)
        folders = {"translator": self.engine.translator, "expander": self.engine.expander}
        engine = {name: root / folder for name, folder in folders.items() if folder is not None}
        engine["cache_dir"] = root / (self.engine.cache_dir or data_dir / "cache")
        safety = self.safety
        if safety.checkpoint is not None:
            safety = safety.model_copy(update={"checkpoint": root / safety.checkpoint})
        http = self.http
        if http.styles is not None:
            http = http.model_copy(update={"styles": root / http.styles})
        hint_paths = {name: root / path for name, path in self.hints.paths.items()}
        database = self.database
        if database.url is None:
            url = SecretStr(f"sqlite:///{data_dir / 'dreamserve.db'}")
            database = database.model_copy(update={"url": url})
        logs = self.logging
        if logs.traces_url is None:
            logs = logs.model_copy(update={"traces_url": _traces_url()})
        resolved = {
            "root_dir": root,
            "data_dir": data_dir,
            "http": http,
            "catalogue": catalogue,
            "engine": self.engine.model_copy(update=engine),
            "hints": self.hints.model_copy(update=hint_paths),
            "safety": safety,
            "database": database,
            "logging": logs,
        }
        for name, value in resolved.items():
            object.__setattr__(self, name, value)  # frozen: this is the end of construction
        return self

    def redacted(self) -> dict[str, object]:
        """The effective configuration for the log; secrets show as asterisks."""
        return self.model_dump(mode="json")


def _variable(*path: str) -> str:
    return f"DREAMSERVE_{'__'.join(path).upper()}"


def _variables(settings: type[BaseSettings]) -> list[str]:
    return [_variable(*path) for path in paths(settings)]


def _hub_cache() -> Path | None:
    """Return the folder that hub programs on this machine were told to use."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder).expanduser()
    home = os.environ.get("HF_HOME")
    return Path(home).expanduser() / "hub" if home else None


def _traces_url() -> str | None:
    """Return where OpenTelemetry's own variables send traces."""
    if os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    whole = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return whole or (f"{base.rstrip('/')}/v1/traces" if base else None)
