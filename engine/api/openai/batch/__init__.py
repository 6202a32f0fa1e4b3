"""Files and batches of OpenAI's API: many requests at once, that outlive the service."""
