"""Weights from a hub: fetched once per node, by revision, over real HTTP."""

import json
import subprocess
import sys

import numpy as np
import pytest
from huggingface_hub import snapshot_download
from safetensors.numpy import save

from serve_app import errors
from serve_app.config import CatalogueConfig
from serve_app.models import AddOn, ModelEntry
from serve_app.models.weights.resolve import digest, resolve
from serve_app.types import Kind

REPO = "acme/tiny"
WEIGHTS = "unet/model.safetensors"


def weights(value):
    return save({"w": np.full(4, value, np.float32)})


def files(value=1.0):
    return {
        "model_index.json": b"{}",
        WEIGHTS: weights(value),
        "unet/model.bin": b"a pickle that nobody asked for",
        "README.md": b"words",
    }


@pytest.fixture
def config(hub, tmp_path):
    return CatalogueConfig(cache_dir=tmp_path / "cache", hub_endpoint=hub.url)


def entry(**changes):
    source = {"hub": REPO, **changes.pop("source", {})}
    return ModelEntry(id="tiny", source=source, kinds=(Kind.TEXT2IMG,), **changes)


def test_repository_becomes_a_folder_without_its_pickles(hub, config):
    hub.commit(REPO, files())
    found = resolve(entry(), config)
    names = {file.relative_to(found.path).as_posix() for file in found.path.rglob("*.*")}
    assert names == {"model_index.json", WEIGHTS}
    assert (found.path / WEIGHTS).read_bytes() == weights(1.0)


def test_file_of_a_repository_becomes_a_file(hub, config):
    hub.commit(REPO, {"ink.safetensors": weights(2.0)})
    lora = AddOn(id="ink", type="lora", source={"hub": REPO, "file": "ink.safetensors"})
    assert resolve(lora, config).path.read_bytes() == weights(2.0)


def test_second_resolve_downloads_nothing(hub, config):
    hub.commit(REPO, files())
    first = resolve(entry(), config)
    hub.calls.clear()
    assert resolve(entry(), config) == first
    assert hub.gets(".json") == hub.gets(".safetensors") == 0


def test_revision_of_the_entry_and_of_a_reload_are_fetched_by_name(hub, config):
    hub.commit(REPO, files(1.0))
    commit = hub.commit(REPO, files(2.0), revision="v2")
    hub.commit(REPO, files(3.0), revision="v3")
    tagged = entry(source={"revision": "v2"})
    assert (resolve(tagged, config).path / WEIGHTS).read_bytes() == weights(2.0)
    assert (resolve(tagged, config, "v3").path / WEIGHTS).read_bytes() == weights(3.0)
    assert resolve(entry(source={"revision": commit}), config) == resolve(tagged, config)


def test_branch_that_moved_is_other_weights(hub, config):
    hub.commit(REPO, files(1.0))
    before = resolve(entry(), config).path
    hub.commit(REPO, files(2.0))
    after = resolve(entry(), config).path
    assert digest(before) != digest(after)


def test_revision_that_was_fetched_loads_without_the_hub(hub, config, tmp_path):
    hub.commit(REPO, files())
    first = resolve(entry(), config)
    gone = config.model_copy(update={"hub_endpoint": "http://127.0.0.1:9"})
    assert resolve(entry(), gone) == first
    with pytest.raises(errors.WeightsRefused, match="could not be fetched"):
        resolve(entry(), gone.model_copy(update={"cache_dir": tmp_path / "other"}))


