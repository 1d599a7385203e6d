locals {
  max_receives = 5

  # AWS: at least six times the function's timeout, and the time for which a batch is collected, so that a message
  # does not come back while it is still being worked on.
  metadata_visibility_timeout = 6 * var.db_writer_timeout + var.metadata_batch_window

  # From names, not from resources, so that policies can be given with the queues: the provider waits half a minute
  # for each attribute that is set apart, and the two queues of a redrive name each other.
  metadata_queue_arn = "${local.queue_arn_prefix}:${local.metadata_queue_name}"
  metadata_dlq_arn   = "${local.queue_arn_prefix}:${local.metadata_dlq_name}"
  image_dlq_arn      = "${local.queue_arn_prefix}:${local.image_dlq_name}"

  max_message_size = 262144 # bytes; as pipeline_contract has it, whatever a provider's or a region's default
  four_days        = 345600
  fourteen_days    = 1209600
}

data "aws_iam_policy_document" "queue" {
  for_each = toset([local.metadata_queue_arn, local.metadata_dlq_arn, local.image_dlq_arn])

  statement {
    sid       = "DenyPlainHttp"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [each.value]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_sqs_queue" "metadata" {
  name                       = local.metadata_queue_name
  visibility_timeout_seconds = local.metadata_visibility_timeout
  max_message_size           = local.max_message_size
  message_retention_seconds  = local.four_days
  receive_wait_time_seconds  = 20
  sqs_managed_sse_enabled    = local.has_kms_key ? null : true
  kms_master_key_id          = var.kms_key_arn
  policy                     = data.aws_iam_policy_document.queue[local.metadata_queue_arn].json

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.metadata_dlq.arn
    maxReceiveCount     = local.max_receives
  })
}

resource "aws_sqs_queue" "metadata_dlq" {
  name                      = local.metadata_dlq_name
  max_message_size          = local.max_message_size
  message_retention_seconds = local.fourteen_days
  sqs_managed_sse_enabled   = local.has_kms_key ? null : true
  kms_master_key_id         = var.kms_key_arn
  policy                    = data.aws_iam_policy_document.queue[local.metadata_dlq_arn].json

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [local.metadata_queue_arn]
  })
}

# Filled by Lambda (events that failed for good) and by the handler, never by another queue's redrive.
resource "aws_sqs_queue" "image_dlq" {
  name                      = local.image_dlq_name
  max_message_size          = local.max_message_size
  message_retention_seconds = local.fourteen_days
  sqs_managed_sse_enabled   = local.has_kms_key ? null : true
  kms_master_key_id         = var.kms_key_arn
  policy                    = data.aws_iam_policy_document.queue[local.image_dlq_arn].json

  redrive_allow_policy = jsonencode({ redrivePermission = "denyAll" })
}
