"""Pose hints: OpenPose's skeletons of the people that one model finds, by the joints of another."""

import colorsys
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from serve_app import errors
from serve_app.images import codec
from serve_app.pipelines.hints import skeleton
from serve_app.pipelines.hints.pose import PoseHints

SIZE = (96, 64)
NORMAL = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def finder(names: dict[int, str], likely: int) -> transformers.PreTrainedModel:
    """Make a YOLOS that finds a class wherever it looks."""
    model = transformers.YolosForObjectDetection(
        transformers.YolosConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=[64, 96],
            patch_size=16,
            num_detection_tokens=4,
            id2label=names,
        )
    )
    with torch.no_grad():
        model.class_labels_classifier.layers[-1].bias[likely] = 5.0
    return model


def poser(**settings: object) -> transformers.PreTrainedModel:
    backbone = transformers.VitPoseBackboneConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=[64, 48],
        patch_size=[16, 16],
        out_features=["stage2"],
        **settings,
    )
    model = transformers.VitPoseForPoseEstimation(
        transformers.VitPoseConfig(
            backbone_config=backbone,
            use_simple_decoder=True,
            scale_factor=4,
            id2label={number: f"keypoint {number}" for number in range(17)},
        )
    )
    with torch.no_grad():
        model.head.conv.weight.mul_(4)
        model.head.conv.bias.add_(0.25)
        model.head.conv.bias[[5, 8, 16]] = -5.0  # which nobody sees
    return model


def written(model: transformers.PreTrainedModel, settings: dict[str, object], to: Path) -> Path:
    model.save_pretrained(to)
    (to / "preprocessor_config.json").write_text(json.dumps(settings | NORMAL))
    return to


FINDER = {"image_processor_type": "YolosImageProcessor", "size": {"height": 64, "width": 96}}
POSER = {"image_processor_type": "VitPoseImageProcessor", "size": {"height": 64, "width": 48}}
NAMES = {0: "person", 1: "bicycle"}


@pytest.fixture
def hints(tmp_path: Path) -> Callable[..., PoseHints]:
    def make(
        names: dict[int, str] = NAMES, likely: int = 0, most: int = 10, **settings: object
    ) -> PoseHints:
        torch.manual_seed(4)
        people = written(finder(names, likely), FINDER, tmp_path / "people")
        folder = written(poser(**settings), POSER, tmp_path / "pose")
        return PoseHints(folder, people, most, "cpu")

    return make


def picture() -> Image.Image:
    small = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)


def drawn(hints: PoseHints) -> np.ndarray:
    made = hints.draw(codec.encode(picture()))
    return np.asarray(codec.to_image(made))


@torch.inference_mode()
def stock(hints: PoseHints, most: int, **more: torch.Tensor) -> Image.Image:
    """Follow transformers' documentation of ViTPose, for all people at once."""
    find = transformers.pipeline("object-detection", model=str(hints._people), device="cpu")
    found = [one for one in find(picture(), threshold=0.5) if one["label"] == "person"]
    found = sorted(found, key=lambda one: -one["score"])[:most]
    model = transformers.VitPoseForPoseEstimation.from_pretrained(hints._folder)
    processor = transformers.AutoImageProcessor.from_pretrained(hints._folder)
    fine = transformers.AutoImageProcessor.from_pretrained(hints._people)
    finding = transformers.YolosForObjectDetection.from_pretrained(hints._people)
    told = finding(**fine(images=picture(), return_tensors="pt"))
    boxes = fine.post_process_object_detection(told, threshold=0.5, target_sizes=[SIZE[::-1]])[0]
    order = boxes["scores"].argsort(descending=True)[: len(found)]
    corners = boxes["boxes"][order].numpy()
    corners[:, 2:] -= corners[:, :2]
    inputs = processor(images=picture(), boxes=[corners], return_tensors="pt")
    people = processor.post_process_pose_estimation(
        model(**inputs, **{name: one.expand(len(corners)) for name, one in more.items()}),
        boxes=[corners],
    )[0]
    assert len(people) == most
    joints = [
        skeleton.joints(one["keypoints"].numpy(), one["scores"].numpy() > 0.3) for one in people
    ]
    assert 0 < sum(joint is not None for one in joints for joint in one) < 18 * most
    return skeleton.draw(joints, SIZE)


