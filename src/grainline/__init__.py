"""Grainline: fine-grained, parameter-efficient preference alignment of language models."""
