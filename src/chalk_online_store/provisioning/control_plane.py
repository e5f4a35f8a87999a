"""Calls of the control plane, by boto3: DynamoDB's and Application Auto Scaling's, per region.

Transient failures are retried by boto3 (mode "standard"). What remains is raised as an error of
this library, with AWS's own words: those of the control plane hold no data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from chalk_online_store import errors
from chalk_online_store.dynamodb.credentials import (
    NO_CREDENTIALS,
    LocalSession,
    Session,
    is_local,
    resolve_endpoint,
)
from chalk_online_store.dynamodb.sessions import Sessions, session_of
from chalk_online_store.provisioning.older_botocore import teach_vector_indexes

Service: TypeAlias = Literal["dynamodb", "application-autoscaling", "cloudwatch"]

_ATTEMPTS, _ATTEMPTS_LOCALLY = 6, 2

_ERRORS: dict[str, type[errors.RequestError]] = {
    "ResourceNotFoundException": errors.TableNotFound,
    "TableNotFoundException": errors.TableNotFound,
    "ResourceNotFound": errors.TableNotFound,
    "ThrottlingException": errors.Throttled,
    "Throttling": errors.Throttled,
    "AccessDeniedException": errors.AccessDenied,
    "AccessDenied": errors.AccessDenied,
    "403": errors.AccessDenied,
    "ExpiredTokenException": errors.CredentialsExpired,
    "ExpiredToken": errors.CredentialsExpired,
    "UnrecognizedClientException": errors.InvalidCredentials,
    "InvalidSignatureException": errors.InvalidCredentials,
    "IncompleteSignatureException": errors.InvalidCredentials,
    "MissingAuthenticationTokenException": errors.InvalidCredentials,
    "InvalidClientTokenId": errors.InvalidCredentials,
    "ConditionalCheckFailedException": errors.ConditionFailed,
    "ResourceInUseException": errors.WriteConflict,
    "ContinuousBackupsUnavailableException": errors.WriteConflict,
    "ConcurrentUpdateException": errors.WriteConflict,
}

_DENIED = re.compile(r"not authorized to perform: ([a-z-]+:[A-Za-z]+)")

_LACKING = frozenset(
    # botocore gives the HTTP status where an answer has no code of AWS's.
    ("UnknownOperationException", "UnknownOperation", "NotImplemented", "400", "404", "405", "501")
)


class ApiLacking(errors.RequestRefused):
    """An engine does not have this operation."""


@dataclass(frozen=True, slots=True)
class ControlPlaneCall:
    """One call of the control plane, in a region.

    `arguments` are those of the operation, in AWS's names. TagResource takes the table's name
    here, and gets the ARN from DescribeTable.
    """

    region: str
    operation: str
    arguments: Mapping[str, Any]
    service: Service = "dynamodb"

    def plain(self) -> dict[str, Any]:
        """As builtins, for JSON."""
        return {
            "region": self.region,
            "service": self.service,
            "operation": self.operation,
            "arguments": dict(self.arguments),
        }


class ControlPlane:
    """DynamoDB and Application Auto Scaling in every region. Close it, or use it in `with`.

    `session` is a `boto3.Session`, or one for each region of a Global Table in several accounts;
    without it, one is made. Regions without a session are not served. `endpoint_urls` and
    `autoscaling_urls` have URLs by region, for engines; other regions have AWS's endpoints. Where
    only the first is stated for a region, autoscaling is not asked there: an engine's table is
    never looked up in an AWS account.

    Engines on this machine take made-up credentials where the session has none.
    """

    def __init__(
        self,
        session: Sessions | None = None,
        *,
        endpoint_urls: Mapping[str, str] | None = None,
        autoscaling_urls: Mapping[str, str] | None = None,
    ) -> None:
        self._sessions: Sessions = session or session_of(None)
        self._urls: dict[Service, Mapping[str, str]] = {
            "dynamodb": endpoint_urls or {},
            "application-autoscaling": autoscaling_urls or {},
            "cloudwatch": {},
        }
        self._clients: dict[tuple[Service, str], Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Harmless when it has been done."""
        while self._clients:
            self._clients.popitem()[1].close()

    @property
    def is_aws(self) -> bool:
        """Whether regions without a stated endpoint are AWS's, as they are unless one is stated."""
        return not self._urls["dynamodb"]

    def serves(self, service: Service, region: str) -> bool:
        """Whether a service can be asked in a region."""
        if isinstance(self._sessions, Mapping) and region not in self._sessions:
            return False
        return self.is_aws or region in self._urls[service]

    def call(self, call: ControlPlaneCall) -> dict[str, Any]:
        """Make a call; its answer.

        Raises `InvalidURL` for a region that is not served, `ApiLacking`, `TableNotFound`,
        `WriteConflict` (something else is under way), `AccessDenied` naming the action,
        `RequestRefused` and the other `RequestError`.
        """
        try:
            operation = getattr(self._client(call.service, call.region), xform_name(call.operation))
            answer: dict[str, Any] = operation(**call.arguments)
        except ClientError as error:
            raise _refusal(call, error) from error
        except BotoCoreError as error:
            raise _failure(call, error) from error
        return answer

    def _client(self, service: Service, region: str) -> Any:
        key = (service, region)
        if not self.serves(service, region):
            raise errors.InvalidURL(
                f"Other regions have an endpoint of {service} or a session of their own; "
                f"{region} has none."
            )
        if key not in self._clients:
            self._clients[key] = self._new_client(service, region)
        return self._clients[key]

    def _new_client(self, service: Service, region: str) -> Any:
        url = self._urls[service].get(region)
        found = self._sessions
        session = found[region] if isinstance(found, Mapping) else found
        made_up, attempts = {}, _ATTEMPTS
        if url is not None:
            resolve_endpoint(session, region, url)  # Raises InvalidURL for what is none.
            if is_local(url):
                made_up, attempts = _made_up(session), _ATTEMPTS_LOCALLY
        retries: Any = {"mode": "standard", "max_attempts": attempts}
        config = Config(retries=retries, connect_timeout=5, read_timeout=30)
        client = session.client(
            service, region_name=region, endpoint_url=url, config=config, **made_up
        )
        if service == "dynamodb":
            teach_vector_indexes(client)
        return client


