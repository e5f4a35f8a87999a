"""IAM policies as data: as little as the library needs, and all of that."""

from __future__ import annotations

import ast
import uuid
import warnings
from pathlib import Path
from typing import Any

import botocore.session
import msgspec
import pytest

import chalk_online_store.dynamodb
from chalk_online_store import OnlineStore, features
from chalk_online_store.backend import Call
from chalk_online_store.codec.changes import ConditionalWrite
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.dynamodb.bodies import Bodies
from chalk_online_store.dynamodb.wire import Wire
from chalk_online_store.errors import InvalidValue
from chalk_online_store.provisioning.policies import (
    READS,
    WRITES,
    Policy,
    operator,
    policies,
    reader,
    writer,
)
from chalk_online_store.provisioning.spec import TableSpec
from chalk_online_store.testing import Dynoxide, create_table
from tests.terraform import ACCOUNT
from tests.terraform.specs import EAST, SPECS, WEST

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # It leaves two files open, and imports pkg_resources.
    import parliament

every_spec = pytest.mark.parametrize("kind", SPECS)


@features(name="visitor")
class Visitor:
    id: int
    visits: int
    risk: float


def statements(policy: Policy) -> dict[str, dict[str, Any]]:
    """The statements of the document by their ids."""
    found: Any = policy.document(ACCOUNT)["Statement"]
    return {each["Sid"]: each for each in found}


def on_table(policy: Policy) -> set[str]:
    return {action.removeprefix("dynamodb:") for action in statements(policy)["Table"]["Action"]}


@every_spec
def test_aws_knows_every_action_and_its_resources(kind: str) -> None:
    """Actions, resources and conditions fit together by AWS's tables, as parliament has them."""
    for policy in policies(SPECS[kind]):
        assert complaints(policy.document(ACCOUNT)) == []


def test_a_wrong_action_or_resource_is_noticed() -> None:
    """The check is one: it knows what there is not, and what does not go together."""
    document: Any = reader(SPECS["on demand"]).document(ACCOUNT)
    document["Statement"][0]["Action"] = ["dynamodb:BatchGetItems"]
    assert complaints(document) == ["UNKNOWN_ACTION"]
    document["Statement"][0] |= {"Action": ["dynamodb:GetItem"], "Resource": ["arn:aws:s3:::a"]}
    assert complaints(document) == ["RESOURCE_MISMATCH"]


def complaints(document: dict[str, object]) -> list[str]:
    found = parliament.analyze_policy_string(msgspec.json.encode(document).decode())
    return [finding.issue for finding in found.findings]


SEEN = {"TablesSeen": "dynamodb:ListTables", "QuotasSeen": "dynamodb:DescribeLimits"}
"""Actions that tell names and quotas, for which AWS knows no resource."""


@every_spec
def test_nothing_but_the_table_is_open(kind: str) -> None:
    """Actions of DynamoDB are granted on this table alone, in its regions and one account."""
    spec = SPECS[kind]
    tables = [f"arn:aws:dynamodb:{region}:{ACCOUNT}:table/{spec.name}" for region in spec.regions]
    for policy in policies(spec):
        for sid, each in statements(policy).items():
            if sid == "Sharing":
                streams = [f"{table}/stream/*" for table in tables]
                assert each["Resource"] == [*tables, *streams]
                continue
            of_dynamodb = [action.startswith("dynamodb:") for action in each["Action"]]
            if sid in SEEN:
                assert (each["Action"], each["Resource"]) == ([SEEN[sid]], ["*"])
                continue
            assert of_dynamodb == [sid == "Table"] * len(of_dynamodb)
            assert sid != "Table" or each["Resource"] == tables
            assert each["Resource"] != ["*"] or sid == "ScalingSeen"
            assert not any("dynamodb:*" in action for action in each["Action"])


