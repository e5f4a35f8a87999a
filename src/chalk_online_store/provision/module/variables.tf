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
