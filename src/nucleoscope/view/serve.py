"""A page on this machine for the one who started it: the standard library's server, kept narrow.

The server listens on 127.0.0.1 only. A request is answered when its ``Host`` is this machine *and*
this port (a page elsewhere that rebinds its name is refused) and, for anything but the empty page
itself, when it carries the 128-bit token of this start in a header that no other site can send.
Routes are a fixed table; what they take are numbers and names of an index, never paths. There is
no cross-origin permission, and the page's policy lets it talk to its own server only.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from nucleoscope.errors import CallError, InputError, NucleoscopeError, ResourceError

__all__ = ["Reply", "Request", "Running", "Site", "as_json", "respond", "run", "start"]

#: The header that carries the token; a page of another site cannot send it without permission.
TOKEN_HEADER = "X-Nucleoscope-Token"  # noqa: S105  the header's name
#: Most bytes a request may send: a million clicks.
MAX_BODY = 64 << 20
#: Files of the page, the only ones that are served, and what they are.
STATIC = {
    "style.css": "text/css", "talk.js": "text/javascript", "stage.js": "text/javascript",
    "table.js": "text/javascript", "results.js": "text/javascript", "clicks.js": "text/javascript",
    "map.js": "text/javascript",
}  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Request:
    """What a route is given: the values of the address, and the bytes sent with it."""

    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def text(self, name: str, default: str = "") -> str:
        """A value of the address."""
        return self.query.get(name, default)

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number of the address.

        Raises
        ------
        InputError
            It is missing or none.

        Examples
        --------
        >>> Request({"z": "3"}).number("z")
        3.0
        """
        try:
            value = float(self.query[name])
        except (KeyError, ValueError):
            if default is not None and name not in self.query:
                return default
            raise InputError(f"the request has no number {name!r}.") from None
        if not abs(value) < 1e15:
            raise InputError(f"the request's {name!r} is not a finite number.")
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number of the address."""
        return int(self.number(name, default))


@dataclass(frozen=True)
class Reply:
    """What goes back: bytes, their kind, and HTTP's status."""

    body: bytes
    kind: str = "application/json"
    status: int = 200


def as_json(value: Any, status: int = 200) -> Reply:
    """A reply of JSON; numbers must be finite.

    >>> as_json({"a": 1}).body
    b'{"a": 1}'
    """
    return Reply(json.dumps(value, allow_nan=False).encode(), status=status)


@dataclass(frozen=True)
class Site:
    """A page and what it may ask.

    Parameters
    ----------
    script
        Name of the page's script without ``.js``: ``results``, ``clicks`` or ``map``.
    routes
        ``"GET /state"`` and the like to functions of a ``Request``.
    """

    script: str
    routes: Mapping[str, Callable[[Request], Reply]]


@dataclass
class _Secrets:
    """What lets a page in: the token, and a ticket that buys it once.

    The ticket is what the browser is opened with, since a command line can be read by others.
    """

    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    ticket: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_token(self, given: str) -> bool:
        """True for the token, in constant time."""
        return hmac.compare_digest(self.token.encode(), given.encode("utf-8", "replace"))

    def enter(self, request: Request) -> Reply:
        """The token for the ticket, the first time."""
        with self.lock:
            if self.ticket and hmac.compare_digest(self.ticket.encode(), request.body[:64]):
                self.ticket = ""
                return as_json({"token": self.token})
        return _refused(403)


def _refused(status: int) -> Reply:
    """A refusal without a word on what is here."""
    return Reply(b"", "text/plain", status)


def respond(
    site: Site,
    known: _Secrets,
    port: int,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes = b"",
) -> Reply:
    """Answer one request; this is all the server does.

    Parameters
    ----------
    site, known, port
        The page, the secrets of this start, the port listened on.
    method, target, headers, body
        The request as HTTP has it; names of ``headers`` as they are spelt here.

    Returns
    -------
    Reply
        400 without a ``Host``, 403 with a strange one or without the token, 404 for what is not
        in the table, 422 and one sentence for what a route refuses.
    """
    host = headers.get("Host")
    if host is None:
        return _refused(400)
    if host not in {f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]")}:
        return _refused(403)
    parts = urlsplit(target)
    if method == "GET" and parts.path == "/":
        return _page(site)
    if method == "GET" and parts.path.removeprefix("/static/") in STATIC:
        return _static(parts.path.removeprefix("/static/"))
    request = Request(dict(parse_qsl(parts.query)), body)
    if (method, parts.path) == ("POST", "/enter"):
        return known.enter(request)
    if not known.is_token(headers.get(TOKEN_HEADER, "")):
        return _refused(403)
    route = site.routes.get(f"{method} {parts.path}")
    if route is None:
        return as_json({"error": "there is no such thing here."}, 404)
    try:
        return route(request)
    except NucleoscopeError as error:
        return as_json({"error": str(error)}, 422)


