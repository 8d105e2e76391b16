// The playground: wires the panel, the stage, the runs and the history together.

import { ApiError, getJson, key, passes, post } from "./api.js";
import { showCode, startCode } from "./code.js";
import { byId, icon, make, randomInt } from "./dom.js";
import { Form, readOffer } from "./form.js";
import * as history from "./history.js";
import { startKeys, withKey } from "./keys.js";
import { clearNotices, notify, say } from "./notices.js";
import { encode, fromBlob, toBlob } from "./picture.js";
import { PATHS, needsPicture, pictureFields } from "./request.js";
import { Result } from "./result.js";
import { cancel, collectOrphans, follow, pending, run } from "./run.js";
import { startSources } from "./source.js";
import { Stage } from "./stage.js";
import { startTheme } from "./theme.js";
import { showTools, startTools } from "./tools.js";

const DRAFT = "dreamserve.form"; // of this tab, so that a reload keeps what was typed
const ACCEPT_MS = 10_000; // that a cancelled call is waited for
const RELIST_MS = 5000; // while a model is loading
const REFERENCE = "ip_adapter_image";
const MODEL_LIST = "api/v4/dreambooth/model_list";

const stage = new Stage(byId("canvas"), { onchange: () => show(), say });
const result = new Result();
const form = new Form(() => show());
let running = null; // {abort, job, isCancelled}
let shows = "edit"; // or "result"
let edited = null; // id of the entry that the stage and the panel hold

function show() {
    const { mode } = form;
    const isResult = shows === "result";
    const isEditing = !isResult && Boolean(stage.picture) && needsPicture(mode);
    stage.isMasking = mode === "inpaint";
    byId("canvas").hidden = !isEditing;
    byId("result").hidden = !isResult;
    byId("empty").hidden = isEditing || isResult;
    byId("result-tools").hidden = !isResult || running !== null;
    showTools(stage, { isMasking: stage.isMasking && !running, hasPicture: isEditing });
    const isText = mode === "text2img";
    byId("empty-title").textContent = isText ? "Describe a picture" : "Start with a picture";
    byId("empty-text").hidden = byId("examples").hidden = byId("examples-label").hidden = isText;
    byId("paint").disabled = running !== null;
    if (isEditing) stage.changedView();
}

function edit() {
    shows = "edit";
    show();
}

function takePicture(canvas, name, example = null) {
    clearProblemNotices();
    if (!needsPicture(form.mode)) form.chooseMode("inpaint");
    stage.setPicture(canvas);
    if (example && byId("prompt").value.trim() === "") byId("prompt").value = example.prompt;
    edited = null;
    say(`${name}: ${canvas.width} by ${canvas.height} pixels.`);
    edit();
}

function takeReference(canvas, name) {
    clearProblemNotices();
    form.reference.set(canvas);
    edited = null;
    say(`${name} is the picture for the adapter.`);
}

function takeMask(canvas) {
    if (!stage.picture) {
        notify("There is no picture yet that this could be the mask of.", "error");
        return;
    }
    const { width, height } = stage.picture;
    const isSame = canvas.width === width && canvas.height === height;
    if (!isSame) {
        notify(
            `The mask is ${canvas.width} × ${canvas.height}; it was stretched to ${width} × ${height}.`,
        );
    }
    stage.change({ kind: "load", picture: canvas });
}

// --- a request -------------------------------------------------------------------------------

// Which picture is not there yet: [words, name of its field in the panel]; null for none.
function missingPicture() {
    if (needsPicture(form.mode) && !stage.picture)
        return ["There is no picture yet. Drop one, or take an example."];
    if (form.refers && !form.reference.picture)
        return ["The IP adapter has no picture yet. Choose one, or set it to None.", REFERENCE];
    return null;
}

// What keeps the request from being sent, in the same form.
function missing() {
    const { mode } = form;
    const picture = missingPicture();
    if (picture) return picture;
    if (mode === "inpaint" && stage.mask.isEmpty && !form.extends) {
        return ["Nothing is masked yet. Paint over what is to change."];
    }
    const needsPrompt = !(mode === "controlnet" && byId("guess").checked);
    if (needsPrompt && byId("prompt").value.trim() === "")
        return ["Say in the prompt what the picture shows.", "prompt"];
    return null;
}

function tellMissing([words, field = null]) {
    clearProblemNotices();
    if (field) form.showProblems({ [field]: words });
    else {
        notify(words, "error");
        byId("canvas").focus();
    }
}

