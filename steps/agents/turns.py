"""An agent's conversation from its task to its answer: turns, calls, results, the end.

At most so many turns with tools; then the model is made to answer without. What is asked of the
answer (`reply`) is asked once, in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from paddock.engine.errors import BadRequest
from paddock.engine.request import Message, ToolCall
from paddock.steps.answers.asking import Asker
from paddock.steps.answers.structured import answered
from paddock.steps.step import ReplyForm, StepError

from .calling import CallOutput, Done, Hands
from .memory import Kept, Memory, Turn, in_words
from .offering import Offer
from .speech import DOCUMENTS_ONLY, Given, Said, Speech, speech_for, with_system

_OUT_OF_TURNS = "You can use no more tools. Answer the task now, with what you have found."
_IN_FORM = "Answer the task now, with what you have found, in the form that is asked for."
_MOST_REPEATS = 2


@dataclass(frozen=True, slots=True)
class Ended:
    """How a conversation ended."""

    text: str
    output: Any
    calls: tuple[CallOutput, ...]
    n_turns: int


@dataclass
class Conversation:
    """One model with its tools, for one task."""

    asker: Asker
    offered: Sequence[Offer]
    max_turns: int
    kept: Kept
    first_choice: str = "auto"
    """Whether its first turn must be a call: `auto`, `required`, or the name of a tool."""

    async def work(self, messages: Sequence[Message], form: ReplyForm | None) -> Ended:
        """Talk until the model answers.

        Raises:
            StepError: it gave no answer, or one that fails what `form` asks for.
            EngineError: the task does not fit, or the pool could not do it.
        """
        tools = self.asker.tools
        hands = Hands(
            tools,
            {one.said.name: one for one in self.offered},
            dict.fromkeys(tools.untrusted),
        )
        if tools.untrusted:
            messages = with_system(messages, DOCUMENTS_ONLY)
        facts = await tools.pool.facts(self.asker.model)
        speech = self._speech(facts.takes_tools)
        memory = Memory(self.asker, speech.tools, speech.opened(messages), self.kept)
        outputs: list[CallOutput] = []
        said, n_turns, n_repeats = None, 0, 0
        while n_turns < self.max_turns and n_repeats < _MOST_REPEATS:
            n_turns += 1
            shown = await memory.shown()
            choice = self.first_choice if n_turns == 1 else "auto"
            try:
                said = await speech.ask(shown, choice=choice)
            except BadRequest as error:
                if facts.takes_tools is not None or n_turns > 1 or "tool" not in str(error).lower():
                    raise
                # Its server knows a template without tools, and says so only when it is asked.
                speech = self._speech(takes_tools=False)
                memory = Memory(self.asker, speech.tools, speech.opened(messages), self.kept)
                shown = await memory.shown()
                said = await speech.ask(shown, choice=choice)
            if not said.calls:
                break
            said = _numbered(said, n_turns)
            done = await hands.carry_out(said.calls, n_turns)
            outputs += [one.output for one in done]
            n_repeats = n_repeats + 1 if all(one.is_repeated for one in done) else 0
            await self._remember(speech, memory, said, done)
        else:
            said = None
            self._tell_end(n_turns, n_repeats)
        text, output = await self._answer(messages, speech, memory, said, form)
        memory.tell()
        return Ended(text, output, tuple(outputs), n_turns)

    def _speech(self, takes_tools: bool | None) -> Speech:
        warns = any(one.brings_text for one in self.offered)
        said = [one.said for one in self.offered]
        return speech_for(self.asker, said, takes_tools, warns=warns)

    async def _remember(
        self, speech: Speech, memory: Memory, said: Said, done: Sequence[Done]
    ) -> None:
        given = await memory.fitting(said.message, [Given(one.call, one.text) for one in done])
        went_well = [
            one
            for one, each in zip(given, done, strict=True)
            if each.output.error is None and not each.is_repeated
        ]
        memory.turns.append(
            Turn(
                said.message,
                tuple(speech.results(given)),
                in_words(said.text, given),
                in_words("", went_well),
            )
        )

    def _tell_end(self, n_turns: int, n_repeats: int) -> None:
        if n_turns == 1 and not n_repeats:
            return  # so the author wants it: one round of calls, then an answer
        why = "went on repeating its calls" if n_repeats else f"used all its {n_turns} turns"
        self.asker.tools.log.note(f"the model {why}, and was made to answer without tools.")

    async def _answer(
        self,
        messages: Sequence[Message],
        speech: Speech,
        memory: Memory,
        said: Said | None,
        form: ReplyForm | None,
    ) -> tuple[str, Any]:
        """Give what the model has answered, or have it answer now."""
        if said is not None and (form is None or await _passes(form, said.text)):
            if not said.text.strip():
                raise StepError("the model gave an empty answer.", kind="check")
            return said.text, None
        if said is not None:
            memory.turns.append(Turn(said.message, (), said.text, said.text))
        if speech.ends_plainly:
            asked = await memory.in_plain_words(messages)
        else:
            asked = await memory.shown(_OUT_OF_TURNS if said is None else _IN_FORM)
        if form is None and not speech.ends_plainly:
            text = (await speech.ask(asked, choice="none")).text
            output = None
        else:
            answer = await answered(self.asker, asked, form=form)
            text, output = answer.text, answer.output
        if not text.strip():
            raise StepError("the model gave an empty answer.", kind="check")
        return text, output


async def _passes(form: ReplyForm, text: str) -> bool:
    return form.schema is None and not await form.failures(None, text)


def _numbered(said: Said, turn: int) -> Said:
    """Give calls ids that are the same in every run: nine letters and digits, as Mistral's."""
    calls = tuple(
        ToolCall(call.name, call.arguments, f"c{turn:05d}{number:03d}")
        for number, call in enumerate(said.calls)
    )
    message = said.message
    if message.tool_calls:
        message = replace(message, tool_calls=calls)
    return replace(said, calls=calls, message=message)
