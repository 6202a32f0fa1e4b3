"""Servers of documents that answer in another way: each comes whole and once, or is named."""

import gzip
import hashlib
import json
import os
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.progress.report import Report
from paddock.steps.sources import fetching
from paddock.steps.sources.bucket import BucketParams
from paddock.steps.sources.mirror import Had, SourceRefused
from tests.fakes.buckets import Sftp, place, place_or_skip
from tests.fakes.odd_web import OddWeb, answer, chunked, odd_web, sized
from tests.runner.world import Notes, World, carried_out

PIPELINE = """\
steps:
  - {id: docs, uses: files.scan, with: {root: copies, KIND: SOURCE}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
returns: steps.each.counts
"""
TEXT = b"".join(b"The bill %d is of %d,50 Euro.\n" % (n, n) for n in range(2_000))
DOCUMENTS = {"a.txt": b"The first one.\n", "b.txt": TEXT, "c.txt": b"The last one.\n"}
WHOLE = {
    "in chunks": chunked(TEXT),
    "in one chunk": chunked(TEXT, size=len(TEXT)),
    "in chunks with trailers": chunked(TEXT, is_ended=False) + b"0\r\nX-Sum: 1\r\n\r\n",
    "compressed": sized(gzip.compress(TEXT), "Content-Encoding: gzip"),
    "compressed in chunks": chunked(gzip.compress(TEXT), "Content-Encoding: x-gzip", size=99),
    "compressed otherwise": sized(zlib.compress(TEXT), "Content-Encoding: deflate"),
    "compressed in two parts": sized(
        gzip.compress(TEXT[:5_000]) + gzip.compress(TEXT[5_000:]), "Content-Encoding: gzip"
    ),
    "to the end of the connection, with a digest": answer(
        TEXT, f"Content-MD5: {b64encode(hashlib.md5(TEXT).digest()).decode()}", version="1.0"
    ),
    "to the end of the connection, with an ETag of its bytes": answer(
        TEXT, f'ETag: "{hashlib.sha256(TEXT).hexdigest()}"', version="1.0"
    ),
    "with an old version of HTTP": sized(TEXT).replace(b"HTTP/1.1", b"HTTP/1.0"),
}
NOT_WHOLE = {
    "to the end of the connection": (answer(TEXT, version="1.0"), "does not say where it ends"),
    "without an end": (answer(TEXT), "does not say where it ends"),
    "cut in its chunks": (chunked(TEXT, is_ended=False), ""),
    "cut amid a chunk": (chunked(TEXT)[:30_000], ""),
    "shorter than its length": (sized(TEXT[:-1], stated=len(TEXT)), ""),
    "without its body": (sized(b"", stated=len(TEXT)), ""),
    "with another digest": (sized(TEXT, "Content-MD5: AAAA"), "another digest"),
    "compressed and cut": (sized(gzip.compress(TEXT)[:-9], "Content-Encoding: gzip"), "damaged"),
    "compressed by nothing known": (sized(TEXT, "Content-Encoding: br"), "compressed as 'br'"),
    "compressed, it says": (sized(TEXT, "Content-Encoding: gzip"), "compressed as 'gzip'"),
    "as a part": (sized(TEXT[:99], status="206 Partial Content"), "206"),
    "as nothing": (sized(b"", status="204 No Content"), "204"),
    "from elsewhere": (sized(b"", "Location: /x", status="302 Found"), ""),
    "as an error": (sized(b"later", status="503 Busy"), "503"),
}


@pytest.fixture
def server() -> Iterator[OddWeb]:
    with odd_web() as made:
        made.put(DOCUMENTS)
        yield made


class Office(World):
    def __init__(self, folder: Path, kind: str, source: Any) -> None:
        text = PIPELINE.replace("KIND", kind).replace("SOURCE", json.dumps(source))
        super().__init__(folder / "here", text)

    def go(self) -> tuple[Report, str]:
        notes = Notes()
        return carried_out(self, observer=notes), " ".join(notes.texts)

    def copies(self) -> dict[str, bytes]:
        folder = self.folder / "copies"
        paths = (path for path in folder.rglob("*") if not path.name.startswith("."))
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in paths
            if path.is_file()
        }


def rows_page(rows: list[Any]) -> bytes:
    return sized(json.dumps(rows).encode(), "Content-Type: application/json")


def listed(server: OddWeb) -> Any:
    rows = [{"id": name, "name": name, "version": "1"} for name in DOCUMENTS]
    server.gets["list"] = rows_page(rows)
    source = {"url": f"{server.url}list", "contents": f"{server.url}{{name}}"}
    return {**source, "hosts": ["127.0.0.1"]}


