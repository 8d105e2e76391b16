// The picture that is worked on, with its mask: zoom, pan, and the tools by mouse, finger, pen or
// keyboard. Changes of the mask are told by `onchange`.

import { Mask } from "./mask.js";
import { blank } from "./picture.js";

const MIN_SCALE = 0.05;
const MAX_SCALE = 16;
const MARGIN_PX = 12; // around a picture that fits
const SHADE = 0.62; // of the mask over the picture
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Stage {
    constructor(canvas, { onchange, say }) {
        this.canvas = canvas;
        this.context = canvas.getContext("2d");
        this.onchange = onchange;
        this.say = say; // to screen readers
        this.picture = null;
        this.mask = null;
        this.isMasking = true;
        this.preview = null; // what the server has painted so far
        this.tool = { name: "brush", size: 64, hardness: 1 };
        this.view = { scale: 1, x: 0, y: 0 };
        this.cursor = null; // in pixels of the picture
        this.isFitted = true;
        this.outline = []; // of the rectangle or lasso that is being drawn
        this.isDown = false;
        this.pointers = new Map();
        new ResizeObserver(() => (this.isFitted ? this.fit() : this.draw())).observe(canvas);
        this.listen();
    }

    // A new picture gets an empty mask, unless its size is that of the old one and it is told to keep.
    setPicture(picture, { keepMask = false } = {}) {
        const isSame =
            this.mask &&
            picture.width === this.mask.canvas.width &&
            picture.height === this.mask.canvas.height;
        if (!keepMask || !isSame) this.mask = new Mask(picture.width, picture.height);
        this.picture = picture;
        this.isStale = true;
        this.preview = null;
        this.cursor = null;
        this.fit();
        this.onchange();
    }

    removePicture() {
        this.picture = this.mask = this.preview = null;
        this.onchange();
    }

    // Whether a preview can be laid over the picture; what grows has another shape.
    hasShapeOf({ width, height }) {
        if (!this.picture) return false;
        const change = (width * this.picture.height) / (height * this.picture.width);
        return Math.abs(change - 1) < 0.05; // previews are small, and rounded
    }

    setPreview(picture) {
        this.preview = picture;
        this.draw();
    }

    // What is shown has another size or another kind of use.
    changedView() {
        if (this.isFitted) this.fit();
        else this.draw();
    }

    change(operation) {
        this.mask.add(operation);
        this.changed();
    }

    undo() {
        this.mask?.undo();
        this.changed();
    }

    redo() {
        this.mask?.redo();
        this.changed();
    }

    changed() {
        this.isStale = true;
        this.draw();
        this.onchange();
    }

    fit() {
        this.isFitted = true;
        if (!this.picture) return;
        const { clientWidth: width, clientHeight: height } = this.canvas;
        const { width: w, height: h } = this.picture;
        const scale = Math.min((width - 2 * MARGIN_PX) / w, (height - 2 * MARGIN_PX) / h);
        this.view = {
            scale: bounded(scale),
            x: (width - w * scale) / 2,
            y: (height - h * scale) / 2,
        };
        this.draw();
    }

    // Zooms around a point of the canvas, by default its middle.
    zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
        const scale = bounded(this.view.scale * factor);
        const change = scale / this.view.scale;
        this.view = { scale, x: x - (x - this.view.x) * change, y: y - (y - this.view.y) * change };
        this.isFitted = false;
        this.draw();
    }

    pan(byX, byY) {
        this.view.x += byX;
        this.view.y += byY;
        this.isFitted = false;
        this.draw();
    }

    // --- drawing -------------------------------------------------------------------------------

    draw() {
        cancelAnimationFrame(this.frame);
        this.frame = requestAnimationFrame(() => this.paint());
    }

    paint() {
        const ratio = devicePixelRatio || 1;
        const { clientWidth: width, clientHeight: height } = this.canvas;
        if (this.canvas.width !== Math.round(width * ratio))
            this.canvas.width = Math.round(width * ratio);
        if (this.canvas.height !== Math.round(height * ratio)) {
            this.canvas.height = Math.round(height * ratio);
        }
        const { context } = this;
        context.setTransform(1, 0, 0, 1, 0, 0);
        context.clearRect(0, 0, this.canvas.width, this.canvas.height);
        if (!this.picture) return;
        const { scale, x, y } = this.view;
        context.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
        context.imageSmoothingEnabled = scale < 3;
        context.drawImage(
            this.preview ?? this.shown(),
            0,
            0,
            this.picture.width,
            this.picture.height,
        );
        if (this.isMasking && !this.preview) this.paintTool();
    }

    // The picture under its mask, in colour: darkened by the mask, then lit by the accent.
    shown() {
        if (!this.isMasking) return this.picture;
        if (!this.isStale) return this.layers[0];
        const { width, height } = this.picture;
        this.layers ??= [blank(1, 1), blank(1, 1)];
        const [sum, part] = this.layers.map((canvas) => {
            canvas.width = width; // clears it
            canvas.height = height;
            return canvas.getContext("2d");
        });
        const mask = this.mask.canvas;
        const blend = (context, mode, alpha, source) => {
            context.globalCompositeOperation = mode;
            context.globalAlpha = alpha;
            if (typeof source === "string") {
                context.fillStyle = source;
                context.fillRect(0, 0, width, height);
            } else context.drawImage(source, 0, 0, width, height);
        };
        blend(part, "source-over", 1, "#fff");
        blend(part, "difference", SHADE, mask);
        blend(sum, "source-over", 1, this.picture);
        blend(sum, "multiply", 1, part.canvas);
        blend(part, "source-over", 1, mask);
        blend(part, "multiply", 1, accent(this.canvas));
        blend(sum, "lighter", SHADE, part.canvas);
        this.isStale = false;
        return sum.canvas;
    }

    paintTool() {
        const { context, cursor, tool, view } = this;
        context.lineWidth = 1.5 / view.scale;
        if (this.outline.length > 1) this.paintOutline();
        if (!cursor || tool.name === "hand") return;
        for (const [colour, inset] of [
            ["#000c", 0],
            ["#fffc", 1.5 / view.scale],
        ]) {
            context.strokeStyle = colour;
            context.beginPath();
            if (tool.name === "brush" || tool.name === "eraser") {
                context.arc(...cursor, Math.max(0.5, tool.size / 2 - inset), 0, 7);
            } else {
                const arm = 9 / view.scale;
                const [x, y] = [cursor[0] + inset, cursor[1] + inset];
                context.moveTo(x - arm, y);
                context.lineTo(x + arm, y);
                context.moveTo(x, y - arm);
                context.lineTo(x, y + arm);
            }
            context.stroke();
        }
    }

    paintOutline() {
        const { context, outline, view } = this;
        const points = this.tool.name === "rectangle" ? corners(outline) : outline;
        for (const [colour, offset] of [
            ["#000", 0],
            ["#fff", 5],
        ]) {
            context.setLineDash([5 / view.scale, 5 / view.scale]);
            context.lineDashOffset = offset / view.scale;
            context.strokeStyle = colour;
            context.beginPath();
            for (const point of points) context.lineTo(...point);
            context.closePath();
            context.stroke();
        }
        context.setLineDash([]);
    }

    // --- tools ---------------------------------------------------------------------------------

    toPicture(x, y) {
        return [(x - this.view.x) / this.view.scale, (y - this.view.y) / this.view.scale];
    }

    down(point, erase = false) {
        this.isDown = true;
        const { name, size, hardness } = this.tool;
        this.erase = erase || name === "eraser";
        if (name === "brush" || name === "eraser") {
            this.change({ kind: "stroke", size, hardness, erase: this.erase, points: [point] });
        } else this.outline = [point];
    }

    move(point) {
        this.cursor = point;
        if (!this.isDown) return;
        if (this.outline.length === 0) {
            this.mask.extend(point);
            this.isStale = true;
        } else if (this.tool.name === "rectangle") this.outline = [this.outline[0], point];
        else this.outline.push(point);
    }

    up() {
        if (!this.isDown) return;
        this.isDown = false;
        if (this.outline.length > 1) {
            this.change({ kind: this.tool.name, erase: this.erase, points: this.outline });
        }
        this.outline = [];
        this.changed();
    }

    // Forget what has been drawn since the pointer went down.
    abandon() {
        if (!this.isDown) return;
        this.isDown = false;
        if (this.outline.length === 0) this.mask.drop();
        this.outline = [];
        this.changed();
    }

    // --- input ---------------------------------------------------------------------------------

    listen() {
        const { canvas } = this;
        const on = (name, listener, more) =>
            canvas.addEventListener(name, listener.bind(this), more);
        on("pointerdown", this.onPointerDown);
        on("pointermove", this.onPointerMove);
        on("pointerup", this.onPointerUp);
        on("pointercancel", (event) => {
            this.abandon();
            this.onPointerUp(event);
        });
        on("pointerleave", () => {
            if (!this.isDown) this.cursor = null;
            this.draw();
        });
        on("wheel", this.onWheel, { passive: false });
        on("keydown", this.onKey);
        on("blur", () => {
            this.up();
            this.cursor = null;
            this.draw();
        });
        on("contextmenu", (event) => event.preventDefault());
        // Else a finger that is lifted in movement begins a fling, though nothing scrolls here, and
        // Chromium takes the next tap, wherever it is, for what stops it.
        on("touchmove", (event) => event.preventDefault(), { passive: false });
    }

    onPointerDown(event) {
        if (!this.picture) return;
        this.canvas.setPointerCapture(event.pointerId);
        this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
        if (this.pointers.size === 2)
            this.abandon(); // two fingers zoom
        else if (this.pointers.size === 1 && this.paints(event)) {
            this.cursor = this.toPicture(event.offsetX, event.offsetY);
            this.down(this.cursor, event.button === 5);
        }
        this.draw();
    }

    paints(event) {
        const isPen = event.button === 0 || event.button === 5; // 5: the other end of a pen
        return this.isMasking && !this.preview && this.tool.name !== "hand" && isPen;
    }

    onPointerMove(event) {
        if (!this.picture) return;
        const before = this.pointers.get(event.pointerId);
        const at = [event.offsetX, event.offsetY];
        if (before && this.pointers.size === 2) this.pinch(event.pointerId, before, at);
        else if (before && !this.isDown) this.pan(at[0] - before[0], at[1] - before[1]);
        else {
            const moves = event.getCoalescedEvents?.() ?? [];
            for (const each of moves.length > 0 ? moves : [event]) {
                this.move(this.toPicture(each.offsetX, each.offsetY));
            }
        }
        if (before) this.pointers.set(event.pointerId, at);
        this.draw();
    }

    onPointerUp(event) {
        this.pointers.delete(event.pointerId);
        this.up();
        if (event.pointerType === "touch") this.cursor = null;
        this.draw();
    }

    pinch(id, before, at) {
        const [other] = [...this.pointers]
            .filter(([each]) => each !== id)
            .map(([, point]) => point);
        const gap = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
        this.pan((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
        this.zoom(gap(at) / gap(before), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
    }

    onWheel(event) {
        if (!this.picture) return;
        event.preventDefault();
        if (event.shiftKey) this.pan(-event.deltaY, 0);
        else this.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    }

    onKey(event) {
        if (!this.picture || event.ctrlKey || event.metaKey || event.altKey) return;
        const keys = {
            " ": () => this.pressKeyboardPen(),
            Enter: () => this.pressKeyboardPen(),
            Escape: () => this.abandon(),
            "+": () => this.zoom(1.25),
            "-": () => this.zoom(0.8),
            0: () => this.fit(),
        };
        const act = event.key in ARROWS ? () => this.step(event) : keys[event.key];
        if (!act) return;
        event.preventDefault();
        act();
        this.draw();
    }

    step(event) {
        const [x, y] = ARROWS[event.key];
        const { width, height } = this.picture;
        if (this.tool.name === "hand" || !this.isMasking) {
            this.pan(-x * 40, -y * 40);
            return;
        }
        const length = event.shiftKey ? 64 : 8;
        const [fromX, fromY] = this.cursor ?? [width / 2, height / 2];
        const to = (from, by, end) => Math.min(end, Math.max(0, from + by * length));
        this.move([to(fromX, x, width), to(fromY, y, height)]);
    }

    // With the keyboard the pen goes down with one press and up with the next.
    pressKeyboardPen() {
        if (!this.isMasking || this.preview || this.tool.name === "hand") return;
        this.cursor ??= [this.picture.width / 2, this.picture.height / 2];
        if (this.isDown) {
            this.up();
            this.say("Pen up.");
        } else {
            this.down(this.cursor);
            this.say("Pen down. Move it with the arrow keys.");
        }
    }
}

const bounded = (scale) => Math.min(MAX_SCALE, Math.max(MIN_SCALE, scale));
const accent = (element) => getComputedStyle(element).getPropertyValue("--mask").trim();
const corners = ([[x, y], [toX, toY]]) => [
    [x, y],
    [toX, y],
    [toX, toY],
    [x, toY],
];
