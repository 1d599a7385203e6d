variable "aws_region" {
  description = "AWS region of every resource."
  type        = string
  default     = "us-east-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.aws_region))
    error_message = "aws_region must be a region's code, such as eu-central-1."
  }
}

variable "environment" {
  description = "Environment: dev, staging or prod. Part of every name; prod turns the table's deletion protection on."
  type        = string
  default     = "dev"

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "environment must be dev, staging or prod."
  }
}

variable "project_name" {
  description = "First part of every name. Bucket names, which end in the account id, leave it 31 characters."
  type        = string
  default     = "image-pipeline"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,29}[a-z0-9]$", var.project_name))
    error_message = "project_name must be 2 to 31 lower-case letters, digits and hyphens, starting with a letter and not ending in a hyphen."
  }
}

variable "tags" {
  description = "Further tags of every resource."
  type        = map(string)
  default     = {}
}

# Thumbnails

variable "thumbnail_size" {
  description = "Longest side of a thumbnail, in pixels (1 to 1000)."
  type        = number
  default     = 200

  validation {
    condition     = var.thumbnail_size >= 1 && var.thumbnail_size <= 1000 && floor(var.thumbnail_size) == var.thumbnail_size
    error_message = "thumbnail_size must be a whole number from 1 to 1000."
  }
}

variable "extra_thumbnail_sizes" {
  description = "Further thumbnail sizes in pixels, made from the same decode."
  type        = list(number)
  default     = []

  validation {
    condition     = alltrue([for size in var.extra_thumbnail_sizes : size >= 1 && size <= 4096 && floor(size) == size])
    error_message = "extra_thumbnail_sizes must be whole numbers from 1 to 4096."
  }
}

variable "thumbnail_format" {
  description = "Format of the thumbnails: JPEG or WEBP."
  type        = string
  default     = "JPEG"

  validation {
    condition     = contains(["JPEG", "WEBP"], var.thumbnail_format)
    error_message = "thumbnail_format must be JPEG or WEBP."
  }
}

variable "gps_policy" {
  description = "What an item keeps of a photograph's location: none, coarse (two decimals) or exact."
  type        = string
  default     = "none"

  validation {
    condition     = contains(["none", "coarse", "exact"], var.gps_policy)
    error_message = "gps_policy must be none, coarse or exact."
  }
}

variable "max_pixels" {
  description = "Largest image, in pixels; null for the handler's own limit."
  type        = number
  default     = null

  validation {
    condition     = var.max_pixels == null ? true : var.max_pixels >= 1
    error_message = "max_pixels must be at least 1."
  }
}

variable "max_bytes" {
  description = "Largest file, in bytes; null for the handler's own limit."
  type        = number
  default     = null

  validation {
    condition     = var.max_bytes == null ? true : var.max_bytes >= 1
    error_message = "max_bytes must be at least 1."
  }
}

variable "max_frames" {
  description = "Most frames of an animation; null for the handler's own limit."
  type        = number
  default     = null

  validation {
    condition     = var.max_frames == null ? true : var.max_frames >= 1
    error_message = "max_frames must be at least 1."
  }
}

variable "memory_budget_mb" {
  description = "Memory that a decode may need, in MB; null to derive it from the function's memory."
  type        = number
  default     = null

  validation {
    condition     = var.memory_budget_mb == null ? true : var.memory_budget_mb >= 16
    error_message = "memory_budget_mb must be at least 16."
  }
}

variable "upload_day_shards" {
  description = "Partitions over which one day's items are spread in UploadDateIndex (1 to 16); more than one for over about 1,000 images a second."
  type        = number
  default     = 1

  validation {
    condition     = var.upload_day_shards >= 1 && var.upload_day_shards <= 16 && floor(var.upload_day_shards) == var.upload_day_shards
    error_message = "upload_day_shards must be a whole number from 1 to 16."
  }
}

# Functions

variable "lambda_zip_dir" {
  description = "Folder of the zips that `imgpipe build` makes; null for build/ in this module."
  type        = string
  default     = null
}

variable "heic" {
  description = "Whether the image processor decodes HEIC, the format of phones. Its zip is then another one: imgpipe build --heic."
  type        = bool
  default     = false
}

variable "architecture" {
  description = "Processor of both functions: arm64 or x86_64. The zips are built for one of them."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture must be arm64 or x86_64."
  }
}

