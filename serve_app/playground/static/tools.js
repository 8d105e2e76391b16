// The toolbars of the stage, and the keys that stand for them.

import { byId, icon, make, saveFile } from "./dom.js";
import { toBlob } from "./picture.js";

const TOOLS = [
    ["brush", "Brush", "b"],
    ["eraser", "Eraser", "e"],
    ["rectangle", "Rectangle", "r"],
    ["lasso", "Lasso", "l"],
    ["hand", "Hand: move the picture", "h"],
];
const TYPED_IN = "input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select";

export function startTools(stage, onother) {
    const choose = (name) => {
        stage.tool.name = name;
        byId("canvas").dataset.tool = name;
        for (const radio of byId("tool-names").querySelectorAll("input"))
            radio.checked = radio.value === name;
    };
    byId("tool-names").append(...TOOLS.map((tool) => toolButton(tool, choose)));
    choose("brush");
    startSliders(stage);
    const actions = {
        undo: () => stage.undo(),
        redo: () => stage.redo(),
        invert: () => stage.change({ kind: "invert" }),
        clear: () => stage.change({ kind: "clear" }),
        "load-mask": () => byId("mask-file").click(),
        "save-mask": async () => saveFile(await toBlob(stage.mask.canvas), "mask.png"),
        "zoom-in": () => stage.zoom(1.25),
        "zoom-out": () => stage.zoom(0.8),
        "zoom-fit": () => stage.fit(),
        "remove-picture": onother,
    };
    for (const [id, act] of Object.entries(actions)) byId(id).addEventListener("click", act);
    const keys = Object.fromEntries(TOOLS.map(([name, , key]) => [key, () => choose(name)]));
    const resize = (factor) => setSize(stage, stage.tool.size * factor);
    Object.assign(keys, { "[": () => resize(0.8), "]": () => resize(1.25) });
    addEventListener("keydown", (event) => onKey(event, stage, keys));
}

function toolButton([name, text, key], choose) {
    const radio = make("input", { type: "radio", name: "tool", value: name, "aria-label": text });
    radio.addEventListener("change", () => choose(name));
    return make(
        "label",
        { class: "tool", title: `${text} (${key.toUpperCase()})` },
        radio,
        icon(name),
    );
}

// The slider's steps grow with the size, as brushes of 4 and 8 pixels differ more than 204 and 208.
function startSliders(stage) {
    byId("size").addEventListener("input", () => setSize(stage, Number(byId("size").value)));
    byId("hardness").addEventListener("input", () => {
        stage.tool.hardness = Number(byId("hardness").value) / 100;
    });
}

function setSize(stage, size) {
    stage.tool.size = Math.min(512, Math.max(2, size));
    byId("size").value = stage.tool.size;
    stage.draw();
}

function onKey(event, stage, keys) {
    if (document.querySelector("dialog[open]") || byId("tools").hidden) return;
    if (event.target.matches?.(TYPED_IN)) return;
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
        if (key === "z") event.shiftKey ? stage.redo() : stage.undo();
        else if (key === "y") stage.redo();
        else return;
    } else if (key in keys && !event.altKey) keys[key]();
    else return;
    event.preventDefault();
}

export function showTools(stage, { isMasking, hasPicture }) {
    byId("tools").hidden = !(isMasking && hasPicture);
    byId("zoom").hidden = !hasPicture;
    byId("undo").disabled = !stage.mask?.canUndo;
    byId("redo").disabled = !stage.mask?.canRedo;
}
