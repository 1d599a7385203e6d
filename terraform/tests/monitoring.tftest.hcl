mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  lambda_zip_dir        = "./tests/zips"
  alarm_emails          = ["images@example.com"]
  alarm_https_endpoints = ["https://events.example.com/alarms"]
}

run "every_alarm_acts" {
  assert {
    condition = alltrue([for alarm in aws_cloudwatch_metric_alarm.this :
      alarm.alarm_actions == toset([aws_sns_topic.alarms["this"].arn]) && alarm.ok_actions == alarm.alarm_actions && alarm.treat_missing_data == "notBreaching"
    ])
    error_message = "an alarm tells nobody, or fires where there is no data"
  }
  assert {
    condition = toset(keys(aws_cloudwatch_metric_alarm.this)) == toset([
      "image-dlq-not-empty", "image-dlq-expiring", "metadata-dlq-not-empty", "metadata-dlq-expiring", "metadata-backlog",
      "image-processor-errors", "image-processor-throttles", "image-processor-slow", "db-writer-errors", "db-writer-throttles", "db-writer-slow",
      "image-events-late", "image-events-lost-destinationdeliveryfailures", "image-events-lost-asynceventsdropped", "image-events-lost-recursiveinvocationsdropped",
    ])
    error_message = "other alarms: ${join(", ", keys(aws_cloudwatch_metric_alarm.this))}"
  }
  assert {
    condition = alltrue(flatten([for alarm in aws_cloudwatch_metric_alarm.this : [
      for query in alarm.metric_query : [for metric in query.metric : length(metric.dimensions) == 1]
    ]]))
    error_message = "an alarm's metric has no dimension, and would never have data"
  }
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.this : length([for query in alarm.metric_query : query if query.return_data]) == 1])
    error_message = "an alarm does not say which of its metrics it compares"
  }
}

run "looking_at_failures_does_not_clear_their_alarm" {
  assert {
    condition = alltrue([for key in ["image-dlq-not-empty", "metadata-dlq-not-empty"] :
      toset(flatten([for query in aws_cloudwatch_metric_alarm.this[key].metric_query : [for metric in query.metric : "${metric.metric_name} ${metric.stat} ${metric.period}"]])) == toset([
        "ApproximateNumberOfMessagesVisible Maximum 60", "ApproximateNumberOfMessagesNotVisible Maximum 60",
      ])
    ])
    error_message = "the alarm does not count messages in flight"
  }
}

run "cloudwatch_may_publish" {
  assert {
    condition     = aws_sns_topic.alarms["this"].kms_master_key_id == aws_kms_key.alarms["this"].arn
    error_message = "the topic is encrypted with a key that CloudWatch cannot use"
  }
  assert {
    condition = anytrue([for statement in data.aws_iam_policy_document.alarms_key.statement :
      statement.actions == toset(["kms:Decrypt", "kms:GenerateDataKey*"]) && anytrue([for principal in statement.principals : contains(principal.identifiers, "cloudwatch.amazonaws.com")])
    ])
    error_message = "the key does not let CloudWatch in"
  }
  assert {
    condition     = length(aws_sns_topic_subscription.email) == 1 && length(aws_sns_topic_subscription.https) == 1
    error_message = "a subscription is missing"
  }
}

run "every_widget_has_dimensions" {
  assert {
    condition = alltrue(flatten([for widget in jsondecode(aws_cloudwatch_dashboard.this["this"].dashboard_body).widgets : [
      for metric in widget.properties.metrics :
      can(metric[0].expression) || (length([for part in metric : part if can(tostring(part))]) >= 4 && length([for part in metric : part if can(tostring(part))]) % 2 == 0)
    ]]))
    error_message = "a widget's metric has no dimension, and would show nothing"
  }
  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.this["this"].dashboard_body).widgets) == 8
    error_message = "a widget is missing"
  }
}

run "monitoring_can_be_left_out" {
  variables {
    enable_monitoring = false
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.this) + length(aws_sns_topic.alarms) + length(aws_kms_key.alarms) + length(aws_cloudwatch_dashboard.this) + length(aws_sns_topic_subscription.email) == 0
    error_message = "something of the monitoring is still made"
  }
  assert {
    condition     = output.dashboard_url == null && output.alarm_topic_arn == null && output.logs_url != null
    error_message = "an output names what is not there"
  }
}
