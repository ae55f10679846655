"""How files are fetched from elsewhere, and where they are kept."""

import re

from pydantic import Field, field_validator

from citepipe.options.base import Options


class SourcesOptions(Options):
    """Downloads: the hub, Google Drive, http and https."""

    cache: str | None = Field(
        None,
        description="The folder where what was fetched is kept for all runs, by its content; null "
        "for ~/.cache/citepipe/sources.",
    )
    offline: bool = Field(
        False,
        description="Ask no network; a line says what is missing and where to put it by hand. "
        "CITEPIPE_OFFLINE=1 and HF_HUB_OFFLINE=1 do the same.",
    )
    sha256: dict[str, str] = Field(
        default_factory=dict,
        description="Digests of what addresses lead to, where they are known: the file, or the "
        "archive before it is unpacked; of a file in a folder at Drive or in a repository by "
        "ADDRESS#FILE.",
    )
    timeout: float = Field(
        60.0, gt=0, description="Seconds without a byte after which a download is begun again."
    )
    retries: int = Field(
        8, ge=0, description="Failures in a row, without a byte between, that are put up with."
    )

    @field_validator("sha256")
    @classmethod
    def _digests(cls, digests: dict[str, str]) -> dict[str, str]:
        for address, digest in digests.items():
            if not re.fullmatch("[0-9a-fA-F]{64}", digest):
                raise ValueError(f"expected 64 hexadecimal digits for {address}, got {digest!r}")
        return {address: digest.lower() for address, digest in digests.items()}
