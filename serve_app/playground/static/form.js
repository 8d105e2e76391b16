// The panel: what is set, what the server offers of it, and what a request gets of it.

import { byId, icon, make, options, randomInt } from "./dom.js";
import { Reference } from "./reference.js";
import { addOns, buildFields, isModel, modesOf, ownSize } from "./request.js";

const MODES = { text2img: "Text", img2img: "Image", inpaint: "Inpaint", controlnet: "Control" };
const SHAPES = [
    [512, 512],
    [768, 512],
    [512, 768],
    [768, 768],
    [1024, 1024],
    [1024, 576],
    [576, 1024],
];
const MASK_MODES = { hard: "Hard: split at half", soft: "Soft: grey changes less" };
const SIDES = ["left", "right", "top", "bottom"];
const isChecked = (id) => byId(id).checked;

export class Form {
    constructor(onmode) {
        this.onmode = onmode;
        this.rows = [];
        this.mode = "inpaint";
        this.wanted = null; // the mode that was chosen, for models that have it
        this.offer = {};
        this.reference = new Reference();
        document.querySelectorAll("[data-number]").forEach(makeNumber);
        byId("model").addEventListener("change", () => this.showModel());
        byId("net").addEventListener("change", () => this.showModel({ keep: true }));
        byId("shape").addEventListener("change", showCustomSize);
        byId("dice").addEventListener("click", () => this.setSeed(randomInt()));
        byId("lock").addEventListener("click", () => this.setLock(!this.isLocked));
        this.setLock(false);
    }

    get model() {
        return this.rows.find((row) => row.model_id === byId("model").value);
    }

    get isLocked() {
        return byId("lock").getAttribute("aria-pressed") === "true";
    }

    // rows: of model_list; offer: what `readOffer` found.
    show(rows, offer) {
        [this.rows, this.offer] = [rows, offer];
        const models = rows.filter(isModel).map((row) => [row.model_id, label(row)]);
        options(byId("model"), models);
        options(byId("scheduler"), [
            ["", "Model’s own"],
            ...offer.schedulers.map((name) => [name, plain(name)]),
        ]);
        const modes = offer.maskModes
            .filter((name) => name !== "auto")
            .map((name) => [name, MASK_MODES[name] ?? name]);
        options(byId("mask-mode"), [["", "As the mask looks"], ...modes]);
        byId("outpaint").hidden = !offer.outpaint;
        byId("outpaint-sides").replaceChildren(
            ...SIDES.map((side) =>
                make(
                    "label",
                    {},
                    side,
                    make("input", {
                        type: "number",
                        min: 0,
                        max: 512,
                        step: 8,
                        value: 0,
                        "data-side": side,
                    }),
                ),
            ),
        );
        this.showModel();
    }

    showModel({ keep = false } = {}) {
        const { model } = this;
        if (!model) return;
        byId("model-text").textContent = model.description;
        if (!keep) this.takeDefaults(model.defaults ?? {});
        this.showAddOns(model.model_id);
        const modes = modesOf(model, this.rows);
        const choose = (mode) => this.chooseMode(mode);
        segments(
            byId("modes"),
            modes.map((mode) => [mode, MODES[mode] ?? mode]),
            this.mode,
            choose,
        );
        const wanted = this.wanted ?? "inpaint";
        this.setMode(modes.includes(wanted) ? wanted : modes[0]);
    }

    takeDefaults({ steps, guidance_scale: guidance, strength, scheduler }) {
        setNumber("steps", steps);
        setNumber("guidance", guidance);
        setNumber("strength", strength);
        if (scheduler)
            byId("scheduler").firstElementChild.textContent = `Model’s own: ${plain(scheduler)}`;
    }

    setMode(mode) {
        this.mode = mode;
        check(byId("modes"), mode);
        byId("strength-row").hidden = mode !== "img2img" && mode !== "inpaint";
        byId("full-frame-row").hidden = mode !== "inpaint";
        byId("control").hidden = mode !== "controlnet";
        byId("outpaint").hidden = !this.offer.outpaint || mode !== "inpaint";
        const offers = { "mask-mode": this.offer.maskModes?.length > 0, ...this.offer.maskNumbers };
        for (const [id, isOffered] of Object.entries(offers)) {
            byId(`${id}-row`).hidden = !isOffered || mode !== "inpaint";
        }
        this.showShapes();
        this.onmode(mode);
    }

