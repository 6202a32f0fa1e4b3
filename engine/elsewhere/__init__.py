"""Models on other servers: any that speaks OpenAI's API, one or several, as a pool."""
