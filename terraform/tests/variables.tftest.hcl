# Values that AWS, or the handlers, would refuse only later. Each run gives several at once, and each must be refused.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  lambda_zip_dir = "./tests/zips"
}

run "too_small_or_unknown" {
  command = plan

  variables {
    aws_region                           = "Frankfurt"
    environment                          = "production"
    project_name                         = "My_Project"
    thumbnail_size                       = 0
    extra_thumbnail_sizes                = [400, 0]
    thumbnail_format                     = "PNG"
    gps_policy                           = "all"
    max_pixels                           = 0
    max_bytes                            = 0
    max_frames                           = 0
    memory_budget_mb                     = 1
    upload_day_shards                    = 0
    architecture                         = "arm"
    image_processor_memory               = 128
    image_processor_timeout              = 901
    image_processor_reserved_concurrency = 0
    db_writer_memory                     = 64
    db_writer_timeout                    = 1
    db_writer_max_concurrency            = 1
    metadata_batch_size                  = 0
    metadata_batch_window                = 0
    log_retention_days                   = 10
    kms_key_arn                          = "alias/mine"
    upload_expiration_days               = 0
    noncurrent_version_days              = 0
    alarm_https_endpoints                = ["http://pager.example.com"]
  }

  expect_failures = [
    var.aws_region,
    var.environment,
    var.project_name,
    var.thumbnail_size,
    var.extra_thumbnail_sizes,
    var.thumbnail_format,
    var.gps_policy,
    var.max_pixels,
    var.max_bytes,
    var.max_frames,
    var.memory_budget_mb,
    var.upload_day_shards,
    var.architecture,
    var.image_processor_memory,
    var.image_processor_timeout,
    var.image_processor_reserved_concurrency,
    var.db_writer_memory,
    var.db_writer_timeout,
    var.db_writer_max_concurrency,
    var.metadata_batch_size,
    var.metadata_batch_window,
    var.log_retention_days,
    var.kms_key_arn,
    var.upload_expiration_days,
    var.noncurrent_version_days,
    var.alarm_https_endpoints,
  ]
}

run "too_large_or_too_long" {
  command = plan

  variables {
    project_name              = "a-project-name-of-32-characters-"
    thumbnail_size            = 1001
    extra_thumbnail_sizes     = [4097]
    upload_day_shards         = 17
    image_processor_memory    = 10241
    image_processor_timeout   = 4
    db_writer_memory          = 10241
    db_writer_timeout         = 901
    db_writer_max_concurrency = 1001
    metadata_batch_size       = 1001
    metadata_batch_window     = 301
  }

  expect_failures = [
    var.project_name,
    var.thumbnail_size,
    var.extra_thumbnail_sizes,
    var.upload_day_shards,
    var.image_processor_memory,
    var.image_processor_timeout,
    var.db_writer_memory,
    var.db_writer_timeout,
    var.db_writer_max_concurrency,
    var.metadata_batch_size,
    var.metadata_batch_window,
  ]
}

run "neither" {
  command = plan

  variables {
    thumbnail_size = 99.5
  }

  expect_failures = [
    var.thumbnail_size,
  ]
}

run "without_zips_the_command_is_named" {
  command = plan

  variables {
    lambda_zip_dir = "./tests/nowhere"
  }

  expect_failures = [
    aws_lambda_function.image_processor,
    aws_lambda_function.db_writer,
  ]
}
