resource "aws_cloudwatch_metric_alarm" "alarm" {
  for_each = var.alarms

  region              = each.value.region
  alarm_name          = each.value.name
  alarm_description   = each.value.description
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = each.value.threshold
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.datapoints
  treat_missing_data  = "notBreaching"
  alarm_actions       = [for region, topic in var.alarm_topics : topic if region == each.value.region]
  ok_actions          = [for region, topic in var.alarm_topics : topic if region == each.value.region]
  tags                = var.tags

  dynamic "metric_query" {
    for_each = each.value.metrics

    content {
      id          = metric_query.key
      return_data = each.value.expression == null ? true : null

      metric {
        namespace   = "AWS/DynamoDB"
        metric_name = metric_query.value.name
        dimensions  = metric_query.value.dimensions
        stat        = metric_query.value.statistic
        period      = metric_query.value.period
      }
    }
  }

  dynamic "metric_query" {
    for_each = each.value.expression == null ? [] : [each.value.expression]

    content {
      id          = "result"
      expression  = metric_query.value
      label       = each.value.name
      return_data = true
    }
  }
}

resource "aws_dynamodb_contributor_insights" "insights" {
  for_each = var.contributor_insights == null ? toset([]) : toset(var.regions)

  region     = each.key
  table_name = aws_dynamodb_table.online_store.name
  mode       = var.contributor_insights

  # The table of another region exists once its replica does.
  depends_on = [aws_dynamodb_table_replica.replica]
}
