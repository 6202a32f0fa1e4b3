"""Damage to files, from a seed."""

import io
import random
import zipfile


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return data with bits flipped, numbers replaced, and parts cut, moved or repeated."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(made))
        match chance.randrange(6):
            case 0:
                made[at] ^= 1 << chance.randrange(8)
            case 1 | 2:  # an offset, a length, a count
                size = chance.choice((2, 4, 8))
                at -= at % size
                old = int.from_bytes(made[at : at + size], "little")
                new = chance.choice(
                    (0, 1, old + 1, old - 1, old * 2, 2**31 - 1, 2**31, 2**63 - 1, -1, len(made),
                     4000, 10**6, chance.getrandbits(64))
                )  # fmt: skip
                made[at : at + size] = (new % 2 ** (8 * size)).to_bytes(size, "little")
            case 3:
                made[at : at + chance.randrange(1, 64)] = b""
            case 4:
                made[at:at] = made[(begin := chance.randrange(len(made))) : begin + 40]
            case 5 if chance.random() < 0.3:
                del made[max(1, at) :]
            case _:
                made[at : at + 4] = chance.randbytes(4)
        made = made or bytearray(b"\0")
    return bytes(made)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Damage a file; of an archive mostly one of its parts that have text, in a whole archive."""
    if not data.startswith(b"PK") or chance.random() < 0.3:
        return mutated(data, chance)
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(sink, "w") as new:
        parts = [name for name in old.namelist() if name.endswith((".xml", ".rels", ".opf"))]
        victim = chance.choice([name for name in parts if "sheet" in name] or parts)
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, mutated(part, chance) if name == victim else part)
    return sink.getvalue()
