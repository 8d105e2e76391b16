// Where pictures come from: a drop, the clipboard, a file, an example.

import { byId, make } from "./dom.js";
import { EXAMPLES, drawExample } from "./examples.js";
import { notify } from "./notices.js";
import { PictureError, readPicture } from "./picture.js";

const REFERENCE_SIDE = 1024; // the server looks at no more of it

// onpicture(canvas, name, example); onmask(canvas); onreference(canvas, name).
export function startSources({ onpicture, onmask, onreference }) {
    const take = (file) => read(file, ({ canvas, name }) => onpicture(canvas, name, null));
    const refer = (file) =>
        read(file, ({ canvas, name }) => onreference(canvas, name), REFERENCE_SIDE);
    byId("choose").addEventListener("click", () => byId("file").click());
    onChoice("file", take);
    onChoice("mask-file", (file) => read(file, ({ canvas }) => onmask(canvas)));
    byId("reference").addEventListener("click", () => byId("reference-file").click());
    onChoice("reference-file", refer);
    document.addEventListener("paste", (event) => {
        const [file] = pictures(event.clipboardData);
        if (!file) return;
        event.preventDefault();
        take(file);
    });
    startDrop((file, target) => (target.closest("#adapter-set") ? refer(file) : take(file)));
    byId("examples").append(...EXAMPLES.map((example) => exampleRow(example, onpicture)));
}

async function read(file, use, maxSide = undefined) {
    try {
        const picture = await readPicture(file, file.name || "The picture", maxSide);
        use(picture);
        if (picture.note) notify(picture.note);
    } catch (error) {
        if (!(error instanceof PictureError)) throw error;
        notify(error.message, "error");
    }
}

function onChoice(id, take) {
    byId(id).addEventListener("change", (event) => {
        const [file] = event.target.files;
        event.target.value = ""; // so that the same file can be chosen again
        if (file) take(file);
    });
}

const pictures = (data) => [...(data?.files ?? [])];

function startDrop(take) {
    const isFile = (event) => event.dataTransfer?.types.includes("Files");
    let depth = 0; // of elements that the pointer has entered
    const show = (by) => {
        depth = by === 0 ? 0 : Math.max(0, depth + by);
        byId("drop").hidden = depth === 0;
    };
    addEventListener("dragenter", (event) => isFile(event) && show(1));
    addEventListener("dragleave", (event) => isFile(event) && show(-1));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
        event.preventDefault();
        show(0);
        const [file] = pictures(event.dataTransfer);
        if (file) take(file, event.target);
        else notify("That was no file. Drop a picture from a folder.", "error");
    });
}

function exampleRow(example, onpicture) {
    const canvas = drawExample(example);
    const button = make(
        "button",
        { type: "button", "aria-label": `Example: ${example.name}`, title: example.name },
        make("img", { alt: "", src: canvas.toDataURL("image/jpeg", 0.8) }),
    );
    button.addEventListener("click", () => onpicture(drawExample(example), example.name, example));
    return make("li", {}, button);
}