    showShapes() {
        const rows = shapes(this.model, this.mode);
        const { value } = byId("shape");
        // What follows the picture depends on the mode; what was chosen in pixels stays.
        options(byId("shape"), rows, /custom|x/.test(value) ? value : rows[0][0]);
        showCustomSize();
    }

    chooseMode(mode) {
        if (!modesOf(this.model, this.rows).includes(mode)) return;
        this.wanted = mode;
        this.setMode(mode);
    }

    // Rows of the same models, some of which may have been loaded meanwhile.
    refresh(rows) {
        this.rows = rows;
        for (const row of rows.filter(isModel)) {
            const option = [...byId("model").options].find(({ value }) => value === row.model_id);
            if (option) option.textContent = label(row);
        }
    }

    // Whether a picture is to be shown to the model beside the prompt.
    get refers() {
        return byId("adapter").value !== "";
    }

    // Whether the picture is to grow, for which no mask is needed.
    get extends() {
        return this.mode === "inpaint" && "outpaint" in this.outpaintFields();
    }

    showAddOns(modelId) {
        const all = ["lora", "vae", "embeddings", "ip_adapter"].map((category) =>
            addOns(this.rows, category, modelId),
        );
        const [loras, vaes, embeddings, adapters] = all;
        byId("no-add-ons").hidden = all.flat().length > 0;
        byId("loras").replaceChildren(
            ...loras.map((row) => loraRow(row, () => this.countAddOns())),
        );
        options(byId("vae"), [
            ["", "Model’s own"],
            ...vaes.map((row) => [row.model_id, label(row)]),
        ]);
        byId("vae").onchange = () => this.countAddOns();
        byId("vae-row").hidden = vaes.length === 0;
        byId("embeddings").replaceChildren(
            ...embeddings.map((row) => embeddingRow(row, () => this.countAddOns())),
        );
        options(byId("adapter"), [
            ["", "None"],
            ...adapters.map((row) => [row.model_id, label(row)]),
        ]);
        byId("adapter").onchange = () => this.countAddOns();
        byId("adapter-row").hidden = adapters.length === 0;
        const nets = addOns(this.rows, "controlnet", modelId);
        options(
            byId("net"),
            nets.map((row) => [row.model_id, label(row)]),
        );
        this.countAddOns();
    }

    countAddOns() {
        byId("adapter-set").hidden = !byId("adapter").value;
        const single = ["vae", "adapter"].filter((id) => byId(id).value);
        const number = this.loras().length + this.embeddings().length + single.length;
        byId("add-on-count").hidden = number === 0;
        byId("add-on-count").textContent = number;
    }

    loras() {
        return checked("loras").map((box) => ({
            id: box.value,
            strength: numberOf(`lora-${box.value}`),
        }));
    }

    embeddings() {
        return checked("embeddings").map((box) => box.value);
    }

    setSeed(seed) {
        byId("seed").value = seed;
    }

    setLock(isLocked) {
        byId("lock").setAttribute("aria-pressed", isLocked);
        byId("lock").replaceChildren(icon(isLocked ? "lock" : "open-lock"));
    }

    // Draws the seed of the next request unless it is kept.
    drawSeed() {
        if (!this.isLocked || byId("seed").value.trim() === "") this.setSeed(randomInt());
    }

    // picture: what is worked on, {width, height} or null.
    fields(picture) {
        // A picture that grows does so at its own size; the server adds the sides.
        const [width, height] = this.extends ? [null, null] : size(picture);
        const text = (id) => byId(id).value;
        return buildFields({
            mode: this.mode,
            model: text("model"),
            prompt: text("prompt").trim(),
            negative: text("negative").trim(),
            width,
            height,
            samples: Number(text("count")),
            steps: numberOf("steps"),
            guidance: numberOf("guidance"),
            strength: numberOf("strength"),
            seed: text("seed").trim() === "" ? null : Number(text("seed")),
            scheduler: text("scheduler"),
            vae: text("vae"),
            loras: this.loras(),
            embeddings: this.embeddings(),
            adapter: { id: text("adapter"), scale: numberOf("adapter-scale") },
            enhance: isChecked("enhance"),
            safety: isChecked("safety"),
            karras: isChecked("karras"),
            clipSkip: text("clip-skip") ? Number(text("clip-skip")) : null,
            upscale: Number(text("upscale")),
            inpaint: this.inpaintFields(),
            control: this.controlFields(),
        });
    }

