"""Kafka as source and sink, on librdkafka. Needs the extra ``[kafka]``; nothing else imports this package."""