@pytest.mark.parametrize("most", [1, 4])
def test_skeletons_are_those_of_the_two_models(hints: Callable[..., PoseHints], most: int) -> None:
    made = hints(most=most)
    assert (drawn(made) == np.asarray(stock(made, most))).all()


def test_experts_for_people_are_asked(hints: Callable[..., PoseHints]) -> None:
    made = hints(most=2, num_experts=3, part_features=4)
    expected = stock(made, 2, dataset_index=torch.zeros(1, dtype=torch.long))
    assert (drawn(made) == np.asarray(expected)).all()


def test_who_is_nobody_is_not_drawn(hints: Callable[..., PoseHints]) -> None:
    assert not drawn(hints(likely=1)).any()


def test_finder_that_knows_no_person_fails_the_job(hints: Callable[..., PoseHints]) -> None:
    with pytest.raises(errors.GenerationFailed, match="knows no person"):
        drawn(hints(names={0: "cat", 1: "dog"}))


def test_neck_lies_between_the_shoulders() -> None:
    keypoints = np.arange(34, dtype=np.float32).reshape(17, 2)
    found = skeleton.joints(keypoints, np.ones(17, bool))
    assert found[1] == (11.0, 12.0)
    assert found[0] == (0.0, 1.0)  # the nose
    assert found[2] == (12.0, 13.0)  # the right shoulder
    assert found[5] == (10.0, 11.0)  # the left one
    without = skeleton.joints(keypoints, np.arange(17) != 5)
    assert without[1] is None
    assert without[5] is None


def test_joints_have_the_colours_of_a_circle_of_eighteen() -> None:
    """OpenPose's, by which nets were trained: hues twenty degrees apart."""
    places = [(20.0 + 28 * joint, 256.0) for joint in range(18)]
    for joint, place in enumerate(places):
        person: list[tuple[float, float] | None] = [None] * 18
        person[joint] = place
        made = np.asarray(skeleton.draw([person], (512, 512)))
        wanted = [255 * share for share in colorsys.hsv_to_rgb(joint / 18, 1, 1)]
        assert np.abs(made[256, int(place[0])] - wanted).max() < 0.5, joint


def test_limbs_and_joints_have_their_places_and_colours() -> None:
    person: list[tuple[float, float] | None] = [None] * 18
    person[1], person[2], person[3] = (300.0, 100.0), (200.0, 100.0), (200.0, 300.0)
    made = np.asarray(skeleton.draw([person], (512, 512)))
    assert tuple(made[100, 300]) == (255, 85, 0)  # neck
    assert tuple(made[100, 200]) == (255, 170, 0)  # right shoulder
    assert tuple(made[300, 200]) == (255, 255, 0)  # right elbow
    assert tuple(made[100, 250]) == (153, 0, 0)  # from neck to shoulder, at 0.6 of its colour
    assert tuple(made[200, 200]) == (153, 102, 0)  # upper arm
    assert [np.flatnonzero(made[200].any(1)).tolist()] == [list(range(196, 205))]
    assert np.flatnonzero(made[300].any(1)).tolist() == list(range(196, 205))
    half = np.asarray(skeleton.draw([[p and (p[0] / 2, p[1] / 2) for p in person]], (256, 256)))
    assert np.flatnonzero(half[100].any(1)).tolist() == list(range(98, 103))


@pytest.mark.parametrize(
    ("size", "radius"), [((1024, 512), 4), ((256, 1024), 2), ((64, 64), 1), ((48, 512), 1)], ids=str
)
def test_joints_are_as_wide_as_the_shorter_side_says(size: tuple[int, int], radius: int) -> None:
    """Four pixels of 512, as nets were trained, and never nothing."""
    person: list[tuple[float, float] | None] = [(24.0, 32.0), *[None] * 17]
    made = np.asarray(skeleton.draw([person], size))
    assert np.flatnonzero(made[32].any(1)).tolist() == list(range(24 - radius, 25 + radius))
    assert np.flatnonzero(made[:, 24].any(1)).tolist() == list(range(32 - radius, 33 + radius))
