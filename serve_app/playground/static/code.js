// The dialog with this request as code.

import { address, key } from "./api.js";
import { byId, copyText, make, saveFile } from "./dom.js";
import { segments } from "./form.js";
import { FILES, LANGUAGES } from "./snippets.js";

const NAMES = { curl: "curl", python: "Python", javascript: "JavaScript" };
let language = "curl";

// request: {path, fetchPath, fields, pictures: Map from field to Blob}.
export function showCode(request) {
    const { path, fetchPath, fields, pictures } = request;
    const values = {
        url: address(path),
        fetchUrl: address(fetchPath),
        fields,
        pictures: [...pictures.keys()],
        needsKey: key.get() !== "",
    };
    const show = () => (byId("code-text").textContent = LANGUAGES[language](values));
    segments(byId("languages"), Object.entries(NAMES), language, (chosen) => {
        language = chosen;
        show();
    });
    show();
    byId("code-files").hidden = pictures.size === 0;
    byId("code-links").replaceChildren(...[...pictures].map(fileLink));
    byId("code-dialog").showModal();
}

function fileLink([field, blob]) {
    const name = FILES[field];
    const link = make("button", { class: "link strong", type: "button" }, name);
    link.addEventListener("click", () => saveFile(blob, name));
    return link;
}

export function startCode() {
    byId("code-close").addEventListener("click", () => byId("code-dialog").close());
    byId("code-copy").addEventListener("click", async (event) => {
        await copyText(byId("code-text").textContent);
        event.target.textContent = "Copied";
        setTimeout(() => (event.target.textContent = "Copy"), 1500);
    });
}
