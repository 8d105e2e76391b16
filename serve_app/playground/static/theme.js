// Dark, light, or as the system says; what was chosen is kept by the browser.

import { byId } from "./dom.js";

const NAME = "dreamserve.theme";
const NEXT = { auto: "dark", dark: "light", light: "auto" };

function show(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const button = byId("theme");
    button.setAttribute("aria-label", `Colours: ${theme}. Change to ${NEXT[theme]}`);
    button.title = button.getAttribute("aria-label");
}

export function startTheme() {
    let theme = localStorage.getItem(NAME) ?? "auto";
    if (!(theme in NEXT)) theme = "auto";
    show(theme);
    byId("theme").addEventListener("click", () => {
        theme = NEXT[theme];
        localStorage.setItem(NAME, theme);
        show(theme);
    });
}
