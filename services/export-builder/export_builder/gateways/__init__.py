"""What export-builder reaches outside of its database: the stores it reads, and the place of the encrypted artefacts."""

from export_builder.gateways.builder import Builder, Built, Order, Vault

__all__ = ["Builder", "Built", "Order", "Vault"]
