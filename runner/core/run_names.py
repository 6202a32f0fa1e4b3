"""Names of runs: an adjective and a noun that no other run has."""

import itertools
import random
from collections.abc import Container

_ADJECTIVES = (
    "amber bold brave bright brisk calm clear clever crisp deft eager early fair fleet fond gentle "
    "glad golden grand happy hardy honest jolly keen kind light lively loyal lucid merry mild neat "
    "nimble patient plain prompt proud quick quiet rapid ready sharp silent sleek smart snug sound "
    "steady still sunny swift tidy true vivid warm wise witty young zesty"
)
_NOUNS = (
    "badger bear beaver bison bittern crane curlew deer dingo dove eagle egret falcon ferret finch "
    "fox gannet gecko gull hare hawk heron ibex jay kestrel kite lark linnet lynx magpie marten "
    "merlin mole newt ocelot osprey otter owl petrel pika plover puffin quail rabbit raven robin "
    "seal shrew sparrow stoat stork swallow swan tern thrush toad trout vole weasel wren"
)


def new_run_name(taken: Container[str]) -> str:
    """Return a name that is not taken.

    >>> new_run_name(()).count("-")
    1
    """
    choice = random.SystemRandom().choice
    name = f"{choice(_ADJECTIVES.split())}-{choice(_NOUNS.split())}"
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([name], numbered) if name not in taken)
