"""Weight files of add-ons, and ways in which those of a folder go wrong."""

from safetensors.torch import load_file, save_file

__all__ = ["HARM", "rewrite", "write_lora"]

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def rewrite(folder, name, change):
    """Change the tensors of a file; it is replaced, not written in place."""
    tensors = load_file(folder / name)
    change(tensors)
    (folder / name).unlink()
    save_file(tensors, folder / name, metadata={"format": "pt"})


def write_lora(checkpoint, target):
    """Write a folder with a LoRA for the UNet and the text encoder of a checkpoint."""
    import diffusers
    import peft

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None)
    layers = {}
    for name, modules in (("unet", "to_q to_v"), ("text_encoder", "q_proj v_proj")):
        part = getattr(pipeline, name)
        targets = modules.split()
        part.add_adapter(peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
        state = peft.get_peft_model_state_dict(part)
        state = diffusers.utils.convert_state_dict_to_diffusers(state)
        layers[f"{name}_lora_layers"] = state
    diffusers.StableDiffusionPipeline.save_lora_weights(target, **layers)


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
