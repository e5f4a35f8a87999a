resource "aws_dynamodb_resource_policy" "policy" {
  for_each = var.resource_policies

  region       = each.key
  resource_arn = each.key == var.regions[0] ? aws_dynamodb_table.online_store.arn : aws_dynamodb_table_replica.replica[each.key].arn
  policy       = each.value
}
