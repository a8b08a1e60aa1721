"""botocore's exceptions, mapped to the lab's in this one place."""

from __future__ import annotations

from contextlib import AbstractContextManager

from lab.errors import DriverError, DriverUnavailable, details_of, mapped, one_line

INSTALL = "pip install 'stratalab[lambda]'"


def translated(doing: str, kind: type[DriverError] = DriverError) -> AbstractContextManager[None]:
    """Raise what botocore raises inside as `kind`; where the endpoint gives no answer, as DriverUnavailable where
    `kind` leaves that open."""
    return mapped(is_sdk_error, lambda error: translate(error, doing, kind))


def is_sdk_error(error: BaseException) -> bool:
    """Whether `error` is botocore's: the endpoint's refusal, its connection's, or of what was to be sent."""
    from botocore.exceptions import BotoCoreError, ClientError

    return isinstance(error, BotoCoreError | ClientError)


def code_of(error: BaseException) -> str:
    """The error's name in the Lambda API, such as `ResourceNotFoundException`; empty where the endpoint gave none."""
    response = getattr(error, "response", None)
    return str((response or {}).get("Error", {}).get("Code", ""))


def translate(error: BaseException, doing: str, kind: type[DriverError] = DriverError) -> DriverError:
    """The error of class `kind` that tells on one line what went wrong while `doing`."""
    from botocore.exceptions import ClientError, HTTPClientError, NoCredentialsError
    from botocore.exceptions import ConnectionError as NotConnected

    if isinstance(error, ClientError):
        said = " ".join(str(error.response.get("Error", {}).get("Message", "") or error).split())
        return kind(f"the Lambda API refused to {doing}: {code_of(error)}: {said}", details=details_of(error))
    if isinstance(error, NoCredentialsError):
        return kind(f"no AWS credentials to {doing} with", resolution="set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY")
    if isinstance(error, HTTPClientError | NotConnected):
        lost = DriverUnavailable if kind is DriverError else kind
        return lost(f"no answer of the Lambda API, asked to {doing}: {one_line(error)}", details=details_of(error))
    return kind(f"the Lambda API cannot be asked to {doing}: {one_line(error)}", details=details_of(error))
