"""Add-ons are brought here when a request names them; no torch."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from serve_app import errors
from serve_app.config import CatalogueConfig
from serve_app.models import AddOn
from serve_app.pipelines.addons.lookup import AddOns
from serve_app.types import ControlNetUse, IpAdapterUse, LoraUse
from tests.builders import spec

FIELDS = {
    "lora": "lora_model",
    "vae": "vae",
    "embedding": "embeddings_model",
    "ip_adapter": "ip_adapter_id",
    "controlnet": "controlnet_model",
    "upscaler": "upscale",
}


@pytest.fixture
def file(tmp_path):
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "ink.safetensors")
    return tmp_path / "ink.safetensors"


@pytest.fixture
def known():
    return {}


@pytest.fixture
def add_ons(known):
    return AddOns("sd", lambda add_on_id, add_on_type: known.get((add_on_id, add_on_type)))


def naming(add_on_id, add_on_type):
    use = {
        "lora": {"loras": (LoraUse(id=add_on_id, strength=1),)},
        "vae": {"vae": add_on_id},
        "embedding": {"embeddings": (add_on_id,)},
        "ip_adapter": {"ip_adapter": IpAdapterUse(id=add_on_id, scale=1)},
        "controlnet": {"controlnets": (ControlNetUse(id=add_on_id, scale=1),)},
        "upscaler": {"upscale": 2, "upscaler": add_on_id},
    }
    return spec(**use[add_on_type])


@pytest.mark.parametrize("add_on_type", FIELDS)
def test_add_on_is_known_as_soon_as_the_catalogue_has_it(add_ons, known, file, add_on_type):
    request = naming("ink", add_on_type)
    with pytest.raises(errors.InvalidRequest) as refusal:
        add_ons.of(request)
    assert refusal.value.field == FIELDS[add_on_type]
    known["ink", add_on_type] = AddOn(id="ink", type=add_on_type, source=file)
    named = add_ons.of(request)
    single = (named.vae, named.ip_adapter, named.upscaler, *named.controlnets)
    (found,) = filter(None, [*single, *named.loras.values(), *named.embeddings.values()])
    assert found.entry.path == file


def test_add_on_of_another_model_is_not_known(add_ons, known, file):
    known["ink", "lora"] = AddOn(id="ink", type="lora", source=file, models=("other",))
    with pytest.raises(errors.InvalidRequest, match="ink is not known"):
        add_ons.of(naming("ink", "lora"))


def test_add_on_that_was_bad_is_found_once_it_is_mended(add_ons, known, file):
    known["ink", "lora"] = AddOn(id="ink", type="lora", source=file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    for _ in range(2):
        with pytest.raises(errors.WeightsRefused, match="truncated"):
            add_ons.of(naming("ink", "lora"))
    file.write_bytes(whole)
    assert add_ons.of(naming("ink", "lora")).loras["ink"].entry.path == file


def test_key_changes_with_the_file_and_with_the_entry_only(add_ons, known, file):
    def key():
        return add_ons.of(naming("ink", "lora")).loras["ink"].key

    known["ink", "lora"] = AddOn(id="ink", type="lora", source=file)
    first = key()
    assert key() == first
    save_file({"w": np.ones(4, np.float32)}, file)
    second = key()
    known["ink", "lora"] = AddOn(id="ink", type="lora", source=file, name="again")
    assert len({first, second, key()}) == 3


def test_key_of_a_folder_is_that_of_its_files_in_whatever_order_they_are_listed(
    add_ons, known, file, monkeypatch
):
    def key():
        return add_ons.of(naming("net", "controlnet")).controlnets[0].key

    (folder := file.with_name("net")).mkdir()
    for name in ("a", "b", "c"):
        save_file({"w": np.ones(3, np.float32)}, folder / f"{name}.safetensors")
    known["net", "controlnet"] = AddOn(
        id="net", type="controlnet", source=folder, control=("canny",)
    )
    first, listed = key(), Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda *given: sorted(listed(*given), reverse=True))
    assert key() == first
    save_file({"w": np.ones(4, np.float32)}, folder / "b.safetensors")
    assert key() != first


def test_replaced_file_is_judged_anew(add_ons, known, file):
    known["ink", "lora"] = AddOn(id="ink", type="lora", source=file)
    add_ons.of(naming("ink", "lora"))
    file.write_bytes(b"\x80\x04. a pickle")
    with pytest.raises(errors.WeightsRefused):
        add_ons.of(naming("ink", "lora"))


def test_hub_is_not_asked_again(known, hub, tmp_path, file):
    hub.commit("acme/loras", {"ink.safetensors": file.read_bytes()})
    config = CatalogueConfig(cache_dir=tmp_path / "cache", hub_endpoint=hub.url)
    source = {"hub": "acme/loras", "file": "ink.safetensors"}
    add_ons = AddOns("sd", lambda *_: AddOn(id="ink", type="lora", source=source), config)
    first = add_ons.of(naming("ink", "lora"))
    hub.calls.clear()
    assert add_ons.of(naming("ink", "lora")) == first
    assert hub.calls == []
