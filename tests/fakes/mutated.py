"""Damaged copies of a file, the same for a seed: what a disk, a network or an attacker makes."""

import random


def mutated(data: bytes, seed: int) -> bytes:
    """Return a copy with up to eight mutations: parts are changed, lost, moved or doubled."""
    dice, made = random.Random(seed), bytearray(data)
    for _ in range(dice.randint(1, 8)):
        at = dice.randrange(len(made) + 1)
        n = min(int(dice.expovariate(1 / 40)) + 1, len(made) - at)
        part = bytes(made[at : at + n])
        to = dice.randrange(len(made) + 1)
        match dice.randrange(8):
            case 0:
                made[at : at + n] = dice.randbytes(n)
            case 1:
                del made[at : at + n]
            case 2:
                made[to:to] = part * dice.choice((1, 1, 2, 500))
            case 3:
                made[to : to + n] = part
            case 4:  # a number, which may be a length or a place
                digits = [i for i, byte in enumerate(made) if 48 <= byte < 58]
                if digits:
                    place = dice.choice(digits)
                    made[place : place + 1] = dice.choice((b"0", b"9", b"-1", b"99999999", b""))
            case 5:
                lines = made.split(b"\n")
                first, second = dice.randrange(len(lines)), dice.randrange(len(lines))
                lines[first], lines[second] = lines[second], lines[first]
                made = bytearray(b"\n".join(lines))
            case 6:
                del made[max(at, 1) :]
            case _ if at < len(made):
                made[at] ^= 1 << dice.randrange(8)
    return bytes(made)
