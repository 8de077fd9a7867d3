"""Compose, run and compare LoRA fine-tuning experiments for medical reasoning language models."""
