import hashlib
import io
import os
import time
from pathlib import Path

import pytest

from paddock.engine.errors import BadDigest
from paddock.engine.models.blobs import BlobStore
from paddock.engine.system.files import held_file

CONTENT = b"weights " * 1000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def test_a_blob_is_named_by_what_it_contains(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    assert not blobs.has(DIGEST)
    assert blobs.add(CONTENT) == DIGEST
    assert blobs.add(io.BytesIO(CONTENT), DIGEST) == DIGEST
    assert blobs.read(DIGEST) == CONTENT
    assert blobs.size_bytes(DIGEST) == len(CONTENT)
    assert blobs.digests() == (DIGEST,)
    assert files(tmp_path) == [DIGEST.replace(":", "-")]
    mask = os.umask(0)
    os.umask(mask)
    assert blobs.path(DIGEST).stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize(
    "digest",
    [
        "", "sha256:", "sha256:12", "sha512:" + "a" * 64, "sha256:" + "g" * 64, "a" * 64,
        "sha256:" + "a" * 65, "sha256:../../../etc/passwd", "sha256:" + "a" * 64 + "\n",
        "SHA256:" + "a" * 64,
    ],
)  # fmt: skip
def test_what_is_no_digest_is_never_a_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(BadDigest) as caught:
        BlobStore(tmp_path).path(digest)
    assert str(caught.value) == "invalid digest format"


def test_what_is_held_is_not_swept_away_however_old(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    blobs.folder.mkdir()
    with held_file(blobs.folder / ".a-tuned.1.part") as held:
        copy = held.with_name(f"{held.name}.copy.part")
        copy.write_bytes(b"compared for hours")
        os.utime(copy, (0, 0))
        os.utime(held, (0, 0))
        blobs.sweep()
        assert files(tmp_path) == [held.name, copy.name]
    blobs.sweep()
    assert files(tmp_path) == []


def test_what_is_half_is_swept_away_when_no_one_goes_on_with_it(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    blobs.add(CONTENT)
    hour, partial = 3600, f"sha256-{'a' * 64}-partial"
    ages = {".12-old.part": 2 * hour, ".12-new.part": 0, partial: 48 * hour, f"{partial}-0": 0,
            f"{partial}-1": 200 * hour, "notes.txt": 900 * hour}  # fmt: skip
    for name, age in ages.items():
        (blobs.folder / name).write_bytes(b"half")
        then = time.time() - age
        os.utime(blobs.folder / name, (then, then))
    blobs.sweep()
    left = [".12-new.part", "notes.txt", DIGEST.replace(":", "-"), partial, f"{partial}-0"]
    assert files(tmp_path) == sorted(left)
