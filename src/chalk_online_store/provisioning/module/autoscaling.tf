resource "aws_appautoscaling_target" "write" {
  count = local.scaled_writes == null ? 0 : 1

  region             = var.regions[0]
  service_namespace  = "dynamodb"
  resource_id        = "table/${aws_dynamodb_table.online_store.name}"
  scalable_dimension = "dynamodb:table:WriteCapacityUnits"
  min_capacity       = local.scaled_writes.min
  max_capacity       = local.scaled_writes.max
  tags               = var.tags
}

resource "aws_appautoscaling_policy" "write" {
  count = local.scaled_writes == null ? 0 : 1

  name               = "DynamoDBWriteCapacityUtilization:table/${aws_dynamodb_table.online_store.name}"
  policy_type        = "TargetTrackingScaling"
  region             = aws_appautoscaling_target.write[0].region
  service_namespace  = aws_appautoscaling_target.write[0].service_namespace
  resource_id        = aws_appautoscaling_target.write[0].resource_id
  scalable_dimension = aws_appautoscaling_target.write[0].scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = local.scaled_writes.target
    scale_in_cooldown  = local.scaled_writes.scale_in_cooldown
    scale_out_cooldown = local.scaled_writes.scale_out_cooldown

    predefined_metric_specification {
      predefined_metric_type = "DynamoDBWriteCapacityUtilization"
    }
  }
}

resource "aws_appautoscaling_target" "read" {
  for_each = local.scaled_reads

  region             = each.key
  service_namespace  = "dynamodb"
  resource_id        = "table/${aws_dynamodb_table.online_store.name}"
  scalable_dimension = "dynamodb:table:ReadCapacityUnits"
  min_capacity       = each.value.min
  max_capacity       = each.value.max
  tags               = var.tags

  # The table of another region exists once its replica does.
  depends_on = [aws_dynamodb_table_replica.replica]
}

resource "aws_appautoscaling_policy" "read" {
  for_each = local.scaled_reads

  name               = "DynamoDBReadCapacityUtilization:table/${aws_dynamodb_table.online_store.name}"
  policy_type        = "TargetTrackingScaling"
  region             = aws_appautoscaling_target.read[each.key].region
  service_namespace  = aws_appautoscaling_target.read[each.key].service_namespace
  resource_id        = aws_appautoscaling_target.read[each.key].resource_id
  scalable_dimension = aws_appautoscaling_target.read[each.key].scalable_dimension

  target_tracking_scaling_policy_configuration {
    target_value       = each.value.target
    scale_in_cooldown  = each.value.scale_in_cooldown
    scale_out_cooldown = each.value.scale_out_cooldown

    predefined_metric_specification {
      predefined_metric_type = "DynamoDBReadCapacityUtilization"
    }
  }
}
