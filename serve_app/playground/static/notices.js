// Messages to the user, read out by screen readers.

import { byId, icon, make } from "./dom.js";

// kind: "error" or "note".
export function notify(text, kind = "note") {
    const close = make(
        "button",
        { type: "button", class: "round", "aria-label": "Dismiss" },
        icon("close"),
    );
    const notice = make("div", { class: `notice ${kind}` }, make("p", {}, text), close);
    close.addEventListener("click", () => notice.remove());
    byId("notices").append(notice);
    notice.scrollIntoView({ block: "nearest" }); // on a phone it may be above
}

export const clearNotices = () => byId("notices").replaceChildren();

// To screen readers only.
export function say(text) {
    byId("status").textContent = text;
}