async function request() {
    const { mode } = form;
    const fields = form.fields(needsPicture(mode) ? stage.picture : null);
    const pictures = new Map();
    for (const name of pictureFields(mode)) {
        const isMask = name === "mask_image";
        if (isMask && form.extends && stage.mask.isEmpty) continue; // only what is new is painted
        pictures.set(name, await (isMask ? toBlob(stage.mask.canvas) : encode(stage.picture)));
    }
    const { picture: reference } = form.reference;
    if (form.refers && reference) pictures.set(REFERENCE, await encode(reference));
    const fetchPath = mode === "controlnet" ? "api/v3/fetch" : "api/v4/dreambooth/fetch";
    return {
        mode,
        path: PATHS[mode],
        fetchPath,
        fields,
        pictures,
        form: form.state(),
        before: pictures.get("init_image") ?? pictures.get("control_image") ?? null,
        mask: pictures.get("mask_image") ?? null,
        reference: pictures.get(REFERENCE) ?? null,
    };
}

async function paint() {
    if (running) return;
    clearProblemNotices();
    const problem = missing();
    if (problem) {
        tellMissing(problem);
        return;
    }
    form.drawSeed();
    edit();
    // Begun before the pictures are encoded, so that a second press does nothing.
    await attempt(async (tell, signal) => run(await request(), tell, signal));
}

// Shows the progress of a run, its result, or why there is none.
async function attempt(begin) {
    running = { abort: new AbortController(), job: null, isCancelled: false };
    byId("progress").hidden = false;
    byId("stage").scrollIntoView({ block: "nearest" }); // on a phone it may be above
    tell("sending", {});
    show();
    try {
        const entry = await begin(tell, running.abort.signal);
        edited = entry.id;
        showResult(entry);
        say("Done.");
        if (!entry.id)
            notify(
                "This browser has no room for the history, or keeps none. Download what you want to keep.",
            );
        if (entry.tip) notify(entry.tip);
        if (entry.isFlagged) notify("The safety check flagged a picture and replaced it.");
    } catch (error) {
        shows = "edit";
        if (!running.isCancelled) showError(error);
    } finally {
        running = null;
        byId("progress").hidden = true;
        stage.setPreview(null);
        show();
    }
}

const tellers = {
    sending: () => progress("Sending"),
    accepted: ({ job }) => {
        running.job = job;
        if (running.isCancelled) cancelRun();
        else progress("Waiting");
    },
    queued: ({ place, eta }) => progress(waitText(place, eta)),
    started: () => progress("Painting"),
    progress: ({ step, steps }) => progress(`Painting, step ${step} of ${steps}`, step / steps),
    running: ({ progress: share, queue_place: place, eta }) => {
        if (share > 0) progress("Painting", share);
        else progress(waitText(place, eta));
    },
    preview: ({ image }) => preview(image),
    unreachable: () => progress("The server does not answer. Trying again"),
};

function tell(name, data) {
    if (running) tellers[name]?.(data);
}

function waitText(place, eta) {
    const where = place > 0 ? `Waiting, place ${place} in the queue` : "Waiting";
    if (!(eta > 0)) return where;
    // The server tells no more than `http.max_eta_s`, 5 by default: then to ask again.
    return `${where}, ${eta < 5 ? "about" : "at least"} ${Math.ceil(eta)} s`;
}

function progress(text, share = null) {
    byId("progress-text").textContent = `${text}…`;
    if (share === null) byId("progress-bar").removeAttribute("value");
    else byId("progress-bar").value = share;
}

function preview(uri) {
    const picture = new Image();
    picture.onload = () => {
        if (!running) return;
        if (needsPicture(form.mode) && stage.hasShapeOf(picture)) stage.setPreview(picture);
        else {
            result.showPreview(uri);
            shows = "result";
            show();
        }
    };
    picture.src = uri;
}

async function cancelRun() {
    running.isCancelled = true;
    const { job, abort } = running;
    progress("Cancelling");
    if (job === null) {
        // It is cancelled as soon as it is accepted, unless that does not come.
        setTimeout(() => abort.abort(), ACCEPT_MS);
        return;
    }
    try {
        await cancel(job);
        say("Cancelled.");
    } catch (error) {
        if (error.reason !== "already_finished")
            notify(`It could not be cancelled. ${error.message}`, "error");
    }
}

function showError(error) {
    if (!(error instanceof ApiError)) {
        notify("Something went wrong in the page. Reload it; what was painted is kept.", "error");
        throw error;
    }
    const others =
        Object.keys(error.fields).length > 0 ? form.showProblems(error.fields) : [error.message];
    const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
    for (const text of others) notify(`${text}${wait}`, "error");
}

function clearProblemNotices() {
    clearNotices();
    form.clearProblems();
}

