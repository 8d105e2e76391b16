"""Ways in which the weight files of a folder go wrong."""

from safetensors.torch import load_file, save_file

__all__ = ["HARM", "rewrite"]

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def rewrite(folder, name, change):
    """Change the tensors of a file; it is replaced, not written in place."""
    tensors = load_file(folder / name)
    change(tensors)
    (folder / name).unlink()
    save_file(tensors, folder / name, metadata={"format": "pt"})


def _truncate(folder):
    whole = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes(whole[: len(whole) // 2])


def _of_another_shape(tensors):
    tensors["conv_in.weight"] = tensors["conv_in.weight"][:8].clone()


def _without_a_layer(tensors):
    del tensors[next(name for name in tensors if "v_proj" in name)]


def _with_nan_in_a_rare_word(tensors):
    word = next(name for name in tensors if "token_embedding" in name)
    tensors[word][100] = float("nan")


HARM = {
    "truncated": _truncate,
    "shape": lambda folder: rewrite(folder, UNET, _of_another_shape),
    "missing": lambda folder: rewrite(folder, TEXT, _without_a_layer),
    "nan": lambda folder: rewrite(folder, TEXT, _with_nan_in_a_rare_word),
}