def office_of(kind: str, folder: Path, server: OddWeb) -> Office:
    return Office(folder, kind, listed(server) if kind == "listing" else {"url": server.url})


@pytest.mark.parametrize("kind", ["bucket", "listing"])
@pytest.mark.parametrize("form", WHOLE.values(), ids=WHOLE)
def test_a_document_comes_whole_in_each_form_that_it_may_have(
    tmp_path: Path, server: OddWeb, form: bytes, kind: str
) -> None:
    server.gets["b.txt"], office = form, office_of(kind, tmp_path, server)
    server.heads["b.txt"] = form.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert (office.go()[1], office.copies()) == ("", DOCUMENTS)


@pytest.mark.parametrize("kind", ["bucket", "listing"])
@pytest.mark.parametrize(("form", "why"), NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_a_document_that_does_not_come_whole_is_named_takes_no_other_and_comes_later(
    tmp_path: Path, server: OddWeb, form: bytes, why: str, kind: str
) -> None:
    server.gets["b.txt"], office = form, office_of(kind, tmp_path, server)
    head, body = form.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", DOCUMENTS["b.txt"]
    server.heads["b.txt"] = head
    for _ in range(2):
        report, told = office.go()
        assert (report.status, {*office.copies()}) == ("completed", {"a.txt", "c.txt"})
        assert "1 document of" in told
        assert "'b.txt' (" in told
        assert why in told
    server.gets["b.txt"] = sized(body)
    server.heads["b.txt"] = sized(body).removesuffix(body)
    assert (office.go()[1], office.copies()) == ("", DOCUMENTS)


@pytest.mark.parametrize(
    ("head", "get"),
    [
        (sized(b"", stated=5_000), sized(b"half a one")),
        (sized(b"", stated=5_000), chunked(b"half a one")),
        (sized(b"", stated=5_000), answer(b"half a one", version="1.0")),
        (sized(b"", stated=3), sized(b"more than it said")),
    ],
)
def test_an_answer_of_another_length_than_is_stated_before_is_none(
    tmp_path: Path, server: OddWeb, head: bytes, get: bytes
) -> None:
    server.heads["b.txt"], server.gets["b.txt"] = head, get
    office = office_of("bucket", tmp_path, server)
    _, told = office.go()
    assert office.copies().keys() == {"a.txt", "c.txt"}
    assert "bytes came, where " in told


def s3_page(names: Mapping[str, bytes], more: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    contents = "".join(
        f"<Contents><Key>{name}</Key><ETag>1</ETag><Size>{len(content)}</Size></Contents>"
        for name, content in names.items()
    )
    return sized(f"<ListBucketResult>{more}{contents}</ListBucketResult>".encode())


NO_LISTS_OF_S3 = {
    "nothing": sized(b""),
    "no content": answer(b"", status="204 No Content"),
    "a page": sized(b"<html><body><p>We are away.</p></body></html>"),
    "another list": sized(b"<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>"),
    "a part that does not say so": s3_page({}, more=""),
    "a part without the rest": s3_page({}, "<IsTruncated>true</IsTruncated>"),
}


@pytest.fixture
def s3_office(tmp_path: Path, server: OddWeb) -> Office:
    server.gets[LIST] = s3_page(DOCUMENTS)
    keys = {"key": "a", "secret": "b"}
    options = {"endpoint_url": f"http://{server.host}", **keys}
    office = Office(tmp_path, "bucket", {"url": "s3://office", "options": options})
    assert (office.go()[1], office.copies()) == ("", DOCUMENTS)
    return office


LIST = "/office?list-type=2&prefix=&encoding-type=url"


@pytest.mark.parametrize("form", NO_LISTS_OF_S3.values(), ids=NO_LISTS_OF_S3)
def test_what_is_no_whole_list_of_s3_takes_no_copy(
    server: OddWeb, s3_office: Office, form: bytes
) -> None:
    server.gets[LIST] = form
    report, told = s3_office.go()
    assert (report.status, s3_office.copies()) == ("completed", DOCUMENTS)
    assert "is away" in told


def test_a_list_of_s3_has_pages_and_an_end(server: OddWeb, s3_office: Office) -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>2</NextContinuationToken>"
    server.gets[LIST] = s3_page({"a.txt": DOCUMENTS["a.txt"]}, more)
    following = LIST.replace("&enc", "&continuation-token=2&enc")
    server.gets[following] = s3_page({"c.txt": DOCUMENTS["c.txt"]})
    s3_office.go()
    assert s3_office.copies().keys() == {"a.txt", "c.txt"}
    server.gets[following] = server.gets[LIST]
    assert "lists its objects without an end" in f"{s3_office.go()[0].message}"
    assert s3_office.copies().keys() == {"a.txt", "c.txt"}


@pytest.mark.parametrize(
    "head",
    [
        sized(b""),
        answer(b""),
        sized(b"", status="405 Method Not Allowed"),
        sized(b"", status="501 Not Implemented"),
        sized(b"", "Content-Encoding: gzip", stated=10),
    ],
)
def test_a_document_comes_where_the_look_before_says_nothing_of_it(
    tmp_path: Path, server: OddWeb, head: bytes
) -> None:
    server.heads["b.txt"], server.gets["b.txt"] = head, chunked(TEXT)
    office = office_of("bucket", tmp_path, server)
    assert (office.go()[1], office.copies()) == ("", DOCUMENTS)


def test_a_length_that_is_stated_before_tells_where_an_answer_ends(
    tmp_path: Path, server: OddWeb
) -> None:
    server.heads["b.txt"] = sized(b"", stated=len(TEXT))
    server.gets["b.txt"] = answer(TEXT, version="1.0")
    office = office_of("bucket", tmp_path, server)
    assert (office.go()[1], office.copies()) == ("", DOCUMENTS)


def test_a_document_of_which_nothing_says_its_version_is_fetched_again(
    tmp_path: Path, server: OddWeb
) -> None:
    server.heads["b.txt"], server.gets["b.txt"] = answer(b""), chunked(b"one")
    office = office_of("bucket", tmp_path, server)
    office.go()
    server.gets["b.txt"] = chunked(b"two")
    report, _ = office.go()
    assert (office.copies()["b.txt"], report.returns["fresh"]) == (b"two", 2)
    report, _ = office.go()
    assert report.returns["fresh"] == 3


def test_a_file_that_is_compressed_itself_stays_as_it_is(tmp_path: Path, server: OddWeb) -> None:
    packed = gzip.compress(TEXT)
    server.put({"b.txt.gz": packed})
    server.gets["b.txt.gz"] = sized(packed, "Content-Encoding: gzip", "ETag: x")
    office = office_of("bucket", tmp_path, server)
    office.go()
    assert office.copies()["b.txt.gz"] == packed


@pytest.mark.parametrize("kind", ["bucket", "listing"])
def test_a_document_that_grows_beyond_the_bound_is_named(
    tmp_path: Path, server: OddWeb, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_AHEAD_BYTES", 20)  # larger ones are fetched in their turn
    server.gets["b.txt"] = chunked(TEXT)
    server.heads["b.txt"] = answer(b"")
    office = office_of(kind, tmp_path, server)
    office.edit("SOURCE" if "SOURCE" in office.text else '"url"', '"max_bytes": 2000, "url"')
    _, told = office.go()
    assert office.copies().keys() == {"a.txt", "c.txt"}
    assert "larger than `max_bytes` (2,000)" in told
    office.edit('"max_bytes": 2000', '"max_bytes": 200000')
    assert (office.go()[1], office.copies()) == ("", DOCUMENTS)


def test_many_documents_come_in_the_order_in_which_they_are_listed(tmp_path: Path) -> None:
    with odd_web() as server:
        many = {f"{n:03}.txt": b"%d" % n for n in range(150)}
        server.put(many)
        office = office_of("bucket", tmp_path, server)
        assert (office.go()[1], office.copies()) == ("", many)


def test_three_documents_that_break_off_are_a_server_that_is_away(
    tmp_path: Path, server: OddWeb
) -> None:
    for name in DOCUMENTS:
        server.gets[name] = sized(b"x", stated=9)
        server.heads[name] = answer(b"")
    report, told = office_of("bucket", tmp_path, server).go()
    assert (report.status, "is away, " in told) == ("completed", True)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"id": 1, "name": "a.txt"}, {"id": 1, "name": "b.txt"}],
         "lists two documents, 'a.txt' and 'b.txt' as '1'. Correct `id`."),
        ([{"id": 1, "name": "a.txt", "v": 1}, {"id": 1, "name": "a.txt", "v": 2}],
         "lists two documents, 'a.txt' and 'a.txt' as '1'. Correct `id`."),
        ([{"id": 1, "name": "a.txt"}, {"id": 1, "name": "a.txt"}], None),
    ],
)  # fmt: skip
def test_two_documents_of_one_id_are_refused_by_name(
    tmp_path: Path, server: OddWeb, rows: list[Any], said: str | None
) -> None:
    source = {**listed(server), "contents": f"{server.url}a.txt?of={{id}}"}
    version = "{v}" if "v" in rows[0] else ""
    server.gets["list"] = rows_page(rows)
    server.gets["a.txt?of=1"] = sized(b"one")
    office = Office(tmp_path, "listing", {**source, "version": version})
    report, _ = office.go()
    assert (said or "") in (report.message or "")
    assert report.status == ("failed" if said else "completed")


