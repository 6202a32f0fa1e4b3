"""The console's page on models: speed, memory, each loaded model and the last requests.

It shows `/ui/state.json` of each service. Speeds are differences of two looks at what was counted,
so the chart begins with the first look. No prompt and no answer is in any of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from paddock.engine.system import units
from paddock.engine.system.records import Struct
from paddock.engine.system.text import counted
from paddock.runner.render.html_page import render

from .console_run_pages import PageParts

_LIVE_S = 1
_SPAN_S = 120
_STEADY_LOOKS = 4
"""The large number is their mean: one that jumps cannot be read."""
_LEAST_APART_S = 0.3
_WIDE, _HIGH, _TOP = 1000, 130, 18
_TOTALS = {
    "answers": "answer", "texts": "embedded text", "loads": "load", "evictions": "eviction",
    "deaths": "dead worker", "refused": "refused request",
}  # fmt: skip
State = Mapping[str, Any]


class Speed(Struct, frozen=True):
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
    services, n_running = list[State](), 0
    for number, (name, state) in enumerate(states):
        n_running += state["n_running"]
        history = histories.setdefault(f"{name} {number}", SpeedHistory())
        speed, now, speeds = history.add(state), float(state["now"]), list(history.speeds)
        most = max(max(speed.answered, speed.read) for speed in speeds)
        # The upper end of the scale: 10, 150 of 137, 10,000 of 8,001
        least_top = int(max(most, 10.0))
        size = 10.0 ** (len(str(least_top)) - 1)
        top = next(n * size for n in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if n * size >= least_top)
        lines = {
            kind: " ".join(
                f"{_WIDE * (1 - (now - speed.at) / _SPAN_S):.0f},"
                f"{_HIGH * (1 - getattr(speed, kind) / top):.1f}"
                for speed in speeds
            )
            for kind in ("read", "answered")
        }
        totals = (counted(state["totals"][key], noun) for key, noun in _TOTALS.items()
                  if state["totals"].get(key))  # fmt: skip
        models = [
            (model, _model_facts(model, speed.of_models.get(_model_key(model), 0.0)), _life(model))
            for model in state["models"]
        ]
        services.append(
            {
                "name": name,
                "state": state,
                "per_s": history.steady(),
                "memory": _memory_text(state),
                "speed": speed,
                "most": most,
                "top": top,
                "lines": lines,
                "models": models,
                "totals": list(totals),
            }
        )
    body = render(
        "console_models.html",
        services=services,
        notes=notes,
        wide=_WIDE,
        high=_HIGH,
        top_px=_TOP,
        speed=units.speed,
    )
    return PageParts(f"({n_running}) Models" if n_running else "Models", body, _LIVE_S)


def request_page(states: Iterable[tuple[str, State]], notes: Iterable[str]) -> PageParts:
    services = [
        (name, [*state.get("under_way", ()), *state.get("last", ())]) for name, state in states
    ]
    return PageParts(
        "Requests",
        render("console_requests.html", services=services, notes=notes, fate=_fate),
        _LIVE_S,
    )


def _memory_text(state: State) -> tuple[str, str]:
    gpus = state["devices"]
    total, free = (
        sum(gpu[name] for gpu in gpus) if gpus else state["memory"][name]
        for name in ("total", "free")
    )
    side = "device_bytes" if gpus else "host_bytes"
    used_bytes = min(sum(model[side] for model in state["models"]), total - free)
    where = f" of {counted(len(gpus), 'device')}" if gpus else ""
    words = f"memory{where} free; models hold {units.size(used_bytes)} of {units.size(total)}"
    return units.size(free), words


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
    sizes = (f"{units.size(model[side])} {words}" for side, words in sides if model[side])
    yield "Memory", ", ".join(sizes)
    yield "Context", f"{model['context']:,}" if model["context"] else ""


def _life(model: State) -> str:
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


def _fate(request: State) -> tuple[str, str]:
    fate, status = request["fate"], request["status"]
    if not fate:
        return "answering" if request["first_s"] else "under way", "running"
    if fate == "gone":
        return "client left", "held"
    if fate == "failed":
        return f"{status or 500} broke off", "failed"
    return str(status), "done" if status < 400 else "failed" if status >= 500 else "held"
