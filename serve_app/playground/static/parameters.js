// The text that the A1111 web UI writes into its pictures, and that it and others read.

// Names of A1111 for samplers that it has.
const SAMPLERS = {
    DDIMScheduler: "DDIM",
    DDPMScheduler: "DDPM",
    PNDMScheduler: "PLMS",
    LMSDiscreteScheduler: "LMS",
    EulerDiscreteScheduler: "Euler",
    EulerAncestralDiscreteScheduler: "Euler a",
    HeunDiscreteScheduler: "Heun",
    DPMSolverMultistepScheduler: "DPM++ 2M",
    DPMSolverSinglestepScheduler: "DPM++ 2S",
    KDPM2DiscreteScheduler: "DPM2",
    KDPM2AncestralDiscreteScheduler: "DPM2 a",
    UniPCMultistepScheduler: "UniPC",
    LCMScheduler: "LCM",
};
const KARRAS = ["DPM++ 2M", "DPM++ 2S", "DPM2", "DPM2 a", "LMS", "Euler", "Heun"];

// meta: what the server says it ran; size: [width, height] of the picture; seed: of this sample.
export function parameters(meta, mode, [width, height], seed) {
    const loras = list(meta.lora);
    const strengths = list(meta.lora_strength);
    const words = loras.map((id, at) => ` <lora:${id}:${strengths[at] ?? 1}>`).join("");
    const values = {
        Steps: meta.steps,
        Sampler: SAMPLERS[meta.scheduler] ?? meta.scheduler,
        "Schedule type": scheduleType(meta),
        "CFG scale": meta.guidance_scale,
        Seed: seed,
        Size: `${width}x${height}`,
        Model: meta.model_id,
        VAE: meta.vae || null,
        "Denoising strength": mode === "text2img" ? null : meta.strength,
        "Clip skip": meta.clip_skip > 1 ? meta.clip_skip : null,
        Version: "dreamserve",
    };
    const last = Object.entries(values)
        .filter(([, value]) => value !== null && value !== undefined && value !== "")
        .map(([name, value]) => `${name}: ${quoted(value)}`)
        .join(", ");
    const negative = oneLine(meta.negative_prompt);
    const lines = [
        `${(meta.prompt ?? "").trim()}${words}`,
        negative && `Negative prompt: ${negative}`,
        last,
    ];
    return lines.filter(Boolean).join("\n");
}

function scheduleType({ scheduler, use_karras_sigmas: karras }) {
    if (!KARRAS.includes(SAMPLERS[scheduler])) return null;
    return karras === "yes" || karras === true ? "Karras" : null;
}

const list = (text) =>
    String(text ?? "")
        .split(",")
        .map((word) => word.trim())
        .filter(Boolean);
const oneLine = (text) => (text ?? "").trim();

// A value with a comma, a colon or a line break would end early.
function quoted(value) {
    const text = String(value);
    return /[,:\n]/.test(text) ? JSON.stringify(text) : text;
}
