"""What a worker process says to its parent: by bytes, a length and a pickle, and by how it ends.

A worker reads hostile files, so its parent does not trust it: only a few plain classes come out of
`unpack`, whatever the bytes say.
"""

import io
import pickle
import struct

from serve_app import errors
from serve_app.types import Picture, PreparedImages

__all__ = ["LENGTH", "OUT_OF_MEMORY", "Said", "pack", "unpack"]

# A field whose file is being read now, "" at the start; then the result, or the error in its place.
Said = str | Picture | PreparedImages | errors.DreamserveError

LENGTH = struct.Struct("<Q")
OUT_OF_MEMORY = 12  # the exit code of a worker that met its limit
_CLASSES = (Picture, PreparedImages, errors.InvalidImage, errors.GenerationFailed)
_KNOWN = {(cls.__module__, cls.__qualname__): cls for cls in _CLASSES}


def pack(said: Said) -> bytes:
    """Encode with the length in front."""
    data = pickle.dumps(said)
    return LENGTH.pack(len(data)) + data


def unpack(data: bytes) -> Said:
    """Decode what follows the length.

    Raises:
        pickle.UnpicklingError: it is no pickle, or names another class or function.
    """
    try:
        said: Said = _Unpickler(io.BytesIO(data)).load()
    except Exception as exc:  # a broken pickle raises almost anything
        raise pickle.UnpicklingError(type(exc).__name__) from exc
    return said


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        """Restrict what may be made (the standard library's documentation of pickle)."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} is not for workers to send")
        return _KNOWN[module, name]