@pytest.mark.parametrize(
    ("name", "copy"),
    [("./e.txt", "e.txt"), ("d/../e.txt", "e.txt"), ("d//e.txt", "d/e.txt"),
     ("d/./e.txt", "d/e.txt"), ("../e.txt", None), ("/e.txt", None), ("d/../../e.txt", None)],
)  # fmt: skip
def test_a_path_is_inside_or_leads_out_however_it_is_written(
    tmp_path: Path, server: OddWeb, name: str, copy: str | None
) -> None:
    source = {**listed(server), "contents": f"{server.url}a.txt"}
    server.gets["list"] = rows_page([{"id": 1, "name": name}])
    office = Office(tmp_path, "listing", source)
    _, told = office.go()
    assert office.copies() == ({copy: DOCUMENTS["a.txt"]} if copy else {})
    assert ("its path leads out of the folder" in told) == (copy is None)


# --- of S3 and SFTP


def test_names_of_sftp_that_are_no_utf_8_come_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place_or_skip("sftp", tmp_path, monkeypatch) as there:
        assert isinstance(there, Sftp)
        base = os.fsencode(there.folder)
        Path(os.fsdecode(base + b"/b\xfcro")).mkdir()
        names = [b"caf\xe9.txt", b"b\xfcro/bill.txt", b"b\xfcro/\xe9\\xe9.txt", "süß.txt".encode()]
        for n, name in enumerate(names):
            Path(os.fsdecode(base + b"/" + name)).write_bytes(b"Bill %d" % n)
        office = Office(tmp_path, "bucket", {"url": there.url, "options": there.options})
        assert office.go()[1] == ""
        assert {*office.copies().values()} == {b"Bill 0", b"Bill 1", b"Bill 2", b"Bill 3"}
        assert "süß.txt" in office.copies()
        assert (office.go()[0].returns["fresh"], len(office.copies())) == (4, 4)
        Path(os.fsdecode(base + b"/caf\xe9.txt")).unlink()
        office.go()
        assert {*office.copies().values()} == {b"Bill 1", b"Bill 2", b"Bill 3"}


