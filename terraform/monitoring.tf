locals {
  monitoring = var.enable_monitoring ? toset(["this"]) : toset([])

  functions = {
    image-processor = { name = aws_lambda_function.image_processor.function_name, timeout = var.image_processor_timeout }
    db-writer       = { name = aws_lambda_function.db_writer.function_name, timeout = var.db_writer_timeout }
  }

  dead_letter_queues = {
    image-dlq    = aws_sqs_queue.image_dlq.name
    metadata-dlq = aws_sqs_queue.metadata_dlq.name
  }

  ten_days = 864000

  # An alarm: what it says, when it fires, and its metrics by id. A metric without a name is an expression over the
  # others, and is what is compared. `quantile` stands beside `stat` where the statistic is a percentile.
  alarms = merge(
    # Visible and not visible, so that somebody who looks at the messages does not clear the alarm. The greatest depth
    # of a minute: a sum would count a message once per sample.
    { for key, queue in local.dead_letter_queues : "${key}-not-empty" => {
      description = "Images failed for good: imgpipe dlq list, then imgpipe dlq redrive."
      threshold   = 1
      period      = 60
      periods     = 1
      expression  = "visible + taken"
      metrics = {
        visible = { namespace = "AWS/SQS", name = "ApproximateNumberOfMessagesVisible", stat = "Maximum", dimensions = { QueueName = queue } }
        taken   = { namespace = "AWS/SQS", name = "ApproximateNumberOfMessagesNotVisible", stat = "Maximum", dimensions = { QueueName = queue } }
      }
    } },
    # Messages are lost fourteen days after they were first sent; four days are left to act.
    { for key, queue in local.dead_letter_queues : "${key}-expiring" => {
      description = "Failures have waited for ten days and are lost after fourteen: imgpipe dlq archive or redrive."
      threshold   = local.ten_days
      period      = 3600
      periods     = 1
      expression  = null
      metrics = {
        age = { namespace = "AWS/SQS", name = "ApproximateAgeOfOldestMessage", stat = "Maximum", dimensions = { QueueName = queue } }
      }
    } },
    { metadata-backlog = {
      description = "Metadata has waited for five minutes: the database writer is down or too slow. See imgpipe status."
      threshold   = 300
      period      = 60
      periods     = 5
      expression  = null
      metrics = {
        age = { namespace = "AWS/SQS", name = "ApproximateAgeOfOldestMessage", stat = "Maximum", dimensions = { QueueName = aws_sqs_queue.metadata.name } }
      }
    } },
    { for key, function in local.functions : "${key}-errors" => {
      description = "More than 5 % of the calls of ${function.name} failed: imgpipe logs --errors."
      threshold   = 5
      period      = 300
      periods     = 1
      expression  = "IF(calls > 0, 100 * errors / calls, 0)"
      metrics = {
        errors = { namespace = "AWS/Lambda", name = "Errors", stat = "Sum", dimensions = { FunctionName = function.name } }
        calls  = { namespace = "AWS/Lambda", name = "Invocations", stat = "Sum", dimensions = { FunctionName = function.name } }
      }
    } },
    { for key, function in local.functions : "${key}-throttles" => {
      description = "Calls of ${function.name} were throttled: raise its concurrency or the account's limit."
      threshold   = 1
      period      = 300
      periods     = 1
      expression  = null
      metrics = {
        throttles = { namespace = "AWS/Lambda", name = "Throttles", stat = "Sum", dimensions = { FunctionName = function.name } }
      }
    } },
    { for key, function in local.functions : "${key}-slow" => {
      description = "One call in a hundred of ${function.name} took over 80 % of its timeout: raise timeout or memory."
      threshold   = 0.8 * 1000 * function.timeout
      period      = 300
      periods     = 2
      expression  = null
      metrics = {
        duration = { namespace = "AWS/Lambda", name = "Duration", stat = "p99", dimensions = { FunctionName = function.name } }
      }
    } },
    # The silent losses: events that reached neither the handler nor the dead-letter queue.
    { for name in ["DestinationDeliveryFailures", "AsyncEventsDropped", "RecursiveInvocationsDropped"] : "image-events-lost-${lower(name)}" => {
      description = "Lambda lost upload events (${name}): imgpipe reconcile --repair finds and processes them."
      threshold   = 1
      period      = 60
      periods     = 1
      expression  = null
      metrics = {
        lost = { namespace = "AWS/Lambda", name = name, stat = "Sum", dimensions = { FunctionName = aws_lambda_function.image_processor.function_name } }
      }
    } },
    { image-events-late = {
      description = "Upload events have waited for an hour and are given up after six: raise the image processor's concurrency."
      threshold   = 3600000
      period      = 300
      periods     = 1
      expression  = null
      metrics = {
        age = { namespace = "AWS/Lambda", name = "AsyncEventAge", stat = "Maximum", dimensions = { FunctionName = aws_lambda_function.image_processor.function_name } }
      }
    } },
  )
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = { for key, alarm in local.alarms : key => alarm if var.enable_monitoring }

  alarm_name          = "${local.name_prefix}-${each.key}"
  alarm_description   = each.value.description
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = each.value.threshold
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.periods
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms["this"].arn]
  ok_actions          = [aws_sns_topic.alarms["this"].arn]

  dynamic "metric_query" {
    for_each = each.value.metrics

    content {
      id          = metric_query.key
      return_data = each.value.expression == null

      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.name
        period      = each.value.period
        stat        = metric_query.value.stat
        dimensions  = metric_query.value.dimensions
      }
    }
  }

  dynamic "metric_query" {
    for_each = each.value.expression == null ? [] : [each.value.expression]

    content {
      id          = "value"
      label       = each.key
      expression  = metric_query.value
      return_data = true
    }
  }
}

