// Pictures of the user: read, made smaller where they are huge, and encoded for a request.

const MAX_SIDE = 2048; // results are at most 1024 wide, so more would only cost time
const MAX_BYTES = 14 * 2 ** 20; // in base64 a third more; the server's bodies end at 32 MiB
const HEIC = ["heic", "heix", "hevc", "heim", "heis", "mif1", "msf1"];

export class PictureError extends Error {}

// Returns {canvas, name, note}; maxSide: pixels; note says what was changed, "" if nothing was.
// Raises PictureError with words for the user.
export async function readPicture(blob, name = "picture", maxSide = MAX_SIDE) {
    if (blob.size === 0) throw new PictureError(`${name} is empty.`);
    let bitmap;
    try {
        bitmap = await createImageBitmap(blob);
    } catch {
        throw new PictureError(await whyUnreadable(blob, name));
    }
    const { width, height } = bitmap;
    const share = Math.min(1, maxSide / Math.max(width, height));
    const canvas = blank(
        Math.max(1, Math.round(width * share)),
        Math.max(1, Math.round(height * share)),
    );
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff"; // of what is transparent
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return { canvas, name, note: share < 1 ? shrunkNote(name, width, height, canvas) : "" };
}

function shrunkNote(name, width, height, canvas) {
    const megapixels = Math.max(1, Math.round((width * height) / 1e6));
    return (
        `${name} has ${megapixels} megapixels (${width} × ${height}). ` +
        `It was made smaller here in the browser: ${canvas.width} × ${canvas.height}.`
    );
}

async function whyUnreadable(blob, name) {
    const head = new Uint8Array(await blob.slice(0, 12).arrayBuffer());
    const text = String.fromCharCode(...head);
    if (text.slice(4, 8) === "ftyp" && HEIC.includes(text.slice(8, 12))) {
        return (
            `${name} is a HEIC photo, which this browser cannot read. Export it as JPEG, ` +
            "or set the camera to “Most compatible”."
        );
    }
    return `${name} cannot be read as a picture. PNG, JPEG and WebP work.`;
}

export function blank(width, height) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    return canvas;
}

export const toBlob = (canvas, type = "image/png", quality = undefined) =>
    new Promise((resolve) => canvas.toBlob(resolve, type, quality));

// Lossless where that is not too large. Without the file's own data, such as where it was taken.
export async function encode(canvas) {
    const png = await toBlob(canvas);
    return png.size <= MAX_BYTES ? png : toBlob(canvas, "image/jpeg", 0.95);
}

export const toDataUri = (blob) =>
    new Promise((resolve, reject) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result);
        reader.onerror = () => reject(reader.error);
        reader.readAsDataURL(blob);
    });

export async function fromBlob(blob) {
    const bitmap = await createImageBitmap(blob);
    const canvas = blank(bitmap.width, bitmap.height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    return canvas;
}