variable "image_processor_memory" {
  description = "Memory of the image processor, in MB. 1,769 MB is one whole vCPU; a decode uses one."
  type        = number
  default     = 1769

  validation {
    condition     = var.image_processor_memory >= 256 && var.image_processor_memory <= 10240
    error_message = "image_processor_memory must be 256 to 10240."
  }
}

variable "image_processor_timeout" {
  description = "Timeout of the image processor, in seconds."
  type        = number
  default     = 60

  validation {
    condition     = var.image_processor_timeout >= 5 && var.image_processor_timeout <= 900
    error_message = "image_processor_timeout must be 5 to 900."
  }
}

variable "image_processor_reserved_concurrency" {
  description = "Most copies of the image processor at once; -1 for the account's limit. A cap limits cost, and delays events beyond it for up to 6 hours."
  type        = number
  default     = -1

  validation {
    condition     = var.image_processor_reserved_concurrency == -1 || var.image_processor_reserved_concurrency >= 1
    error_message = "image_processor_reserved_concurrency must be -1 or at least 1: 0 would send every image to the dead-letter queue."
  }
}

variable "db_writer_memory" {
  description = "Memory of the database writer, in MB."
  type        = number
  default     = 256

  validation {
    condition     = var.db_writer_memory >= 128 && var.db_writer_memory <= 10240
    error_message = "db_writer_memory must be 128 to 10240."
  }
}

variable "db_writer_timeout" {
  description = "Timeout of the database writer, in seconds. The metadata queue's visibility timeout follows from it."
  type        = number
  default     = 30

  validation {
    condition     = var.db_writer_timeout >= 5 && var.db_writer_timeout <= 900
    error_message = "db_writer_timeout must be 5 to 900."
  }
}

variable "db_writer_max_concurrency" {
  description = "Most copies of the database writer that the metadata queue starts at once (2 to 1000)."
  type        = number
  default     = 10

  validation {
    condition     = var.db_writer_max_concurrency >= 2 && var.db_writer_max_concurrency <= 1000
    error_message = "db_writer_max_concurrency must be 2 to 1000."
  }
}

variable "metadata_batch_size" {
  description = "Most metadata messages in one call of the database writer (1 to 1000)."
  type        = number
  default     = 10

  validation {
    condition     = var.metadata_batch_size >= 1 && var.metadata_batch_size <= 1000
    error_message = "metadata_batch_size must be 1 to 1000."
  }
}

variable "metadata_batch_window" {
  description = "Seconds for which a batch of metadata messages is collected (1 to 300)."
  type        = number
  default     = 1

  validation {
    condition     = var.metadata_batch_window >= 1 && var.metadata_batch_window <= 300
    error_message = "metadata_batch_window must be 1 to 300."
  }
}

variable "log_retention_days" {
  description = "Days for which the functions' logs are kept; one of the periods that CloudWatch Logs knows."
  type        = number
  default     = 365

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be a period that CloudWatch Logs knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

# Storage

variable "kms_key_arn" {
  description = "KMS key for buckets, queues and table; null for the keys that AWS owns, which cost nothing."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null ? true : can(regex("^arn:[a-z-]+:kms:", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a KMS key."
  }
}

variable "upload_expiration_days" {
  description = "Days after which an uploaded image expires; its item becomes a tombstone and its thumbnails go with it. Null: never."
  type        = number
  default     = null

  validation {
    condition     = var.upload_expiration_days == null ? true : var.upload_expiration_days >= 1
    error_message = "upload_expiration_days must be at least 1."
  }
}

variable "noncurrent_version_days" {
  description = "Days for which overwritten and deleted objects can be brought back."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_version_days >= 1
    error_message = "noncurrent_version_days must be at least 1."
  }
}

variable "access_log_bucket" {
  description = "Bucket for the S3 access logs of both buckets; null for none."
  type        = string
  default     = null
}

variable "table_deletion_protection" {
  description = "Whether the table refuses to be deleted; null: in prod only."
  type        = bool
  default     = null
}

# Monitoring

variable "enable_monitoring" {
  description = "Whether there are alarms, their SNS topic and a dashboard."
  type        = bool
  default     = true
}

variable "alarm_emails" {
  description = "Addresses that alarms are mailed to; each confirms once by a link."
  type        = set(string)
  default     = []
}

variable "alarm_https_endpoints" {
  description = "https addresses (a pager, a chat) that alarms are posted to."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for endpoint in var.alarm_https_endpoints : startswith(endpoint, "https://")])
    error_message = "alarm_https_endpoints must start with https://."
  }
}
