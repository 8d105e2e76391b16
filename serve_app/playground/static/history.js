// Results of this browser, in IndexedDB. Keys are never among what is kept.

const NAME = "dreamserve";
const STORE = "results";
const MAX_ENTRIES = 60;

let opening = null;

function open() {
    opening ??= new Promise((resolve, reject) => {
        const asked = indexedDB.open(NAME, 1);
        asked.onupgradeneeded = () =>
            asked.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
        asked.onsuccess = () => resolve(asked.result);
        asked.onerror = () => reject(asked.error);
    });
    return opening;
}

async function inStore(mode, act) {
    const transaction = (await open()).transaction(STORE, mode);
    const asked = act(transaction.objectStore(STORE));
    return new Promise((resolve, reject) => {
        transaction.oncomplete = () => resolve(asked?.result);
        transaction.onabort = () => reject(transaction.error);
        transaction.onerror = () => reject(transaction.error);
    });
}

// Tells this and other tabs when something was kept or removed.
const channel = new BroadcastChannel("dreamserve.history");
const listeners = new Set();
channel.onmessage = () => listeners.forEach((listener) => listener());
export const onHistory = (listener) => listeners.add(listener);

function told(result) {
    channel.postMessage("changed");
    listeners.forEach((listener) => listener());
    return result;
}

// entry: {id, at, job, mode, path, fields, form, meta, before: Blob | null, mask: Blob | null,
// reference: Blob | null, pictures: [{blob, link}], none while it is painted}. Without an id it is new. Returns its id.
export async function put(entry) {
    const id = await inStore("readwrite", (store) => store.put(entry));
    const ids = await inStore("readonly", (store) => store.getAllKeys());
    for (const old of ids.slice(0, Math.max(0, ids.length - MAX_ENTRIES))) await drop(old);
    return told(id);
}

export const get = (id) => inStore("readonly", (store) => store.get(id));

// The latest first; none where the browser keeps nothing.
export async function recent() {
    const entries = await inStore("readonly", (store) => store.getAll()).catch(() => []);
    return entries.sort((a, b) => b.id - a.id);
}

const drop = (id) => inStore("readwrite", (store) => store.delete(id));
export const remove = async (id) => told(await drop(id));
export const removeAll = async () => told(await inStore("readwrite", (store) => store.clear()));
