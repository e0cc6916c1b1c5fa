"""A server of the OpenAI chat completions protocol in front of a model, and its client."""

import base64
import io
import json
import threading
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mmq.contracts import BytesImage, GenerationConfig, Request, VisionLanguageModel


class ChatModel(VisionLanguageModel):
    """A model behind an address; it is no nn.Module and has no family."""

    def __init__(self, address):
        self.address = address

    def generate(self, requests, config, progress):
        return [
            self._answer(request, config)
            for batch in progress([[r] for r in requests], "generate")
            for request in batch
        ]

    def _answer(self, request, config):
        content = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png(image)}"}}
            for image in request.images
        ]
        content.append({"type": "text", "text": request.prompt})
        body = {
            "model": "embedded",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": config.max_new_tokens,
            "temperature": 0,
        }
        call = urllib.request.Request(
            f"{self.address}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(call, timeout=60) as answer:
            return json.load(answer)["choices"][0]["message"]["content"]


def png(image):
    file = io.BytesIO()
    image.open().save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@contextmanager
def serving(model):
    """The address of a server in front of this model, greedy and one request at a time."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            images, prompt = [], ""
            for part in body["messages"][0]["content"]:
                if part["type"] == "text":
                    prompt = part["text"]
                else:
                    data = part["image_url"]["url"].partition("base64,")[2]
                    images.append(BytesImage("picture", base64.b64decode(data)))
            request = Request(tuple(images), prompt, "1")
            config = GenerationConfig(max_new_tokens=body["max_tokens"])
            with lock:
                (text,) = model.generate([request], config, lambda batches, text: batches)
            message = {"role": "assistant", "content": text}
            answer = json.dumps({"choices": [{"index": 0, "message": message}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *details):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
