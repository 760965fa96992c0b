"""Keep mirrors of AI-model repositories: pull, verify, publish, deliver."""

__version__ = "0.1.0"