@pytest.mark.parametrize(
    ("source", "revision", "message"),
    [
        ({}, "v9", "acme/tiny has no revision v9"),
        ({"revision": "v9"}, None, "acme/tiny has no revision v9"),
        ({"hub": "acme/none"}, None, "no repository acme/none"),
        ({"file": "none.safetensors"}, None, "no file none.safetensors in revision main"),
        ({"file": "README.md"}, None, "holds no weights"),
        ({"files": ["*.md"]}, None, "holds no weights"),
        ({"files": ["*"]}, None, "model.bin is a pickle"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub, config, source, revision, message):
    hub.commit(REPO, files())
    with pytest.raises(errors.WeightsRefused, match=message):
        resolve(entry(source=source), config, revision)


@pytest.fixture
def kept(hub, tmp_path):
    """A cache that another program filled, and the settings that name it; the hub is gone."""
    index = {"unet": ["diffusers", "U"], "safety_checker": ["a", "b"], "vae": [None, None]}
    more = {"ink.safetensors": weights(2.0), "model_index.json": json.dumps(index).encode()}
    hub.commit(REPO, files() | more)
    cache = tmp_path / "hf"
    snapshot_download(REPO, endpoint=hub.url, cache_dir=cache, token=False)
    return CatalogueConfig(
        cache_dir=tmp_path / "cache", hub_cache=cache, hub_endpoint="http://127.0.0.1:9"
    )


def without_pickle(cache):
    next(cache.rglob("model.bin")).unlink()


@pytest.mark.parametrize("by", ["branch", "commit"])
def test_cache_of_other_programs_is_a_source_without_the_hub(kept, by):
    without_pickle(kept.hub_cache)
    (commit,) = (path.name for path in kept.hub_cache.glob("*/snapshots/*"))
    found = resolve(entry(source={} if by == "branch" else {"revision": commit}), kept)
    assert found.path.is_relative_to(kept.hub_cache)
    assert (found.path / WEIGHTS).read_bytes() == weights(1.0)
    lora = AddOn(id="ink", type="lora", source={"hub": REPO, "file": "ink.safetensors"})
    assert resolve(lora, kept).path.read_bytes() == weights(2.0)
    assert not kept.cache_dir.exists()


def test_pickle_in_a_cache_of_other_programs_is_refused(kept):
    with pytest.raises(errors.WeightsRefused, match=r"model\.bin is a pickle"):
        resolve(entry(), kept)


def without(*names):
    def harm(cache):
        for name in names:
            (next(cache.glob("*/snapshots/*")) / name).unlink()

    return harm


def without_blob(cache):
    (next(cache.glob("*/snapshots/*")) / WEIGHTS).resolve().unlink()


@pytest.mark.parametrize(
    ("harm", "source"),
    [
        (without_blob, {}),
        (without(WEIGHTS, "unet/model.bin"), {}),
        (without("ink.safetensors"), {"file": "ink.safetensors"}),
        (without("model_index.json"), {"files": ["model_index.json", "*.safetensors"]}),
        (without(), {"revision": "v2"}),
    ],
    ids=["blob", "component", "file", "pattern", "revision"],
)
def test_what_a_cache_lacks_is_fetched(hub, kept, harm, source):
    harm(kept.hub_cache)
    hub.commit(REPO, files(7.0), "v2")
    lora = AddOn(id="ink", type="lora", source={"hub": REPO, **source})
    found = resolve(lora, kept.model_copy(update={"hub_endpoint": hub.url}))
    assert found.path.is_relative_to(kept.cache_dir)


def test_what_a_cache_lacks_is_missed_without_the_hub(kept):
    without_blob(kept.hub_cache)
    with pytest.raises(errors.WeightsRefused, match="could not be fetched"):
        resolve(entry(), kept)


def test_branch_that_moved_is_not_taken_from_an_old_cache(hub, kept):
    without_pickle(kept.hub_cache)
    here = kept.model_copy(update={"hub_endpoint": hub.url})
    assert resolve(entry(), here).path.is_relative_to(kept.hub_cache)
    hub.commit(REPO, files(9.0))
    assert (resolve(entry(), here).path / WEIGHTS).read_bytes() == weights(9.0)


def test_snapshot_is_a_source_by_its_path(kept):
    without_pickle(kept.hub_cache)
    snapshot = next(kept.hub_cache.glob("*/snapshots/*"))
    for path in (snapshot, snapshot / "unet"):
        said = ModelEntry(id="tiny", source=path, kinds=(Kind.TEXT2IMG,))
        assert resolve(said, kept).path == path


@pytest.mark.parametrize(
    "target", ["/etc/hostname", "../../../outside", "../../../../models--b--c/blobs/x", "blob-link"]
)
def test_links_of_a_snapshot_that_lead_past_its_blobs_are_refused(kept, target):
    without_pickle(kept.hub_cache)
    repository = kept.hub_cache / "models--acme--tiny"
    other = kept.hub_cache / "models--b--c" / "blobs"
    other.mkdir(parents=True)
    for file in (other / "x", repository / "outside", kept.hub_cache / "outside"):
        file.write_text("secret")
    snapshot = next(repository.glob("snapshots/*"))
    if target == "blob-link":
        (repository / "blobs" / "link").symlink_to("/etc/hostname")
        target = "../../../blobs/link"
    (snapshot / "unet" / "more.json").symlink_to(target)
    for source in (snapshot, {"hub": REPO}):
        said = ModelEntry(id="tiny", source=source, kinds=(Kind.TEXT2IMG,))
        with pytest.raises(errors.WeightsRefused, match="leads out of its folder"):
            resolve(said, kept)


def test_truncated_download_is_refused(hub, config):
    hub.commit(REPO, files() | {WEIGHTS: weights(1.0)[:-3]})
    with pytest.raises(errors.WeightsRefused, match="truncated"):
        resolve(entry(), config)


def test_token_is_sent_only_when_set(hub, config, monkeypatch):
    hub.commit(REPO, files())
    resolve(entry(), config)
    assert hub.tokens == {None}
    hub.commit(REPO, files(2.0))
    resolve(entry(), CatalogueConfig(**config.model_dump() | {"hub_token": "hf_secret"}))
    assert hub.tokens == {None, "Bearer hf_secret"}


RESOLVE = """
import json, sys
from serve_app.config import CatalogueConfig
from serve_app.models import ModelEntry
from serve_app.models.weights.resolve import resolve
entry, config = map(json.loads, sys.argv[1:])
print(resolve(ModelEntry(**entry), CatalogueConfig(**config)).path)
"""


@pytest.mark.slow
def test_two_processes_at_once_fetch_each_file_once(hub, config):
    hub.commit(REPO, files() | {WEIGHTS: save({"w": np.ones(4_000_000, np.float32)})})
    values = [value.model_dump_json(exclude_unset=True) for value in (entry(), config)]
    command = [sys.executable, "-c", RESOLVE, *values]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    found = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(found) == 1
    blobs = [path for method, path in hub.calls if method == "GET" and "/blobs/" in path]
    assert len(blobs) == 1


@pytest.mark.parametrize(
    "source",
    [
        {"hub": "../../etc"},
        {"hub": "a/b/c"},
        {"hub": "acme"},
        {"revision": "../../x"},
        {"revision": "a/../../x"},
        {"revision": ""},
        {"file": "/etc/passwd"},
        {"file": "../x.safetensors"},
        {"files": []},
    ],
    ids=json.dumps,
)
def test_source_that_leads_elsewhere_is_no_entry(source):
    with pytest.raises(ValueError):
        entry(source=source)
