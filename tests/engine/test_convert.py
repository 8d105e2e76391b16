"""`dreamserve models convert`: pickles become safetensors, and nothing in them runs."""

import collections
import contextlib
import io
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from serve_app.cli import convert as command
from serve_app.cli.main import app
from serve_app.pipelines import unpickling

WEIGHT = torch.arange(12.0).view(3, 4)


def convert(*arguments: object) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "400"}).invoke(
        app, ["models", "convert", *map(str, arguments)]
    )
    return result.exit_code, result.output


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read pickles in this process, without bounds: one of its own takes seconds to start."""

    def run(arguments: Sequence[str], **_: object) -> types.SimpleNamespace:
        source, target, memory_bytes = arguments[-3:]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            unpickling.main(Path(source), Path(target), int(memory_bytes))
        return types.SimpleNamespace(stdout=said.getvalue().encode())

    monkeypatch.setattr(unpickling, "_confine", lambda _: None)
    real = {name: getattr(subprocess, name) for name in ("DEVNULL", "TimeoutExpired")}
    monkeypatch.setattr(command, "subprocess", types.SimpleNamespace(run=run, **real))


def write(file: Path, content: object, **options: object) -> Path:
    torch.save(content, file, **options)
    return file


WRAPPED = {
    "bare": {"a.weight": WEIGHT},
    "state-dict": {"state_dict": {"a.weight": WEIGHT}, "epoch": 3, "lr": 0.1},
    "module": {"module": {"a.weight": WEIGHT}},
    "ema-first": {"params": {"a.weight": WEIGHT + 1}, "params_ema": {"a.weight": WEIGHT}},
    "ordered": {"state_dict": collections.OrderedDict({"a.weight": WEIGHT, "step": 7})},
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_tensors_are_taken_out_of_what_they_are_wrapped_in(tmp_path: Path, content: object) -> None:
    code, output = convert(write(tmp_path / "model.ckpt", content))
    assert (code, "refused" in output) == (0, False)
    made = load_file(tmp_path / "model.safetensors")
    assert made.keys() == {"a.weight"}
    assert torch.equal(made["a.weight"], WEIGHT)
    assert sorted(os.listdir(tmp_path)) == ["model.ckpt", "model.safetensors"]


@pytest.mark.usefixtures("here")
def test_old_format_and_precision_are_kept(tmp_path: Path) -> None:
    tensors = {"half": WEIGHT.half(), "brain": WEIGHT.bfloat16(), "whole": torch.arange(3)}
    old = {"_use_new_zipfile_serialization": False}
    assert convert(write(tmp_path / "model.bin", tensors, **old))[0] == 0
    made = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(made[name], tensor) for name, tensor in tensors.items())
    assert {name: one.dtype for name, one in made.items()} == {
        name: one.dtype for name, one in tensors.items()
    }


@pytest.mark.usefixtures("here")
def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    tensors = {"a": WEIGHT, "b": WEIGHT, "row": WEIGHT[1], "turned": WEIGHT.T}
    assert convert(write(tmp_path / "model.pt", tensors))[0] == 0
    made = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(made[name], tensor) for name, tensor in tensors.items())


@pytest.mark.usefixtures("here")
def test_embedding_of_a1111_becomes_one_that_is_served(tmp_path: Path) -> None:
    content = {"string_to_param": {"*": torch.ones(2, 768)}, "name": "it", "step": 5}
    code, output = convert(write(tmp_path / "it.pt", content))
    assert code == 0
    assert "An embedding for Stable Diffusion 1" in output
    assert load_file(tmp_path / "it.safetensors").keys() == {"emb_params"}


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def write_evil(file: Path, form: str) -> None:
    evil = Evil(f"touch {file.parent / 'owned'}")
    if form == "plain":
        file.write_bytes(pickle.dumps(evil, protocol=2))
    else:
        content = {"a": WEIGHT, "b": evil} if form == "zip" else {"state_dict": {"b": evil}}
        write(file, content)


def assert_not_run(file: Path) -> None:
    code, output = convert(file)
    assert code == 1
    assert "wants posix.system, which is not a tensor; nothing of it was run" in output
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("form", ["zip", "plain", "wrapped"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, form: str) -> None:
    """Where nothing but the reader keeps it from running."""
    write_evil(tmp_path / "model.ckpt", form)
    assert_not_run(tmp_path / "model.ckpt")


@pytest.mark.slow
def test_code_in_a_pickle_is_not_run_in_the_process_of_the_reader(tmp_path: Path) -> None:
    write_evil(tmp_path / "model.ckpt", "zip")
    assert_not_run(tmp_path / "model.ckpt")


@pytest.mark.usefixtures("here")
def test_bookkeeping_of_lightning_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = "pytorch_lightning.callbacks.model_checkpoint"
    own = type("ModelCheckpoint", (), {"__module__": inner})
    with monkeypatch.context() as patch:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks", inner):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[inner].ModelCheckpoint = own  # type: ignore[attr-defined]
        content = {"state_dict": {"a": torch.ones(2)}, "callbacks": {own: 1}}
        file = write(tmp_path / "sd.ckpt", content)
    assert convert(file)[0] == 0
    assert load_file(tmp_path / "sd.safetensors").keys() == {"a"}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-600])


BAD = {
    "truncated": (lambda file: (write(file, {"a": torch.ones(5000)}), cut(file)), "truncated"),
    "empty": (lambda file: file.write_bytes(b""), "truncated"),
    "text": (lambda file: file.write_text("hello, no weights"), "nothing that torch has saved"),
    "zip": (
        lambda file: zipfile.ZipFile(file, "w").writestr("a", "b"),
        "nothing that torch has saved",
    ),
    "list": (lambda file: write(file, [1, 2, 3]), "no tensors by name"),
    "no-tensors": (lambda file: write(file, {"a": 1}), "no tensors by name"),
    "sparse": (lambda file: write(file, {"a": WEIGHT.to_sparse()}), "kind that safetensors"),
    "missing": (lambda _: None, "does not exist"),
    "folder": (lambda file: file.mkdir(), "not a plain file"),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("harm", "reason"), BAD.values(), ids=BAD)
def test_what_is_no_checkpoint_is_a_row_and_the_rest_goes_on(
    tmp_path: Path, harm: object, reason: str
) -> None:
    assert_refused_alone(tmp_path, harm, reason)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("you tried to allocate memory")])
def test_file_that_needs_more_memory_than_there_is_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def load(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr(torch, "load", load)
    code, output = convert(write(tmp_path / "model.ckpt", {"a": WEIGHT}))
    assert (code, "bytes of memory" in output) == (1, True)


@pytest.mark.slow
def test_process_of_a_bad_file_ends_and_the_rest_goes_on(tmp_path: Path) -> None:
    assert_refused_alone(tmp_path, *BAD["truncated"])


def assert_refused_alone(folder: Path, harm: object, reason: str) -> None:
    assert callable(harm)
    bad, good = folder / "bad.ckpt", write(folder / "good.ckpt", {"a": WEIGHT})
    harm(bad)
    code, output = convert(bad, good)
    assert code == 1
    assert reason in output
    assert (folder / "good.safetensors").is_file()
    assert not (folder / "bad.safetensors").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    save_file({"mine": WEIGHT}, tmp_path / "model.safetensors")
    code, output = convert(write(tmp_path / "model.ckpt", {"a": WEIGHT}))
    assert (code, "exists already" in output) == (1, True)
    assert load_file(tmp_path / "model.safetensors").keys() == {"mine"}


@pytest.mark.usefixtures("here")
def test_second_of_two_files_of_one_name_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write(tmp_path / name / "model.ckpt", {name: WEIGHT})
    files = [tmp_path / name / "model.ckpt" for name in "ab"]
    code, output = convert(*files, "--out", tmp_path / "out")
    assert (code, output.count("exists already")) == (1, 1)
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == {"a"}
    assert os.listdir(tmp_path / "out") == ["model.safetensors"]


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_file({"a": WEIGHT}, tmp_path / "model.safetensors")
    code, output = convert(tmp_path / "model.safetensors")
    assert (code, "is none of .ckpt" in output) == (1, True)


def test_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    file = write(tmp_path / "slow.ckpt", {"a": WEIGHT})
    with pytest.raises(command._Refused, match="was not read within"):
        command._run(file, tmp_path / "x", 0.01)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_reader_has_no_network_and_starts_nothing() -> None:
    code = (
        "import socket, subprocess\n"
        "from serve_app.pipelines import unpickling\n"
        "unpickling._confine(8 * 1024**3)\n"
        "for work in (lambda: socket.socket().connect(('127.0.0.1', 9)),\n"
        "             lambda: subprocess.run(['true'])):\n"
        "    try:\n"
        "        work()\n"
        "    except PermissionError as exc:\n"
        "        print(exc)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.stdout.split() == ["socket.__new__", "subprocess.Popen"]
