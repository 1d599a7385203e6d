locals {
  metric_namespace = "ImagePipeline" # of the embedded metrics in the functions' logs

  processor = aws_lambda_function.image_processor.function_name
  writer    = aws_lambda_function.db_writer.function_name

  # List prices of us-east-1 in US dollars; other regions differ by some percent.
  price_lambda_call      = 0.0000002
  price_lambda_gb_second = var.architecture == "arm64" ? 0.0000133334 : 0.0000166667
  price_s3_get           = 0.0000004
  price_s3_put           = 0.000005
  price_sqs_request      = 0.0000004
  price_table_write      = 0.000000625
  # An image is got once, its thumbnails are put, and its message is sent, received and deleted.
  price_image = local.price_s3_get + local.price_s3_put * (1 + length(var.extra_thumbnail_sizes)) + 3 * local.price_sqs_request

  write_indexes = ["UploadDateIndex", "FormatIndex", "StatusIndex"]

  widgets = [
    {
      title = "Throughput (calls a minute)"
      stat  = "Sum"
      metrics = [
        ["AWS/Lambda", "Invocations", "FunctionName", local.processor, { label = "image processor" }],
        ["AWS/Lambda", "Invocations", "FunctionName", local.writer, { label = "database writer" }],
        ["AWS/Lambda", "Errors", "FunctionName", local.processor, { label = "image processor errors", color = "#d62728" }],
        ["AWS/Lambda", "Errors", "FunctionName", local.writer, { label = "database writer errors", color = "#ff9896" }],
      ]
    },
    {
      title = "Latency by stage (ms, p50 and p99)"
      stat  = "p99"
      metrics = [
        ["AWS/Lambda", "AsyncEventAge", "FunctionName", local.processor, { label = "event to handler p99" }],
        ["AWS/Lambda", "Duration", "FunctionName", local.processor, { label = "image processor p50", stat = "p50" }],
        ["AWS/Lambda", "Duration", "FunctionName", local.processor, { label = "image processor p99" }],
        [{ expression = "1000 * waited", label = "metadata queue (oldest)", id = "queued" }],
        ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", aws_sqs_queue.metadata.name, { id = "waited", stat = "Maximum", visible = false }],
        ["AWS/Lambda", "Duration", "FunctionName", local.writer, { label = "database writer p50", stat = "p50" }],
        ["AWS/Lambda", "Duration", "FunctionName", local.writer, { label = "database writer p99" }],
      ]
    },
    {
      title = "Failures by code"
      stat  = "Sum"
      metrics = [for id, function in { processor = local.processor, writer = local.writer } :
        [{ expression = "SEARCH('{${local.metric_namespace},FunctionName,Code} MetricName=\"Failed\" FunctionName=\"${function}\"', 'Sum', 300)", label = "", id = id }]
      ]
    },
    {
      title = "Metadata queue: depth and age (s)"
      stat  = "Maximum"
      metrics = [
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.metadata.name, { label = "waiting" }],
        ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", aws_sqs_queue.metadata.name, { label = "being written" }],
        ["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", aws_sqs_queue.metadata.name, { label = "oldest (s)", yAxis = "right" }],
      ]
    },
    {
      title = "Dead-letter queues: depth"
      stat  = "Maximum"
      metrics = [
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.image_dlq.name, { label = "images" }],
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.metadata_dlq.name, { label = "metadata" }],
      ]
    },
    {
      title = "Throttles and lost events"
      stat  = "Sum"
      metrics = [
        ["AWS/Lambda", "Throttles", "FunctionName", local.processor, { label = "image processor throttles" }],
        ["AWS/Lambda", "Throttles", "FunctionName", local.writer, { label = "database writer throttles" }],
        ["AWS/Lambda", "AsyncEventsDropped", "FunctionName", local.processor, { label = "dropped events" }],
        ["AWS/Lambda", "DestinationDeliveryFailures", "FunctionName", local.processor, { label = "undelivered failures" }],
      ]
    },
    {
      title = "Estimated cost (US$ an hour, list prices of us-east-1, storage and logs aside)"
      stat  = "Sum"
      metrics = concat(
        [
          [{ expression = "images * ${local.price_lambda_call + local.price_image} + imageMs / 1000 * ${var.image_processor_memory / 1024 * local.price_lambda_gb_second}", label = "images", id = "imageCost" }],
          [{ expression = "batches * ${local.price_lambda_call} + batchMs / 1000 * ${var.db_writer_memory / 1024 * local.price_lambda_gb_second}", label = "database writer", id = "writerCost" }],
          [{ expression = "SUM(METRICS(\"units\")) * ${local.price_table_write}", label = "table writes", id = "tableCost" }],
          ["AWS/Lambda", "Invocations", "FunctionName", local.processor, { id = "images", visible = false }],
          ["AWS/Lambda", "Duration", "FunctionName", local.processor, { id = "imageMs", visible = false }],
          ["AWS/Lambda", "Invocations", "FunctionName", local.writer, { id = "batches", visible = false }],
          ["AWS/Lambda", "Duration", "FunctionName", local.writer, { id = "batchMs", visible = false }],
          ["AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", aws_dynamodb_table.images.name, { id = "units", visible = false }],
        ],
        [for index, name in local.write_indexes :
          ["AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", aws_dynamodb_table.images.name, "GlobalSecondaryIndexName", name, { id = "units${index}", visible = false }]
        ],
      )
      period = 3600
    },
    {
      title = "Table: writes and refusals"
      stat  = "Sum"
      metrics = [
        ["AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", aws_dynamodb_table.images.name, { label = "write units" }],
        ["AWS/DynamoDB", "WriteThrottleEvents", "TableName", aws_dynamodb_table.images.name, { label = "throttled writes" }],
        ["AWS/DynamoDB", "ConditionalCheckFailedRequests", "TableName", aws_dynamodb_table.images.name, { label = "duplicates and stale events" }],
      ]
    },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  for_each = local.monitoring

  dashboard_name = local.name_prefix

  dashboard_body = jsonencode({
    widgets = [for index, widget in local.widgets : {
      type   = "metric"
      x      = index % 2 * 12
      y      = floor(index / 2) * 6
      width  = 12
      height = 6
      properties = {
        title   = widget.title
        region  = var.aws_region
        view    = "timeSeries"
        stat    = widget.stat
        period  = try(widget.period, 60)
        metrics = widget.metrics
      }
    }]
  })
}
