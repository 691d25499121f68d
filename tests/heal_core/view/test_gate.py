"""Who is let in: hosts, sites, methods and tokens, each with what differs in one thing only."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from heal_core.view.gate import HEADERS, Gate, Keys

PORT = 8510
OWN = f"http://127.0.0.1:{PORT}"


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def stranger(keys: Keys) -> TestClient:
    """A browser that has not shown the token."""
    return TestClient(Gate(PlainTextResponse("inside"), PORT, keys), base_url=OWN, follow_redirects=False)


@pytest.fixture
def browser(stranger: TestClient, keys: Keys) -> TestClient:
    """A browser that was let in."""
    assert stranger.get("/", params={"token": keys.token}).status_code == 303
    return stranger


def test_with_the_cookie_it_answers_and_every_answer_has_the_headers(browser: TestClient) -> None:
    answer = browser.get("/api/x")
    assert (answer.status_code, answer.text) == (200, "inside")
    refused = browser.get("/", headers={"Host": "evil.example"})
    for name, value in HEADERS.items():
        assert answer.headers[name] == value == refused.headers[name]
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"LOCALHOST:{PORT}", f"[::1]:{PORT}"])
def test_its_own_names_are_answered(stranger: TestClient, keys: Keys, host: str) -> None:
    cookie = {"Cookie": f"heal_view_{PORT}={keys.token}"}
    assert stranger.get("/", headers={"Host": host, **cookie}).text == "inside"


@pytest.mark.parametrize(
    "host",
    ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", f"127.0.0.1.evil.example:{PORT}",
     f"127.0.0.1:{PORT}.evil.example", f"0.0.0.0:{PORT}", f"x@127.0.0.1:{PORT}", ""],
)  # fmt: skip
def test_another_host_is_refused_also_with_the_token(browser: TestClient, keys: Keys, host: str) -> None:
    answer = browser.get("/", params={"token": keys.token}, headers={"Host": host})
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, "text/plain; charset=utf-8")
    assert f"ssh -L {PORT}:127.0.0.1:{PORT}" in answer.text
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:3000", f"https://127.0.0.1:{PORT}",
               f"http://localhost:{PORT}", "file://", ""],
)  # fmt: skip
def test_another_origin_is_refused_also_with_the_token(browser: TestClient, keys: Keys, origin: str) -> None:
    for parameters in ({}, {"token": keys.token}):
        answer = browser.get("/", params=parameters, headers={"Origin": origin})
        assert answer.status_code == 403
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert browser.get("/", headers={"Origin": OWN}).text == "inside"


@pytest.mark.parametrize(("site", "status"), [("same-origin", 200), ("none", 200), ("same-site", 403),
                                              ("cross-site", 403), ("anything", 403)])  # fmt: skip
def test_pages_of_other_sites_and_ports_get_nothing(browser: TestClient, site: str, status: int) -> None:
    assert browser.get("/api/sql", headers={"Sec-Fetch-Site": site}).status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"])
def test_only_reading_is_answered(browser: TestClient, method: str) -> None:
    answer = browser.request(method, "/api/sql")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert "inside" not in answer.text
    assert browser.head("/api/sql").status_code == 200


def test_the_token_becomes_a_cookie_and_leaves_the_address(stranger: TestClient, keys: Keys) -> None:
    answer = stranger.get("/", params={"token": keys.token, "run": "a&b"}, headers={"Sec-Fetch-Site": "none"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/?run=a%26b")
    (cookie,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert (cookie.key, cookie["httponly"], cookie["samesite"], cookie["path"]) == (
        f"heal_view_{PORT}", True, "strict", "/",
    )  # fmt: skip
    assert stranger.get(answer.headers["Location"]).text == "inside"


def test_from_a_link_of_another_page_the_token_leads_on_by_a_page_of_its_own(stranger: TestClient, keys: Keys) -> None:
    """A browser leaves a strict cookie out while it follows the redirect of a link from elsewhere."""
    parameters = {"token": keys.token, "run": '"><script>'}
    answer = stranger.get("/", params=parameters, headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, answer.text) == (
        200, '<meta http-equiv="refresh" content="0; url=/?run=%22%3E%3Cscript%3E">',
    )  # fmt: skip
    assert "HttpOnly" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize("token", ["", "wrong", "é", "\ud800", "token", "a" * 10_000])
def test_without_the_token_it_says_what_to_do(stranger: TestClient, token: str) -> None:
    cookies = {"Cookie": f"heal_view_{PORT}={token}".encode(errors="surrogatepass")}
    for answer in (stranger.get("/"), stranger.get(f"/?token={token!a}"), stranger.get("/", headers=cookies)):
        assert answer.status_code == 403
        assert "?token=" in answer.text and "Set-Cookie" not in answer.headers


def test_the_token_counts_on_the_page_alone(stranger: TestClient, keys: Keys) -> None:
    """Elsewhere it would be a way to lead on to a path of somebody's choice, as //evil.example."""
    for path in ("//evil.example/", "/api/sql", "/%2e"):
        assert stranger.get(f"{OWN}{path}", params={"token": keys.token}).status_code == 403


def test_another_ports_cookie_is_of_no_use(stranger: TestClient, keys: Keys) -> None:
    assert stranger.get("/", headers={"Cookie": f"heal_view_{PORT + 1}={keys.token}"}).status_code == 403


def test_a_ticket_opens_once(stranger: TestClient, keys: Keys) -> None:
    first, second = keys.issue_ticket(), keys.issue_ticket()
    assert len({first, second, keys.token}) == 3
    assert stranger.get("/", params={"token": first}).status_code == 303
    stranger.cookies.clear()
    assert stranger.get("/", params={"token": first}).status_code == 403
    assert stranger.get("/", headers={"Cookie": f"heal_view_{PORT}={second}"}).status_code == 403
    assert stranger.get("/", params={"token": second}).status_code == 303


def test_two_servers_have_two_tokens() -> None:
    assert not Keys().open_with(Keys().token)
