"""Who may ask the server: the browser of the person who started it, on pages of the server's own, to read.

A loopback port is open to every user of the machine and to every web page that a browser shows, and SQL can read
files. So the host has to be the server's own (another name is DNS rebinding), no other site may ask, and a token has
to be shown once, as in Jupyter; a cookie keeps it. What does not belong here: answers (`app`).
"""

from __future__ import annotations

import hmac
import secrets
from html import escape
from urllib.parse import urlencode

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "token"
"""The parameter of the address that lets a browser in."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
"""Of every answer that does not say otherwise."""

_OWN_SITE = {"same-origin", "none"}
"""Values of Sec-Fetch-Site: a page of the server's own, or what a person typed. Other ports are `same-site`."""


class Keys:
    """The token of one server, and tickets that open it once: a browser's arguments are seen by all users."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._tickets: set[str] = set()

    def issue_ticket(self) -> str:
        """Return what opens the server once."""
        ticket = secrets.token_urlsafe(32)
        self._tickets.add(ticket)
        return ticket

    def open_with(self, key: str) -> bool:
        """Return whether a key opens the server; a ticket no longer does afterwards."""
        if self.is_token(key):
            return True
        found = {ticket for ticket in self._tickets if _is_same(ticket, key)}
        self._tickets -= found
        return bool(found)

    def is_token(self, key: str) -> bool:
        """Return whether a key is the token."""
        return _is_same(self.token, key)


class Gate:
    """Lets requests through to an app, or refuses them; in the way of all that is served."""

    def __init__(self, app: ASGIApp, port: int, keys: Keys) -> None:
        self._app = app
        self._keys = keys
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self._port = port
        self._cookie = f"heal_view_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: let it through, or say what is wrong with it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._answer(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """Return what is answered here, None for what the app answers."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return _refuse(
                f"This server answers to http://127.0.0.1:{self._port} only. Through ssh, take the same port at both "
                f"ends: ssh -L {self._port}:127.0.0.1:{self._port} MACHINE"
            )
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
            return _refuse("Another site asks; only pages of this server may.")
        if scope["method"] not in ("GET", "HEAD"):
            return _refuse("This server is for reading: GET and HEAD alone.", 405, {"Allow": "GET, HEAD"})
        is_own_site = headers.get("sec-fetch-site", "none") in _OWN_SITE
        parameters = QueryParams(scope["query_string"])
        if scope["path"] == "/" and TOKEN in parameters and self._keys.open_with(parameters[TOKEN]):
            return self._let_in(parameters, is_own_site)
        if not is_own_site:
            return _refuse("Another site leads here. Type the address that `heal view` printed into the browser.")
        if not self._keys.is_token(cookie_parser(headers.get("cookie", "")).get(self._cookie, "")):
            return _refuse(
                "This needs the token: open the whole address that `heal view` printed, with ?token=... An address of "
                "an earlier `heal view` is of no use, and one that it opened in the browser itself works once."
            )
        return None

    def _let_in(self, parameters: QueryParams, is_own_site: bool) -> Response:
        """Return the way to the same page without the token in its address, and with the cookie."""
        kept = urlencode([(name, value) for name, value in parameters.multi_items() if name != TOKEN])
        target = f"/?{kept}" if kept else "/"
        answer: Response
        if is_own_site:
            answer = RedirectResponse(target, 303)
        else:  # a browser follows a redirect without a strict cookie when another site led to it
            answer = HTMLResponse(f'<meta http-equiv="refresh" content="0; url={escape(target)}">')
        answer.set_cookie(self._cookie, self._keys.token, httponly=True, samesite="strict")
        return answer


def _refuse(why: str, status: int = 403, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{why}\n", status, headers)


def _is_same(secret: str, given: str) -> bool:
    return hmac.compare_digest(secret.encode(), given.encode(errors="surrogatepass"))
