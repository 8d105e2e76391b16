// Asks for an API key when the server wants one. It stays in this tab's session.

import { key } from "./api.js";
import { byId } from "./dom.js";

let asking = null;

// Runs a call; when its key is refused, asks for another and runs it again.
export async function withKey(call) {
    for (;;) {
        try {
            return await call();
        } catch (error) {
            if (error.reason !== "invalid_key") throw error;
            const isGiven = await askForKey(key.get() ? "The server does not know this key." : "");
            if (!isGiven) throw error;
        }
    }
}

// Resolves to whether a key was given. One dialog serves all that wait.
export function askForKey(problem = "") {
    asking ??= new Promise((resolve) => {
        const dialog = byId("key-dialog");
        byId("key-error").textContent = problem;
        byId("key").value = "";
        dialog.returnValue = "";
        dialog.showModal();
        dialog.addEventListener(
            "close",
            () => {
                asking = null;
                const isGiven = dialog.returnValue === "use" && byId("key").value.trim() !== "";
                if (isGiven) key.set(byId("key").value);
                resolve(isGiven);
            },
            { once: true },
        );
    });
    return asking;
}

export function startKeys(onkey) {
    byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
    byId("key-dialog")
        .querySelector("form")
        .addEventListener("submit", (event) => {
            event.preventDefault();
            byId("key-dialog").close("use");
        });
    byId("key-open").addEventListener("click", async () => {
        if (await askForKey()) onkey();
    });
}