def test_a_file_of_sftp_that_grows_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with place_or_skip("sftp", tmp_path, monkeypatch) as there:
        there.put("a.txt", b"one")
        there.put("b.txt", b"half of")
        params = BucketParams(url=there.url, options=there.options)
        with params.opened("") as source:
            source.listing("")
            there.put("b.txt", b"half of it, and more")
            answers = dict(source.contents(["a.txt", "b.txt"]))
            assert isinstance(answers["a.txt"], Had)
            assert answers["b.txt"].why == "20 bytes came, where 7 are listed"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "is_signed"),
    [
        (lambda given: given, True),
        (lambda given: {**given, "anon": False}, True),
        (lambda given: {**given, "config_kwargs": {"retries": {"max_attempts": 1}}}, True),
        (lambda given: {**given, "token": "t"}, True),
        (lambda given: {"endpoint_url": given["endpoint_url"], "username": "a", "password": "b"},
         True),
        (lambda given: {"endpoint_url": given["endpoint_url"], "client_kwargs":
         {"aws_access_key_id": "a", "aws_secret_access_key": "b"}}, True),
        (lambda given: {"endpoint_url": given["endpoint_url"]}, False),
        (lambda given: {"endpoint_url": given["endpoint_url"], "anon": True}, False),
        (lambda given: {**given, "anon": True}, "is given a key, and `anon`"),
        (lambda given: {**given, "secret": ""}, "is given an empty `secret`"),
        (lambda given: {**given, "key": None}, "is given an empty `key`"),
        (lambda given: {"endpoint_url": given["endpoint_url"], "key": "a"}, "half of a key"),
        (lambda given: {"endpoint_url": given["endpoint_url"], "token": "a"}, "half of a key"),
    ],
)  # fmt: skip
def test_requests_to_s3_are_signed_by_the_key_that_is_given_and_by_no_other(
    monkeypatch: pytest.MonkeyPatch, options: Callable[[Any], Any], is_signed: bool | str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with place("s3", Path(), Path()) as there:
        there.put("a.txt", b"one")
        params = BucketParams(url=there.url, options=options(there.options))
        seen = list[bool]()

        def look(request: Any, **_: Any) -> None:
            seen.append("Credential=a/" in str(request.headers.get("Authorization", "")))

        try:
            with params.opened("") as source:
                client = source._files  # type: ignore[attr-defined]
                client.s3.meta.events.register("before-send.s3", look)
                documents = source.listing("").documents
            assert (len(documents), {*seen}) == (1, {is_signed})
        except SourceRefused as error:
            assert str(is_signed) in f"{error}"
