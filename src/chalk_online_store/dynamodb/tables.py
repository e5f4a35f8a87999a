"""What the control plane knows of a table, by boto3."""

from __future__ import annotations

from contextlib import closing

from botocore.exceptions import BotoCoreError, ClientError

from chalk_online_store.dynamodb.sessions import RegionAccess
from chalk_online_store.errors import ConnectionFailed, RequestRefused, TableNotFound


def describe_table(access: RegionAccess, table: str) -> tuple[int, int, int]:
    """The items of a table and their bytes, on AWS as they were up to six hours ago, and its WCU.

    These are 0 for a table on demand.

    Raises `TableNotFound`, `RequestRefused`, `ConnectionFailed`, `InvalidCredentials`.
    """
    keys = access.credentials.current()
    client = access.session.client(
        "dynamodb",
        region_name=access.endpoint.region,
        endpoint_url=access.endpoint.url,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.token,
    )
    with closing(client):
        try:
            description = client.describe_table(TableName=table)["Table"]
        except ClientError as error:
            raise _refusal(table, error.response.get("Error", {}).get("Code", "")) from error
        except BotoCoreError as error:
            raise ConnectionFailed(f"DescribeTable of {table!r}: {error}.") from error
    throughput = description.get("ProvisionedThroughput", {})
    return (
        description.get("ItemCount", 0),
        description.get("TableSizeBytes", 0),
        throughput.get("WriteCapacityUnits", 0),
    )


def _refusal(table: str, code: str) -> TableNotFound | RequestRefused:
    if code == "ResourceNotFoundException":
        return TableNotFound(f"There is no table {table!r}: check its name and region in the URL.")
    return RequestRefused(f"DescribeTable of {table!r}: {code}.")