// --- results ---------------------------------------------------------------------------------

function showResult(entry) {
    result.show(entry);
    shows = "result";
    show();
}

// Brings back what an entry was made from, unless it is there already.
async function restore(entry) {
    if (entry.id && edited === entry.id) return;
    form.restore(entry.form);
    if (entry.before) {
        stage.setPicture(await fromBlob(entry.before));
        if (entry.mask) stage.change({ kind: "load", picture: await fromBlob(entry.mask) });
    }
    if (entry.reference) form.reference.set(await fromBlob(entry.reference));
    edited = entry.id;
}

async function vary() {
    await restore(result.entry);
    form.setLock(false);
    await paint();
}

async function reuse() {
    const { blob } = result.picture;
    if (!blob) {
        notify(
            "The server of the files does not let this page read the picture. Save it, then drop it here.",
            "error",
        );
        return;
    }
    if (!needsPicture(form.mode)) form.chooseMode("inpaint");
    stage.setPicture(await fromBlob(blob), { keepMask: true });
    edited = null;
    edit();
    say("The result is the picture now.");
}

async function showHistory() {
    const entries = (await history.recent()).filter(({ pictures }) => pictures.length > 0);
    byId("history-empty").hidden = entries.length > 0;
    byId("forget").hidden = entries.length === 0;
    byId("history")
        .querySelectorAll("img")
        .forEach(({ src }) => URL.revokeObjectURL(src));
    byId("history").replaceChildren(...entries.map(historyRow));
}

function historyRow(entry) {
    const [{ blob, link }] = entry.pictures;
    const text = `${entry.fields.prompt ?? "Picture"}, ${new Date(entry.at).toLocaleTimeString()}`;
    const open = make(
        "button",
        { type: "button", title: text, "aria-label": `Show: ${text}` },
        make("img", { src: blob ? URL.createObjectURL(blob) : link, alt: "", loading: "lazy" }),
    );
    open.addEventListener("click", () => !running && showResult(entry));
    const drop = make(
        "button",
        { type: "button", class: "drop-entry round", "aria-label": `Remove: ${text}` },
        icon("close"),
    );
    drop.addEventListener("click", () => history.remove(entry.id));
    return make("li", {}, open, drop);
}

// --- start -----------------------------------------------------------------------------------

async function list() {
    const rows = await withKey(() => post(MODEL_LIST));
    byId("key-open").hidden = key.get() === "";
    return rows;
}

async function relist() {
    const isLoading = form.rows.some(({ status }) => status === "model_loading");
    if (isLoading) form.refresh(await post(MODEL_LIST).catch(() => form.rows));
    setTimeout(relist, RELIST_MS);
}

async function load() {
    try {
        const [offer, rows] = await Promise.all([
            getJson("openapi.json").catch(() => null),
            list(),
        ]);
        clearProblemNotices(); // of earlier tries
        form.show(rows, readOffer(offer));
        const draft = sessionStorage.getItem(DRAFT);
        if (draft) form.restore(JSON.parse(draft));
        show();
        const waiting = await pending();
        if (waiting) {
            await restore(waiting);
            await attempt((tell, signal) => {
                tell("accepted", { job: waiting.job });
                return follow(waiting, tell, signal);
            });
        }
        await collectOrphans();
    } catch (error) {
        clearProblemNotices();
        if (passes(error)) setTimeout(load, RELIST_MS);
        showError(error);
    }
}

function listen() {
    const actions = {
        reuse,
        vary,
        cancel: cancelRun,
        back: async () => {
            await restore(result.entry);
            edit();
        },
        code: async () => {
            const problem = missingPicture();
            if (problem) tellMissing(problem);
            else showCode(await request());
        },
        forget: () => history.removeAll(),
    };
    for (const [id, act] of Object.entries(actions)) byId(id).addEventListener("click", act);
    byId("form").addEventListener("submit", (event) => {
        event.preventDefault();
        paint();
    });
    byId("form").addEventListener("input", () => {
        sessionStorage.setItem(DRAFT, JSON.stringify(form.state()));
        edited = null;
    });
    addEventListener("keydown", (event) => {
        const isPaint = event.key === "Enter" && (event.ctrlKey || event.metaKey);
        if (isPaint && !document.querySelector("dialog[open]")) paint();
    });
}

startTheme();
startCode();
startKeys(load);
startTools(stage, () => {
    stage.removePicture();
    edit();
});
startSources({ onpicture: takePicture, onmask: takeMask, onreference: takeReference });
listen();
history.onHistory(showHistory);
showHistory();
show();
load();
setTimeout(relist, RELIST_MS);
