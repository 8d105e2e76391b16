"""IP adapters."""

from tests.community_files.shapes import affine


def ip_adapter(text=768, layers=16, form="plain", image=1024):
    shapes = {}
    if form == "plain":
        shapes |= affine("image_proj.proj", 4 * text, image) | affine("image_proj.norm", text)
    if form == "plus":
        shapes = {"image_proj.latents": (1, 16, 768)} | affine("image_proj.proj_in", 768, 1280)
    if form == "full":
        shapes |= affine("image_proj.proj.0", 1280, 1280)
        shapes |= affine("image_proj.proj.2", text, 1280) | affine("image_proj.proj.3", text)
    if form == "face id":
        shapes |= affine("image_proj.proj.0", 1024, 512) | affine("image_proj.norm", text)
        shapes |= {"ip_adapter.0.to_q_lora.down.weight": (128, 320)}
        shapes |= {"ip_adapter.0.to_q_lora.up.weight": (320, 128)}
    for number in range(layers):
        for name in ("to_k_ip", "to_v_ip"):
            shapes[f"ip_adapter.{2 * number + 1}.{name}.weight"] = (320, text)
    return shapes
