"""Members' REST, as the CLI calls it: basic auth and certificates from the configuration, a deadline on all."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.exceptions import ConnectTimeout, InvalidSchema, InvalidURL, MissingSchema, SSLError

from hamgr.core.cluster import Member

NOT_SENT = (ConnectTimeout, SSLError, InvalidURL, InvalidSchema, MissingSchema)

STATUS_TIMEOUT_S = 0.5
"""For questions to all members at once: one that does not answer must not hold the table up."""

ORDER_TIMEOUT_S = 5.0
"""For orders that are answered at once, such as reload."""


@dataclass(frozen=True, slots=True)
class RestAccess:
    """How to call members: basic auth when `username`, `verify` and `cert` as requests takes them."""

    username: str = ""
    password: str = ""
    verify: bool | str = True
    cert: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"RestAccess(username={self.username!r})"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a member answered. `body` is the decoded JSON, None where it is not JSON."""

    code: int
    text: str
    body: Any = None

    @property
    def is_ok(self) -> bool:
        return 200 <= self.code < 300


class Unreachable(Exception):
    """No answer. `was_sent`: the member may have got the call, so its outcome is unknown."""

    def __init__(self, text: str, *, was_sent: bool) -> None:
        super().__init__(text)
        self.was_sent = was_sent


def base_url(member: Member) -> str:
    """Scheme and address of the member's REST; the key holds Patroni's form, which ends in `/patroni`.

    Raises ValueError if that is no URL.
    """
    parts = urlsplit(member.api_url)
    return urlunsplit((parts.scheme, parts.netloc, "", "", ""))


def call(
    access: RestAccess,
    member: Member,
    method: str,
    path: str,
    *,
    timeout_s: float,
    body: Mapping[str, Any] | None = None,
) -> Reply:
    """The member's answer to one call. Raises Unreachable; no status code is an error here.

    `timeout_s` bounds the connect and each wait for bytes.
    """
    if not member.api_url:
        raise Unreachable(f"{member.name} announces no REST address", was_sent=False)
    try:
        url = base_url(member) + path
    except ValueError as problem:
        raise Unreachable(f"{member.name} announces a REST address that is none", was_sent=False) from problem
    try:
        with requests.Session() as session:
            # A proxy or .netrc of the caller's environment must not come between us and a member.
            session.trust_env = False
            answer = session.request(
                method,
                url,
                json=body,
                timeout=timeout_s,
                auth=(access.username, access.password) if access.username else None,
                verify=access.verify,
                cert=access.cert,
                allow_redirects=False,
            )
    except NOT_SENT as problem:
        raise Unreachable(_words(member, problem), was_sent=False) from problem
    except requests.exceptions.ConnectionError as problem:
        raise Unreachable(_words(member, problem), was_sent=not _was_refused(problem)) from problem
    except (requests.exceptions.RequestException, OSError) as problem:
        raise Unreachable(_words(member, problem), was_sent=True) from problem
    except ValueError as problem:
        # A host's name that no look-up takes, or a login that no header can hold.
        raise Unreachable(_words(member, problem), was_sent=False) from problem
    return Reply(answer.status_code, answer.text.strip(), _json_of(answer))


def call_in_background(
    access: RestAccess,
    member: Member,
    method: str,
    path: str,
    *,
    timeout_s: float,
    body: Mapping[str, Any] | None = None,
) -> Future[Reply]:
    """The same in a thread of its own, which does not keep the program from ending: an agent may answer late."""
    answer: Future[Reply] = Future()

    def ask() -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(call(access, member, method, path, timeout_s=timeout_s, body=body))
        except Unreachable as silence:
            answer.set_exception(silence)
        except BaseException as defect:
            # Whoever waits would do so for ever.
            answer.set_exception(defect)
            raise

    threading.Thread(target=ask, daemon=True).start()
    return answer


def ask_all(access: RestAccess, members: Iterable[Member], path: str = "/patroni") -> dict[str, Mapping[str, Any]]:
    """JSON objects by member name, asked in parallel; who does not answer in STATUS_TIMEOUT_S is left out."""
    asked = list(members)
    if not asked:
        return {}
    with ThreadPoolExecutor(max_workers=min(32, len(asked))) as pool:
        bodies = pool.map(lambda member: _object_at(access, member, path), asked)
        return {member.name: body for member, body in zip(asked, bodies, strict=True) if body is not None}


def _object_at(access: RestAccess, member: Member, path: str) -> Mapping[str, Any] | None:
    try:
        reply = call(access, member, "GET", path, timeout_s=STATUS_TIMEOUT_S)
    except Unreachable:
        return None
    return reply.body if isinstance(reply.body, Mapping) else None


def _json_of(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None


def _was_refused(problem: BaseException) -> bool:
    """True when nothing was listening: then the call was not received. Looks down requests' chain of causes."""
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return True
        inner = getattr(cause, "reason", None) or (cause.args[0] if cause.args else None)
        cause = inner if isinstance(inner, BaseException) else cause.__cause__ or cause.__context__
    return False


def _words(member: Member, problem: BaseException) -> str:
    """Short, and without the URL's query or any header: requests' own texts hold object addresses."""
    return f"REST of {member.name} at {base_url(member)} does not answer ({type(problem).__name__})"
