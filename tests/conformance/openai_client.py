"""OpenAI's own client, speaking to a running service."""

from typing import Any

import openai
from openai import OpenAI

from tests.live import Live

HI: Any = [{"role": "user", "content": "Say hello."}]


def speaking_to(live: Live, *, max_retries: int = 0) -> OpenAI:
    """Return a client, which takes no proxy from the environment."""
    return OpenAI(
        base_url=f"{live.url}/v1",
        api_key="none",
        max_retries=max_retries,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    )
