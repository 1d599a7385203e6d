data "aws_iam_policy_document" "assume_lambda" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "image_processor" {
  name               = local.image_processor_name
  assume_role_policy = data.aws_iam_policy_document.assume_lambda.json
}

resource "aws_iam_role" "db_writer" {
  name               = local.db_writer_name
  assume_role_policy = data.aws_iam_policy_document.assume_lambda.json
}

resource "aws_iam_role_policy" "image_processor" {
  name   = "pipeline"
  role   = aws_iam_role.image_processor.id
  policy = data.aws_iam_policy_document.image_processor.json
}

resource "aws_iam_role_policy" "db_writer" {
  name   = "pipeline"
  role   = aws_iam_role.db_writer.id
  policy = data.aws_iam_policy_document.db_writer.json
}

data "aws_iam_policy_document" "image_processor" {
  #checkov:skip=CKV_AWS_356:X-Ray knows no resources to name; every other statement names its own.
  #checkov:skip=CKV_AWS_111:As above; X-Ray takes trace data for the account alone.
  statement {
    sid       = "ReadUploads"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.this["uploads"].arn}/*"]
  }

  # Without s3:ListBucket a missing object is answered with 403, and "gone" looks like "forbidden".
  statement {
    sid     = "ListBuckets"
    actions = ["s3:ListBucket"]
    resources = [
      aws_s3_bucket.this["uploads"].arn,
      aws_s3_bucket.this["thumbnails"].arn,
    ]
  }

  # GetObject is what a conditional put (If-Match) needs beside PutObject.
  statement {
    sid       = "KeepThumbnails"
    actions   = ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"]
    resources = ["${aws_s3_bucket.this["thumbnails"].arn}/thumbnails/*"]
  }

  statement {
    sid       = "SendMetadataAndFailures"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.metadata.arn, aws_sqs_queue.image_dlq.arn]
  }

  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.image_processor.arn}:*"]
  }

  statement {
    sid       = "Trace"
    actions   = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
    resources = ["*"]
  }

  dynamic "statement" {
    for_each = local.has_kms_key ? [var.kms_key_arn] : []

    content {
      sid       = "UseKey"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

data "aws_iam_policy_document" "db_writer" {
  #checkov:skip=CKV_AWS_356:X-Ray knows no resources to name; every other statement names its own.
  #checkov:skip=CKV_AWS_111:As above; X-Ray takes trace data for the account alone.
  statement {
    sid       = "TakeMetadata"
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    resources = [aws_sqs_queue.metadata.arn]
  }

  statement {
    sid       = "SendFailures"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.metadata_dlq.arn]
  }

  statement {
    sid       = "WriteItems"
    actions   = ["dynamodb:UpdateItem"]
    resources = [aws_dynamodb_table.images.arn]
  }

  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.db_writer.arn}:*"]
  }

  statement {
    sid       = "Trace"
    actions   = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
    resources = ["*"]
  }

  # The later four are what DynamoDB does with a table's key on the caller's behalf.
  dynamic "statement" {
    for_each = local.has_kms_key ? [var.kms_key_arn] : []

    content {
      sid       = "UseKey"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey", "kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:DescribeKey"]
      resources = [statement.value]
    }
  }
}
