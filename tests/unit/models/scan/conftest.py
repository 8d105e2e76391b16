"""A folder of downloads, and its scan."""

import pytest

from serve_app.config import CatalogueConfig
from serve_app.models.scan.memory import Memory
from serve_app.models.scan.scan import scan
from tests import community_files


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder


@pytest.fixture
def put(folder):
    """Write a file of the corpus under a name of its own."""

    def put(layout, name, **changes):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return community_files.write_named(folder, layout, **changes).rename(path)

    return put


@pytest.fixture
def memory(tmp_path):
    return Memory(tmp_path / "cache")


@pytest.fixture
def rows(folder, memory, tmp_path):
    def rows(*known, **options):
        config = CatalogueConfig(cache_dir=tmp_path / "cache")
        entries = {entry.id: entry for entry in known}
        found = scan(folder, entries, memory, config, **options)
        return {row.path.relative_to(folder).as_posix(): row for row in found}

    return rows