def _made_up(session: Session) -> dict[str, str]:
    """Keys for an engine on this machine, where the session has none."""
    if session.get_credentials() is not None:
        return {}
    made = LocalSession(session).get_credentials().get_frozen_credentials()
    return {"aws_access_key_id": made.access_key, "aws_secret_access_key": made.secret_key}


def _refusal(call: ControlPlaneCall, error: ClientError) -> errors.RequestError:
    code = error.response.get("Error", {}).get("Code", "")
    said = error.response.get("Error", {}).get("Message", "").strip()
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    kind = _ERRORS.get(code, errors.ServerError if status >= 500 else errors.RequestRefused)
    where = f"{call.operation} in {call.region}"
    if code in _LACKING:
        raised: errors.RequestError = ApiLacking(f"{where}: the engine has no such operation.")
    elif kind is errors.AccessDenied:
        raised = kind(
            f"{where}: these credentials may not. Allow them {_action(call, said)} on the table."
        )
    else:
        raised = kind(f"{where}: {code}: {said}" if said else f"{where}: {code}.")
    raised.engine_message = said
    return raised


def _action(call: ControlPlaneCall, said: str) -> str:
    """The IAM action that is missing: a call may need others than its own, which AWS then names."""
    return _named_action(said) or f"{call.service}:{call.operation}"


def denied_action(error: errors.AccessDenied) -> str | None:
    """Return the IAM action that AWS names in a denial, if it names one."""
    return _named_action(error.engine_message or "")


def _named_action(said: str) -> str | None:
    named = _DENIED.search(said)
    return named[1] if named else None


def _failure(call: ControlPlaneCall, error: BotoCoreError) -> errors.RequestError:
    where = f"{call.operation} in {call.region}"
    if isinstance(error, NoCredentialsError):
        return errors.InvalidCredentials(NO_CREDENTIALS)
    if isinstance(error, ParamValidationError):
        return errors.RequestRefused(f"{where}: {error}")
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        return errors.RequestTimeout(f"{where}: {error}")
    return errors.ConnectionFailed(f"{where}: {error}")
