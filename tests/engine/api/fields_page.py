"""The page of request fields, made from the lists that the service reads."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from paddock.engine.api.anthropic.messages import MessagesBody, PromptBody
from paddock.engine.api.body_models import Body
from paddock.engine.api.ollama import embeddings as ollama_embeddings
from paddock.engine.api.ollama import generation, systemone
from paddock.engine.api.ollama.transfers import CreateBody
from paddock.engine.api.openai import chat_completions, decisions, embeddings, rerank, responses_api
from paddock.engine.api.request_fields import (
    INNER_REFUSED,
    INNER_WITHOUT_EFFECT,
    REFUSED,
    WITHOUT_EFFECT,
    Refusal,
)
from paddock.engine.models.modelfile import PARAMETER_KINDS

PAGE = Path(__file__).parents[3] / "examples" / "service" / "FIELDS.md"
BODIES: Mapping[str, type[Body]] = {
    "/v1/chat/completions": chat_completions._ChatBody,
    "/v1/completions": chat_completions._CompletionBody,
    "/v1/responses": responses_api._ResponseBody,
    "/v1/embeddings": embeddings.EmbeddingBody,
    "/v1/rerank": rerank.RerankBody,
    "/v1/decisions": decisions.DecisionBody,
    "/v1/systemone": systemone._SystemOneBody,
    "/v1/messages": MessagesBody,
    "/v1/messages/count_tokens": PromptBody,
    "/api/chat": generation._OllamaChatBody,
    "/api/generate": generation._GenerateBody,
    "/api/embed": ollama_embeddings._EmbedBody,
    "/api/create": CreateBody,
}


def fields_page() -> str:
    """Return the page in Markdown."""
    lines = [
        "# The fields of a request",
        "",
        "Made from the lists that the service reads (`python -m tests.engine.api.fields_page`).",
        "A field is obeyed; or it has no effect on the answer, and the header `Warning` names it;",
        "or it is refused with 400 and what to do. The second and third table say which, of all",
        "fields that an endpoint does not obey; the last two those of turns, parts, tools and",
        "other objects within a request. Unknown ones are named, too.",
        "",
        "| endpoint | obeyed |",
        "|---|---|",
        *(f"| `{path}` | {_listed(body.declared())} |" for path, body in BODIES.items()),
        f"| `options` of `/api/…` | {_listed(PARAMETER_KINDS)} |",
    ]
    for title, reasons in (
        ("without effect, because", WITHOUT_EFFECT.items()),
        ("refused: what to do", _remedies(REFUSED)),
        ("within objects, without effect", INNER_WITHOUT_EFFECT.items()),
        ("within objects, refused: what to do", _remedies(INNER_REFUSED)),
    ):
        by_reason = defaultdict(list)
        for name, why in reasons:
            by_reason[why].append(name)
        lines += ["", f"| {title} | fields |", "|---|---|"]
        lines += [f"| {why} | {_listed(names)} |" for why, names in by_reason.items()]
    return "\n".join(lines) + "\n"


def _remedies(refusals: Mapping[str, Refusal]) -> Iterable[tuple[str, str]]:
    return [(name, known.remedy) for name, known in refusals.items()]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


if __name__ == "__main__":
    PAGE.write_text(fields_page(), "utf-8")
