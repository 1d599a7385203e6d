resource "aws_dynamodb_table" "images" {
  #checkov:skip=CKV_AWS_119:Encrypted with the key that AWS owns by default; kms_key_arn names a customer key, which costs money per month and per request.
  name                        = local.table_name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "imageId"
  deletion_protection_enabled = coalesce(var.table_deletion_protection, var.environment == "prod")

  dynamic "attribute" {
    for_each = toset(["imageId", "uploadDay", "uploadDate", "formatMonth", "attention", "updatedAt"])

    content {
      name = attribute.value
      type = "S"
    }
  }

  # By day, newest first. Indexes project everything, so that a query never needs a second look-up.
  global_secondary_index {
    name            = "UploadDateIndex"
    hash_key        = "uploadDay"
    range_key       = "uploadDate"
    projection_type = "ALL"
  }

  # By format and month, so that no single format is one hot partition.
  global_secondary_index {
    name            = "FormatIndex"
    hash_key        = "formatMonth"
    range_key       = "uploadDate"
    projection_type = "ALL"
  }

  # Sparse: only items that need attention carry the attribute.
  global_secondary_index {
    name            = "StatusIndex"
    hash_key        = "attention"
    range_key       = "updatedAt"
    projection_type = "ALL"
  }

  ttl {
    attribute_name = "ttl"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = local.has_kms_key
    kms_key_arn = var.kms_key_arn
  }
}
