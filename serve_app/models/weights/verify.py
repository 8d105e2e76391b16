"""`verify`: everything that can be said of an entry's files without loading them. Blocks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serve_app import errors
from serve_app.config import CatalogueConfig
from serve_app.models.entry import Entry, ModelEntry
from serve_app.models.inspect.match import check_match
from serve_app.models.weights.files import Refused, digest
from serve_app.models.weights.finite import first_non_finite
from serve_app.models.weights.resolve import resolve

__all__ = ["Verdict", "verify"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """refused: why the weights may not be loaded. sha256: of each weight file, as a manifest."""

    refused: str | None = None
    digest: str = ""
    sha256: str | dict[str, str] = field(default_factory=dict)


def verify(
    entry: Entry, config: CatalogueConfig, models: Mapping[str, ModelEntry] | None = None
) -> Verdict:
    """Judge an entry as a replica would before it loads, and look for NaN and infinities.

    Args:
        models: known ones by id, which an add-on that names them has to fit.
    """
    try:
        resolved = resolve(entry, config)
        source = resolved.path
        check_match(resolved, config, models)
        files = [source] if source.is_file() else sorted(source.rglob("*.safetensors"))
        for file in files:
            if (tensor := first_non_finite(file)) is not None:
                return Verdict(f"{file.name}: {tensor} holds NaN or infinite values")
        return Verdict(None, digest(source), _manifest(source, files))
    except errors.WeightsRefused as exc:
        return Verdict(exc.reason)
    except (Refused, OSError) as exc:
        return Verdict(str(exc))


def _manifest(source: Path, files: list[Path]) -> str | dict[str, str]:
    if source.is_file():
        return digest(source)
    return {file.relative_to(source).as_posix(): digest(file) for file in files}
