locals {
  buckets = {
    uploads    = local.upload_bucket_name
    thumbnails = local.thumbnail_bucket_name
  }

  # A removal, by a person or by a lifecycle rule, is an event like a creation: item and thumbnail follow the object.
  upload_events = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*"]
}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_144:Replication to a second region doubles the cost of every image; thumbnails and items can be made again from the originals.
  #checkov:skip=CKV2_AWS_62:Only uploads have a notification; nothing is to happen when a thumbnail is written.
  #checkov:skip=CKV_AWS_145:SSE-S3 by default, because a customer key costs money per month and per request; kms_key_arn turns SSE-KMS on.
  #checkov:skip=CKV_AWS_18:Access logs need a bucket that the account already has; access_log_bucket turns them on.
  for_each = local.buckets

  bucket = each.value
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = local.buckets

  bucket                  = aws_s3_bucket.this[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    bucket_key_enabled = local.has_kms_key

    apply_server_side_encryption_by_default {
      sse_algorithm     = local.has_kms_key ? "aws:kms" : "AES256"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

# Current thumbnails never expire: an item would point at nothing. They go when their original goes.
resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    id     = "clean-up"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_version_days
    }

    # A delete marker with nothing beneath it. Not beside an age: S3 takes one or the other.
    dynamic "expiration" {
      for_each = each.key == "uploads" && var.upload_expiration_days != null ? [] : [true]

      content {
        expired_object_delete_marker = true
      }
    }

    dynamic "expiration" {
      for_each = each.key == "uploads" && var.upload_expiration_days != null ? [var.upload_expiration_days] : []

      content {
        days = expiration.value
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_logging" "this" {
  for_each = { for key, name in local.buckets : key => name if var.access_log_bucket != null }

  bucket        = aws_s3_bucket.this[each.key].id
  target_bucket = var.access_log_bucket
  target_prefix = "${each.value}/"
}

data "aws_iam_policy_document" "bucket" {
  for_each = local.buckets

  statement {
    sid     = "DenyPlainHttp"
    effect  = "Deny"
    actions = ["s3:*"]
    resources = [
      "arn:${local.partition}:s3:::${each.value}",
      "arn:${local.partition}:s3:::${each.value}/*",
    ]

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

resource "aws_s3_bucket_policy" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id
  policy = data.aws_iam_policy_document.bucket[each.key].json

  # S3 refuses to change a bucket's policy and its public access block at the same moment.
  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_s3_bucket_notification" "uploads" {
  bucket = aws_s3_bucket.this["uploads"].id

  # No suffix filter: it is literal and takes one value, so it would miss .JPG and .jpeg; the handler decides by content.
  lambda_function {
    id                  = "image-processor"
    lambda_function_arn = aws_lambda_function.image_processor.arn
    events              = local.upload_events
  }

  depends_on = [
    aws_lambda_permission.uploads,
    aws_lambda_function_event_invoke_config.image_processor,
  ]
}
