"""The local server: who is let in, what is refused, and that it hears this machine only."""

from __future__ import annotations

import http.client
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleoscope.errors import CallError, InputError, ResourceError
from nucleoscope.view import serve
from nucleoscope.view.serve import (
    TOKEN_HEADER,
    Reply,
    Request,
    Running,
    Site,
    as_json,
    respond,
    start,
)

PORT = 8123
KNOWN = serve._Secrets()
SECRET = b"what nobody else may see"


def _route(request: Request) -> Reply:
    if request.text("fail"):
        raise InputError("the image is short.")
    return Reply(SECRET, "text/plain")


SITE = Site("results", {"GET /state": _route, "POST /save": lambda r: as_json(len(r.body))})


def ask(target: str = "/state", method: str = "GET", body: bytes = b"", **headers: str) -> Reply:
    given = {"Host": f"127.0.0.1:{PORT}", TOKEN_HEADER: KNOWN.token}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return respond(SITE, KNOWN, PORT, method, target, given, body)


def test_the_one_who_started_it_is_answered() -> None:
    assert ask().body == SECRET


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_this_machine_has_three_names(host: str) -> None:
    assert ask(Host=f"{host}:{PORT}").status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.test", f"evil.test:{PORT}", f"localhost.evil.test:{PORT}", f"127.0.0.1.nip:{PORT}",
        f"localhost.:{PORT}", f"127.0.0.1.:{PORT}", "localhost", "127.0.0.1", "localhost:80",
        f"127.0.0.1:{PORT}0", f"127.0.0.1:0{PORT}", f"0.0.0.0:{PORT}", f"127.1:{PORT}",
        f"2130706433:{PORT}", f"[::]:{PORT}", f"[::ffff:127.0.0.1]:{PORT}", f" localhost:{PORT}",
        f"localhost:{PORT} ", f"LOCALHOST.EVIL:{PORT}", f"user@localhost:{PORT}", "",
        f"localhost:{PORT},evil.test", f"localhost:{PORT}/", "null", f"10.0.0.1:{PORT}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("target", ["/", "/state", "/static/talk.js"])
def test_a_name_that_is_not_this_machine_and_port_is_refused(host: str, target: str) -> None:
    reply = ask(target, Host=host)
    assert (reply.status, reply.body) == (403, b"")


def test_a_request_without_a_host_is_refused() -> None:
    reply = respond(SITE, KNOWN, PORT, "GET", "/state", {TOKEN_HEADER: KNOWN.token})
    assert (reply.status, reply.body) == (400, b"")


@pytest.mark.parametrize(
    "given",
    ["", "x", KNOWN.token[:-1], KNOWN.token + "x", "é" * 22],
    ids=["none", "short", "one short", "one more", "not ASCII"],
)
@pytest.mark.parametrize("target", ["/state", "/nothing"])
def test_without_the_token_nothing_is_told(given: str, target: str) -> None:
    reply = ask(target, **{TOKEN_HEADER: given})
    assert (reply.status, reply.body) == (403, b"")


def test_the_ticket_buys_the_token_once() -> None:
    known = serve._Secrets()
    headers = {"Host": f"127.0.0.1:{PORT}"}
    enter = [
        respond(SITE, known, PORT, "POST", "/enter", headers, body)
        for body in (b"", b"wrong", known.ticket.encode(), known.ticket.encode(), b"")
    ]
    assert [reply.status for reply in enter] == [403, 403, 200, 403, 403]
    assert json.loads(enter[2].body) == {"token": known.token}


@given(st.text(max_size=40))
def test_no_address_reaches_a_file(path: str) -> None:
    for target in (f"/static/{path}", f"/static/../{path}", f"/{path}"):
        try:
            reply = ask(target)
        except ValueError:  # an address that is none, such as http://[
            continue
        if reply.status == 200:
            assert reply.body == SECRET or reply.kind.startswith("text/")
        else:
            assert reply.status == 404


@pytest.mark.parametrize("target", ["/static/../serve.py", "/static/%2e%2e/serve.py", "/serve.py"])
def test_only_the_page_s_own_files_are_served(target: str) -> None:
    assert ask(target).status == 404


