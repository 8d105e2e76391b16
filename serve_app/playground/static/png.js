// Text in PNG files, as the A1111 web UI stores its parameters: tEXt, or iTXt beyond Latin-1.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const HEADER_END = 8 + 25; // the signature, then IHDR

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
    let rest = byte;
    for (let bit = 0; bit < 8; bit += 1) rest = rest & 1 ? (rest >>> 1) ^ 0xedb88320 : rest >>> 1;
    return rest;
});

export const isPng = (bytes) => SIGNATURE.every((byte, at) => bytes[at] === byte);

// Returns [width, height], as the header says. bytes: Uint8Array of a PNG.
export function sizeOf(bytes) {
    const header = new DataView(bytes.buffer, bytes.byteOffset);
    return [header.getUint32(16), header.getUint32(20)];
}

// Returns the file with a text after its header. bytes: Uint8Array of a PNG.
export function withText(bytes, keyword, text) {
    const chunk = textChunk(keyword, text);
    const whole = new Uint8Array(bytes.length + chunk.length);
    whole.set(bytes.subarray(0, HEADER_END));
    whole.set(chunk, HEADER_END);
    whole.set(bytes.subarray(HEADER_END), HEADER_END + chunk.length);
    return whole;
}

function textChunk(keyword, text) {
    const codes = [...text].map((sign) => sign.codePointAt(0));
    if (codes.every((code) => code < 256)) return chunk("tEXt", [...ascii(keyword), 0, ...codes]);
    // Not compressed, no language, no translated keyword.
    return chunk("iTXt", [...ascii(keyword), 0, 0, 0, 0, 0, ...new TextEncoder().encode(text)]);
}

const ascii = (text) => [...text].map((sign) => sign.charCodeAt(0));

function chunk(type, data) {
    const bytes = new Uint8Array(12 + data.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, data.length);
    bytes.set(ascii(type), 4);
    bytes.set(data, 8);
    view.setUint32(8 + data.length, crc(bytes.subarray(4, 8 + data.length)));
    return bytes;
}

function crc(bytes) {
    let value = 0xffffffff;
    for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
    return (value ^ 0xffffffff) >>> 0;
}
