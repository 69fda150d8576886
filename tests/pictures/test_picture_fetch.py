"""Pictures by URL, from real servers on loopback."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pictures.odd_pictures import encoded, noise

from spacy_mmcot.pictures.decode import decode_picture
from spacy_mmcot.pictures.fetch import MAX_REDIRECTS, fetch, is_public
from spacy_mmcot.pictures.read import BadPicture, PicturePolicy, digest, read_picture

DATA = encoded(noise(), "JPEG")


def allowing(**settings: Any) -> PicturePolicy:
    return PicturePolicy(**{"urls": True, "private_addresses": True, **settings})


class PictureServer:
    """`pages` holds what answers a path; `asked` the paths that were asked for, with headers."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.pages: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, dict(self.headers)))
                with contextlib.suppress(OSError):  # where the client has hung up
                    outer.pages.get(self.path, answer(404, b"none"))(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer(
    status: int, body: bytes = b"", **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


@pytest.fixture
def server() -> Iterator[PictureServer]:
    running = PictureServer()
    yield running
    running.close()


def refused(url: str, policy: PicturePolicy) -> str:
    with pytest.raises(BadPicture) as caught:
        read_picture(url, policy)
    return str(caught.value)


def test_a_picture_is_fetched(server: PictureServer) -> None:
    server.pages["/a.jpg"] = answer(200, DATA, Content_Length=str(len(DATA)))
    server.pages["/b.jpg"] = answer(200, DATA)
    policy = allowing()
    for path in ("/a.jpg", "/b.jpg"):
        data = read_picture(server.url + path, policy)
        assert data == DATA and decode_picture(data, policy, 20).size == (30, 20)
    (_, headers), *_ = server.asked
    assert headers["Host"] == f"127.0.0.1:{server.port}"
    assert headers["Accept-Encoding"] == "identity"


def test_names_are_resolved_and_paths_quoted(server: PictureServer) -> None:
    server.pages["/%C3%A4%20b.jpg?x=1&y=%20"] = answer(200, DATA)
    url = f"HTTP://localhost:{server.port}/ä b.jpg?x=1&y=%20#top"
    assert read_picture(url, allowing()) == DATA


def test_urls_are_off_by_default(server: PictureServer) -> None:
    assert "the setting urls is off" in refused(server.url + "/a.jpg", PicturePolicy())
    assert not server.asked


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"])
def test_private_addresses_are_off_by_default(server: PictureServer, host: str) -> None:
    reason = refused(f"http://{host}:{server.port}/a.jpg", PicturePolicy(urls=True))
    assert "which is no public address" in reason
    assert not server.asked


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fe80::1%2", False),
        ("fc00::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:7f00:1::1", False),
        ("2001:0:808:808::1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_a_picture_may_be_too_large(server: PictureServer) -> None:
    sent: list[int] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        answer(200)(handler)
        while True:
            sent.append(handler.wfile.write(b"x" * 65_536))

    server.pages["/says.jpg"] = answer(200, b"x", Content_Length=str(10**9))
    server.pages["/endless.jpg"] = endless
    for path in ("/says.jpg", "/endless.jpg"):
        assert "larger than the 0.1 MB" in refused(server.url + path, allowing(max_mb=0.1))
    # What the buffers of both ends hold at most.
    assert sum(sent) < 20_000_000


def _never(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def _dripping_body(handler: BaseHTTPRequestHandler) -> None:
    answer(200, Content_Length="1000")(handler)
    for _ in range(30):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def _dripping_head(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
    for _ in range(30):
        handler.wfile.write(b"x")
        time.sleep(0.1)


@pytest.mark.parametrize("page", [_never, _dripping_body, _dripping_head])
def test_a_picture_may_be_too_slow(
    server: PictureServer, page: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    server.pages["/slow.jpg"] = page
    start = time.monotonic()
    reason = refused(server.url + "/slow.jpg", allowing(url_timeout=0.5))
    assert "did not arrive within the 0.5 s" in reason
    assert time.monotonic() - start < 1.5


def test_the_time_limit_holds_over_redirects(server: PictureServer) -> None:
    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.4)
        answer(302, Location="/again.jpg")(handler)

    server.pages["/again.jpg"] = slowly
    start = time.monotonic()
    reason = refused(server.url + "/again.jpg", allowing(url_timeout=0.6))
    assert "did not arrive" in reason
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: PictureServer, status: int) -> None:
    server.pages["/old/a.jpg"] = answer(status, Location="../new/a.jpg")
    server.pages["/new/a.jpg"] = answer(200, DATA)
    assert read_picture(server.url + "/old/a.jpg", allowing()) == DATA


def test_redirects_have_an_end(server: PictureServer) -> None:
    for i in range(MAX_REDIRECTS + 1):
        server.pages[f"/{i}"] = answer(302, Location=f"/{i + 1}")
    server.pages[f"/{MAX_REDIRECTS + 1}"] = answer(200, DATA)
    assert read_picture(server.url + "/1", allowing()) == DATA
    assert f"more than {MAX_REDIRECTS} redirects" in refused(server.url + "/0", allowing())


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/hostname", "leads to a file: address"),
        ("ftp://127.0.0.1/a", "leads to a ftp: address"),
        ("http://user:word@127.0.0.1/a", "with a user name"),
        ("http://127.0.0.1:99999/a", "cannot be fetched"),
    ],
)
def test_redirects_are_checked(server: PictureServer, location: str, reason: str) -> None:
    server.pages["/a.jpg"] = answer(302, Location=location)
    assert reason in refused(server.url + "/a.jpg", allowing())


def test_a_redirect_to_a_private_address(server: PictureServer) -> None:
    """With the first server's address taken for a public one."""
    server.pages["/b.jpg"] = answer(200, DATA)
    for host in ("127.0.0.2", "[::1]", "10.0.0.1"):
        server.pages["/a.jpg"] = answer(302, Location=f"http://{host}:{server.port}/b.jpg")
        with pytest.raises(BadPicture, match="which is no public address"):
            fetch(
                server.url + "/a.jpg",
                PicturePolicy(urls=True),
                lambda address: str(address) == "127.0.0.1",
            )
    assert {path for path, _ in server.asked} == {"/a.jpg"}


@pytest.mark.parametrize("status", [204, 304, 401, 404, 500])
def test_other_answers_are_no_picture(server: PictureServer, status: int) -> None:
    server.pages["/a.jpg"] = answer(status)
    assert f"answered HTTP {status}" in refused(server.url + "/a.jpg", allowing())


def _garbled(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\xff\xfe\r\n\r\n")


def test_answers_that_are_cut_short_or_garbled(server: PictureServer) -> None:
    server.pages["/short.jpg"] = answer(200, DATA[:100], Content_Length=str(len(DATA)))
    server.pages["/empty.jpg"] = answer(200)
    server.pages["/garbled.jpg"] = _garbled
    server.pages["/chunks.jpg"] = answer(200, b"zz\r\nxx", Transfer_Encoding="chunked")
    assert "closed before the end" in refused(server.url + "/short.jpg", allowing())
    assert "has zero bytes" in refused(server.url + "/empty.jpg", allowing())
    assert "cannot be fetched" in refused(server.url + "/garbled.jpg", allowing())
    assert "cannot be fetched" in refused(server.url + "/chunks.jpg", allowing())


def test_compressed_answers_are_not_unpacked(server: PictureServer) -> None:
    packed = b"\x1f\x8b\x08" + b"\0" * 100
    server.pages["/a.jpg"] = answer(200, packed, Content_Encoding="gzip")
    assert read_picture(server.url + "/a.jpg", allowing()) == packed


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://", "without a host"),
        ("http://[::1", "cannot be fetched"),
        ("http://127.0.0.1:port/a.jpg", "cannot be fetched"),
        ("http://no-such-host.invalid/a.jpg", "is not known"),
        (f"http://{'x' * 70}.org/a.jpg", "cannot be fetched"),
    ],
)
def test_addresses_that_lead_nowhere(url: str, reason: str) -> None:
    assert reason in refused(url, allowing(url_timeout=5.0))


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "refused" in refused(f"http://127.0.0.1:{port}/a.jpg", allowing())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its certificate for localhost, signed by itself."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs openssl to make a certificate")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    kind = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    written = ["-keyout", str(file), "-out", str(file.with_suffix(".crt"))]
    subprocess.run([program, *kind, *names, *written], check=True, capture_output=True)
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


