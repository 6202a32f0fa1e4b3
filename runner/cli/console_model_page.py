"""The console's page on models: speed, memory, each loaded model and the last requests.

It shows `/ui/state.json` of each service. Speeds are differences of two looks at what was counted,
so the chart begins with the first look. No prompt and no answer is in any of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from paddock.engine.system import units
from paddock.engine.system.text import counted
from paddock.runner.render.html_page import facts_html, html_cell, html_table

from .console_actions import USE_MODELS
from .console_run_pages import PageParts

_LIVE_S = 1
_SPAN_S = 120
_STEADY_LOOKS = 4
"""The large number is their mean: one that jumps cannot be read."""
_LEAST_APART_S = 0.3
_WIDE, _HIGH, _TOP = 1000, 130, 18
_REQUEST_HEADS = ("Time", "Request", "Model", "#Tokens", "#Seconds", "Status", "Client")
_TOTALS = {
    "answers": "answer", "texts": "embedded text", "loads": "load", "evictions": "eviction",
    "deaths": "dead worker", "refused": "refused request",
}  # fmt: skip
State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second between two looks."""

    at: float
    answered: float
    read: float
    of_models: Mapping[str, float]


class SpeedHistory:
    """The speeds of one service over the last two minutes."""

    def __init__(self) -> None:
        self.speeds: deque[Speed] = deque()
        self._before: State | None = None

    def add(self, state: State) -> Speed:
        """Return the speed since the look before."""
        before, now = self._before, float(state["now"])
        if before is not None and 0 <= now - before["now"] < _LEAST_APART_S and self.speeds:
            return self.speeds[-1]
        known = {_model_key(model): model for model in before["models"]} if before else {}
        since_s = now - before["now"] if before else 0.0
        answered = read = 0.0
        of_models = {}
        for model in state["models"]:
            old = known.get(_model_key(model))
            n_answered = _grown(model, old, "said")
            n_read = max(0, _grown(model, old, "computed") - n_answered)
            is_embedding = model.get("role") == "embed"
            if since_s > 0:
                answered += n_answered / since_s
                read += n_read / since_s
                own = n_read if is_embedding else n_answered
                of_models[_model_key(model)] = own / since_s
        self._before = state
        self.speeds.append(Speed(now, answered, read, of_models))
        while self.speeds[0].at < now - _SPAN_S:
            self.speeds.popleft()
        return self.speeds[-1]

    def steady(self) -> float:
        """Return the tokens answered in a second, as the mean of the latest looks."""
        latest = list(self.speeds)[-_STEADY_LOOKS:]
        return sum(speed.answered for speed in latest) / max(1, len(latest))


def _model_key(model: State) -> str:
    return " ".join((model["name"], *model.get("adapters", ())))


def _grown(model: State, old: State | None, name: str) -> int:
    """Return by how much a count grew; 0 of a model that was loaded since."""
    return 0 if old is None else max(0, (model.get(name) or 0) - (old.get(name) or 0))


def model_page(
    states: Iterable[tuple[str, State]], histories: dict[str, SpeedHistory], notes: Iterable[str]
) -> PageParts:
    """Return the page; `states` with the services' names; `histories` are continued."""
    parts = [f'<h1>Models</h1><p><a href="{USE_MODELS}">Ask, pull or unload a model</a></p>']
    parts += map(_note_html, notes)
    found = list(states)
    for number, (name, state) in enumerate(found):
        if len(found) > 1:
            parts.append(f"<h2>{escape(name)}</h2>")
        history = histories.setdefault(f"{name} {number}", SpeedHistory())
        parts += _service_html(state, history)
    n_running = sum(state["n_running"] for _, state in found)
    title = f"({n_running}) Models" if n_running else "Models"
    return PageParts(title, parts, _LIVE_S)


def request_page(states: Iterable[tuple[str, State]], notes: Iterable[str]) -> PageParts:
    """Return the page of what is being answered, and of the last answers."""
    parts = ["<h1>Requests</h1>", *map(_note_html, notes)]
    found = list(states)
    for name, state in found:
        if len(found) > 1:
            parts.append(f"<h2>{escape(name)}</h2>")
        requests = [*state.get("under_way", ()), *state.get("last", ())]
        rows = map(_request_row, requests)
        parts.append(
            html_table("Requests", _REQUEST_HEADS, rows) if requests else "<p>No request yet.</p>"
        )
    return PageParts("Requests", parts, _LIVE_S)


def _note_html(note: str) -> str:
    return f'<p class="note">{escape(note)}</p>'