def _static(name: str) -> Reply:
    """A file of the page."""
    file = resources.files("nucleoscope.view") / "static" / name
    return Reply(file.read_bytes(), f"{STATIC[name]}; charset=utf-8")


def _page(site: Site) -> Reply:
    """The page, which holds nothing before its script was let in."""
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<title>nucleoscope</title><link rel="icon" href="data:,">'
        '<link rel="stylesheet" href="/static/style.css">'
        f'</head><body><main id="app"></main><script type="module" src="/static/{site.script}.js">'
        "</script></body></html>\n"
    )
    return Reply(html.encode(), "text/html; charset=utf-8")


class _Server(ThreadingHTTPServer):
    """The server of one site."""

    daemon_threads = True
    site: Site
    known: _Secrets


class _Handler(BaseHTTPRequestHandler):
    """Hands every request to ``respond``, silently."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    server: _Server

    def version_string(self) -> str:
        return "nucleoscope"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep no record: addresses name people's files."""

    def do_GET(self) -> None:
        """Answer a GET."""
        self._answer("GET")

    def do_POST(self) -> None:
        """Answer a POST."""
        self._answer("POST")

    def _answer(self, method: str) -> None:
        length = self.headers.get("Content-Length", "0")
        is_plain = length.isascii() and length.isdigit() and int(length[:12]) <= MAX_BODY
        if not is_plain or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            self._send(_refused(413))
            return
        body = self.rfile.read(int(length))
        try:
            reply = respond(
                self.server.site, self.server.known, self.server.server_address[1], method,
                self.path, dict(self.headers.items()), body,
            )  # fmt: skip
        except Exception as error:
            # A thread that died would leave the page waiting; the sentence is for its user.
            reply = as_json({"error": f"unexpected {type(error).__name__}: {error}"}, 500)
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)


@dataclass(frozen=True)
class Running:
    """A server that runs: ``url`` opens its page; ``stop`` ends it.

    ``ticket_url`` opens it once and is what a browser is started with.
    """

    url: str
    ticket_url: str
    port: int
    stop: Callable[[], None]
    wait: Callable[[], None]


def start(site: Site, *, port: int = 0) -> Running:
    """Serve a site on 127.0.0.1 in a thread; port 0 takes any that is free.

    Raises
    ------
    CallError
        An impossible port.
    ResourceError
        The port is taken.

    Examples
    --------
    >>> running = start(Site("results", {}))
    >>> running.url.startswith(f"http://127.0.0.1:{running.port}/#")
    True
    >>> running.stop()
    """
    if not 0 <= port <= 65535:
        raise CallError(f"a port is a number from 0 to 65535; found {port}.")
    try:
        server = _Server(("127.0.0.1", port), _Handler)
    except OSError as error:
        raise ResourceError(
            f"port {port} cannot be used ({error.strerror or error}); give another, or none to "
            "take any that is free."
        ) from error
    server.site, server.known = site, _Secrets()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    def wait() -> None:
        while thread.is_alive():
            thread.join(0.5)  # so that Ctrl-C is heard everywhere

    place = f"http://127.0.0.1:{server.server_address[1]}/"
    return Running(
        f"{place}#{server.known.token}", f"{place}#once-{server.known.ticket}",
        server.server_address[1], stop, wait,
    )  # fmt: skip


def run(site: Site, *, port: int = 0, browser: bool = True) -> None:
    """Serve a site until Ctrl-C; its address goes to standard error, and the browser opens it.

    Parameters
    ----------
    site
        The page.
    port
        Port on 127.0.0.1; 0 takes any that is free.
    browser
        Open it; otherwise the address is to be opened by hand.
    """
    running = start(site, port=port)
    sys.stderr.write(f"{running.url}\nopen on this machine only; Ctrl-C ends it\n")
    sys.stderr.flush()
    try:
        if browser:
            webbrowser.open(running.ticket_url)
        running.wait()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    finally:
        running.stop()
