provider "aws" {
  region = var.aws_region

  default_tags {
    tags = merge({
      Project     = var.project_name
      Environment = var.environment
      ManagedBy   = "imgpipe"
    }, var.tags)
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  account_id  = data.aws_caller_identity.current.account_id
  partition   = data.aws_partition.current.partition
  name_prefix = "${var.project_name}-${var.environment}"

  upload_bucket_name    = "${local.name_prefix}-uploads-${local.account_id}"
  thumbnail_bucket_name = "${local.name_prefix}-thumbnails-${local.account_id}"
  table_name            = "${local.name_prefix}-images"

  image_processor_name = "${local.name_prefix}-image-processor"
  db_writer_name       = "${local.name_prefix}-db-writer"

  metadata_queue_name = "${local.name_prefix}-metadata"
  metadata_dlq_name   = "${local.name_prefix}-metadata-dlq"
  image_dlq_name      = "${local.name_prefix}-image-dlq"
  queue_arn_prefix    = "arn:${local.partition}:sqs:${var.aws_region}:${local.account_id}"

  image_processor_log_group = "/aws/lambda/${local.image_processor_name}"
  db_writer_log_group       = "/aws/lambda/${local.db_writer_name}"

  outputs_parameter_name = "/imgpipe/${local.name_prefix}/outputs"
  alarm_topic_name       = "${local.name_prefix}-alarms"
  has_kms_key            = var.kms_key_arn != null
}
