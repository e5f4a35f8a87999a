"""A control plane in memory that keeps AWS's rules, which engines do not: to test plans against.

It refuses what AWS refuses: two kinds of change in one UpdateTable, a replica of a table whose
write capacity is neither on demand nor autoscaled, or that has no stream of both images, a second
attribute of the time to live, a change of a stream that replicas need. What is asynchronous there
takes `delay` looks here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from botocore import xform_name

from chalk_online_store.errors import RequestRefused, TableNotFound, WriteConflict
from chalk_online_store.provisioning.control_plane import ControlPlane, ControlPlaneCall

Given: TypeAlias = dict[str, Any]

ACCOUNT = "123456789012"
KINDS = (
    "BillingMode",
    "ProvisionedThroughput",
    "OnDemandThroughput",
    "StreamSpecification",
    "SSESpecification",
    "TableClass",
    "DeletionProtectionEnabled",
    "ReplicaUpdates",
)


class Aws(ControlPlane):
    """Regions of DynamoDB and Application Auto Scaling. `calls` are those that change anything."""

    def __init__(self, delay: int = 0) -> None:
        self.delay = delay
        self.tables: dict[str, dict[str, Any]] = {}
        self.targets: dict[tuple[str, str], dict[str, Any]] = {}
        self.policies: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[ControlPlaneCall] = []
        self.on_call: Callable[[ControlPlaneCall], None] = lambda call: None

    def serves(self, service: str, region: str) -> bool:
        return True

    def call(self, call: ControlPlaneCall) -> dict[str, Any]:
        handler = getattr(self, f"_{xform_name(call.operation)}")
        answer: Given = handler(call.region, dict(call.arguments))
        if not call.operation.startswith(("Describe", "List")):
            self.calls.append(call)
            self.on_call(call)
        return answer

    # --- what is read -------------------------------------------------------------------------

    def _describe_table(self, region: str, given: Given) -> Given:
        table = self._table(region)
        for each in self.tables.values():
            each["busy"] = max(0, each["busy"] - 1)
        status = table["status"] if table["busy"] else "ACTIVE"
        replicas = [
            {"RegionName": name, "ReplicaStatus": "CREATING" if other["busy"] else "ACTIVE"}
            for name, other in self.tables.items()
            if name != region
        ]
        return {"Table": {**table["description"], "TableStatus": status, "Replicas": replicas}}

    def _describe_continuous_backups(self, region: str, given: Given) -> Given:
        days = self._table(region)["recovery"]
        found = {"PointInTimeRecoveryStatus": "ENABLED" if days else "DISABLED"}
        if days:
            found["RecoveryPeriodInDays"] = days
        return {"ContinuousBackupsDescription": {"PointInTimeRecoveryDescription": found}}

    def _describe_time_to_live(self, region: str, given: Given) -> Given:
        table = self._table(region)
        attribute, changing = table["ttl"], table["ttl_busy"] > 0
        table["ttl_busy"] = max(0, table["ttl_busy"] - 1)
        status = ("ENABLED", "ENABLING") if attribute else ("DISABLED", "DISABLING")
        found = {"TimeToLiveStatus": status[changing]}
        return {
            "TimeToLiveDescription": found | ({"AttributeName": attribute} if attribute else {})
        }

    def _list_tags_of_resource(self, region: str, given: Given) -> Given:
        tags = sorted(self._table(region)["tags"].items())
        start = int(given.get("NextToken", 0))  # One tag a page.
        page = {"Tags": [{"Key": k, "Value": v} for k, v in tags[start : start + 1]]}
        return page | ({"NextToken": str(start + 1)} if start + 1 < len(tags) else {})

    def _describe_scalable_targets(self, region: str, given: Given) -> Given:
        return {"ScalableTargets": [t for (where, _), t in self.targets.items() if where == region]}

    def _describe_scaling_policies(self, region: str, given: Given) -> Given:
        found = [p for (where, _), p in self.policies.items() if where == region]
        return {"ScalingPolicies": found}

    # --- what is changed ----------------------------------------------------------------------

    def _create_table(self, region: str, given: Given) -> Given:
        if region in self.tables:
            raise WriteConflict("there already")
        tags = {tag["Key"]: tag["Value"] for tag in given.pop("Tags", ())}
        description = {"TableArn": f"arn:aws:dynamodb:{region}:{ACCOUNT}:table/features"}
        self.tables[region] = {
            "description": description,
            "status": "CREATING",
            "busy": self.delay,
            "recovery": None,
            "ttl": None,
            "ttl_busy": 0,
            "tags": tags,
        }
        for name in ("KeySchema", "AttributeDefinitions", "DeletionProtectionEnabled"):
            description[name] = given.pop(name)
        self._set(region, given)
        return {}

    def _update_table(self, region: str, given: Given) -> Given:
        table = self._idle(region)
        asked = [kind for kind in KINDS if kind in given]
        refuse(
            len(asked) - ("BillingMode" in asked and "ProvisionedThroughput" in asked) != 1, asked
        )
        for update in given.pop("ReplicaUpdates", ()):
            ((action, member),) = update.items()
            getattr(self, f"_replica_{action.lower()}")(region, dict(member))
        if "DeletionProtectionEnabled" in given:
            table["description"] |= given
        elif given:
            self._set(region, given)
        table["status"], table["busy"] = "UPDATING", max(table["busy"], self.delay)
        return {}

    def _set(self, region: str, settings: dict[str, Any]) -> None:
        """Settings of a table; those that are the whole Global Table's, in all regions."""
        described = self._table(region)["description"]
        before = dict(described)
        if "StreamSpecification" in settings:
            wanted = settings["StreamSpecification"]
            refuse(len(self.tables) > 1, "a stream that replicas need")
            had = described.get("StreamSpecification", {}).get("StreamEnabled", False)
            refuse(wanted["StreamEnabled"] == had, "a stream that is so already")
            described["StreamSpecification"] = wanted
        if "SSESpecification" in settings:
            key = settings["SSESpecification"].get("KMSMasterKeyId", f"key-of-aws-in-{region}")
            described["SSEDescription"] = {"Status": "ENABLED", "KMSMasterKeyArn": key}
        self._set_capacity(region, settings)
        if "TableClass" in settings:
            described["TableClassSummary"] = {"TableClass": settings["TableClass"]}
        for other in self.tables.values():
            theirs = other["description"]
            for name in ("TableClassSummary", "OnDemandThroughput", "ProvisionedThroughput"):
                if theirs.get(name) == before.get(name) and name in described:
                    theirs[name] = described[name]

    def _set_capacity(self, region: str, settings: Mapping[str, Any]) -> None:
        described = self._table(region)["description"]
        if mode := settings.get("BillingMode"):
            for other in self.tables.values():
                other["description"]["BillingModeSummary"] = {"BillingMode": mode}
            on_demand = mode == "PAY_PER_REQUEST"
            none = {"ReadCapacityUnits": 0, "WriteCapacityUnits": 0}
            described["ProvisionedThroughput"] = settings.get("ProvisionedThroughput", none)
            refuse(on_demand == ("ProvisionedThroughput" in settings), "units on demand")
        elif units := settings.get("ProvisionedThroughput"):
            refuse(units == described["ProvisionedThroughput"], "units that are so already")
            described["ProvisionedThroughput"] = units
        if most := settings.get("OnDemandThroughput"):
            described["OnDemandThroughput"] = {**described.get("OnDemandThroughput", {}), **most}

    def _replica_create(self, region: str, member: dict[str, Any]) -> None:
        source, name = self._table(region), member["RegionName"]
        described = source["description"]
        refuse(name in self.tables, "a replica where there is a table")
        stream = described.get("StreamSpecification", {})
        refuse(stream.get("StreamViewType") != "NEW_AND_OLD_IMAGES", "no stream of both images")
        write = (region, "dynamodb:table:WriteCapacityUnits")
        scaled = write in self.targets and write in self.policies
        on_demand = described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        refuse(not (scaled or on_demand), "neither on demand nor autoscaled")
        own = f"key-of-aws-in-{region}" != described["SSEDescription"]["KMSMasterKeyArn"]
        refuse(own != ("KMSMasterKeyId" in member), "a key of one's own in all regions, or in none")
        key = member.get("KMSMasterKeyId", f"key-of-aws-in-{name}")
        theirs = {
            **described,
            "TableArn": described["TableArn"].replace(region, name),
            "DeletionProtectionEnabled": False,
            "SSEDescription": {"Status": "ENABLED", "KMSMasterKeyArn": key},
        }
        if units := member.get("ProvisionedThroughputOverride"):
            theirs["ProvisionedThroughput"] = {**theirs["ProvisionedThroughput"], **units}
        self.tables[name] = {
            **source, "description": theirs, "status": "CREATING", "busy": self.delay,
            "tags": {}, "recovery": None,
        }  # fmt: skip

    def _replica_update(self, region: str, member: dict[str, Any]) -> None:
        described = self._table(member.pop("RegionName"))["description"]
        refuse("KMSMasterKeyId" in member, "a key by ReplicaUpdates")
        if units := member.get("ProvisionedThroughputOverride"):
            now = described["ProvisionedThroughput"]
            write = self._table(region)["description"]["ProvisionedThroughput"][
                "WriteCapacityUnits"
            ]
            described["ProvisionedThroughput"] = {**now, **units, "WriteCapacityUnits": write}
        if most := member.get("OnDemandThroughputOverride"):
            described["OnDemandThroughput"] = {**described.get("OnDemandThroughput", {}), **most}
        if other := member.get("TableClassOverride"):
            described["TableClassSummary"] = {"TableClass": other}

    def _replica_delete(self, region: str, member: dict[str, Any]) -> None:
        name = member["RegionName"]
        refuse(self._table(name)["description"]["DeletionProtectionEnabled"], "a protected table")
        del self.tables[name]

    def _update_continuous_backups(self, region: str, given: Given) -> Given:
        wanted = given["PointInTimeRecoverySpecification"]
        days = wanted.get("RecoveryPeriodInDays", 35)
        self._table(region)["recovery"] = days if wanted["PointInTimeRecoveryEnabled"] else None
        return {}

    def _update_time_to_live(self, region: str, given: Given) -> Given:
        now, wanted = self._idle(region)["ttl"], given["TimeToLiveSpecification"]
        refuse(self._table(region)["ttl_busy"] > 0, "time to live that is being changed")
        refuse(wanted["Enabled"] == (now is not None), "time to live is so already")
        refuse(not wanted["Enabled"] and now != wanted["AttributeName"], "another attribute")
        for table in self.tables.values():
            table["ttl"] = wanted["AttributeName"] if wanted["Enabled"] else None
            table["ttl_busy"] = self.delay
        return {}

    def _tag_resource(self, region: str, given: Given) -> Given:
        refuse(region not in given["ResourceArn"], "a table of another region")
        self._table(region)["tags"] |= {tag["Key"]: tag["Value"] for tag in given["Tags"]}
        return {}

    def _register_scalable_target(self, region: str, given: Given) -> Given:
        self.targets[region, given["ScalableDimension"]] = given
        return {}

    def _put_scaling_policy(self, region: str, given: Given) -> Given:
        where = (region, given["ScalableDimension"])
        refuse(where not in self.targets, "a policy without a target")
        self.policies[where] = given
        return {}

    def _delete_scaling_policy(self, region: str, given: Given) -> Given:
        where = (region, given["ScalableDimension"])
        refuse(self.policies[where]["PolicyName"] != given["PolicyName"], "another policy")
        del self.policies[where]
        return {}

    def _deregister_scalable_target(self, region: str, given: Given) -> Given:
        del self.targets[region, given["ScalableDimension"]]
        return {}

    def _table(self, region: str) -> dict[str, Any]:
        if region not in self.tables:
            raise TableNotFound(f"no table in {region}")
        return self.tables[region]

    def _idle(self, region: str) -> dict[str, Any]:
        table = self._table(region)
        refuse(bool(table["busy"]), "a change while another is under way")
        return table


def refuse(wrong: bool, what: object) -> None:
    if wrong:
        raise RequestRefused(f"ValidationException: {what}")
