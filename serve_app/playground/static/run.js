// The life of one request in the browser: sent, watched, kept. A reload or another tab goes on
// where this one stopped, since what was accepted is in the history before it is painted.

import { address, post, watch } from "./api.js";
import { randomName } from "./dom.js";
import * as history from "./history.js";
import { withKey } from "./keys.js";
import { toDataUri } from "./picture.js";

const PENDING = "dreamserve.pending"; // of this tab: id of its entry of the history
const FETCH = "api/v4/dreambooth/fetch";

// request: {mode, path, fields, pictures, form, before, mask, reference}; tell(name, data) of what happens.
// Returns the entry of the history with its pictures.
export async function run(request, tell, signal) {
    const uris = await Promise.all(
        [...request.pictures].map(async ([name, blob]) => [name, await toDataUri(blob)]),
    );
    const fields = { ...request.fields, ...Object.fromEntries(uris), instant_response: "yes" };
    // The same name when it is sent again, so that it is painted once.
    const headers = { "Idempotency-Key": randomName() };
    const reply = await withKey(() => post(request.path, fields, { signal, headers }));
    const entry = {
        at: Date.now(),
        job: reply.id,
        mode: request.mode,
        path: request.path,
        fields: request.fields,
        form: request.form,
        before: request.before,
        mask: request.mask,
        reference: request.reference,
        meta: reply.meta,
        tip: reply.status === "success" ? reply.tip : "",
        pictures: [],
    };
    const id = await kept(entry);
    if (id !== null) {
        entry.id = id;
        sessionStorage.setItem(PENDING, id);
    }
    tell("accepted", { job: entry.job });
    if (reply.status === "success") return complete(entry, reply);
    return follow(entry, tell, signal);
}

// Waits for the end of what was accepted.
export async function follow(entry, tell, signal) {
    try {
        return await complete(entry, await withKey(() => watch(entry.job, tell, signal)));
    } catch (error) {
        if (!signal.aborted && error.reason !== "invalid_key" && error.reason !== "unreachable") {
            if (entry.id) await history.remove(entry.id);
        }
        if (error.reason !== "invalid_key" && error.reason !== "unreachable") {
            sessionStorage.removeItem(PENDING);
        }
        throw error;
    }
}

export const cancel = (job) => post(`api/v4/dreambooth/cancel/${job}`);

// What this tab waited for when it was reloaded; null for nothing.
export async function pending() {
    const id = Number(sessionStorage.getItem(PENDING));
    const entry = id ? await history.get(id) : null;
    return entry && entry.pictures.length === 0 ? entry : null;
}

// Fetches the results of tabs that were closed, once.
export async function collectOrphans() {
    const own = Number(sessionStorage.getItem(PENDING));
    const orphans = (await history.recent()).filter(
        (entry) => entry.pictures.length === 0 && entry.id !== own,
    );
    for (const entry of orphans) {
        try {
            const reply = await post(`${FETCH}/${entry.job}`);
            if (reply.status === "success") await complete(entry, reply);
        } catch (error) {
            const isOver = !["unreachable", "unreadable", "invalid_key"].includes(error.reason);
            if (isOver) await history.remove(entry.id);
        }
    }
}

async function complete(entry, reply) {
    const pictures = await Promise.all(reply.output.map(readResult));
    const whole = { ...entry, pictures, isFlagged: Boolean(reply.nsfw_content_detected) };
    await kept(whole);
    sessionStorage.removeItem(PENDING);
    return whole;
}

// Returns the id in the history; null where the browser keeps none, or has no room: it is painted
// all the same.
async function kept(entry) {
    try {
        return await history.put(entry);
    } catch {
        return null;
    }
}

// blob: null where the files' server does not let pages read it; then the link is shown.
async function readResult(link) {
    try {
        const answer = await fetch(address(link), { credentials: "omit" });
        if (answer.ok) return { blob: await answer.blob(), link };
    } catch {
        // below
    }
    return { blob: null, link };
}
