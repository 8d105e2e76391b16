"""`verify`: everything that can be said of an entry's files without loading them. Blocks."""

from dataclasses import dataclass, field
from pathlib import Path

from serve_app import errors
from serve_app.config import CatalogueConfig
from serve_app.models.entry import E
from serve_app.models.weights.files import digest
from serve_app.models.weights.finite import first_non_finite
from serve_app.models.weights.resolve import resolve

__all__ = ["Verdict", "verify"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """refused: why the weights may not be loaded. sha256: of each weight file, as a manifest."""

    refused: str | None = None
    digest: str = ""
    sha256: str | dict[str, str] = field(default_factory=dict)


def verify(entry: E, config: CatalogueConfig) -> Verdict:
    """Judge an entry as a replica would before it loads, and look for NaN and infinities."""
    try:
        source = resolve(entry, config).path
        files = [source] if source.is_file() else sorted(source.rglob("*.safetensors"))
        for file in files:
            if (tensor := first_non_finite(file)) is not None:
                return Verdict(f"{file.name}: {tensor} holds NaN or infinite values")
        return Verdict(None, digest(source), _manifest(source, files))
    except errors.WeightsRefused as exc:
        return Verdict(exc.reason)
    except OSError as exc:
        return Verdict(str(exc))


def _manifest(source: Path, files: list[Path]) -> str | dict[str, str]:
    if source.is_file():
        return digest(source)
    return {file.relative_to(source).as_posix(): digest(file) for file in files}
