locals {
  is_provisioned = var.provisioned != null
  is_global      = length(var.regions) > 1
  replicas       = toset(slice(var.regions, 1, length(var.regions)))

  # The read capacity of each region.
  reads = local.is_provisioned ? {
    for region in var.regions : region => lookup(var.provisioned.replica_read, region, var.provisioned.read)
  } : {}
  scaled_reads  = { for region, units in local.reads : region => units.autoscaling if units.autoscaling != null }
  scaled_writes = try(var.provisioned.write.autoscaling, null)
  is_live       = local.scaled_writes != null || contains(keys(local.scaled_reads), var.regions[0])
}

# Autoscaled capacity has no `ignore_changes`: while a table is on demand, Terraform's state holds 0
# units, and the provider would turn an ignored 0 into 1 unit when the table becomes provisioned.
# Instead, a plan reads the units that the table has now, and keeps them.
data "aws_dynamodb_tables" "all" {
  count  = local.is_live ? 1 : 0
  region = var.regions[0]
}

data "aws_dynamodb_table" "existing" {
  count  = contains(flatten(data.aws_dynamodb_tables.all[*].names), var.name) ? 1 : 0
  name   = var.name
  region = var.regions[0]
}

locals {
  read_capacity = local.is_provisioned ? concat(
    [for n in data.aws_dynamodb_table.existing[*].read_capacity : n if n > 0 && contains(keys(local.scaled_reads), var.regions[0])],
    [local.reads[var.regions[0]].units],
  )[0] : null
  write_capacity = local.is_provisioned ? concat(
    [for n in data.aws_dynamodb_table.existing[*].write_capacity : n if n > 0 && local.scaled_writes != null],
    [var.provisioned.write.units],
  )[0] : null
}

resource "aws_dynamodb_table" "online_store" {
  name                        = var.name
  region                      = var.regions[0]
  billing_mode                = local.is_provisioned ? "PROVISIONED" : "PAY_PER_REQUEST"
  read_capacity               = local.read_capacity
  write_capacity              = local.write_capacity
  hash_key                    = var.attributes.pk
  range_key                   = var.attributes.sk
  table_class                 = var.table_class
  deletion_protection_enabled = var.deletion_protection
  stream_enabled              = local.is_global ? true : null
  stream_view_type            = local.is_global ? "NEW_AND_OLD_IMAGES" : null
  tags                        = var.tags

  attribute {
    name = var.attributes.pk
    type = "S"
  }

  attribute {
    name = var.attributes.sk
    type = "S"
  }

  ttl {
    attribute_name = var.attributes.ttl
    enabled        = true
  }

  point_in_time_recovery {
    enabled                 = var.recovery_days != null
    recovery_period_in_days = var.recovery_days
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = lookup(var.kms_key_arns, var.regions[0], null)
  }

  dynamic "on_demand_throughput" {
    for_each = local.is_provisioned || var.on_demand_maximum == null ? [] : [var.on_demand_maximum]

    content {
      max_read_request_units  = on_demand_throughput.value.read
      max_write_request_units = on_demand_throughput.value.write
    }
  }

  dynamic "warm_throughput" {
    for_each = var.warm_throughput == null ? [] : [var.warm_throughput]

    content {
      read_units_per_second  = warm_throughput.value.read
      write_units_per_second = warm_throughput.value.write
    }
  }

  lifecycle {
    ignore_changes  = [replica]
    prevent_destroy = true
  }
}

resource "aws_dynamodb_table_replica" "replica" {
  for_each = local.replicas

  region                      = each.key
  global_table_arn            = aws_dynamodb_table.online_store.arn
  point_in_time_recovery      = var.recovery_days != null
  deletion_protection_enabled = var.deletion_protection
  kms_key_arn                 = lookup(var.kms_key_arns, each.key, null)
  tags                        = var.tags

  # DynamoDB refuses a replica of a provisioned table whose writes are not autoscaled yet.
  depends_on = [aws_appautoscaling_policy.write]

  lifecycle {
    prevent_destroy = true
  }
}
