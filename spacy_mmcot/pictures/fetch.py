"""Pictures from the web, without letting whoever names a URL reach into the private network.

The standard library's connections are used, since the address that is connected to must be the
very one that was checked: a name may resolve to another address a moment later. Proxies and
cookies are not used.
"""

from __future__ import annotations

import functools
import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from ..errors import first_line
from .read import BadPicture, PicturePolicy, too_large

MAX_REDIRECTS = 3

_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 65_536
_HEADERS = {"User-Agent": "spacy-mmcot", "Accept": "image/*", "Accept-Encoding": "identity"}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet. IPv6 addresses that stand for an IPv4
    one are public where that one is."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast


def fetch(url: str, policy: PicturePolicy, public: Callable[[Address], bool] = is_public) -> bytes:
    """The body of an http or https address, at most `policy.max_bytes` long, within
    `policy.url_timeout` seconds in all; at most MAX_REDIRECTS redirects are followed.

    Raises BadPicture, also where a name on the way resolves to an address that is not `public` and
    the policy does not allow private ones.
    """
    deadline = time.monotonic() + policy.url_timeout

    def allowed(address: Address) -> bool:
        return policy.private_addresses or public(address)

    try:
        for _ in range(MAX_REDIRECTS + 1):
            stream, response = _request(_parts(url), allowed, deadline)
            try:
                if response.status not in _REDIRECTS:
                    return _body(response, policy)
            finally:
                stream.hang_up()
            url = urljoin(url, response.headers.get("Location", ""))
    except BadPicture:
        raise
    except TimeoutError:
        raise BadPicture(
            f"did not arrive within the {policy.url_timeout:g} s that url_timeout allows"
        ) from None
    except ssl.SSLCertVerificationError as error:
        reason = f"its certificate is not trusted ({error.verify_message})"
        raise BadPicture(f"cannot be fetched: {reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise BadPicture(f"cannot be fetched: {reason}") from None
    raise BadPicture(f"cannot be fetched: more than {MAX_REDIRECTS} redirects")


def _parts(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise BadPicture(f"leads to a {parts.scheme}: address; allowed are http and https")
    if not parts.hostname:
        raise BadPicture("is named by a web address without a host")
    if "@" in parts.netloc:
        raise BadPicture("is named by a web address with a user name, which is not sent")
    return parts


def _request(
    parts: SplitResult, allowed: Callable[[Address], bool], deadline: float
) -> tuple[_TimedSocket, http.client.HTTPResponse]:
    host = str(parts.hostname).encode("idna").decode("ascii")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    stream = _TimedSocket(_connect(_resolve(host, port, allowed, deadline), deadline), deadline)
    try:
        if secure:
            stream.start_tls(host)
        connection = http.client.HTTPConnection(host, port)
        connection.default_port = 443 if secure else 80
        connection.sock = stream
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        if parts.query:
            target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?")
        connection.request("GET", target, headers={**_HEADERS, "Connection": "close"})
        return stream, connection.getresponse()
    except BaseException:
        stream.hang_up()
        raise


def _body(response: http.client.HTTPResponse, policy: PicturePolicy) -> bytes:
    if response.status != 200:
        raise BadPicture(f"cannot be fetched: the server answered HTTP {response.status}")
    if response.length is not None and response.length > policy.max_bytes:
        raise too_large(policy)
    data = bytearray()
    while chunk := response.read(_CHUNK):
        data += chunk
        if len(data) > policy.max_bytes:
            raise too_large(policy)
    if response.length:
        raise BadPicture("cannot be fetched: the connection was closed before the end")
    return bytes(data)


def _resolve(
    host: str, port: int, allowed: Callable[[Address], bool], deadline: float
) -> list[tuple[Any, ...]]:
    """What `socket.getaddrinfo` finds for the host, all of it checked."""
    answer: list[Any] = []

    def look_up() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.append(error)

    # The system's look-up knows no time limit; its thread is left behind where it takes too long.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(_left(deadline))
    if not answer:
        raise TimeoutError
    found = answer[0]
    if isinstance(found, BaseException):
        raise BadPicture(f"cannot be fetched: the host {host!r} is not known")
    for *_, address in found:
        if not allowed(ipaddress.ip_address(address[0])):
            raise BadPicture(
                f"leads to {address[0]}, which is no public address (private_addresses is off)"
            )
    return found


def _connect(addresses: list[tuple[Any, ...]], deadline: float) -> socket.socket:
    failure: OSError = OSError("the host has no address")
    for i, (family, kind, protocol, _, address) in enumerate(addresses):
        stream = socket.socket(family, kind, protocol)
        try:
            # So that an address that does not answer leaves time for the others.
            stream.settimeout(_left(deadline) / (len(addresses) - i))
            stream.connect(address)
            return stream
        except OSError as error:
            stream.close()
            failure = error
    raise failure


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class _TimedSocket:
    """What http.client needs of a socket, with one deadline for all that is sent and received: a
    time limit for each call would let a server that drips bytes go on for ever."""

    def __init__(self, stream: socket.socket, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def start_tls(self, host: str) -> None:
        self._stream.settimeout(_left(self._deadline))
        self._stream = _tls().wrap_socket(self._stream, server_hostname=host)

    def sendall(self, data: bytes) -> None:
        self._stream.settimeout(_left(self._deadline))
        self._stream.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._stream, self._deadline))

    def close(self) -> None:
        """Nothing: http.client closes a socket when it has an answer's head, and the reader of
        the body still needs it."""

    def hang_up(self) -> None:
        self._stream.close()


class _TimedReader(io.RawIOBase):
    def __init__(self, stream: socket.socket, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._stream.settimeout(_left(self._deadline))
        return self._stream.recv_into(buffer)
