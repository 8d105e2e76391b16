"""`Inspection`: what a file of weights is, as far as it tells without being loaded."""

from enum import StrEnum

from pydantic import Field

from serve_app.types import Frozen

__all__ = ["Family", "FileType", "Inspection", "Part", "Prediction"]


class FileType(StrEnum):
    """What a file holds."""

    CHECKPOINT = "checkpoint"  # a denoiser, and a VAE or text encoders or both
    UNET = "unet"
    TRANSFORMER = "transformer"
    LORA = "lora"
    LOCON = "locon"  # a LoRA with layers of convolutions
    LOHA = "loha"
    LOKR = "lokr"
    DORA = "dora"
    EMBEDDING = "embedding"
    VAE = "vae"
    CONTROLNET = "controlnet"
    IP_ADAPTER = "ip_adapter"
    UPSCALER = "upscaler"
    TEXT_ENCODER = "text_encoder"
    OTHER = "other"  # known by name, and nothing that a catalogue can hold
    UNKNOWN = "unknown"

    @property
    def noun(self) -> str:
        """What people call it, with its article."""
        return _NOUNS[self]

    @property
    def is_adapter(self) -> bool:
        """Whether it changes the layers of a model."""
        return self in _ADAPTERS

    @property
    def is_model(self) -> bool:
        """Whether it is of a family, and not only for one."""
        return self in _MODELS


_NOUNS = {
    FileType.CHECKPOINT: "a checkpoint",
    FileType.UNET: "a UNet alone",
    FileType.TRANSFORMER: "a transformer alone",
    FileType.LORA: "a LoRA",
    FileType.LOCON: "a LoCon",
    FileType.LOHA: "a LoHa",
    FileType.LOKR: "a LoKr",
    FileType.DORA: "a DoRA",
    FileType.EMBEDDING: "an embedding",
    FileType.VAE: "a VAE",
    FileType.CONTROLNET: "a ControlNet",
    FileType.IP_ADAPTER: "an IP adapter",
    FileType.UPSCALER: "an upscaler",
    FileType.TEXT_ENCODER: "a text encoder",
    FileType.OTHER: "another kind of file",
    FileType.UNKNOWN: "tensors of no known layout",
}
_MODELS = (FileType.CHECKPOINT, FileType.UNET, FileType.TRANSFORMER)
_ADAPTERS = (FileType.LORA, FileType.LOCON, FileType.LOHA, FileType.LOKR, FileType.DORA)
_HAS_FAMILY = frozenset(FileType) - {FileType.UPSCALER, FileType.OTHER, FileType.UNKNOWN}


class Family(StrEnum):
    """The architecture that weights are of, or are made for."""

    SD1 = "sd1"
    SD2 = "sd2"
    SDXL = "sdxl"
    SDXL_REFINER = "sdxl-refiner"
    SD3 = "sd3"
    FLUX = "flux"

    @property
    def noun(self) -> str:
        """What people call it."""
        return _FAMILIES[self]


_FAMILIES = {
    Family.SD1: "Stable Diffusion 1",
    Family.SD2: "Stable Diffusion 2",
    Family.SDXL: "Stable Diffusion XL",
    Family.SDXL_REFINER: "the Stable Diffusion XL refiner",
    Family.SD3: "Stable Diffusion 3",
    Family.FLUX: "FLUX.1",
}


class Prediction(StrEnum):
    """What a denoiser tells of a noisy picture; the values are diffusers'."""

    EPSILON = "epsilon"
    V = "v_prediction"
    SAMPLE = "sample"
    FLOW = "flow_prediction"
    EDM = "edm"

    @property
    def noun(self) -> str:
        """What it is that is predicted."""
        return _PREDICTED[self]


_PREDICTED = {
    Prediction.EPSILON: "the noise (epsilon)",
    Prediction.V: "the velocity (v)",
    Prediction.SAMPLE: "the picture",
    Prediction.FLOW: "the flow",
    Prediction.EDM: "by EDM's preconditioning",
}


class Part(Frozen):
    """Tensors of a file that belong together."""

    name: str = Field(
        description="unet, transformer, vae, ema, controlnet, image_encoder; of text encoders "
        "clip_l, clip_g, clip_h, t5xxl, or where their width is another: text_encoder, _2, _3"
    )
    num_tensors: int
    num_bytes: int = Field(description="of the tensors in the file")
    precision: str = Field(
        description="fp64, fp32, fp16, bf16, fp8; mixed: floats of several, each over 1 % of the "
        "bytes; none: no floats"
    )


