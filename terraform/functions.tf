locals {
  zip_dir             = coalesce(var.lambda_zip_dir, "${path.module}/build")
  heic                = var.heic ? "-heic" : ""
  image_processor_zip = "${local.zip_dir}/image_processor${local.heic}-${var.architecture}.zip"
  db_writer_zip       = "${local.zip_dir}/db_writer-${var.architecture}.zip"
  build_command       = "imgpipe build --arch ${var.architecture}${var.heic ? " --heic" : ""} --out ${local.zip_dir}"
  zips_missing        = "The zips of the functions are not all in ${local.zip_dir}. Make them with: ${local.build_command}"

  runtime = "python3.13"

  # Every item says which code made it: the first digits of the zip's SHA-256, as imgpipe build prints them.
  processor_version = fileexists(local.image_processor_zip) ? substr(filesha256(local.image_processor_zip), 0, 12) : null

  # A limit that is not given is left out, so that the handler's own default holds.
  image_processor_environment = { for name, value in {
    THUMBNAIL_BUCKET      = aws_s3_bucket.this["thumbnails"].id
    METADATA_QUEUE        = aws_sqs_queue.metadata.url
    IMAGE_DLQ             = aws_sqs_queue.image_dlq.url
    THUMBNAIL_SIZE        = tostring(var.thumbnail_size)
    THUMBNAIL_FORMAT      = var.thumbnail_format
    EXTRA_THUMBNAIL_SIZES = length(var.extra_thumbnail_sizes) == 0 ? null : join(",", var.extra_thumbnail_sizes)
    GPS_POLICY            = var.gps_policy
    MAX_PIXELS            = var.max_pixels == null ? null : tostring(var.max_pixels)
    MAX_BYTES             = var.max_bytes == null ? null : tostring(var.max_bytes)
    MAX_FRAMES            = var.max_frames == null ? null : tostring(var.max_frames)
    MEMORY_BUDGET_MB      = var.memory_budget_mb == null ? null : tostring(var.memory_budget_mb)
    PROCESSOR_VERSION     = local.processor_version
  } : name => value if value != null }

  db_writer_environment = {
    DYNAMODB_TABLE        = aws_dynamodb_table.images.name
    METADATA_DLQ          = aws_sqs_queue.metadata_dlq.url
    METADATA_MAX_RECEIVES = tostring(local.max_receives)
    UPLOAD_DAY_SHARDS     = tostring(var.upload_day_shards)
  }
}

resource "aws_cloudwatch_log_group" "image_processor" {
  #checkov:skip=CKV_AWS_158:Encrypted with the key that AWS owns; logs hold object keys and figures, no image data.
  name              = local.image_processor_log_group
  retention_in_days = var.log_retention_days
}

resource "aws_cloudwatch_log_group" "db_writer" {
  #checkov:skip=CKV_AWS_158:Encrypted with the key that AWS owns; logs hold object keys and figures, no image data.
  name              = local.db_writer_log_group
  retention_in_days = var.log_retention_days
}

resource "aws_lambda_function" "image_processor" {
  #checkov:skip=CKV_AWS_117:Talks to AWS alone; a VPC would add endpoints to pay for and no protection.
  #checkov:skip=CKV_AWS_116:Failed events go to the on-failure destination, which tells more than a dead-letter queue of the function.
  #checkov:skip=CKV_AWS_115:Unreserved by default, because throttled events age out; image_processor_reserved_concurrency caps it.
  #checkov:skip=CKV_AWS_173:The environment holds names and sizes, no secrets; Lambda encrypts it at rest with its own key.
  #checkov:skip=CKV_AWS_272:The zip is built on the operator's machine and named by its hash; signing needs a profile that each account sets up itself.
  function_name                  = local.image_processor_name
  description                    = "Makes the thumbnails of an uploaded image and reports its metadata"
  role                           = aws_iam_role.image_processor.arn
  runtime                        = local.runtime
  handler                        = "image_processor.handler.lambda_handler"
  architectures                  = [var.architecture]
  filename                       = local.image_processor_zip
  source_code_hash               = fileexists(local.image_processor_zip) ? filebase64sha256(local.image_processor_zip) : null
  memory_size                    = var.image_processor_memory
  timeout                        = var.image_processor_timeout
  reserved_concurrent_executions = var.image_processor_reserved_concurrency

  environment {
    variables = local.image_processor_environment
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.image_processor.name
  }

  tracing_config {
    mode = "Active"
  }

  lifecycle {
    precondition {
      condition     = fileexists(local.image_processor_zip)
      error_message = local.zips_missing
    }
  }

  # The first event must not find a role without its permissions.
  depends_on = [aws_iam_role_policy.image_processor]
}

# Lambda tries again after one and after two minutes; throttled events wait for up to six hours. Then the event goes to
# the dead-letter queue, with the error.
resource "aws_lambda_function_event_invoke_config" "image_processor" {
  function_name                = aws_lambda_function.image_processor.function_name
  maximum_retry_attempts       = 2
  maximum_event_age_in_seconds = 21600

  destination_config {
    on_failure {
      destination = aws_sqs_queue.image_dlq.arn
    }
  }
}

resource "aws_lambda_permission" "uploads" {
  statement_id   = "AllowUploadBucket"
  action         = "lambda:InvokeFunction"
  function_name  = aws_lambda_function.image_processor.function_name
  principal      = "s3.amazonaws.com"
  source_arn     = aws_s3_bucket.this["uploads"].arn
  source_account = local.account_id
}

resource "aws_lambda_function" "db_writer" {
  #checkov:skip=CKV_AWS_117:Talks to AWS alone; a VPC would add endpoints to pay for and no protection.
  #checkov:skip=CKV_AWS_116:Called by the queue, not by events; failed messages go to the metadata dead-letter queue.
  #checkov:skip=CKV_AWS_115:Capped by the queue's maximum concurrency; a reserved concurrency below it would burn receives.
  #checkov:skip=CKV_AWS_173:The environment holds names and sizes, no secrets; Lambda encrypts it at rest with its own key.
  #checkov:skip=CKV_AWS_272:The zip is built on the operator's machine and named by its hash; signing needs a profile that each account sets up itself.
  function_name    = local.db_writer_name
  description      = "Writes the metadata of images into the images table"
  role             = aws_iam_role.db_writer.arn
  runtime          = local.runtime
  handler          = "db_writer.handler.lambda_handler"
  architectures    = [var.architecture]
  filename         = local.db_writer_zip
  source_code_hash = fileexists(local.db_writer_zip) ? filebase64sha256(local.db_writer_zip) : null
  memory_size      = var.db_writer_memory
  timeout          = var.db_writer_timeout

  environment {
    variables = local.db_writer_environment
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.db_writer.name
  }

  tracing_config {
    mode = "Active"
  }

  lifecycle {
    precondition {
      condition     = fileexists(local.db_writer_zip)
      error_message = local.zips_missing
    }
  }

  depends_on = [aws_iam_role_policy.db_writer]
}

resource "aws_lambda_event_source_mapping" "metadata" {
  event_source_arn                   = aws_sqs_queue.metadata.arn
  function_name                      = aws_lambda_function.db_writer.arn
  batch_size                         = var.metadata_batch_size
  maximum_batching_window_in_seconds = var.metadata_batch_window
  function_response_types            = ["ReportBatchItemFailures"]

  # Caps the writer without throttling it: a throttled call would count as a receive of its messages.
  scaling_config {
    maximum_concurrency = var.db_writer_max_concurrency
  }
}