def test_https(certificate: Path) -> None:
    """Certificates are checked against those that the machine trusts, and against the name."""
    server = PictureServer(certificate)
    server.pages["/a.jpg"] = answer(200, DATA)
    script = (
        "import sys\n"
        "from spacy_mmcot.pictures.read import PicturePolicy\n"
        "from spacy_mmcot.pictures.read import BadPicture, digest, read_picture\n"
        "policy = PicturePolicy(urls=True, private_addresses=True)\n"
        "for host in ('localhost', '127.0.0.1'):\n"
        "    try:\n"
        "        print(digest(read_picture(f'https://{host}:{sys.argv[1]}/a.jpg', policy)))\n"
        "    except BadPicture as error:\n"
        "        print(error)\n"
    )
    trusting = {**os.environ, "SSL_CERT_FILE": str(certificate.with_suffix(".crt"))}
    for environment in (trusting, dict(os.environ)):
        done = subprocess.run(
            [sys.executable, "-c", script, str(server.port)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        by_name, by_number = done.stdout.splitlines()
        assert "certificate is not trusted" in by_number
        if environment is trusting:
            assert by_name == digest(DATA)
        else:
            assert "certificate is not trusted" in by_name
    server.close()


def test_a_server_that_speaks_no_tls(server: PictureServer) -> None:
    url = server.url.replace("http:", "https:")
    assert "cannot be fetched" in refused(url + "/a.jpg", allowing(url_timeout=2.0))