    inpaintFields() {
        const fields = isChecked("full-frame") ? { full_frame: "yes" } : {};
        if (this.offer.maskModes.length > 0 && byId("mask-mode").value) {
            fields.mask_mode = byId("mask-mode").value;
        }
        for (const [id, isOffered] of Object.entries(this.offer.maskNumbers)) {
            if (isOffered) fields[byId(id).name] = numberOf(id);
        }
        return { ...fields, ...this.outpaintFields() };
    }

    outpaintFields() {
        const sides = [...document.querySelectorAll("[data-side]")].map((input) => [
            input.dataset.side,
            Number(input.value),
        ]);
        if (!this.offer.outpaint || sides.every(([, px]) => !px)) return {};
        return { outpaint: Object.fromEntries(sides.filter(([, px]) => px > 0)) };
    }

    controlFields() {
        const net = this.rows.find((row) => row.model_id === byId("net").value);
        return {
            net: net?.model_id,
            type: net?.control?.[0],
            isHint: isChecked("is-hint"),
            guess: isChecked("guess"),
            scale: numberOf("control-scale"),
            start: numberOf("control-start"),
            end: numberOf("control-end"),
        };
    }

    // What brings the panel back to where it was.
    state() {
        const inputs = [...byId("form").querySelectorAll("input[id], select[id], textarea[id]")];
        return {
            mode: this.mode,
            locked: this.isLocked,
            values: Object.fromEntries(
                inputs.map((input) => [
                    input.id,
                    input.type === "checkbox" ? input.checked : input.value,
                ]),
            ),
        };
    }

    restore({ mode, values, locked }) {
        const put = (id, value) => {
            const input = byId(id);
            if (!input || !byId("form").contains(input)) return;
            if (input.type === "checkbox") input.checked = value;
            else input.value = value;
            input.dispatchEvent(new Event("input"));
        };
        this.wanted = mode;
        put("model", values.model);
        if (this.model) this.showModel();
        for (const [id, value] of Object.entries(values)) put(id, value);
        this.setLock(locked);
        showCustomSize();
        this.countAddOns();
    }

    // Puts the server's messages beside their fields; returns those that have no place here.
    showProblems(fields) {
        this.clearProblems();
        const others = [];
        for (const [name, text] of Object.entries(fields)) {
            const alias = name === "num_inference_steps" ? "steps" : name;
            const input = byId("form").querySelector(`[name="${CSS.escape(alias)}"]`);
            if (!input) others.push(text);
            else {
                const id = `problem-${alias}`;
                input.setAttribute("aria-invalid", "true");
                input.setAttribute("aria-describedby", id);
                (input.closest(".number") ?? input).after(make("p", { class: "error", id }, text));
                for (let at = input; at; at = at.parentElement)
                    if (at.tagName === "DETAILS") at.open = true;
            }
        }
        byId("form").querySelector("[aria-invalid]")?.focus();
        return others;
    }

    clearProblems() {
        byId("form")
            .querySelectorAll(".error")
            .forEach((element) => element.remove());
        byId("form")
            .querySelectorAll("[aria-invalid]")
            .forEach((input) => {
                input.removeAttribute("aria-invalid");
                input.removeAttribute("aria-describedby");
            });
    }
}

