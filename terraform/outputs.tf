locals {
  console = "https://${var.aws_region}.console.aws.amazon.com"

  # What `imgpipe` needs to know, and what the outputs below say. Null where there is no such thing.
  outputs = {
    aws_region                    = var.aws_region
    name_prefix                   = local.name_prefix
    upload_bucket_name            = aws_s3_bucket.this["uploads"].id
    upload_bucket_arn             = aws_s3_bucket.this["uploads"].arn
    thumbnail_bucket_name         = aws_s3_bucket.this["thumbnails"].id
    metadata_queue_url            = aws_sqs_queue.metadata.url
    dlq_url                       = aws_sqs_queue.metadata_dlq.url
    image_dlq_url                 = aws_sqs_queue.image_dlq.url
    dynamodb_table_name           = aws_dynamodb_table.images.name
    image_processor_function_name = aws_lambda_function.image_processor.function_name
    db_writer_function_name       = aws_lambda_function.db_writer.function_name
    upload_day_shards             = tostring(var.upload_day_shards)
    max_pixels                    = var.max_pixels == null ? null : tostring(var.max_pixels)
    max_bytes                     = var.max_bytes == null ? null : tostring(var.max_bytes)
    heic                          = tostring(var.heic)
    alarm_topic_arn               = one([for topic in aws_sns_topic.alarms : topic.arn])
    dashboard_url                 = one([for board in aws_cloudwatch_dashboard.this : "${local.console}/cloudwatch/home?region=${var.aws_region}#dashboards:name=${board.dashboard_name}"])
    logs_url                      = "${local.console}/cloudwatch/home?region=${var.aws_region}#logsV2:log-groups$3FlogGroupNameFilter$3D${urlencode(local.name_prefix)}"
  }

  # As `terraform output -json` shapes it, without what nobody reads. jsonencode writes & < > as \u0026 and the like.
  outputs_document = jsonencode({ for name, value in local.outputs : name => { value = value } if value != null })
}

# So that an operator's machine needs AWS credentials alone, not this module's state.
resource "aws_ssm_parameter" "outputs" {
  #checkov:skip=CKV2_AWS_34:Names and addresses, no secrets; a SecureString would cost every reader a right to a key.
  #checkov:skip=CKV_AWS_337:As above: names and addresses, no secrets.
  name        = local.outputs_parameter_name
  description = "Where the pipeline ${local.name_prefix} is; read by imgpipe"
  type        = "String"
  value       = local.outputs_document

  lifecycle {
    precondition {
      condition     = length(local.outputs_document) <= 4096
      error_message = "The outputs take ${length(local.outputs_document)} characters; a standard parameter holds 4096. Shorten project_name."
    }
  }
}

output "aws_region" {
  description = "Region of every resource."
  value       = local.outputs.aws_region
}

output "name_prefix" {
  description = "First part of every resource's name."
  value       = local.outputs.name_prefix
}

output "upload_bucket_name" {
  description = "Bucket that images are uploaded to."
  value       = local.outputs.upload_bucket_name
}

output "upload_bucket_arn" {
  description = "ARN of the bucket that images are uploaded to."
  value       = local.outputs.upload_bucket_arn
}

output "thumbnail_bucket_name" {
  description = "Bucket that thumbnails are in, under thumbnails/."
  value       = local.outputs.thumbnail_bucket_name
}

output "metadata_queue_url" {
  description = "Queue between the two functions."
  value       = local.outputs.metadata_queue_url
}

output "dlq_url" {
  description = "Dead-letter queue of the metadata leg."
  value       = local.outputs.dlq_url
}

output "image_dlq_url" {
  description = "Dead-letter queue of the image leg."
  value       = local.outputs.image_dlq_url
}

output "dynamodb_table_name" {
  description = "Table of the images' metadata."
  value       = local.outputs.dynamodb_table_name
}

output "image_processor_function_name" {
  description = "Function that makes thumbnails."
  value       = local.outputs.image_processor_function_name
}

output "db_writer_function_name" {
  description = "Function that writes metadata into the table."
  value       = local.outputs.db_writer_function_name
}

output "upload_day_shards" {
  description = "Partitions over which one day's items are spread in UploadDateIndex."
  value       = local.outputs.upload_day_shards
}

output "max_pixels" {
  description = "Largest image, in pixels; null for the handler's own limit."
  value       = local.outputs.max_pixels
}

output "max_bytes" {
  description = "Largest file, in bytes; null for the handler's own limit."
  value       = local.outputs.max_bytes
}

output "heic" {
  description = "Whether the image processor decodes HEIC."
  value       = local.outputs.heic
}

output "alarm_topic_arn" {
  description = "Topic of the alarms; null without monitoring."
  value       = local.outputs.alarm_topic_arn
}

output "dashboard_url" {
  description = "The CloudWatch dashboard; null without monitoring."
  value       = local.outputs.dashboard_url
}

output "logs_url" {
  description = "The functions' log groups in the console."
  value       = local.outputs.logs_url
}
