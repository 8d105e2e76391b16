// The picture that an IP adapter shows to the model beside the prompt.

import { byId } from "./dom.js";

export class Reference {
    constructor() {
        this.picture = null; // a canvas
    }

    set(canvas) {
        this.picture = canvas;
        byId("reference-picture").src = canvas.toDataURL("image/jpeg", 0.85);
        byId("reference-picture").hidden = false;
        byId("reference-name").textContent = "Choose another picture for the adapter";
    }
}