// What the server can do besides what all versions can, as its own description says.
export function readOffer(openapi) {
    const properties = (path) =>
        openapi?.paths?.[path]?.post?.requestBody?.content?.["application/json"]?.schema
            ?.properties ?? {};
    const inpaint = properties("/api/v4/dreambooth/inpaint");
    const names = (field) => (field?.enum ?? []).filter((name) => name !== null);
    return {
        schedulers: names(inpaint.scheduler),
        maskModes: names(inpaint.mask_mode),
        maskNumbers: {
            "mask-expand": "mask_expand" in inpaint,
            "mask-blur": "mask_blur" in inpaint,
        },
        outpaint: "outpaint" in inpaint,
    };
}

const label = ({ model_name: name, model_id: id, status }) =>
    `${name || id}${status === "model_loading" ? " (loading)" : ""}`;
const plain = (scheduler) => scheduler.replace(/(Discrete)?Scheduler$/, "");
const checked = (id) => [...byId(id).querySelectorAll("input[type=checkbox]:checked")];

// Inpainting keeps the picture's size, so that what is not masked stays as it is to the pixel.
function shapes(model, mode) {
    const native = model?.native_size_px;
    const own = ["own", "Picture’s size"];
    const first = {
        text2img: [["", `Native${native ? ` (${native} × ${native})` : ""}`]],
        inpaint: [own, ["", "Picture’s shape"]],
    };
    const fixed = SHAPES.map(([width, height]) => [`${width}x${height}`, `${width} × ${height}`]);
    return [...(first[mode] ?? [["", "Picture’s shape"], own]), ...fixed, ["custom", "Custom"]];
}

// picture: {width, height} or null.
function size(picture) {
    const shape = byId("shape").value;
    if (shape === "own") return ownSize(picture);
    if (shape === "") return [null, null];
    if (shape !== "custom") return shape.split("x").map(Number);
    return ["width", "height"].map((id) => Number(byId(id).value) || null);
}

function showCustomSize() {
    byId("custom-size").hidden = byId("shape").value !== "custom";
}

function loraRow(row, oncount) {
    const strength = make("div", {
        class: "number",
        hidden: true,
        "data-number": `lora-${row.model_id}`,
        "data-label": `Strength of ${label(row)}`,
        "data-short": "Strength",
        "data-min": -2,
        "data-max": 2,
        "data-step": 0.05,
        "data-value": 1,
    });
    const line = addOnRow(row, `use-lora-${row.model_id}`, (isUsed) => {
        strength.hidden = !isUsed;
        oncount();
    });
    makeNumber(strength);
    return make("div", {}, line, strength);
}

const embeddingRow = (row, oncount) => addOnRow(row, `use-embedding-${row.model_id}`, oncount);

function addOnRow(row, id, onuse) {
    const box = make("input", { type: "checkbox", id, value: row.model_id });
    box.addEventListener("input", () => onuse(box.checked));
    return make("label", { class: "check", title: row.description }, box, ` ${label(row)}`);
}

// A slider and a box that say the same.
function makeNumber(row) {
    const { number: id, label: text, short = text, min, max, step, value, name } = row.dataset;
    const slider = make("input", {
        type: "range",
        min,
        max,
        step,
        value,
        "aria-label": `${text}, slider`,
    });
    const box = make("input", {
        type: "number",
        id,
        name,
        min,
        max,
        step: "any",
        value,
        "aria-label": text,
    });
    slider.addEventListener("input", () => (box.value = slider.value));
    box.addEventListener("input", () => (slider.value = box.value));
    row.replaceChildren(make("span", { "aria-hidden": "true" }, short), slider, box);
}

const numberOf = (id) => (byId(id).value === "" ? null : Number(byId(id).value));

function setNumber(id, value) {
    if (value === undefined) return;
    byId(id).value = value;
    byId(id).dispatchEvent(new Event("input"));
}

// Radio buttons that look like one bar. rows: [value, text].
export function segments(bar, rows, chosen, onchoose) {
    bar.replaceChildren(
        ...rows.map(([value, text]) => {
            const radio = make("input", { type: "radio", name: `${bar.id}-radio`, value });
            radio.checked = value === chosen;
            radio.addEventListener("change", () => onchoose(value));
            return make("label", {}, radio, make("span", {}, text));
        }),
    );
}

export function check(bar, value) {
    for (const radio of bar.querySelectorAll("input")) radio.checked = radio.value === value;
}
