output "table_name" {
  description = "The name of the table."
  value       = aws_dynamodb_table.online_store.name
}

output "table_arn" {
  description = "Its ARN in the first region."
  value       = aws_dynamodb_table.online_store.arn
}

output "url" {
  description = "The URL that OnlineStore.open takes."
  value = join("", [
    "dynamodb:///${var.name}?region=${join(",", var.regions)}",
    var.attributes.pk == "pk" ? "" : "&pk=${var.attributes.pk}",
    var.attributes.sk == "sk" ? "" : "&sk=${var.attributes.sk}",
    var.attributes.ttl == "ttl" ? "" : "&ttl=${var.attributes.ttl}",
  ])
}

output "policy_arns" {
  description = "The ARNs of the IAM policies, by role."
  value       = { for role, policy in aws_iam_policy.policy : role => policy.arn }
}
