"""`PoseHints`: how people stand, from two transformers models: one finds them, one their joints."""

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoModelForObjectDetection,
    BaseImageProcessor,
    PreTrainedModel,
    VitPoseForPoseEstimation,
)

from serve_app.pipelines.hints import skeleton
from serve_app.pipelines.hints.hint_model import HintModel, finite, load

__all__ = ["PoseHints"]

_SURE_PERSON, _SURE_JOINT = 0.5, 0.3  # scores, as the documentation of ViTPose has them
_COCO = 0  # among the data sets that ViTPose+ has experts for


class PoseHints(HintModel):
    """Draws skeletons on black.

    Args:
        folder: of a ViTPose model and its image processor, with safetensors.
        people: of a model that detects persons, in the same form.
        max_people: of a picture, the surest first.
        device: that they run on.
    """

    setting = "pose"

    def __init__(self, folder: Path, people: Path, max_people: int, device: str) -> None:
        super().__init__(device)
        self._folder, self._people = folder, people
        self._max_people = max_people

    def _drawn(self, image: Image.Image) -> Image.Image:
        people = [self._joints(image, box) for box in self._boxes(image)]
        return skeleton.draw(people, image.size)

    def _boxes(self, image: Image.Image) -> NDArray[np.float32]:
        """Find people, the surest first, (n, 4): left, top, width, height."""
        model, processor = self._finder
        inputs = processor(images=image, return_tensors="pt").to(self.device)
        told = processor.post_process_object_detection(
            model(**inputs), threshold=_SURE_PERSON, target_sizes=[(image.height, image.width)]
        )[0]
        persons = [number for number, name in model.config.id2label.items() if _is_person(name)]
        is_person = torch.isin(told["labels"].cpu(), torch.tensor(persons))
        scores, boxes = told["scores"].cpu()[is_person], finite(told["boxes"].cpu()[is_person])
        best = boxes[scores.argsort(descending=True, stable=True)][: self._max_people].float()
        best[:, 2:] -= best[:, :2]
        return np.asarray(best)

    def _joints(self, image: Image.Image, box: NDArray[np.float32]) -> skeleton.Joints:
        """Find the joints of one person; one at a time, so that a crowd takes no more memory."""
        model, processor = self._poser
        boxes = [box[None]]
        inputs = processor(images=image, boxes=boxes, return_tensors="pt").to(self.device)
        if model.config.backbone_config.num_experts > 1:
            inputs["dataset_index"] = torch.tensor([_COCO], device=self.device)
        told = model(**inputs)
        finite(told.heatmaps)
        found = processor.post_process_pose_estimation(told, boxes=boxes)[0][0]
        is_seen = np.asarray(found["scores"]) > _SURE_JOINT
        return skeleton.joints(np.asarray(found["keypoints"]), is_seen)

    @functools.cached_property
    def _finder(self) -> tuple[PreTrainedModel, BaseImageProcessor]:
        model, processor = load(self._people, AutoModelForObjectDetection, self.device)
        if not any(_is_person(name) for name in model.config.id2label.values()):
            raise ValueError("the model of hints.people knows no person")
        return model, processor

    @functools.cached_property
    def _poser(self) -> tuple[PreTrainedModel, BaseImageProcessor]:
        model, processor = load(self._folder, VitPoseForPoseEstimation, self.device)
        if model.config.num_labels != skeleton.NUM_KEYPOINTS:
            raise ValueError(f"{model.config.num_labels} keypoints, not COCO's 17")
        return model, processor


def _is_person(name: str) -> bool:
    return name.lower() == "person"
