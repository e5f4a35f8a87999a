data "aws_partition" "current" {}

resource "aws_backup_vault" "backup" {
  count = var.backups == null ? 0 : 1

  region = var.regions[0]
  name   = var.backups.name
  tags   = var.tags
}

resource "aws_backup_plan" "backup" {
  count = var.backups == null ? 0 : 1

  region = var.regions[0]
  name   = var.backups.name
  tags   = var.tags

  rule {
    rule_name         = "regular"
    target_vault_name = aws_backup_vault.backup[0].name
    schedule          = var.backups.schedule

    lifecycle {
      delete_after = var.backups.keep_days
    }
  }
}

resource "aws_iam_role" "backup" {
  count = var.backups == null ? 0 : 1

  name = var.backups.name
  tags = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect = "Allow"
        Action = "sts:AssumeRole"
        Principal = {
          Service = "backup.amazonaws.com"
        }
      },
    ]
  })
}

resource "aws_iam_role_policy_attachment" "backup" {
  count = var.backups == null ? 0 : 1

  role       = aws_iam_role.backup[0].name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AWSBackupServiceRolePolicyForBackup"
}

resource "aws_backup_selection" "backup" {
  count = var.backups == null ? 0 : 1

  region       = var.regions[0]
  name         = var.backups.name
  plan_id      = aws_backup_plan.backup[0].id
  iam_role_arn = aws_iam_role.backup[0].arn
  resources    = [aws_dynamodb_table.online_store.arn]
}