def _service_html(state: State, history: SpeedHistory) -> Iterator[str]:
    speed = history.add(state)
    chips = "".join(f"<li>{words}</li>" for words in _chips(state, history.steady()))
    yield f'<ul class="chips" aria-label="Now">{chips}</ul>'
    yield _speed_chart(history.speeds, float(state["now"]))
    if state["models"]:
        cards = "".join(
            _model_html(model, speed.of_models.get(_model_key(model), 0.0))
            for model in state["models"]
        )
        yield f'<div class="cards">{cards}</div>'
    else:
        yield "<p>No model is loaded. The first request loads the one that it names.</p>"
    totals = (counted(state["totals"][key], noun) for key, noun in _TOTALS.items()
              if state["totals"].get(key))  # fmt: skip
    up = f"Up for {units.duration(state['up_s'])}, version {state['version']}"
    yield f'<p class="soft">{escape("; ".join((up, *totals)))}.</p>'


def _chips(state: State, per_s: float) -> Iterator[str]:
    yield f"<b>{units.speed(per_s)}</b> tokens/s answered"
    yield f"<b>{state['n_running']:,}</b> running, {state['n_waiting']:,} waiting"
    totals = state["totals"]
    if totals["prompt"]:
        yield (
            f"<b>{totals['reused'] / totals['prompt']:.0%}</b> of {totals['prompt']:,} "
            f"prompt tokens from cache"
        )
    gpus = state["devices"]
    total, free = (
        sum(gpu[name] for gpu in gpus) if gpus else state["memory"][name]
        for name in ("total", "free")
    )
    side = "device_bytes" if gpus else "host_bytes"
    held = min(sum(model[side] for model in state["models"]), total - free)
    where = f" of {counted(len(gpus), 'device')}" if gpus else ""
    yield (
        f"<b>{units.size(free)}</b> memory{where} free; models hold {units.size(held)} "
        f"of {units.size(total)}"
    )


def _speed_chart(speeds: Iterable[Speed], now: float) -> str:
    """Return the tokens a second of the last two minutes as a picture."""
    found = list(speeds)
    most = max((max(speed.answered, speed.read) for speed in found), default=0.0)
    top = _round_top(max(most, 10.0))
    last = found[-1]
    words = (
        f"Tokens a second over the last two minutes: answered {units.speed(last.answered)}, "
        f"prompts {units.speed(last.read)}, at most {units.speed(most)}"
    )
    lines = [
        f'<svg class="chart speed" role="img" aria-label="{words}" width="100%" '
        f'height="{_TOP + _HIGH + 20}">'
    ]
    for share in (0.0, 0.5, 1.0):
        y = _TOP + _HIGH * (1 - share)
        lines.append(f'<line class="grid" x1="0" y1="{y}" x2="100%" y2="{y}"/>')
        lines.append(f'<text class="axis" x="4" y="{y - 4}">{top * share:,g}</text>')
    lines.append(
        f'<svg y="{_TOP}" width="100%" height="{_HIGH}" viewBox="0 0 {_WIDE} {_HIGH}" '
        f'preserveAspectRatio="none">'
    )
    for kind in ("read", "answered"):
        line = " ".join(
            f"{_WIDE * (1 - (now - speed.at) / _SPAN_S):.0f},"
            f"{_HIGH * (1 - getattr(speed, kind) / top):.1f}"
            for speed in found
        )
        lines.append(f'<polyline class="{kind}" points="{line}"/>')
    lines.append("</svg>")
    for x, side, text in (("4", "start", "2 min ago"), ("99%", "end", "now")):
        y = _TOP + _HIGH + 15
        lines.append(f'<text class="axis" x="{x}" y="{y}" text-anchor="{side}">{text}</text>')
    legend = (
        f'<ul class="legend" aria-hidden="true"><li class="answered">answered '
        f'{units.speed(last.answered)}/s</li><li class="read">prompts '
        f"{units.speed(last.read)}/s</li></ul>"
    )
    return "".join((*lines, "</svg>", legend))


def _round_top(most: float) -> float:
    """Return the upper end of a scale.

    >>> _round_top(10), _round_top(137), _round_top(8001)
    (10.0, 150.0, 10000.0)
    """
    size = 10.0 ** (len(str(int(most))) - 1)
    return next(n * size for n in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if n * size >= int(most))


