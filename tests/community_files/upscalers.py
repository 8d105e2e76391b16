"""Upscalers."""

from tests.community_files.shapes import affine


def esrgan(blocks=23):
    """As in the first files; `1.sub.23` is the layer after the blocks."""
    shapes = affine("model.0", 64, 3, 3, 3)
    for block in range(blocks):
        for part in (1, 2, 3):
            for conv in range(1, 6):
                name = f"model.1.sub.{block}.RDB{part}.conv{conv}.0"
                shapes |= affine(name, 64 if conv == 5 else 32, 64 + 32 * (conv - 1), 3, 3)
    shapes |= affine(f"model.1.sub.{blocks}", 64, 64, 3, 3)
    for layer in (3, 6, 8):
        shapes |= affine(f"model.{layer}", 64, 64, 3, 3)
    return shapes | affine("model.10", 3, 64, 3, 3)


def real_esrgan(blocks=23):
    shapes = affine("conv_first", 64, 3, 3, 3) | affine("conv_body", 64, 64, 3, 3)
    for block in range(blocks):
        for part in (1, 2, 3):
            for conv in range(1, 6):
                name = f"body.{block}.rdb{part}.conv{conv}"
                shapes |= affine(name, 64 if conv == 5 else 32, 64 + 32 * (conv - 1), 3, 3)
    for name in ("conv_up1", "conv_up2", "conv_hr"):
        shapes |= affine(name, 64, 64, 3, 3)
    return shapes | affine("conv_last", 3, 64, 3, 3)


def compact_esrgan(layers=32):
    shapes = affine("body.0", 64, 3, 3, 3) | {"body.1.weight": (64,)}
    for number in range(1, layers + 1):
        shapes |= affine(f"body.{2 * number}", 64, 64, 3, 3)
        shapes[f"body.{2 * number + 1}.weight"] = (64,)
    return shapes | affine(f"body.{2 * layers + 2}", 48, 64, 3, 3)
