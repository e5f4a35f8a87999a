resource "aws_iam_policy" "policy" {
  for_each = var.policies

  name        = each.value.name
  description = each.value.description
  policy      = each.value.document
  tags        = var.tags
}
