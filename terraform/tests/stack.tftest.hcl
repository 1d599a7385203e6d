# Nothing here reaches AWS: the provider is mocked, so these check what the module says, not what AWS makes of it.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  lambda_zip_dir = "./tests/zips"
}

run "failed_messages_alone_come_back" {
  assert {
    condition     = aws_lambda_event_source_mapping.metadata.function_response_types == toset(["ReportBatchItemFailures"])
    error_message = "one bad message would bring its whole batch back"
  }
  assert {
    condition     = aws_lambda_event_source_mapping.metadata.scaling_config[0].maximum_concurrency == 10
    error_message = "the writer's concurrency is not capped by its queue"
  }
}

run "visibility_follows_the_writers_timeout" {
  variables {
    db_writer_timeout     = 45
    metadata_batch_window = 7
  }

  assert {
    condition     = aws_sqs_queue.metadata.visibility_timeout_seconds == 277
    error_message = "visibility is ${aws_sqs_queue.metadata.visibility_timeout_seconds} s, not 6 x 45 + 7"
  }
}

run "nothing_that_fails_is_lost" {
  assert {
    condition = jsondecode(aws_sqs_queue.metadata.redrive_policy) == {
      deadLetterTargetArn = aws_sqs_queue.metadata_dlq.arn
      maxReceiveCount     = 5
    }
    error_message = "the metadata queue has another redrive policy: ${aws_sqs_queue.metadata.redrive_policy}"
  }
  assert {
    condition = jsondecode(aws_sqs_queue.metadata_dlq.redrive_allow_policy) == {
      redrivePermission = "byQueue"
      sourceQueueArns   = ["arn:aws:sqs:us-east-1:123456789012:image-pipeline-dev-metadata"]
    }
    error_message = "the metadata dead-letter queue takes from others than the metadata queue"
  }
  assert {
    condition     = jsondecode(aws_sqs_queue.image_dlq.redrive_allow_policy) == { redrivePermission = "denyAll" }
    error_message = "a queue may name the image dead-letter queue as its own"
  }
  assert {
    condition     = alltrue([for queue in [aws_sqs_queue.metadata_dlq, aws_sqs_queue.image_dlq] : queue.message_retention_seconds == 14 * 24 * 3600])
    error_message = "failures are not kept for fourteen days"
  }
  assert {
    condition     = aws_lambda_function_event_invoke_config.image_processor.destination_config[0].on_failure[0].destination == aws_sqs_queue.image_dlq.arn
    error_message = "failed events do not go to the image dead-letter queue"
  }
  assert {
    condition     = aws_lambda_function_event_invoke_config.image_processor.maximum_retry_attempts == 2
    error_message = "a failed event is not tried again twice"
  }
}

run "a_removal_is_an_event_too" {
  assert {
    condition = toset(aws_s3_bucket_notification.uploads.lambda_function[0].events) == toset([
      "s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*",
    ])
    error_message = "the notification leaves out events"
  }
  assert {
    condition     = aws_lambda_permission.uploads.source_account == "123456789012" && aws_lambda_permission.uploads.source_arn == aws_s3_bucket.this["uploads"].arn
    error_message = "another account's bucket of the same name could call the function"
  }
}

run "policies_name_what_they_allow" {
  assert {
    condition = alltrue(flatten([
      for document in [data.aws_iam_policy_document.image_processor, data.aws_iam_policy_document.db_writer] : [
        for statement in document.statement : [
          for action in statement.actions : !strcontains(action, "*")
        ]
      ]
    ]))
    error_message = "a role is allowed a wildcard action"
  }
  assert {
    condition = toset(flatten([
      for document in [data.aws_iam_policy_document.image_processor, data.aws_iam_policy_document.db_writer] : [
        for statement in document.statement : statement.sid if contains(statement.resources, "*")
      ]
    ])) == toset(["Trace"])
    error_message = "a statement other than that of X-Ray allows every resource"
  }
  assert {
    condition     = contains(flatten([for statement in data.aws_iam_policy_document.image_processor.statement : tolist(statement.actions)]), "s3:ListBucket")
    error_message = "a missing object would look like a forbidden one"
  }
  assert {
    condition     = !strcontains(jsonencode(data.aws_iam_policy_document.image_processor.statement), "dynamodb:")
    error_message = "the image processor has access to the table"
  }
  assert {
    condition     = !strcontains(jsonencode(data.aws_iam_policy_document.db_writer.statement), "s3:")
    error_message = "the database writer has access to the buckets"
  }
}

