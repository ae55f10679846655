"""The one place that loads tokenizers, base models and adapters."""
