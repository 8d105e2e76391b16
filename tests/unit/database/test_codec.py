"""Values to and from text."""

import json

import pytest

from serve_app import errors
from serve_app.database import codec
from serve_app.models.entry import read_entry
from serve_app.models.protocol import ReplicaPhase, ReplicaReport
from serve_app.types import GenerationSpec, JobRequest, JobResult, OutputPlan
from tests.builders import job_request, spec


@pytest.mark.parametrize("text", ["é😀", "a\0b", "\ud83d", '"\\', "\u2028"], ids=ascii)
def test_dump_is_ascii_and_load_reads_it_back(text):
    request = job_request(spec=spec(prompt=text), track_id={text: [text, 10**30, 0.1]})
    dumped = codec.dump(request)
    assert dumped.isascii()
    assert "\0" not in dumped
    assert codec.load(JobRequest, dumped) == request


@pytest.mark.parametrize(
    ("value", "name", "former"),
    [
        (job_request().model_copy(update={"call_id": "a"}), "call_id", "request_id"),
        (
            ReplicaReport(
                model_id="m", replica_id="r", weights_version=3, phase=ReplicaPhase.READY, serving=3
            ),
            "weights_version",
            "generation",
        ),
    ],
    ids=["call-id", "weights-version"],
)
def test_renamed_field_keeps_the_key_that_other_versions_read_and_wrote(value, name, former):
    stored = json.loads(codec.dump(value))
    assert stored[former] == getattr(value, name)
    assert name not in stored
    assert codec.load(type(value), json.dumps(stored)) == value


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"spec": 1}', "not json"])
def test_load_of_anything_else_is_a_value_error(text):
    with pytest.raises(ValueError):
        codec.load(JobRequest, text)


@pytest.mark.parametrize("text", ['{"a": "é"}', '{"a": "x\0y"}', '{"a": "\ud800"}'], ids=ascii)
def test_escape_makes_json_storable_and_keeps_its_meaning(text):
    escaped = codec.escape(text)
    assert codec.check_text("body", escaped) == escaped
    assert json.loads(escaped) == json.loads(text, strict=False)


@pytest.mark.parametrize("text", ["\0", "a\udfff"], ids=ascii)
def test_check_text_names_the_field(text):
    with pytest.raises(errors.InvalidRequest) as caught:
        codec.check_text("model_id", text)
    assert caught.value.field == "model_id"
    assert text not in caught.value.public_message


def test_request_that_asks_for_nothing_new_has_nothing_that_another_version_does_not_know():
    """Written are the fields without defaults, and those that differ."""
    stored = json.loads(codec.dump(job_request(spec=spec(upscale=2))))
    assert stored.keys() == {"spec", "output", "key_id", "base_url"}
    needed = {name for name, field in GenerationSpec.model_fields.items() if field.is_required()}
    assert stored["spec"].keys() == needed | {"upscale"}


def test_trace_of_a_request_is_not_in_what_the_version_before_has_to_read():
    """That refuses requests with fields that it does not know, and fails their jobs."""
    span = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    traced = job_request(traceparent=span)
    assert codec.dump(traced) == codec.dump(job_request())
    assert codec.load(JobRequest, codec.dump(traced)) == job_request()


def test_defaults_of_stored_requests_stay_as_they_are():
    """A row that leaves them out was written by any version, and means what it meant then."""
    defaults = {
        GenerationSpec: {
            "negative_prompt": "",
            "samples": 1,
            "guidance_scale": 7.5,
            "strength": 1.0,
            "use_karras_sigmas": False,
            "algorithm_type": None,
            "clip_skip": 1,
            "tomesd": False,
            "loras": (),
            "vae": None,
            "embeddings": (),
            "ip_adapter": None,
            "controlnets": (),
            "guess_mode": False,
            "control_start": 0.0,
            "control_end": 1.0,
            "foreign": "",
            "expand": False,
            "upscale": 1,
            "highres_fix": False,
            "self_attention": False,
            "panorama": False,
            "exclusive": False,
            "full_frame": False,
            "fit": None,
        },
        OutputPlan: {"base64": False, "temp": False},
        JobRequest: {"safety": None, "api": "v4", "call_id": "", "webhook": None, "track_id": None},
    }
    for kind, known in defaults.items():
        assert {name: kind.model_fields[name].default for name in known} == known


def test_what_a_later_version_adds_to_a_result_is_passed_over_and_to_a_request_is_not():
    result = JobResult(keys=("a",), nsfw=(False,), generation_time_s=1)
    later = json.loads(codec.dump(result)) | {"next": 1, "cost": {"row_steps": 5, "joules": 7}}
    assert codec.load(JobResult, json.dumps(later)).cost.row_steps == 5
    asked = json.loads(codec.dump(job_request())) | {"next": 1}
    with pytest.raises(ValueError):
        codec.load(JobRequest, json.dumps(asked))


def test_entry_keeps_only_what_its_operator_wrote():
    """What it leaves out follows the defaults, those of later versions too."""
    fields = {"id": "a", "source": "a", "kinds": ["inpaint"], "serve": {"num_gpus": 1}}
    assert json.loads(codec.dump_entry(read_entry(fields))) == fields
