// Pictures to begin with, drawn here: scenes of the shapes that the demo models know.

import { blank } from "./picture.js";

const SIDE = 512;
const COLOURS = {
    blue: ["#78a0ee", "#678fdc"],
    green: ["#7cc08a", "#62a872"],
    yellow: ["#f4d77a", "#e6c35c"],
    pink: ["#f3a9c4", "#e48fae"],
};

export const EXAMPLES = [
    {
        name: "Shapes on blue",
        prompt: "a big green triangle on a blue background",
        background: "blue",
        shapes: [
            ["circle", 256, 184, 82, "#ffffff", "#edece8"],
            ["triangle", 88, 410, 70, "#e23b3b", "#d42f2f"],
            ["diamond", 256, 404, 64, "#fb87b8", "#ef7cab"],
            ["square", 425, 410, 60, "#ff9428", "#ee8414"],
        ],
    },
    {
        name: "Red circle on yellow",
        prompt: "a big blue star on a yellow background",
        background: "yellow",
        shapes: [["circle", 256, 256, 120, "#e6453f", "#cf3630"]],
    },
    {
        name: "Square on green",
        prompt: "a small white circle on a green background",
        background: "green",
        shapes: [
            ["square", 160, 300, 96, "#6a4bd0", "#5b3fbd"],
            ["circle", 370, 210, 70, "#fff4d6", "#f1e3bb"],
        ],
    },
];

export function drawExample({ background, shapes }) {
    const canvas = blank(SIDE, SIDE);
    const context = canvas.getContext("2d");
    context.fillStyle = gradient(context, 0, SIDE, ...COLOURS[background]);
    context.fillRect(0, 0, SIDE, SIDE);
    context.shadowColor = "rgb(0 0 0 / 28%)";
    context.shadowBlur = 16;
    context.shadowOffsetY = 8;
    for (const [shape, x, y, radius, top, bottom] of shapes) {
        context.fillStyle = gradient(context, y - radius, y + radius, top, bottom);
        context.beginPath();
        OUTLINES[shape](context, x, y, radius);
        context.fill();
    }
    return canvas;
}

function gradient(context, from, to, first, second) {
    const colours = context.createLinearGradient(0, from, 0, to);
    colours.addColorStop(0, first);
    colours.addColorStop(1, second);
    return colours;
}

const OUTLINES = {
    circle: (context, x, y, radius) => context.arc(x, y, radius, 0, 7),
    square: (context, x, y, radius) => context.rect(x - radius, y - radius, 2 * radius, 2 * radius),
    triangle: (context, x, y, radius) => polygon(context, x, y, radius * 1.15, 3),
    diamond: (context, x, y, radius) => polygon(context, x, y, radius, 4),
};

function polygon(context, x, y, radius, corners) {
    for (let corner = 0; corner < corners; corner += 1) {
        const angle = (corner / corners) * 2 * Math.PI - Math.PI / 2;
        context.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
    }
}
