"""Tables of every kind that there is to render."""

from __future__ import annotations

from chalk_online_store.provisioning.spec import (
    Alarms,
    Autoscaling,
    Backups,
    OnDemand,
    Provisioned,
    SharedWith,
    TableSpec,
    Units,
    WarmThroughput,
)

EAST, WEST, IRELAND = "us-east-1", "us-west-2", "eu-west-1"

READ = Units(1000, Autoscaling(500, 5000, 70))
WRITE = Units(500, Autoscaling(250, 2500, 66.5, scale_in_cooldown=300))

ODD_TAGS = {
    "team": 'says "hello"',
    "a key = with blanks": "${not.an.expression} %{ if true }",
    "path": "C:\\features\n\ttabs",
    "for": "$${twice} 100% $5 %%{ $",
    "größe": "Zürich 🦀",
    "null": "",
}


def _table(*regions: str, name: str = "features", **more: object) -> TableSpec:
    return TableSpec(name, regions, **more)  # type: ignore[arg-type]


def _keys(*regions: str) -> dict[str, str]:
    return {region: f"arn:aws:kms:{region}:123456789012:key/of-{region}" for region in regions}


TOPICS = {EAST: f"arn:aws:sns:{EAST}:123456789012:on-call"}
OTHER = "arn:aws:iam::210987654321:role/serving"
OTHER_ROOT = "arn:aws:iam::210987654321:root"

SPECS = {
    "on demand": _table(EAST),
    "with maxima": _table(EAST, capacity=OnDemand(max_read=4000, max_write=1000)),
    "with one maximum": _table(EAST, capacity=OnDemand(max_write=1000)),
    "fixed": _table(EAST, capacity=Provisioned(Units(100), Units(50))),
    "reads scaled": _table(EAST, capacity=Provisioned(READ, Units(50))),
    "writes scaled": _table(EAST, capacity=Provisioned(Units(100), WRITE)),
    "both scaled": _table(EAST, capacity=Provisioned(READ, WRITE)),
    "global": _table(EAST, WEST, IRELAND, capacity=OnDemand(max_read=4000)),
    "global, scaled": _table(EAST, WEST, IRELAND, capacity=Provisioned(READ, WRITE)),
    "global, fixed reads": _table(EAST, WEST, capacity=Provisioned(Units(100), WRITE)),
    "global, own reads": _table(
        WEST,
        EAST,
        capacity=Provisioned(Units(100), WRITE, {EAST: Units(30, Autoscaling(20, 40))}),
    ),
    "own key": _table(EAST, kms_key_arns=_keys(EAST)),
    "global, own keys": _table(EAST, WEST, kms_key_arns=_keys(EAST, WEST)),
    "global, scaled, own keys": _table(
        EAST, WEST, capacity=Provisioned(READ, WRITE), kms_key_arns=_keys(EAST, WEST)
    ),
    "no recovery": _table(EAST, WEST, recovery_days=None),
    "a week's recovery": _table(EAST, recovery_days=7),
    "unprotected": _table(EAST, WEST, deletion_protection=False),
    "infrequent access": _table(EAST, table_class="STANDARD_INFREQUENT_ACCESS"),
    "odd tags": _table(EAST, tags=ODD_TAGS),
    "global, odd tags": _table(EAST, WEST, capacity=Provisioned(READ, WRITE), tags=ODD_TAGS),
    "other attributes": _table(EAST, pk="__id__", sk="__ns__", ttl="__exp__"),
    "an odd name": _table(EAST, name="9.features_of-2024"),
    "may be destroyed": _table(EAST, WEST, prevent_destroy=False),
    "warm": _table(EAST, WEST, warm=WarmThroughput(50_000, 10_000)),
    "warm, with maxima": _table(
        EAST, capacity=OnDemand(60_000, 20_000), warm=WarmThroughput(50_000, 10_000)
    ),
    "alarms": _table(EAST, alarms=Alarms()),
    "alarms, scaled": _table(
        EAST, capacity=Provisioned(READ, WRITE), alarms=Alarms(TOPICS, 10, 66.6, 5000)
    ),
    "alarms, global": _table(
        EAST, WEST, IRELAND, alarms=Alarms({EAST: TOPICS[EAST]}), tags=ODD_TAGS
    ),
    "insights": _table(EAST, WEST, contributor_insights="throttled-keys"),
    "insights, scaled": _table(
        EAST, WEST, capacity=Provisioned(READ, WRITE), contributor_insights="all-keys"
    ),
    "backups": _table(EAST, backups=Backups(), tags={"team": "risk"}),
    "backups, global": _table(
        WEST, EAST, name="9.features_of-2024", backups=Backups("rate(12 hours)", 7)
    ),
    "shared": _table(EAST, shared_with=SharedWith(readers=(OTHER,))),
    "shared, global": _table(EAST, WEST, shared_with=SharedWith((OTHER,), (OTHER, OTHER_ROOT))),
    "everything": _table(
        EAST,
        WEST,
        capacity=Provisioned(READ, WRITE, {WEST: Units(50, Autoscaling(40, 400))}),
        kms_key_arns=_keys(EAST, WEST),
        recovery_days=7,
        table_class="STANDARD_INFREQUENT_ACCESS",
        tags={"team": "risk"},
        warm=WarmThroughput(12_000, 4_000),
        alarms=Alarms(TOPICS),
        contributor_insights="throttled-keys",
        backups=Backups(),
        shared_with=SharedWith(writers=(OTHER,)),
    ),
}
