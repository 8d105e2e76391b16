"""The composition root: the whole graph on one screen. The only module that imports deployments."""

from ray.serve import Application

from deployments.add_on_router import add_on_router
from deployments.generator import Generator
from deployments.ingress import Ingress
from deployments.janitor import Janitor
from deployments.options import deploy
from deployments.pool import Pool
from deployments.preprocess import Preprocess
from deployments.router import router_config
from deployments.safety import Safety
from deployments.stages import Stages, stages_elsewhere
from deployments.upload import Upload
from serve_app.config import AppConfig
from serve_app.models import Catalogue, ModelEntry
from serve_app.models.application import (
    ModelArgs,
    ServiceArgs,
    StageArgs,
    StageName,
    deployment_name,
)
from serve_app.models.entry import anchored
from serve_app.models.weights.told import with_told

__all__ = ["build", "build_model", "build_service", "build_stage"]


def build(args: AppConfig) -> Application:
    """Build the application from `args` of a Serve config file; see `configs/dev.yaml`.

    Raises:
        CatalogueError: the model files are wrong.
    """
    catalogue = Catalogue.load(args.catalogue, args.root_dir)
    generators = {
        entry.id: _generator(entry, catalogue, args)
        for entry in catalogue
        if entry.placement == "own"
    }
    pool = _stage("pool", args) if catalogue.has_pool(args.pool) else None
    # Serve puts handles where the bound deployments stand, inside the value too.
    stages = Stages(
        _stage("preprocess", args), generators, pool, _stage("safety", args), _stage("upload", args)
    )
    return _ingress(args, catalogue, stages)


def build_service(args: ServiceArgs) -> Application:
    """Build the application that `dreamserve deploy` writes in its place: only who answers calls.

    Raises:
        CatalogueError: the model files are wrong.
    """
    config = args.config
    catalogue = Catalogue.load(config.catalogue, config.root_dir)
    stages = stages_elsewhere(has_pool=catalogue.has_pool(config.pool))
    return _ingress(config, catalogue, stages)


def build_stage(args: StageArgs) -> Application:
    """Build the application of one stage, by the same command.

    Raises:
        CatalogueError: the model files are wrong.
    """
    return _stage(args.stage, args.config)


def build_model(args: ModelArgs) -> Application:
    """Build the application of one model; `dreamserve config` and `dreamserve deploy` write it.

    Raises:
        CatalogueError: the model files are wrong.
    """
    config = args.config
    catalogue = Catalogue.load(config.catalogue, config.root_dir)
    entry = with_told(anchored(args.model, config.root_dir), config.catalogue, config.root_dir)
    return _generator(entry, catalogue, config)


def _ingress(config: AppConfig, catalogue: Catalogue, stages: Stages) -> Application:
    janitor = deploy(Janitor, config.serving.janitor, config, stages)
    return deploy(Ingress, config.serving.ingress, config, catalogue, stages, janitor)


def _generator(entry: ModelEntry, catalogue: Catalogue, config: AppConfig) -> Application:
    name = deployment_name(entry.id)
    router = add_on_router(entry.serve)
    return deploy(Generator, entry.serve, entry, catalogue, config, name=name, router=router)


def _stage(stage: StageName, config: AppConfig) -> Application:
    """Bind a stage that is not a model's; each gets only what it goes by."""
    serving, logs, data_dir = config.serving, config.logging, config.data_dir
    match stage:
        case "preprocess":
            parts = config.images, config.storage, data_dir, logs, config.hints
            return deploy(Preprocess, serving.preprocess, *parts)
        case "safety":
            return deploy(Safety, serving.safety, config.safety, logs)
        case "upload":
            return deploy(Upload, serving.upload, config.storage, data_dir, logs)
        case "pool":  # one for all models that have no deployment of their own
            catalogue = Catalogue.load(config.catalogue, config.root_dir)
            router = router_config(config.pool)
            return deploy(Pool, serving.pool, config, catalogue, router=router)