def _model_html(model: State, per_s: float) -> str:
    facts = facts_html((name, escape(value)) for name, value in _model_facts(model, per_s))
    tags = (
        model["placed"],
        f"with {counted(len(model['adapters']), 'adapter')}" if model.get("adapters") else "",
        "leased by a run" if model.get("leased") else "",
        f"ID {model['digest']}" if model.get("digest") else "",
    )
    fallback = f'<p class="note">It {escape(model["fallback"])}</p>' if model["fallback"] else ""
    state = escape(model["state"])
    kind = "done" if state == "ready" else "running"
    return (
        f'<section class="card"><h2>{escape(model["name"])} '
        f'<small class="s-{kind}">{state}</small></h2><p class="soft">{escape(_life(model))}</p>'
        f'{facts}<p class="soft">{escape("; ".join(filter(None, tags)))}</p>{fallback}</section>'
    )


def _model_facts(model: State, per_s: float) -> Iterator[tuple[str, str]]:
    if model["parallel"]:
        waiting = f", {model['waiting']:,} waiting" if model["waiting"] else ""
        yield "Places", f"{model['running']:,} of {model['parallel']:,} taken{waiting}"
    yield "Tokens/s", units.speed(per_s)
    if model.get("role") == "embed":
        n_texts, n_tokens = model.get("texts") or 0, model.get("text_tokens") or 0
        yield "Texts", f"{n_texts:,} of {n_tokens:,} tokens"
    else:
        yield "First token", _quantiles_text(model.get("first_token_s"))
        yield "Each next", _quantiles_text(model.get("between_tokens_s"))
        if n_cells := model["n_cells"]:
            yield "KV cache", f"{_share(model.get('cells'), n_cells)} of {n_cells:,}"
        yield "Prompts from it", _share(model.get("reused"), model.get("prompt"))
    sides = (("device_bytes", "on the device"), ("host_bytes", "main"))
    held = (f"{units.size(model[side])} {words}" for side, words in sides if model[side])
    yield "Memory", ", ".join(held)
    yield "Context", f"{model['context']:,}" if model["context"] else ""


def _life(model: State) -> str:
    """Return how long a model is loaded, and when it goes."""
    if model["state"] == "loading":
        return "being loaded"
    loaded = f"Loaded in {units.duration(model['load_s'])}" if model["load_s"] else "Loaded"
    if model["ready_s"] is not None:
        loaded += f" {units.ago(model['ready_s'])}"
    if model["pinned"]:
        return f"{loaded}; pinned."
    if model["expires_s"] is not None:
        return f"{loaded}; goes in {units.duration(model['expires_s'])} unless it is used."
    return f"{loaded}; {'in use' if model['users'] else 'stays'}."


def _quantiles_text(quantiles: Mapping[str, float] | None) -> str:
    if not quantiles:
        return "none yet"
    return f"{_seconds_text(quantiles['p50'])}; 95 %: {_seconds_text(quantiles['p95'])}"


def _seconds_text(seconds: float) -> str:
    """Return a short time.

    >>> _seconds_text(0.0042), _seconds_text(0.25), _seconds_text(75)
    ('4.2 ms', '250 ms', '1 min 15 s')
    """
    if seconds >= 1:
        return units.duration(seconds)
    return f"{seconds * 1000:.{1 if seconds < 0.01 else 0}f} ms"


def _share(part: int | None, whole: int | None) -> str:
    return f"{(part or 0) / whole:.0%}" if whole else "none"


def _request_row(request: State) -> tuple[str, ...]:
    n_read, n_answered = request["prompt"], request["completion"]
    cached = f" ({request['reused']:,} cached)" if request["reused"] else ""
    tokens = f"{n_read:,}{cached} + {n_answered:,}" if n_read + n_answered else ""
    words, kind = _fate(request)
    return (
        html_cell(units.local_time(request["at"], "%H:%M:%S")),
        html_cell(f"{request['method']} {request['path']}", "name"),
        html_cell(request["model"] or "", "name"),
        html_cell(tokens, "n"),
        html_cell(f"{request['seconds']:.2f}", "n"),
        f'<td><span class="s-{kind}">{escape(words)}</span></td>',
        html_cell(request["key"] or request["client"] or ""),
    )


def _fate(request: State) -> tuple[str, str]:
    """Return what became of a request, and the class of its colour."""
    fate, status = request["fate"], request["status"]
    if not fate:
        return "answering" if request["first_s"] else "under way", "running"
    if fate == "gone":
        return "client left", "held"
    if fate == "failed":
        return f"{status or 500} broke off", "failed"
    return str(status), "done" if status < 400 else "failed" if status >= 500 else "held"
