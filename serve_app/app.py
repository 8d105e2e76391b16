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
from deployments.stages import Stages
from deployments.upload import Upload
from serve_app.config import AppConfig
from serve_app.models import Catalogue, ModelEntry
from serve_app.models.application import ModelArgs, deployment_name
from serve_app.models.entry import anchored

__all__ = ["build", "build_model"]


def build(args: AppConfig) -> Application:
    """Build the application from `args` of a Serve config file; see `configs/dev.yaml`.

    Raises:
        CatalogueError: the model files are wrong.
    """
    config, serving = args, args.serving
    catalogue = Catalogue.load(config.catalogue, config.root_dir)

    preprocess = deploy(
        Preprocess,
        serving.preprocess,
        config.images,
        config.storage,
        config.data_dir,
        config.logging,
    )
    generators = {
        entry.id: _generator(entry, catalogue, config)
        for entry in catalogue
        if entry.placement == "own"
    }
    safety = deploy(Safety, serving.safety, config.safety, config.logging)
    upload = deploy(Upload, serving.upload, config.storage, config.data_dir, config.logging)
    # Serve puts handles where the bound deployments stand, inside the value too.
    stages = Stages(preprocess, generators, _pool(config, catalogue), safety, upload)
    janitor = deploy(Janitor, serving.janitor, config, stages)
    return deploy(Ingress, serving.ingress, config, catalogue, stages, janitor)


def build_model(args: ModelArgs) -> Application:
    """Build the application of one model that was added at run time; `dreamserve config` writes it.

    Raises:
        CatalogueError: the model files are wrong.
    """
    config = args.config
    catalogue = Catalogue.load(config.catalogue, config.root_dir)
    return _generator(anchored(args.model, config.root_dir), catalogue, config)


def _generator(entry: ModelEntry, catalogue: Catalogue, config: AppConfig) -> Application:
    name = deployment_name(entry.id)
    router = add_on_router(entry.serve)
    return deploy(Generator, entry.serve, entry, catalogue, config, name=name, router=router)


def _pool(config: AppConfig, catalogue: Catalogue) -> Application | None:
    """One for all models that have no deployment of their own; none where there are no such."""
    if not catalogue.has_pool(config.pool):
        return None
    return deploy(
        Pool,
        config.serving.pool,
        config,
        catalogue,
        router=router_config(config.pool),
    )