# CloudWatch cannot publish to a topic that is encrypted with the key AWS manages for SNS: that key's policy cannot be
# changed, and it does not let CloudWatch in.
resource "aws_kms_key" "alarms" {
  for_each = local.monitoring

  description             = "Alarms of ${local.name_prefix}"
  enable_key_rotation     = true
  deletion_window_in_days = 7
  policy                  = data.aws_iam_policy_document.alarms_key.json
}

resource "aws_kms_alias" "alarms" {
  for_each = aws_kms_key.alarms

  name          = "alias/${local.name_prefix}-alarms"
  target_key_id = each.value.key_id
}

data "aws_iam_policy_document" "alarms_key" {
  #checkov:skip=CKV_AWS_109:A key's policy speaks of that key alone; without this statement nobody could ever manage it again.
  #checkov:skip=CKV_AWS_111:As above: in a key policy, the resource * is the key.
  #checkov:skip=CKV_AWS_356:As above: in a key policy, the resource * is the key.
  statement {
    sid       = "AccountManagesKey"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${local.account_id}:root"]
    }
  }

  statement {
    sid       = "CloudWatchPublishes"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account_id]
    }
  }
}

resource "aws_sns_topic" "alarms" {
  for_each = local.monitoring

  name              = local.alarm_topic_name
  kms_master_key_id = aws_kms_key.alarms["this"].arn
}

resource "aws_sns_topic_policy" "alarms" {
  for_each = aws_sns_topic.alarms

  arn    = each.value.arn
  policy = data.aws_iam_policy_document.alarm_topic["this"].json
}

data "aws_iam_policy_document" "alarm_topic" {
  for_each = aws_sns_topic.alarms

  statement {
    sid       = "CloudWatchPublishes"
    actions   = ["sns:Publish"]
    resources = [each.value.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account_id]
    }
  }

  statement {
    sid       = "DenyPlainHttp"
    effect    = "Deny"
    actions   = ["sns:Publish"]
    resources = [each.value.arn]

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

resource "aws_sns_topic_subscription" "email" {
  for_each = var.enable_monitoring ? var.alarm_emails : toset([])

  topic_arn = aws_sns_topic.alarms["this"].arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_sns_topic_subscription" "https" {
  for_each = var.enable_monitoring ? var.alarm_https_endpoints : toset([])

  topic_arn              = aws_sns_topic.alarms["this"].arn
  protocol               = "https"
  endpoint               = each.value
  endpoint_auto_confirms = true
}