run "tls_only_everywhere" {
  assert {
    condition = alltrue([
      for document in concat(values(data.aws_iam_policy_document.bucket), values(data.aws_iam_policy_document.queue), values(data.aws_iam_policy_document.alarm_topic)) :
      anytrue([
        for statement in document.statement :
        statement.effect == "Deny" && anytrue([
          for condition in statement.condition :
          condition.test == "Bool" && condition.variable == "aws:SecureTransport" && tolist(condition.values) == tolist(["false"])
        ])
      ])
    ])
    error_message = "a policy does not refuse plain http"
  }
  assert {
    condition     = length(data.aws_iam_policy_document.bucket) == 2 && length(data.aws_iam_policy_document.queue) == 3 && length(data.aws_iam_policy_document.alarm_topic) == 1
    error_message = "a bucket, queue or topic has no policy"
  }
  assert {
    condition     = alltrue([for queue in [aws_sqs_queue.metadata, aws_sqs_queue.metadata_dlq, aws_sqs_queue.image_dlq] : queue.policy != null && queue.sqs_managed_sse_enabled])
    error_message = "a queue has no policy or is not encrypted"
  }
}

run "buckets_are_private_and_versioned" {
  assert {
    condition = alltrue([for block in aws_s3_bucket_public_access_block.this :
      block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets
    ])
    error_message = "a bucket could be made public"
  }
  assert {
    condition     = alltrue([for versioning in aws_s3_bucket_versioning.this : versioning.versioning_configuration[0].status == "Enabled"])
    error_message = "a bucket is not versioned"
  }
  assert {
    condition     = alltrue([for controls in aws_s3_bucket_ownership_controls.this : controls.rule[0].object_ownership == "BucketOwnerEnforced"])
    error_message = "a bucket knows ACLs"
  }
  assert {
    condition     = length(aws_s3_bucket_public_access_block.this) == 2 && length(aws_s3_bucket_versioning.this) == 2 && length(aws_s3_bucket_ownership_controls.this) == 2
    error_message = "not both buckets are covered"
  }
}

run "thumbnails_outlive_everything_but_their_original" {
  variables {
    upload_expiration_days = 90
  }

  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.this["thumbnails"].rule : alltrue([for expiration in rule.expiration : try(expiration.days, null) == null || try(expiration.days, 0) == 0])])
    error_message = "thumbnails expire, and items would point at nothing"
  }
  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.this["uploads"].rule[0].expiration[0].days == 90
    error_message = "uploads do not expire when asked to"
  }
}

run "the_table_answers_by_query" {
  assert {
    condition = { for index in aws_dynamodb_table.images.global_secondary_index : index.name => [index.hash_key, index.range_key, index.projection_type] } == {
      UploadDateIndex = ["uploadDay", "uploadDate", "ALL"]
      FormatIndex     = ["formatMonth", "uploadDate", "ALL"]
      StatusIndex     = ["attention", "updatedAt", "ALL"]
    }
    error_message = "the indexes are not those that imgpipe queries"
  }
  assert {
    condition     = aws_dynamodb_table.images.point_in_time_recovery[0].enabled && !aws_dynamodb_table.images.deletion_protection_enabled
    error_message = "point-in-time recovery is off, or a dev table cannot be deleted"
  }
}

run "prod_protects_its_table" {
  variables {
    environment = "prod"
  }

  assert {
    condition     = aws_dynamodb_table.images.deletion_protection_enabled
    error_message = "the table of prod can be deleted"
  }
}

run "protection_can_be_waived" {
  variables {
    environment               = "prod"
    table_deletion_protection = false
  }

  assert {
    condition     = !aws_dynamodb_table.images.deletion_protection_enabled
    error_message = "table_deletion_protection = false is not heard"
  }
}

