variable "name" {
  description = "The name of the table, and the prefix of the names of its policies."
  type        = string
}

variable "regions" {
  description = "The regions of the table. It is created in the first one; the others get replicas."
  type        = list(string)

  validation {
    condition     = length(var.regions) > 0
    error_message = "Name at least one region."
  }
}

variable "attributes" {
  description = "The names of the partition key, the sort key and the TTL attribute."
  type = object({
    pk  = optional(string, "pk")
    sk  = optional(string, "sk")
    ttl = optional(string, "ttl")
  })
  default = {}
}

variable "provisioned" {
  description = "Provisioned capacity, in units per second. Null for a table on demand."
  type = object({
    read = object({
      units = number
      autoscaling = optional(object({
        min                = number
        max                = number
        target             = number
        scale_in_cooldown  = number
        scale_out_cooldown = number
      }))
    })
    write = object({
      units = number
      autoscaling = optional(object({
        min                = number
        max                = number
        target             = number
        scale_in_cooldown  = number
        scale_out_cooldown = number
      }))
    })
    replica_read = optional(map(object({
      units = number
      autoscaling = optional(object({
        min                = number
        max                = number
        target             = number
        scale_in_cooldown  = number
        scale_out_cooldown = number
      }))
    })), {})
  })
  default = null
}

variable "on_demand_maximum" {
  description = "Maximum request units per second of a table on demand, if any."
  type = object({
    read  = optional(number)
    write = optional(number)
  })
  default = null
}

variable "recovery_days" {
  description = "The days of point-in-time recovery, 1 to 35. Null turns recovery off."
  type        = number
  default     = 35
}

variable "deletion_protection" {
  description = "Protect the table and its replicas against deletion."
  type        = bool
  default     = true
}

variable "table_class" {
  description = "STANDARD or STANDARD_INFREQUENT_ACCESS."
  type        = string
  default     = "STANDARD"
}

variable "kms_key_arns" {
  description = "A KMS key for each region. Empty for the key that AWS manages."
  type        = map(string)
  default     = {}
}

variable "policies" {
  description = "IAM policies by role, with their JSON documents."
  type = map(object({
    name        = string
    description = string
    document    = string
  }))
  default = {}
}

variable "tags" {
  description = "Tags of every resource that has tags."
  type        = map(string)
  default     = {}
}

variable "warm_throughput" {
  description = "Request units per second that the table serves at once. It cannot be lowered."
  type = object({
    read  = number
    write = number
  })
  default = null
}

variable "alarms" {
  description = "CloudWatch alarms by label: metrics, and an expression over them."
  type = map(object({
    region      = string
    name        = string
    description = string
    threshold   = number
    periods     = number
    datapoints  = number
    expression  = optional(string)
    metrics = map(object({
      name       = string
      dimensions = map(string)
      statistic  = string
      period     = number
    }))
  }))
  default = {}
}

variable "alarm_topics" {
  description = "The ARN of an SNS topic for each region that is notified."
  type        = map(string)
  default     = {}
}

variable "contributor_insights" {
  description = "ACCESSED_AND_THROTTLED_KEYS or THROTTLED_KEYS. Null for none."
  type        = string
  default     = null
}

variable "backups" {
  description = "A plan of AWS Backup in the first region. Null for none."
  type = object({
    name      = string
    schedule  = string
    keep_days = number
  })
  default = null
}

variable "resource_policies" {
  description = "The JSON document of a resource policy for each region."
  type        = map(string)
  default     = {}
}
