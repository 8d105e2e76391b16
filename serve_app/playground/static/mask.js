// What is to be repainted: white on black, as large as the picture. A list of operations, so that
// undo is to draw all but the last one anew.

import { blank } from "./picture.js";

const WHITE = "#fff";
const BLACK = "#000";

export class Mask {
    constructor(width, height) {
        this.canvas = blank(width, height);
        this.context = this.canvas.getContext("2d");
        this.operations = [];
        this.undone = [];
        this.redraw();
    }

    get canUndo() {
        return this.operations.length > 0;
    }

    get canRedo() {
        return this.undone.length > 0;
    }

    // Whether nothing would be repainted: the server splits at half.
    get isEmpty() {
        const { width, height } = this.canvas;
        const pixels = this.context.getImageData(0, 0, width, height).data;
        for (let at = 0; at < pixels.length; at += 4) if (pixels[at] > 127) return false;
        return true;
    }

    // {kind: "stroke", size, hardness, erase, points}, {kind: "rectangle" | "lasso", erase, points},
    // {kind: "invert" | "clear"} or {kind: "load", picture}; points are [x, y] in pixels.
    add(operation) {
        this.operations.push(operation);
        this.undone = [];
        draw(this.context, operation);
    }

    // Continues the stroke that was added last.
    extend(point) {
        const stroke = this.operations.at(-1);
        stroke.points.push(point);
        draw(this.context, { ...stroke, since: stroke.points.length - 1 });
    }

    // Takes the last operation back without a redo, as when two fingers turn out to zoom.
    drop() {
        this.operations.pop();
        this.redraw();
    }

    undo() {
        if (!this.canUndo) return;
        this.undone.push(this.operations.pop());
        this.redraw();
    }

    redo() {
        if (!this.canRedo) return;
        const operation = this.undone.pop();
        this.operations.push(operation);
        draw(this.context, operation);
    }

    redraw() {
        draw(this.context, { kind: "clear" });
        for (const operation of this.operations) draw(this.context, operation);
    }
}

function draw(context, operation) {
    context.save();
    DRAWERS[operation.kind](context, operation);
    context.restore();
}

const DRAWERS = {
    stroke(context, operation) {
        if (operation.hardness >= 1) hardStroke(context, operation);
        else softStroke(context, operation);
    },
    rectangle(context, { erase, points: [[x, y], [toX, toY]] }) {
        context.fillStyle = erase ? BLACK : WHITE;
        context.fillRect(Math.min(x, toX), Math.min(y, toY), Math.abs(toX - x), Math.abs(toY - y));
    },
    lasso(context, { erase, points }) {
        context.fillStyle = erase ? BLACK : WHITE;
        context.beginPath();
        for (const [x, y] of points) context.lineTo(x, y);
        context.fill();
    },
    invert(context) {
        context.globalCompositeOperation = "difference";
        fill(context, WHITE);
    },
    clear(context) {
        fill(context, BLACK);
    },
    load(context, { picture }) {
        fill(context, BLACK);
        context.drawImage(picture, 0, 0, context.canvas.width, context.canvas.height);
    },
};

function fill(context, colour) {
    context.fillStyle = colour;
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
}

// Segments from the point `since` on, each drawn for itself: what is drawn live and what is drawn
// anew after an undo have the same edges. The first one is a dot.
function* segments({ points, since = 0 }) {
    for (let at = since; at < points.length; at += 1)
        yield [points[Math.max(0, at - 1)], points[at]];
}

function hardStroke(context, operation) {
    context.strokeStyle = operation.erase ? BLACK : WHITE;
    context.lineWidth = operation.size;
    context.lineCap = "round";
    for (const [from, to] of segments(operation)) {
        context.beginPath();
        context.moveTo(...from);
        context.lineTo(...to);
        context.stroke();
    }
}

// Dabs of which the strongest counts, so that a stroke does not grow harder where it overlaps.
function softStroke(context, operation) {
    const { size, hardness, erase } = operation;
    context.globalCompositeOperation = erase ? "darken" : "lighten";
    for (const [[fromX, fromY], [x, y]] of segments(operation)) {
        const steps = Math.max(
            1,
            Math.ceil(Math.hypot(x - fromX, y - fromY) / Math.max(1, size / 12)),
        );
        for (let step = 1; step <= steps; step += 1) {
            const at = [fromX + ((x - fromX) * step) / steps, fromY + ((y - fromY) * step) / steps];
            dab(context, ...at, { radius: size / 2, hardness, erase });
        }
    }
}

function dab(context, x, y, { radius, hardness, erase }) {
    const gradient = context.createRadialGradient(x, y, radius * hardness * 0.999, x, y, radius);
    gradient.addColorStop(0, erase ? BLACK : WHITE);
    gradient.addColorStop(1, erase ? WHITE : BLACK);
    context.fillStyle = gradient;
    context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
}
