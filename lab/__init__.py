"""Stratalab: one microservice on every kind of platform; its boot time, memory and isolation, measured."""

__version__ = "0.1.0"
