// What was painted: shown beside what was there, downloaded, or used again.

import { byId, make, saveFile } from "./dom.js";
import { parameters } from "./parameters.js";
import { isPng, sizeOf, withText } from "./png.js";
import { seedOf } from "./request.js";

export class Result {
    constructor() {
        this.entry = null;
        this.canCompare = false;
        this.sample = 0;
        this.urls = [];
        byId("after").addEventListener("load", ({ target }) => {
            const ratio = target.naturalWidth / target.naturalHeight;
            byId("frame").style.setProperty("--ratio", ratio);
        });
        byId("split").addEventListener("input", () => this.split());
        byId("compare").addEventListener("click", () => this.setCompare(!this.compares));
        byId("download").addEventListener("click", () => this.download());
    }

    get picture() {
        return this.entry.pictures[this.sample];
    }

    get seed() {
        return seedOf(Number(this.entry.meta.seed ?? 0), this.sample);
    }

    show(entry) {
        this.urls.forEach((url) => URL.revokeObjectURL(url));
        this.entry = entry;
        this.urls = [];
        this.shown = entry.pictures.map(({ blob, link }) => (blob ? this.url(blob) : link));
        byId("before").hidden = !entry.before;
        if (entry.before) byId("before").src = this.url(entry.before);
        this.canCompare = Boolean(entry.before) && !entry.fields.outpaint; // else of another shape
        byId("compare").hidden = !this.canCompare;
        this.choose(0);
        this.setCompare(this.canCompare);
        byId("split").value = 50;
        this.split();
        const rows =
            this.shown.length < 2 ? [] : this.shown.map((url, at) => this.thumbnail(url, at));
        byId("samples").replaceChildren(...rows);
    }

    showPreview(uri) {
        this.setCompare(false);
        byId("after").src = uri;
        byId("samples").replaceChildren();
        byId("caption").textContent = "";
    }

    url(blob) {
        const url = URL.createObjectURL(blob);
        this.urls.push(url);
        return url;
    }

    thumbnail(url, at) {
        const button = make(
            "button",
            { type: "button", "aria-label": `Sample ${at + 1}` },
            make("img", { src: url, alt: "" }),
        );
        button.addEventListener("click", () => this.choose(at));
        return make("li", {}, button);
    }

    choose(sample) {
        this.sample = sample;
        byId("after").src = this.shown[sample];
        const { meta, fields } = this.entry;
        const facts = [
            meta.model_id ?? fields.model_id,
            `seed ${this.seed}`,
            `${meta.steps} steps`,
        ];
        byId("caption").textContent = facts.join(" · ");
        byId("after").alt = `Painted: ${fields.prompt ?? "a picture"}`;
    }

    setCompare(compares) {
        this.compares = compares && this.canCompare;
        byId("compare").setAttribute("aria-pressed", this.compares);
        for (const id of ["before", "divider", "split"]) byId(id).hidden = !this.compares;
    }

    split() {
        byId("frame").style.setProperty("--split", `${byId("split").value}%`);
    }

    // A PNG gets the parameters as A1111 writes them.
    async download() {
        const { blob, link } = this.picture;
        const { meta, mode, fields } = this.entry;
        if (!blob) {
            open(link, "_blank", "noopener"); // its server does not let pages read it
            return;
        }
        const name = `${fields.model_id}-${this.seed}.png`;
        const ran = { ...meta, model_id: fields.model_id };
        const { seed } = this;
        const bytes = new Uint8Array(await blob.arrayBuffer());
        if (!isPng(bytes)) {
            saveFile(blob, name);
            return;
        }
        // Of the file, since the page may not have decoded the picture yet.
        const text = parameters(ran, mode, sizeOf(bytes), seed);
        saveFile(new Blob([withText(bytes, "parameters", text)], { type: blob.type }), name);
    }
}