@every_spec
def test_each_role_may_do_more_than_the_one_before(kind: str) -> None:
    """A writer may read, an operator may write; none may delete the table or a replica."""
    may = [on_table(policy) for policy in policies(SPECS[kind])]
    assert may[0] < may[1] < may[2]
    assert not {"DeleteTable", "DeleteTableReplica"} & may[2]


def test_the_data_plane_is_granted_and_no_more() -> None:
    """A writer has the operations that the requests name; the one Scan is the operator's."""
    transactions = {"TransactWriteItems"}  # AWS asks for the permissions of what is inside.
    writers = operations_named() - transactions - {"Scan"}
    assert writers == {*READS, *WRITES} - {"DescribeTable"}
    assert "Scan" in on_table(operator(SPECS["on demand"]))
    assert "Scan" not in on_table(writer(SPECS["on demand"]))


def operations_named() -> set[str]:
    """DynamoDB's operations that stand in the package that sends requests."""
    session = botocore.session.get_session()
    known = set(session.get_service_model("dynamodb").operation_names)
    package = Path(chalk_online_store.dynamodb.__file__).parent
    trees = [ast.parse(path.read_text()) for path in package.glob("*.py")]
    texts = {n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    assert {"GetItem", "BatchWriteItem"} <= texts
    return known & {*texts, *swaps_sent()}


def swaps_sent() -> set[str]:
    """The operations of single swaps, whose names are put together."""
    bodies = Bodies("table", TableLayout())
    item = {"pk": b'{"S":"p"}', "sk": b'{"S":"s"}', "a": b'{"N":"1"}'}
    return {
        bodies.swap(swap)[0]
        for swap in (ConditionalWrite(None, item), ConditionalWrite(item, None))
    }


def test_transactions_hold_puts_and_deletes_only() -> None:
    """So no permission to check conditions of other items is granted."""
    bodies = Bodies("table", TableLayout())
    item = {"pk": b'{"S":"p"}', "sk": b'{"S":"s"}', "a": b'{"N":"1"}'}
    swaps = [
        ConditionalWrite(None, item),
        ConditionalWrite(item, item),
        ConditionalWrite(item, None),
    ]
    sent = msgspec.json.decode(bodies.transact(swaps))["TransactItems"]
    assert [list(action) for action in sent] == [["Put"], ["Put"], ["Delete"]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The operations of all requests."""
    found: set[str] = set()
    attempt = Wire.attempt

    def noted(self: Wire, operation: str, body: bytes, decoder: Any, call: Call) -> Any:
        found.add(operation)
        return (yield from attempt(self, operation, body, decoder, call))

    monkeypatch.setattr(Wire, "attempt", noted)
    return found


def test_reading_takes_no_more_than_a_reader_may(dynoxide: Dynoxide, sent: set[str]) -> None:
    """Reads of features that exist, of new ones, and the check of health send what is granted."""
    table = f"read-{uuid.uuid4()}"
    create_table(dynoxide.endpoint_url, table)
    url = dynoxide.url(table)
    with OnlineStore.open(url, schema=[Visitor]) as store:
        assert store.read(Visitor, [1])[0].get("visits") is None  # Nothing is registered yet.
        store.write(Visitor, [{"id": n, "visits": n, "risk": 0.5} for n in range(3)])
    sent.clear()
    with OnlineStore.open(url, schema=[Visitor]) as store:
        assert store.read(Visitor, [1])[0]["visits"] == 1
        assert [row["visits"] for row in store.read(Visitor, [0, 1, 2])] == [0, 1, 2]
        assert store.health().ok
    assert sent == {"BatchGetItem", "GetItem", "Query"}
    assert sent <= on_table(reader(SPECS["on demand"]))


def test_writing_takes_no_more_than_a_writer_may(dynoxide: Dynoxide, sent: set[str]) -> None:
    """Writes, in event time or not, deletions and the registration of features are granted."""
    table = f"write-{uuid.uuid4()}"
    create_table(dynoxide.endpoint_url, table)
    rows = [{"id": n, "visits": n, "risk": 0.5} for n in range(3)]
    with OnlineStore.open(dynoxide.url(table), schema=[Visitor]) as store:
        store.write(Visitor, rows)
        store.write(Visitor, rows, ordering="arrival")
        store.delete(Visitor, [1])
        store.rename(Visitor, "risk", "danger")
    transactions = {"TransactWriteItems"}
    assert transactions < sent
    assert {"UpdateItem", "BatchWriteItem", "PutItem"} < sent
    assert sent - transactions <= on_table(writer(SPECS["on demand"]))


def test_own_keys_are_used_by_dynamodb_alone() -> None:
    """Keys of one's own are granted where there are some, and only by way of DynamoDB."""
    spec = SPECS["global, own keys"]
    for policy in policies(spec):
        keys = statements(policy)["Keys"]
        assert keys["Resource"] == [spec.kms_key_arns[region] for region in spec.regions]
        via = [f"dynamodb.{region}.amazonaws.com" for region in (EAST, WEST)]
        assert keys["Condition"] == {"StringEquals": {"kms:ViaService": via}}
    assert not any("Keys" in statements(policy) for policy in policies(SPECS["on demand"]))
    assert "kms:Encrypt" not in statements(reader(spec))["Keys"]["Action"]
    assert "kms:Encrypt" in statements(writer(spec))["Keys"]["Action"]


def test_scaling_is_granted_where_there_is_some() -> None:
    """Autoscaling, its alarms and its role go to the operator of an autoscaled table alone."""
    scaling = {"Scaling", "ScalingSeen", "ScalingTags", "ScalingRole", "Alarms"}
    assert scaling < set(statements(operator(SPECS["both scaled"])))
    assert scaling < set(statements(operator(SPECS["reads scaled"])))
    for kind in ("on demand", "fixed", "global"):
        assert not scaling & set(statements(operator(SPECS[kind])))
    assert set(statements(writer(SPECS["both scaled"]))) == {"Table"}


def test_replicas_are_granted_where_there_are_some() -> None:
    """Making a replica takes one more action, and AWS's role for replication."""
    assert "CreateTableReplica" in on_table(operator(SPECS["global"]))
    assert "ReplicationRole" in statements(operator(SPECS["global"]))
    assert "CreateTableReplica" not in on_table(operator(SPECS["on demand"]))
    assert "ReplicationRole" not in statements(operator(SPECS["on demand"]))


def test_other_partitions_have_their_own_arns() -> None:
    """China's and the government's clouds are named in every ARN that we write."""
    document = reader(TableSpec("features", ("cn-north-1",))).document(ACCOUNT, "aws-cn")
    (statement,) = msgspec.convert(document["Statement"], list[dict[str, Any]])
    assert statement["Resource"] == [f"arn:aws-cn:dynamodb:cn-north-1:{ACCOUNT}:table/features"]


def test_a_name_that_iam_would_refuse_is_refused() -> None:
    """A policy's name is the table's with the role: the error says what is too long."""
    longest = "t" * (128 - len("-reader"))
    assert reader(TableSpec(longest, (EAST,))).name == f"{longest}-reader"
    with pytest.raises(InvalidValue, match="takes 128 characters"):
        operator(TableSpec(longest, (EAST,)))


def test_a_policy_that_iam_would_refuse_is_refused() -> None:
    """IAM takes 6,144 characters: a policy for many regions that has more is not rendered."""
    regions = tuple(f"us-east-{n}" for n in range(9)) + tuple(f"eu-west-{n}" for n in range(9))
    spec = msgspec.structs.replace(SPECS["both scaled"], name="t" * 100, regions=regions)
    assert len(statements(reader(spec))["Table"]["Resource"]) == len(regions)
    with pytest.raises(InvalidValue, match="takes 6144 characters"):
        operator(spec)
