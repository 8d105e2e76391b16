"""Pictures that grow, over real HTTP on a real Ray cluster."""

import numpy as np
import pytest

from tests.serve.test_inpaint import INPAINT, data_uri, init_image, painted

pytestmark = pytest.mark.ray

SIDE, OVERLAP = 64, 16  # of the model, of the old picture that joins on
HELPER = "/api/v6/image_editing/outpaint"
BASE = {
    "key": "",
    "model_id": "tiny",
    "prompt": "a cat",
    "overlap_width": OVERLAP,
    "safety_checker": "no",
    "seed": 7,
}
CALLS = {
    "helper": (HELPER, {"anchor": "left", "width": 256, "height": 256, "num_inference_steps": 3}),
    "windows": (INPAINT, {"outpaint": {"right": 2 * SIDE}, "steps": 3}),
}
KEYS = {"status", "generationTime", "id", "output", "webhook_status", "meta"}


@pytest.mark.parametrize("name", CALLS)
async def test_picture_grows_to_twice_the_width_and_stays_what_it_was(http, name):
    path, fields = CALLS[name]
    old = init_image(256, 2 * SIDE)
    answer = (await http.post(path, json=BASE | fields | {"init_image": data_uri(old)})).json()
    assert answer["status"] == "success", answer
    assert answer.keys() >= KEYS
    meta = answer["meta"]
    assert (meta["W"], meta["H"], meta["seed"], meta["steps"]) == (4 * SIDE, 256, 7, 3)
    picture = await painted(http, answer)
    assert picture.size == (4 * SIDE, 256)
    after, before = np.asarray(picture.convert("RGB")), np.asarray(old)
    kept, edge = 2 * SIDE - OVERLAP, 2 * SIDE
    assert (after[:, :kept] == before[:, :kept]).all()
    is_new = (after[:, edge:] != before[:, -1:]).any(2)
    assert is_new.mean() > 0.98
    assert is_new.mean(0).min() > 0.5, "no column was left out"
