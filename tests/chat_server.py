"""A server that speaks the OpenAI chat completions protocol in front of a model, with faults."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mmq.contracts import BytesImage, GenerationConfig, Request

NAME = "embedded"


class Served:
    """A running server, as tests use it. faults: taken one per request, until none is left."""

    def __init__(self, model, faults):
        self.model, self.faults = model, list(faults)
        self.requests, self.keys = [], []
        self.lock, self.over = threading.Lock(), threading.Event()
        self.address = ""

    def answer(self, body):
        """The model's text, one request at a time, greedy."""
        images, prompt = [], ""
        for part in body["messages"][-1]["content"]:
            if part["type"] == "text":
                prompt = part["text"]
            else:
                data = part["image_url"]["url"].partition("base64,")[2]
                images.append(BytesImage("picture", base64.b64decode(data)))
        request = Request(tuple(images), prompt, "1")
        config = GenerationConfig(max_new_tokens=body["max_tokens"])
        (text,) = self.model.generate([request], config, lambda batches, text: batches)
        return text


def handler(served):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            result = self.path == "/v1/models"
            self.send(200 if result else 404, {"data": [{"id": NAME}]} if result else {})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with served.lock:
                served.requests.append(body)
                served.keys.append(self.headers["Authorization"])
                fault = served.faults.pop(0) if served.faults else None
            if isinstance(fault, int):
                self.send(fault, {"error": {"message": "not now"}})
            elif fault == "hang":
                served.over.wait(30)
            elif fault == "cut":
                self.send(200, {"choices": []}, cut=True)
            elif fault == "empty":
                self.send(200, {"choices": []})
            else:
                with served.lock:
                    text = served.answer(body)
                self.send(200, {"choices": [{"message": {"role": "assistant", "content": text}}]})

        def send(self, status, facts, cut=False):
            data = json.dumps(facts).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data) + 100 * cut))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *details):
            pass

    return Handler


@contextmanager
def serving(model, faults=()):
    """A running server in front of this model."""
    served = Served(model, faults)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(served))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield served
    finally:
        served.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
