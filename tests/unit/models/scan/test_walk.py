"""In which order a folder is walked through: by name, whatever the disk says."""

import os

from serve_app.models.scan.walk import walk


def test_folders_and_files_come_by_name(tmp_path, monkeypatch):
    for name in ("b", "a", "c", ".hidden"):
        (tmp_path / name).mkdir()
        for file in ("y", "x"):
            (tmp_path / name / f"{file}.safetensors").touch()
    listed = os.walk

    def backwards(*args, **options):
        for here, folders, files in listed(*args, **options):
            folders.sort(reverse=True)
            files.sort(reverse=True)
            yield here, folders, files

    monkeypatch.setattr(os, "walk", backwards)
    wanted = [tmp_path / folder / f"{file}.safetensors" for folder in "abc" for file in "xy"]
    assert [*walk(tmp_path)] == wanted
