"""Safetensors files of a header and a hole."""

import json
import math
import struct

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "U8": 1}


def write(path, shapes, dtype="F16", metadata=None, values=None):
    """Write a safetensors file whose data is a hole.

    shapes: by name; a pair (dtype, shape) where a tensor has a type of its own.
    values: of tensors of one float32 number.
    """
    values, header, end = values or {}, {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, said in (shapes | dict.fromkeys(values, ("F32", ()))).items():
        own, shape = said if said and isinstance(said[0], str) else (dtype, said)
        begin, end = end, end + math.prod(shape) * BYTES[own]
        header[name] = {"dtype": own, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
        for name, value in values.items():
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(struct.pack("<f", value))
    return path
