"""A proxy of an MLflow server that responds incorrectly, slowly, or not at all.

In front of a real server it passes requests on until it is given a fault.
"""

import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWERS = {
    "401": (401, "You are not authenticated."),
    "403": (403, "Permission denied"),
    "404": (404, "<html>Not Found</html>"),
    "404 json": (404, '{"detail": "Not Found"}'),
    "html": (200, "<html>Welcome to nginx!</html>"),
    "500": (500, "<html>Internal Server Error</html>"),
}


class FaultyServer:
    """fault: a key of ANSWERS, "hang", "slow" (seconds before each answer), or "" for none."""

    def __init__(self, fault: str = "", behind: str = "", seconds: float = 0.0) -> None:
        self.fault, self.behind, self.seconds = fault, behind, seconds
        self.requests = 0
        self.asked, self.over = threading.Event(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server calls them

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        self.asked.set()
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length)
        if self.fault == "hang":
            self.over.wait()
            return
        if self.fault == "slow":
            self.over.wait(self.seconds)
        if self.fault in ANSWERS:
            status, text = ANSWERS[self.fault]
            kind, content = "text/html", text.encode()
        else:
            status, kind, content = self._pass_on(request, body)
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _pass_on(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        headers = {k: v for k, v in request.headers.items() if k.lower() in ("content-type",)}
        asked = urllib.request.Request(
            self.behind + request.path, data=body or None, headers=headers, method=request.command
        )
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.status, answer.headers.get("Content-Type", ""), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Content-Type", ""), error.read()

    def stop(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
