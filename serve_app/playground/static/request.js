// From what is set on the page to a call of the API. Pure: no DOM, no network.

export const PATHS = {
    text2img: "api/v4/dreambooth",
    img2img: "api/v4/dreambooth/img2img",
    inpaint: "api/v4/dreambooth/inpaint",
    controlnet: "api/v5/controlnet",
};
export const ADD_ONS = ["lora", "vae", "embeddings", "ip_adapter", "controlnet", "upscaler"];
const SEEDS = 2 ** 32;
const MAX_SIDE = 1024;

export const isModel = (row) => !ADD_ONS.includes(row.model_category);
export const needsPicture = (mode) => mode !== "text2img";

// Add-ons of a category that requests to this model may name.
export const addOns = (rows, category, modelId) =>
    rows.filter(
        ({ model_category: kind, models }) =>
            kind === category && (!models?.length || models.includes(modelId)),
    );

// What a model can be asked for; a server that does not tell is asked anyway.
export function modesOf(model, rows) {
    const kinds = model?.kinds?.length ? model.kinds : ["text2img", "img2img", "inpaint"];
    const hasNets = model && addOns(rows, "controlnet", model.model_id).length > 0;
    return hasNets ? [...kinds, "controlnet"] : kinds;
}

// The fields of the call. Pictures are filled in when it is sent.
export function buildFields(set) {
    const fields = {
        model_id: set.model,
        prompt: set.prompt,
        negative_prompt: set.negative,
        width: set.width,
        height: set.height,
        samples: set.samples,
        [set.mode === "inpaint" ? "steps" : "num_inference_steps"]: set.steps,
        guidance_scale: set.guidance,
        seed: set.seed,
        scheduler: set.scheduler,
        vae: set.vae,
        lora_model: set.loras.map(({ id }) => id).join(","),
        lora_strength: set.loras.map(({ strength }) => strength).join(","),
        embeddings_model: set.embeddings.join(","),
        ip_adapter_id: set.adapter.id,
        ip_adapter_scale: set.adapter.id ? set.adapter.scale : null,
        enhance_prompt: yesNo(set.enhance),
        safety_checker: yesNo(set.safety),
        use_karras_sigmas: yesNo(set.karras),
        clip_skip: set.clipSkip,
        upscale: set.upscale > 1 ? set.upscale : null,
    };
    if (set.mode === "img2img" || set.mode === "inpaint") fields.strength = set.strength;
    if (set.mode === "inpaint") Object.assign(fields, set.inpaint);
    if (set.mode === "controlnet") Object.assign(fields, controlFields(set.control));
    const isGiven = ([, value]) => value !== null && value !== undefined && value !== "";
    return Object.fromEntries(Object.entries(fields).filter(isGiven));
}

function controlFields({ net, type, scale, start, end, isHint, guess }) {
    return {
        controlnet_model: net,
        controlnet_type: type,
        controlnet_conditioning_scale: scale,
        control_guidance_start: start > 0 ? start : null,
        control_guidance_end: end < 1 ? end : null,
        auto_hint: yesNo(!isHint),
        guess_mode: guess ? "yes" : null,
    };
}

const yesNo = (flag) => (flag ? "yes" : "no");

// Picture fields of a mode, in the order in which the code to copy shows them.
export function pictureFields(mode) {
    if (mode === "inpaint") return ["init_image", "mask_image"];
    if (mode === "controlnet") return ["control_image"];
    return mode === "img2img" ? ["init_image"] : [];
}

// The picture's own size, as far as the server paints it: sides of at most 1024, multiples of 8.
export function ownSize(picture) {
    if (!picture) return [null, null];
    const share = Math.min(1, MAX_SIDE / Math.max(picture.width, picture.height));
    const fit = (side) => Math.max(64, Math.floor((side * share) / 8) * 8);
    return [fit(picture.width), fit(picture.height)];
}

export const seedOf = (seed, sample) => (seed + sample) % SEEDS;