class Inspection(Frozen):
    """What a file or folder is. Made from headers alone: the tensors may still be nonsense."""

    type: FileType
    layout: str = Field(description="the row of the table that it matches; empty: none")
    families: tuple[Family, ...] = Field(
        default=(), description="that it may be of or fit; several where files cannot be told apart"
    )
    variant: str | None = Field(
        default=None, description="of the family: inpainting, pix2pix, dev, schnell, plus, ..."
    )
    channels: int | None = Field(
        default=None, description="of latents that the denoiser takes, or that the VAE makes"
    )
    prediction: Prediction | None = Field(default=None, description="None: the file does not tell")
    zero_snr: bool | None = Field(
        default=None, description="trained down to a signal of zero; None: the file does not tell"
    )
    parts: tuple[Part, ...] = ()
    quantization: str | None = Field(
        default=None, description="scaled fp8, nf4, fp4, int8: numbers that need scales beside them"
    )
    file_variants: tuple[str, ...] = Field(
        default=(), description="of a folder: the variants it has, `fp16` of `x.fp16.safetensors`"
    )
    rank: int | None = Field(default=None, description="of a LoRA and its like, in most layers")
    alpha: float | None = Field(default=None, description="in most layers; None: equals the rank")
    num_vectors: int | None = Field(default=None, description="tokens of an embedding")
    name: str | None = Field(default=None, description="what its maker called it")
    trigger_words: tuple[str, ...] = Field(
        default=(), description="the phrase that its maker names, or the commonest tags of training"
    )
    first_keys: tuple[str, ...] = Field(default=(), description="names of the first tensors")

    @property
    def family(self) -> Family | None:
        """The family, where it is certain."""
        return self.families[0] if len(self.families) == 1 else None

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors, without the EMA copies."""
        return sum(part.num_bytes for part in self.parts if part.name != "ema")

    @property
    def ema_bytes(self) -> int:
        """Bytes of the EMA copies, which nothing loads."""
        return sum(part.num_bytes for part in self.parts if part.name == "ema")

    @property
    def precision(self) -> str:
        """Precision of the largest part that is loaded."""
        loaded = [part for part in self.parts if part.name != "ema"]
        return max(loaded, key=lambda part: part.num_bytes).precision if loaded else "none"

    def has_part(self, name: str) -> bool:
        """Whether it holds a part of this name."""
        return any(part.name == name for part in self.parts)

    @property
    def noun(self) -> str:
        """What it is, in a few words: "a LoRA for Stable Diffusion XL"."""
        if self.type is FileType.OTHER:
            return self.layout
        if self.type is FileType.UNKNOWN:
            return f"{self.type.noun} (the first: {', '.join(self.first_keys) or 'none'})"
        noun = self.type.noun
        if self.type in _HAS_FAMILY:
            word = "of" if self.type.is_model else "for"
            nouns = " or ".join(family.noun for family in self.families)
            noun += f" {word} {nouns or 'an unknown family'}"
        return noun + (f" ({self.variant})" if self.variant else "")

    def describe(self) -> str:
        """Describe all that is known in one sentence."""
        facts = [self.noun, *self._facts()]
        sentence = ", ".join(facts)
        return f"{sentence[0].upper()}{sentence[1:]}."

    def _facts(self) -> list[str]:
        told = (
            (self.channels, f"{self.channels} channels"),
            (self.prediction, f"predicts {self.prediction.noun}" if self.prediction else ""),
            (self.zero_snr, "zero terminal SNR"),
            (self.rank, f"rank {self.rank}"),
            (self.alpha is not None, f"alpha {self.alpha:g}" if self.alpha is not None else ""),
            (self.num_vectors, f"{self.num_vectors} vector{'' if self.num_vectors == 1 else 's'}"),
            (len(self.parts) > 1, "with " + " + ".join(part.name for part in self.parts)),
            (self.parts, f"{self.precision}, {_size(self.num_bytes)}"),
            (self.quantization, f"quantized as {self.quantization}"),
            (self.ema_bytes, f"and {_size(self.ema_bytes)} of EMA copies"),
            (self.trigger_words, f"trigger words: {', '.join(self.trigger_words[:3])}"),
        )
        return [text for is_told, text in told if is_told]


def _size(num_bytes: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} bytes"
