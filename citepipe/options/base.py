"""What all option models share."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """A section of the configuration: immutable, and a key that nothing reads is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
