"""A server that generates: where it is and how patiently it is asked."""

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from citepipe.options.base import Options


class ServerOptions(Options):
    """An OpenAI-compatible server, such as vLLM, that runs the model in place of this process."""

    url: str = Field(
        "http://127.0.0.1:8000/v1", description="What the paths of its API begin with."
    )
    model: str | None = Field(
        None, min_length=1, description="The model's name there; null: the first it serves as base."
    )
    concurrency: int = Field(64, ge=1, description="Requests under way at once.")
    timeout: float = Field(
        300.0, gt=0, description="Seconds without a byte after which an answer is given up."
    )
    retries: int = Field(
        8, ge=0, description="How often a failed request is tried again, with growing pauses."
    )
    api_key_variable: str | None = Field(
        None,
        description="Name of the environment variable that holds the API key; null for no key.",
    )

    @field_validator("api_key_variable")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        # Perhaps it is the key itself: what is said of it later would show it.
        if name is not None and not (name.isascii() and name.isidentifier()):
            raise ValueError(
                "expected the name of an environment variable, such as OPENAI_API_KEY, not a key"
            )
        return name

    @field_validator("url")
    @classmethod
    def _whole_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host = parts.hostname
            port = parts.port
        except ValueError as error:
            raise ValueError(f"expected an http or https URL: {error}") from None
        readable = url.isprintable() and " " not in url
        if parts.scheme not in ("http", "https") or not host or port == 0 or not readable:
            raise ValueError("expected an http or https URL such as http://127.0.0.1:8000/v1")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(
                "expected a URL without user, '?' and '#'; a key goes into the variable that "
                "api_key_variable names"
            )
        return url.rstrip("/")
