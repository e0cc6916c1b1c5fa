"""Requests to a server are retried, and its answers are never lost."""

import pytest
from asking import picture, silent
from chat_server import NAME, serving
from PIL import Image

from mmq.contracts import GenerationConfig, Request, VisionLanguageModel
from mmq.errors import InputError
from mmq.models import chat_endpoint
from mmq.models.chat_endpoint import ChatEndpoint, EndpointError, connect

GREEDY = GenerationConfig(max_new_tokens=7)
REQUESTS = [
    Request((picture(Image.new("RGB", (8, 8), (k, 0, 0))),), f"question {k}", str(k))
    for k in range(6)
]


class Echo(VisionLanguageModel):
    """Answers with the prompt and the redness of the picture."""

    def generate(self, requests, config, progress):
        return [f"{r.prompt} {r.images[0].open().getpixel((0, 0))[0]}" for r in requests]


EXPECTED = [f"question {k} {k}" for k in range(6)]


def ask(served, requests=REQUESTS, config=GREEDY, **settings):
    model = connect(served.address, **{"first_wait": 0.001, "timeout": 300.0} | settings)
    return model.generate(requests, config, silent)


def test_answers_come_in_the_order_of_the_requests_with_pictures_and_decoding():
    with serving(Echo()) as served:
        assert ask(served, concurrency=3) == EXPECTED
    assert all(body["model"] == NAME for body in served.requests)
    assert {body["max_tokens"] for body in served.requests} == {7}
    assert {body["temperature"] for body in served.requests} == {0}
    assert "min_tokens" not in served.requests[0]


def test_a_system_prompt_and_template_variables_reach_the_server():
    with serving(Echo()) as served:
        ask(served, REQUESTS[:1])
        settings = {"system_prompt": "Be brief.", "template": {"enable_thinking": False}}
        assert ask(served, REQUESTS[:1], **settings) == EXPECTED[:1]
    plain, body = served.requests
    assert [m["role"] for m in plain["messages"]] == ["user"]
    assert "chat_template_kwargs" not in plain
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize("fault", [429, 500, 503, "cut", "empty"])
def test_temporary_failures_are_retried(fault):
    with serving(Echo(), [fault] * 4) as served:
        assert ask(served, retries=4) == EXPECTED
        assert len(served.requests) == 10


def reply(monkeypatch, **message):
    """What an endpoint returns for a server's message."""
    model = ChatEndpoint("http://127.0.0.1:1/v1", "any", retries=0)
    response = {"choices": [{"message": message}]}
    monkeypatch.setattr(chat_endpoint, "call", lambda *request: response)
    return model.generate(REQUESTS[:2], GREEDY, silent)


def test_a_text_in_parts_is_joined_and_other_content_is_refused(monkeypatch):
    parts = [
        {"type": "text", "text": "a "},
        {"type": "image_url"},
        {"type": "text", "text": "cat"},
    ]
    assert reply(monkeypatch, content=parts) == ["a cat"] * 2
    with pytest.raises(EndpointError, match="a response without text: .*'content': 7"):
        reply(monkeypatch, content=7)


def test_reasoning_without_an_answer_is_reported_once(monkeypatch, caplog):
    assert reply(monkeypatch, content=None, reasoning_content="I see") == ["", ""]
    assert caplog.text.count("The token limit cut the model's reasoning") == 1
    caplog.clear()
    assert reply(monkeypatch, content="red", reasoning_content="I see") == ["red"] * 2
    assert not caplog.text


def test_a_request_to_a_hanging_server_is_retried():
    with serving(Echo(), ["hang"]) as served:
        assert ask(served, timeout=0.5, retries=100) == EXPECTED


def test_a_refusal_is_not_repeated():
    with serving(Echo(), [400]) as served:
        with pytest.raises(EndpointError, match="responds with HTTP 400: .*not now"):
            ask(served, REQUESTS[:1])
        assert len(served.requests) == 1


def test_answers_before_an_error_are_saved():
    with serving(Echo(), [None, None, 500, 500]) as served:
        model = connect(served.address, retries=1, concurrency=1, first_wait=0.001)
        with pytest.raises(EndpointError, match="no answer to sample '2' in 2 attempts .HTTP 500"):
            model.generate(REQUESTS, GREEDY, silent)
    assert {k: model.finished[k] for k in ("0", "1")} == dict(zip("01", EXPECTED, strict=False))
    assert "2" not in model.finished


def test_beams_are_refused_before_any_request():
    with serving(Echo()) as served:
        with pytest.raises(InputError, match="num_beams: 5, but servers decode greedily"):
            ask(served, config=GenerationConfig(max_new_tokens=7, num_beams=5))
        assert not served.requests


def test_the_key_of_the_environment_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame-open")
    with serving(Echo()) as served:
        ask(served, REQUESTS[:1])
    assert served.keys == ["Bearer sesame-open"]


def test_an_unreachable_server_and_a_missing_model_are_named():
    with serving(Echo()) as served:
        with pytest.raises(EndpointError, match=f"does not serve 'other'; it serves .*{NAME}"):
            connect(served.address, "other")
        assert connect(served.address.removesuffix("/v1")).url == served.address
    with pytest.raises(EndpointError, match="does not respond .* Start the server"):
        connect(served.address, timeout=1)
    with pytest.raises(InputError, match="is not a URL; write http"):
        connect("localhost:8080")