run "handlers_get_their_settings" {
  variables {
    thumbnail_size        = 320
    extra_thumbnail_sizes = [400, 800]
    thumbnail_format      = "WEBP"
    max_pixels            = 50000000
    upload_day_shards     = 4
  }

  assert {
    condition = aws_lambda_function.image_processor.environment[0].variables == tomap({
      THUMBNAIL_BUCKET      = aws_s3_bucket.this["thumbnails"].id
      METADATA_QUEUE        = aws_sqs_queue.metadata.url
      IMAGE_DLQ             = aws_sqs_queue.image_dlq.url
      THUMBNAIL_SIZE        = "320"
      THUMBNAIL_FORMAT      = "WEBP"
      EXTRA_THUMBNAIL_SIZES = "400,800"
      GPS_POLICY            = "none"
      MAX_PIXELS            = "50000000"
      PROCESSOR_VERSION     = substr(filesha256("./tests/zips/image_processor-arm64.zip"), 0, 12)
    })
    error_message = "the image processor's environment differs: ${jsonencode(aws_lambda_function.image_processor.environment[0].variables)}"
  }
  assert {
    condition = aws_lambda_function.db_writer.environment[0].variables == tomap({
      DYNAMODB_TABLE        = "image-pipeline-dev-images"
      METADATA_DLQ          = aws_sqs_queue.metadata_dlq.url
      METADATA_MAX_RECEIVES = "5"
      UPLOAD_DAY_SHARDS     = "4"
    })
    error_message = "the database writer's environment differs: ${jsonencode(aws_lambda_function.db_writer.environment[0].variables)}"
  }
}

run "the_outputs_document_says_what_the_outputs_say" {
  variables {
    # The longest names there are.
    aws_region   = "ap-southeast-1"
    environment  = "staging"
    project_name = "a-project-name-of-31-characters"
    max_pixels   = 100000000
  }

  assert {
    condition     = length(aws_ssm_parameter.outputs.value) < 4096
    error_message = "the parameter takes more than a standard parameter holds"
  }
  assert {
    condition     = aws_ssm_parameter.outputs.name == "/imgpipe/a-project-name-of-31-characters-staging/outputs"
    error_message = "the parameter lies elsewhere: ${aws_ssm_parameter.outputs.name}"
  }
  assert {
    condition = jsondecode(aws_ssm_parameter.outputs.value) == { for name, value in {
      aws_region                    = output.aws_region
      name_prefix                   = output.name_prefix
      upload_bucket_name            = output.upload_bucket_name
      upload_bucket_arn             = output.upload_bucket_arn
      thumbnail_bucket_name         = output.thumbnail_bucket_name
      metadata_queue_url            = output.metadata_queue_url
      dlq_url                       = output.dlq_url
      image_dlq_url                 = output.image_dlq_url
      dynamodb_table_name           = output.dynamodb_table_name
      image_processor_function_name = output.image_processor_function_name
      db_writer_function_name       = output.db_writer_function_name
      upload_day_shards             = output.upload_day_shards
      max_pixels                    = output.max_pixels
      heic                          = output.heic
      alarm_topic_arn               = output.alarm_topic_arn
      dashboard_url                 = output.dashboard_url
      logs_url                      = output.logs_url
    } : name => { value = value } }
    error_message = "parameter and outputs differ"
  }
}

run "heic_needs_a_zip_of_its_own" {
  variables {
    heic = true
  }

  assert {
    condition     = aws_lambda_function.image_processor.filename == "./tests/zips/image_processor-heic-arm64.zip"
    error_message = "the image processor gets ${aws_lambda_function.image_processor.filename}"
  }
}

run "a_kms_key_serves_buckets_queues_and_table" {
  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
  }

  assert {
    condition     = alltrue([for queue in [aws_sqs_queue.metadata, aws_sqs_queue.metadata_dlq, aws_sqs_queue.image_dlq] : queue.kms_master_key_id == var.kms_key_arn])
    error_message = "a queue does not use the key"
  }
  assert {
    condition     = aws_dynamodb_table.images.server_side_encryption[0].kms_key_arn == var.kms_key_arn
    error_message = "the table does not use the key"
  }
  assert {
    condition = alltrue([
      for document in [data.aws_iam_policy_document.image_processor, data.aws_iam_policy_document.db_writer] :
      contains(flatten([for statement in document.statement : tolist(statement.resources)]), var.kms_key_arn)
    ])
    error_message = "a handler may not use the key"
  }
}
