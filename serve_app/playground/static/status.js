// The operator's view: the numbers of `dreamserve top`, refreshed.

import { adminKey, getJson } from "./api.js";
import { byId, make } from "./dom.js";
import { startTheme } from "./theme.js";

const REFRESH_MS = 5000;
let timer = null;

const share = (value) => (value === null ? "–" : `${Math.round(value * 100)} %`);
const fixed = (digits) => (value) => value.toFixed(digits);
const whole = (value) => String(value);

// title, field of the overview, columns: [heading, value of a row, isBad of a row].
const TABLES = [
    [
        "Models",
        "models",
        [
            ["Model", (row) => row.model_id],
            ["Replicas", (row) => row.replicas],
            ["Open jobs", (row) => row.open_jobs],
            ["Waiting", (row) => row.waiting],
            ["At work", (row) => row.at_work],
            ["Rows per forward", (row) => fixed(1)(row.rows_per_forward)],
            ["Steps/s", (row) => fixed(1)(row.steps_per_s)],
            ["Pictures/s", (row) => fixed(2)(row.pictures_per_s)],
            ["Step", (row) => `${Math.round(row.tick_s * 1000)} ms`],
            ["Made", (row) => row.made],
            ["Failed", (row) => row.failed, (row) => row.failed > 0],
        ],
    ],
    [
        "Deployments",
        "deployments",
        [
            ["Deployment", (row) => row.name],
            ["Replicas", (row) => row.healthy, (row) => row.healthy < row.wanted],
            ["Wanted", (row) => row.wanted],
            ["At work", (row) => row.at_work],
            ["Queued", (row) => row.queued],
        ],
    ],
    [
        "Nodes",
        "nodes",
        [
            ["Node", (row) => row.address],
            ["CPU", (row) => share(row.cpu)],
            ["Memory", (row) => share(row.memory)],
            ["GPU", (row) => share(row.gpu)],
            ["Disk", (row) => share(row.disk)],
        ],
    ],
    [
        "Last errors",
        "failures",
        [
            ["When", (row) => new Date(row.finished_at * 1000).toLocaleString()],
            ["Job", (row) => row.id],
            ["Model", (row) => row.model_id],
            ["Reason", (row) => row.reason],
            ["Message", (row) => row.message],
        ],
    ],
];
const NONE = {
    failures: "None among the jobs that ended last.",
    models: "No figures yet. They come some seconds after the start.",
};

function show(seen) {
    byId("enter").hidden = true;
    byId("overview").hidden = byId("leave").hidden = false;
    byId("stale").hidden = true;
    const facts = [
        ["Service", seen.status],
        ["Pictures per second", fixed(2)(seen.pictures_per_s)],
        ["Open jobs", whole(seen.open_jobs)],
        ["Oldest job", `${Math.round(seen.oldest_job_s)} s`],
    ];
    if (seen.silent_nodes > 0) facts.push(["Silent nodes", whole(seen.silent_nodes)]);
    byId("facts").replaceChildren(
        ...facts.map(([name, value]) =>
            make("li", {}, make("span", { class: "hint" }, name), make("strong", {}, value)),
        ),
    );
    byId("tables").replaceChildren(...TABLES.flatMap((table) => draw(table, seen)));
    byId("when").textContent =
        `As of ${new Date().toLocaleTimeString()}, every ${REFRESH_MS / 1000} s.`;
}

function draw([title, field, columns], seen) {
    const rows = seen[field];
    if (rows.length === 0) {
        return field in NONE
            ? [make("h2", {}, title), make("p", { class: "hint" }, NONE[field])]
            : [];
    }
    const head = make("tr", {}, ...columns.map(([name]) => make("th", { scope: "col" }, name)));
    const body = rows.map((row) =>
        make(
            "tr",
            {},
            ...columns.map(([, value, isBad], at) =>
                make(
                    at === 0 ? "th" : "td",
                    { scope: at === 0 ? "row" : null, class: isBad?.(row) ? "bad" : null },
                    String(value(row)),
                ),
            ),
        ),
    );
    const table = make(
        "table",
        { class: field },
        make("thead", {}, head),
        make("tbody", {}, ...body),
    );
    return [
        make("h2", {}, title),
        make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, table),
    ];
}

async function refresh() {
    clearTimeout(timer);
    try {
        show(await getJson("admin/overview", { secret: adminKey.get() }));
    } catch (error) {
        if (["invalid_key", "no_such_call", "rate_limited"].includes(error.reason)) {
            enter(PROBLEMS[error.reason] ?? error.message);
            return;
        }
        byId("stale").textContent = `${error.message} These figures are old.`;
        byId("stale").hidden = false;
    }
    timer = setTimeout(refresh, REFRESH_MS);
}

const PROBLEMS = {
    invalid_key: "This is not the admin key.",
    no_such_call: "This server has no admin key, so nobody may look. Set auth.admin_key.",
    rate_limited: "Too many wrong keys came from this address. Wait a minute.",
};

function enter(problem) {
    adminKey.clear();
    byId("overview").hidden = byId("leave").hidden = true;
    byId("enter").hidden = false;
    byId("problem").textContent = problem;
    byId("key").focus();
}

startTheme();
byId("enter").addEventListener("submit", (event) => {
    event.preventDefault();
    adminKey.set(byId("key").value);
    byId("key").value = "";
    refresh();
});
byId("leave").addEventListener("click", () => {
    clearTimeout(timer);
    enter("");
});
if (adminKey.get()) refresh();
else enter("");