@pytest.mark.parametrize("name", serve.STATIC)
def test_every_file_of_the_page_is_there(name: str) -> None:
    reply = ask(f"/static/{name}")
    assert reply.status == 200
    assert b"http:" not in reply.body.replace(b"http://www.w3.org", b"")
    assert b"https:" not in reply.body


def test_the_page_names_no_other_place_and_runs_no_script_of_its_own() -> None:
    page = ask("/").body.decode()
    assert "<script>" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_failure_is_one_sentence() -> None:
    reply = ask("/state?fail=1")
    assert reply.status == 422
    assert json.loads(reply.body) == {"error": "the image is short."}


def test_a_method_or_address_that_is_not_in_the_table_is_not_found() -> None:
    assert ask("/state", method="POST").status == 404
    assert ask("/save").status == 404
    assert ask("/save", method="POST", body=b"abc").body == b"3"


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "1e999", "9" * 40])
def test_a_request_s_number_must_be_one(text: str) -> None:
    with pytest.raises(InputError, match="number"):
        Request({"z": text}).number("z")
    with pytest.raises(InputError):
        Request({}).whole("z")
    assert Request({}).whole("z", 3) == 3


def test_json_with_nan_is_never_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        as_json({"a": float("nan")})


# Over HTTP --------------------------------------------------------------------------------------


@pytest.fixture
def running() -> Running:  # type: ignore[misc]
    found = start(SITE)
    yield found  # type: ignore[misc]
    found.stop()


def fetch(
    running: Running, method: str, target: str, body: bytes | None = None, **more: str
) -> tuple[http.client.HTTPResponse, bytes]:
    link = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    link.request(method, target, body, {k.replace("_", "-"): v for k, v in more.items()})
    reply = link.getresponse()
    content = reply.read()
    link.close()
    return reply, content


def test_a_browser_s_whole_visit(running: Running) -> None:
    page, html = fetch(running, "GET", "/")
    assert page.status == 200
    assert b"/static/results.js" in html
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert page.headers["Access-Control-Allow-Origin"] is None
    ticket = running.ticket_url.partition("#once-")[2].encode()
    told = json.loads(fetch(running, "POST", "/enter", ticket)[1])
    assert running.url.endswith(f"#{told['token']}")
    reply, content = fetch(running, "GET", "/state", **{TOKEN_HEADER: told["token"]})
    assert content == SECRET
    assert reply.headers["Cache-Control"] == "no-store"
    refused, content = fetch(running, "GET", "/state")
    assert (refused.status, content) == (403, b"")


def test_a_rebound_name_is_refused_over_http(running: Running) -> None:
    token = running.url.partition("#")[2]
    for host in ("evil.test", f"evil.test:{running.port}"):
        reply, content = fetch(running, "GET", "/state", Host=host, **{TOKEN_HEADER: token})
        assert (reply.status, content) == (403, b"")


def test_a_body_of_no_or_too_great_length_is_refused(running: Running) -> None:
    for length in ("x", "-1", str(10**12), "9" * 30):
        link = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        link.putrequest("POST", "/save")
        link.putheader("Content-Length", length)
        link.endheaders()
        assert link.getresponse().status == 413
        link.close()


def test_a_fault_of_a_route_does_not_end_the_server() -> None:
    def broken(request: Request) -> Reply:
        raise RuntimeError("oh")

    found = start(Site("results", {"GET /state": broken}))
    try:
        token = found.url.partition("#")[2]
        for _ in range(2):
            reply, content = fetch(found, "GET", "/state", **{TOKEN_HEADER: token})
            assert reply.status == 500
            assert json.loads(content) == {"error": "unexpected RuntimeError: oh"}
    finally:
        found.stop()


def test_it_listens_on_this_machine_only(running: Running) -> None:
    assert running.url.startswith("http://127.0.0.1:")
    taken = running.port
    with pytest.raises(ResourceError, match=f"port {taken}"):
        start(SITE, port=taken)
    with pytest.raises(CallError, match="65535"):
        start(SITE, port=70000)


def test_two_starts_have_different_secrets() -> None:
    one, two = serve._Secrets(), serve._Secrets()
    assert len({one.token, one.ticket, two.token, two.ticket}) == 4
    assert len(one.token) >= 21  # 128 bits
