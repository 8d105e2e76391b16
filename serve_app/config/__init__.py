"""Settings: one frozen pydantic model per component, gathered in `AppConfig`.

The only package that reads the environment. Precedence, highest first: `DREAMSERVE_*` variables,
the `args` of the Serve config file, the defaults here, which are the safe values.
"""

from serve_app.config.app import AppConfig
from serve_app.config.catalogue import CatalogueConfig
from serve_app.config.components import (
    EngineConfig,
    JobsConfig,
    LimitsConfig,
)
from serve_app.config.database import DatabaseConfig
from serve_app.config.events import EventsConfig
from serve_app.config.http import AuthConfig, HttpConfig
from serve_app.config.images import HintsConfig, ImagesConfig
from serve_app.config.logs import LoggingConfig
from serve_app.config.pool import PoolConfig
from serve_app.config.reload import ReloadConfig
from serve_app.config.safety import SafetyConfig
from serve_app.config.serving import DeploymentOptions, ModelOptions, ServingConfig
from serve_app.config.storage import StorageConfig
from serve_app.config.webhook import WebhooksConfig

__all__ = [
    "AppConfig",
    "AuthConfig",
    "CatalogueConfig",
    "DatabaseConfig",
    "DeploymentOptions",
    "EngineConfig",
    "EventsConfig",
    "HintsConfig",
    "HttpConfig",
    "ImagesConfig",
    "JobsConfig",
    "LimitsConfig",
    "LoggingConfig",
    "ModelOptions",
    "PoolConfig",
    "ReloadConfig",
    "SafetyConfig",
    "ServingConfig",
    "StorageConfig",
    "WebhooksConfig",
]
