// The server's public API. Every call of these pages goes through here.

const KEY = "dreamserve.key"; // of sessionStorage, which ends with the tab
const ADMIN_KEY = "dreamserve.admin_key";
const MAX_BREAKS = 5; // of an event stream without an event between them
const FINAL = new Set(["done", "failed"]);

export class ApiError extends Error {
    // reason: the server's stable code, or "unreachable", "unreadable".
    // fields: messages by the name of the field that they are about.
    constructor(reason, message, { fields = {}, retryAfter = null } = {}) {
        super(message);
        this.reason = reason;
        this.fields = fields;
        this.retryAfter = retryAfter;
    }
}

const kept = (name) => ({
    get: () => sessionStorage.getItem(name) ?? "",
    set: (value) => sessionStorage.setItem(name, value.trim()),
    clear: () => sessionStorage.removeItem(name),
});

export const key = kept(KEY);
export const adminKey = kept(ADMIN_KEY);
export const address = (path) => new URL(path, document.baseURI).href;

// Whether a server that starts, or starts again, may do better soon.
export const passes = ({ reason }) =>
    ["unreachable", "unreadable", "job_store_unavailable"].includes(reason);

const bearer = (value) => (value ? { Authorization: `Bearer ${value}` } : {});

export async function post(path, fields = {}, { signal, headers = {} } = {}) {
    const answer = await send(path, {
        method: "POST",
        headers: { "Content-Type": "application/json", ...bearer(key.get()), ...headers },
        body: JSON.stringify(fields),
        signal,
    });
    return checked(await readJson(answer));
}

export async function getJson(path, { secret = "", signal } = {}) {
    const answer = await send(path, { headers: bearer(secret), signal });
    return checked(await readJson(answer));
}

// Waits for a job's end and returns its fetch reply; tells (name, data) of what happens before.
export async function watch(id, tell, signal) {
    for await (const { name, data } of events(id, signal)) {
        if (name === "done") return data;
        if (name === "failed") throw toError(data);
        tell(name, data);
    }
    return poll(id, tell, signal);
}

export function pause(ms, signal) {
    return new Promise((resolve, reject) => {
        const left = () => {
            clearTimeout(timer);
            reject(signal.reason);
        };
        const timer = setTimeout(() => {
            signal?.removeEventListener("abort", left);
            resolve();
        }, ms);
        if (signal?.aborted) left();
        signal?.addEventListener("abort", left, { once: true });
    });
}

// Ends without a final event where the server has no events for this job: then one polls.
async function* events(id, signal) {
    let lastId = null;
    for (let breaks = 0; breaks < MAX_BREAKS; breaks += 1) {
        try {
            const resume = lastId === null ? {} : { "Last-Event-ID": lastId };
            const headers = { Accept: "text/event-stream", ...bearer(key.get()), ...resume };
            const answer = await send(`api/v4/dreambooth/events/${id}`, { headers, signal });
            if (!isEventStream(answer)) return await refuseBadKey(answer);
            for await (const event of parseEvents(answer.body)) {
                breaks = 0;
                lastId = event.id ?? lastId;
                yield event;
                if (FINAL.has(event.name)) return;
            }
        } catch (error) {
            if (signal?.aborted || isRefusal(error)) throw error;
        }
        await pause(500 * (breaks + 1), signal);
    }
}

const isEventStream = (answer) =>
    (answer.headers.get("content-type") ?? "").startsWith("text/event-stream");
const isRefusal = (error) => error instanceof ApiError && error.reason !== "unreachable";

async function refuseBadKey(answer) {
    const reply = await answer.json().catch(() => ({})); // there may be nothing to read
    if (reply.reason === "invalid_key") throw toError(reply);
}

async function* parseEvents(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        text += value;
        const blocks = text.split(/\r?\n\r?\n/);
        text = blocks.pop();
        for (const block of blocks) {
            const event = parseEvent(block);
            if (event) yield event;
        }
    }
}

// null for a heartbeat, which is a comment.
export function parseEvent(block) {
    const event = { name: "message", id: null, data: [] };
    for (const line of block.split(/\r?\n/)) {
        const [, field, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
        if (field === "event") event.name = value;
        else if (field === "id") event.id = value;
        else if (field === "data") event.data.push(value);
    }
    return event.data.length === 0 ? null : { ...event, data: JSON.parse(event.data.join("\n")) };
}

async function poll(id, tell, signal) {
    const begun = Date.now();
    for (;;) {
        const reply = await patiently(
            () => post(`api/v4/dreambooth/fetch/${id}`, {}, { signal }),
            tell,
            signal,
        );
        if (reply.status === "success") return reply;
        tell("running", reply);
        // Quick at first, as most jobs are short; then as the server asks.
        const isYoung = Date.now() - begun < 15_000;
        await pause(isYoung ? 600 : Math.max(1, reply.eta ?? 1) * 1000, signal);
    }
}

// A server that restarts loses no job: ask again until it answers.
async function patiently(call, tell, signal) {
    for (let tries = 1; ; tries += 1) {
        try {
            return await call();
        } catch (error) {
            if (signal?.aborted || !passes(error) || tries > 60) throw error;
            tell("unreachable", {});
            await pause(2000, signal);
        }
    }
}

async function send(path, options) {
    try {
        return await fetch(address(path), { ...options, cache: "no-store", credentials: "omit" });
    } catch (error) {
        if (options.signal?.aborted) throw error;
        throw new ApiError("unreachable", "The server does not answer.");
    }
}

// What stands before the server may answer in words of its own.
async function readJson(answer) {
    const reply = await answer.json().catch(() => null);
    if (reply !== null && (answer.ok || "reason" in reply)) return reply;
    throw new ApiError("unreadable", `The server's answer cannot be read (HTTP ${answer.status}).`);
}

function checked(reply) {
    if (reply.status === "error" || reply.status === "failed") throw toError(reply);
    return reply;
}

function toError(reply) {
    const { message, reason = "unknown", retry_after: retryAfter = null } = reply;
    if (typeof message === "string") return new ApiError(reason, message, { retryAfter });
    const fields = Object.fromEntries(
        Object.entries(message ?? {}).map(([name, texts]) => [name, [texts].flat().join(" ")]),
    );
    const text = Object.values(fields).join(" ") || "The server refused, without a reason.";
    return new ApiError(reason, text, { fields, retryAfter });
}
