"""Carry a conversation on: one answer to one question, and questions until the person leaves."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from paddock.runner.client import ServiceError
from paddock.runner.display import console

from . import pictures
from .keyboard import Keyboard, unechoed
from .session import Session
from .slash import Desk, Service, is_command
from .timings import timings
from .views import View, view

NOT_FOUND = 404
HOW_TO_LEAVE = "Ctrl-D or /bye leaves."


class Interrupted(Exception):
    """The person stopped the answer."""


def open_session(service: Service, model: str, **wishes: Any) -> Session:
    """Begin a conversation with a model.

    Raises:
        ServiceError: there is none of this name.
    """
    return Session(model, abilities_of(service, model), **wishes)


def abilities_of(service: Service, model: str) -> frozenset[str]:
    """Ask what a model can.

    Raises:
        ServiceError: there is none of this name, or it cannot chat.
    """
    try:
        told = service.post("/api/show", {"model": model})
    except ServiceError as error:
        if error.status != NOT_FOUND:
            raise
        raise ServiceError(
            f"There is no model '{model}' here.\n  paddock pull {model}", NOT_FOUND
        ) from None
    abilities = frozenset(map(str, told.get("capabilities") or ()))
    if abilities and "completion" not in abilities:
        raise ServiceError(
            f"'{model}' does not chat.\n  For vectors of texts: paddock embed {model} 'a text'"
        )
    return abilities


def question(session: Session, text: str, images: Sequence[Path] = ()) -> None:
    """Add what the person says, with the images that it names where the model sees.

    Raises:
        NotAnImage: one cannot be read.
        ServiceError: images are given to a model that sees none.
    """
    if images and not session.sees:
        raise ServiceError(f"'{session.model}' sees no images.")
    if session.sees:
        text, named = pictures.find(text)
        for path in named:
            console.tell(f"Image: {path}")
        images = (*images, *named)
    session.asked(text, [pictures.encoded(path) for path in images])


def answer(service: Service, session: Session, out: View) -> None:
    """Get the next answer and show it; what came stays in the conversation.

    Raises:
        ServiceError: it could not be had; the question is forgotten.
        Interrupted: the person stopped it.
    """
    said: list[str] = []
    thought: list[str] = []
    last: Mapping[str, Any] = {}
    try:
        out.wait(f"{session.model} ...")
        last = _shown(service, session, out, said, thought)
    except KeyboardInterrupt:
        raise Interrupted from None
    finally:
        out.end()
        if said or thought:
            session.answered("".join(said), "".join(thought))
        else:
            session.take_back()
    _tell_of(last, session)


def _shown(
    service: Service, session: Session, out: View, said: list[str], thought: list[str]
) -> Mapping[str, Any]:
    """Show the pieces as they come; give the last object."""
    with closing(service.stream("/api/chat", session.body())) as pieces:
        for piece in pieces:
            message = piece.get("message") or {}
            text, thinking = message.get("content") or "", message.get("thinking") or ""
            is_read = True
            if thinking:
                thought.append(thinking)
                is_read = not session.shows_thinking or out.think(thinking)
            if text:
                said.append(text)
                is_read = out.say(text)
            if piece.get("done") or not is_read:
                return piece
    return {}


def _tell_of(last: Mapping[str, Any], session: Session) -> None:
    """Say what a person should know of an answer: that something was cut; its times, if wanted."""
    if last.get("truncated"):
        console.tell(
            f"(The conversation has {last.get('prompt_tokens_original', 0):,} tokens, more than "
            f"the context holds: its oldest turns were left out. /clear begins anew.)"
        )
    if last.get("done_reason") == "length":
        console.tell("(The answer reached its limit; /set parameter num_predict changes it.)")
    if session.is_verbose:
        console.tell(timings(last))


def converse(
    service: Service, session: Session, history: Path, *, keeps_history: bool = True
) -> None:
    """Take questions and commands until the person leaves."""
    desk = Desk(service, session, abilities_of)
    keyboard = Keyboard(history, desk.words(), keeps_history=keeps_history)
    desk.keyboard = keyboard
    console.tell(f"{session.model}. /? shows the commands, {HOW_TO_LEAVE}")
    with keyboard, _ended_by_sigterm():
        while not desk.is_over:
            try:
                text = keyboard.ask()
            except EOFError:
                console.tell("")
                return
            except KeyboardInterrupt:
                console.tell(f"\n{HOW_TO_LEAVE}")
                continue
            if text.strip():
                _take(service, session, desk, text)


def _take(service: Service, session: Session, desk: Desk, text: str) -> None:
    """Carry out a command, or answer a question; what goes wrong is told, and the chat goes on."""
    try:
        if is_command(text):
            desk.carry_out(text)
        else:
            question(session, text)
            with unechoed():
                answer(service, session, view(draws_markdown=session.draws_markdown))
    except Interrupted:
        console.tell("(Stopped.)")
    except (ServiceError, pictures.NotAnImage) as error:
        console.tell(str(error))
    except KeyboardInterrupt:
        console.tell("(Stopped.)")


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the chat, not only an answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    end: Callable[..., Any] = lambda *_: sys.exit(128 + signal.SIGTERM)  # noqa: E731
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
